//! Threads that share loops.
//!
//! A token takes about 150 short parallel loops. Waking sleeping threads for each of them would
//! cost as much as the arithmetic, so the workers spin for some microseconds after each loop
//! before they sleep. Items are claimed one by one: on a busy machine, where a worker may lose
//! its core at any time, the others take over what it has not begun.

use std::any::Any;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::sync::{
    Arc, AtomicU64, AtomicUsize, Builder, Condvar, JoinHandle, Mutex, Ordering, PoisonError,
    RawCell, SPINS_BEFORE_SLEEP, SPINS_BEFORE_YIELD, fence, spin_loop, yield_now,
};

/// Bits of a ticket that count items. A loop has at most half as many as fit, because each thread
/// may count one past the end.
const ITEM_BITS: u32 = 24;
const ITEM_MASK: u64 = (1 << ITEM_BITS) - 1;

/// A loop body: it gets the number of its item. The lifetime is erased; see [`Shared::job`].
type Job = *const (dyn Fn(usize) + Sync + 'static);

/// A fixed set of threads; the calling thread is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Generation (16 bits), number of items and next unclaimed item ([`ITEM_BITS`] each), in
    /// one word so that a claim is for exactly one loop.
    ticket: AtomicU64,
    /// Items of the current loop that are finished.
    finished: AtomicUsize,
    /// The current loop's body. Written by the caller while no item is unclaimed or running;
    /// read only by who has claimed an item that is not finished.
    job: RawCell<Option<Job>>,
    /// What a worker's item panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Workers that sleep or are about to.
    sleepers: AtomicUsize,
    sleep: Mutex<bool>,
    wake: Condvar,
}

// SAFETY: `job` is the only field that is not `Sync` (and its pointer not `Send`); its accesses
// are ordered as its documentation says, and what it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Pool {
    /// Starts `threads - 1` workers.
    ///
    /// # Errors
    ///
    /// When the operating system refuses a thread.
    pub(crate) fn new(threads: NonZeroUsize) -> std::io::Result<Self> {
        let mut pool = Self {
            shared: Arc::new(Shared {
                ticket: AtomicU64::new(0),
                finished: AtomicUsize::new(0),
                job: RawCell::new(None),
                panic: Mutex::new(None),
                sleepers: AtomicUsize::new(0),
                sleep: Mutex::new(false),
                wake: Condvar::new(),
            }),
            workers: Vec::new(),
        };
        for number in 1..threads.get() {
            let shared = Arc::clone(&pool.shared);
            let worker = Builder::new()
                .name(format!("forebay-kernel-{number}"))
                .spawn(move || shared.work())?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Threads that share the loops, the caller included.
    pub(crate) fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `body` for each item in `0..items`, in no particular order, and returns when all are
    /// done.
    ///
    /// # Panics
    ///
    /// If `body` panics for any item, or when there are more than eight million items.
    pub(crate) fn for_each(&mut self, items: usize, body: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() || items <= 1 {
            return (0..items).for_each(body);
        }
        assert!(
            (items as u64) < ITEM_MASK / 2,
            "too many items for one loop"
        );
        let shared = &*self.shared;
        // SAFETY: this only erases the lifetime. The pointer is followed by who holds an
        // unfinished item, and this function does not return before all are finished.
        let job = unsafe {
            std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(std::ptr::from_ref(body))
        };
        // SAFETY: all items of the loop before are finished, the new ones not yet published, and
        // `&mut self` excludes other callers: nobody else touches the cell.
        unsafe { shared.job.set(Some(job)) };
        shared.finished.store(0, Ordering::Relaxed);
        let generation = (shared.ticket.load(Ordering::Relaxed) >> (2 * ITEM_BITS)) + 1;
        let ticket = (generation << (2 * ITEM_BITS)) | ((items as u64) << ITEM_BITS);
        // A store would do, but loom orders only read-modify-writes with the claims of others.
        shared.ticket.swap(ticket, Ordering::Release);
        shared.wake_sleepers();

        while shared.run_one() {}
        let mut spins = 0;
        while shared.finished.load(Ordering::Acquire) < items {
            spins += 1;
            if spins < SPINS_BEFORE_YIELD {
                spin_loop();
            } else {
                yield_now();
            }
        }
        let panic = shared
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    /// Workers that sleep.
    #[cfg(test)]
    pub(super) fn sleepers(&self) -> usize {
        self.shared.sleepers.load(Ordering::Relaxed)
    }

    /// Runs `body` over all of `0..rows` in ranges of about equal length; alone when there are
    /// few rows.
    pub(crate) fn for_rows(&mut self, rows: usize, body: &(dyn Fn(std::ops::Range<usize>) + Sync)) {
        const FEW: usize = 4;
        let chunk = rows.div_ceil(self.threads() * 4).max(FEW);
        self.for_each(rows.div_ceil(chunk), &|item| {
            body(item * chunk..rows.min((item + 1) * chunk));
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        *self
            .shared
            .sleep
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its items' panics, so it has none of its own to report.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Claims and runs one item; false if all are claimed.
    fn run_one(&self) -> bool {
        if !has_item(self.ticket.load(Ordering::Relaxed)) {
            return false;
        }
        let ticket = self.ticket.fetch_add(1, Ordering::Acquire);
        if !has_item(ticket) {
            return false;
        }
        // SAFETY: the claim orders this read after the write of the same generation's job, and
        // no job is written before this item is finished.
        let job = unsafe { self.job.get() }.expect("a job is stored before its items");
        // SAFETY: the caller of `for_each` keeps the body alive until all items are finished.
        let body = unsafe { &*job };
        let result = catch_unwind(AssertUnwindSafe(|| body((ticket & ITEM_MASK) as usize)));
        if let Err(panic) = result {
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        self.finished.fetch_add(1, Ordering::Release);
        true
    }

    /// A worker's life.
    fn work(&self) {
        loop {
            let mut spins = 0;
            while spins < SPINS_BEFORE_SLEEP {
                if self.run_one() {
                    spins = 0;
                } else {
                    spins += 1;
                    spin_loop();
                }
            }
            let mut stop = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            self.sleepers.fetch_add(1, Ordering::Relaxed);
            // Either this load sees the new ticket, or the caller's load sees this sleeper.
            fence(Ordering::SeqCst);
            while !*stop && !has_item(self.ticket.load(Ordering::Relaxed)) {
                stop = self.wake.wait(stop).unwrap_or_else(PoisonError::into_inner);
            }
            self.sleepers.fetch_sub(1, Ordering::Relaxed);
            if *stop {
                return;
            }
        }
    }

    fn wake_sleepers(&self) {
        fence(Ordering::SeqCst);
        if self.sleepers.load(Ordering::Relaxed) > 0 {
            // Taking the lock puts this after a sleeper's check, so the signal is not lost.
            drop(self.sleep.lock().unwrap_or_else(PoisonError::into_inner));
            self.wake.notify_all();
        }
    }
}

/// Whether a ticket's next item is one of its loop's.
fn has_item(ticket: u64) -> bool {
    ticket & ITEM_MASK < (ticket >> ITEM_BITS) & ITEM_MASK
}
