//! The thread pool under loom: every order of its threads' steps, up to a bound on preemptions.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)]
#[path = "../src/kernel/pool.rs"]
mod pool;

/// What `src/kernel/sync.rs` is to the real pool.
mod sync {
    use loom::cell::UnsafeCell;
    pub(super) use loom::hint::spin_loop;
    pub(super) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
    pub(super) use loom::sync::{Arc, Condvar, Mutex};
    pub(super) use loom::thread::{Builder, JoinHandle, yield_now};
    pub(super) use std::sync::PoisonError;

    pub(super) const SPINS_BEFORE_SLEEP: u32 = 1;
    pub(super) const SPINS_BEFORE_YIELD: u32 = 1;

    /// Panics when accesses are not ordered.
    pub(super) struct RawCell<T>(UnsafeCell<T>);

    impl<T: Copy> RawCell<T> {
        pub(super) fn new(value: T) -> Self {
            Self(UnsafeCell::new(value))
        }

        pub(super) unsafe fn get(&self) -> T {
            // SAFETY: loom checks that no write happens at the same time.
            self.0.with(|value| unsafe { *value })
        }

        pub(super) unsafe fn set(&self, new: T) {
            // SAFETY: loom checks that no other access happens at the same time.
            self.0.with_mut(|value| unsafe { *value = new });
        }
    }
}

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use pool::Pool;

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(check);
}

/// No item is lost or run twice, no body is used outside of its loop, and the workers end.
#[test]
fn loops_that_follow_each_other() {
    model(|| {
        let mut pool = Pool::new(NonZeroUsize::new(2).unwrap()).unwrap();
        for _ in 0..2 {
            let runs = [const { AtomicUsize::new(0) }; 2];
            pool.for_each(2, &|item| {
                runs[item].fetch_add(1, Ordering::Relaxed);
            });
            assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
        }
    });
}

/// With two workers that compete for the items and for sleep.
#[test]
fn two_workers() {
    model(|| {
        let mut pool = Pool::new(NonZeroUsize::new(3).unwrap()).unwrap();
        let runs = AtomicUsize::new(0);
        pool.for_each(2, &|_| {
            runs.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(runs.load(Ordering::Relaxed), 2);
    });
}
