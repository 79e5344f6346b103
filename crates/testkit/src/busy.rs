use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, available_parallelism};
use std::time::{Duration, Instant};

/// How long each thread computes before it sleeps for a ninth of it.
const COMPUTE: Duration = Duration::from_millis(9);

/// Threads that compute nine tenths of the time, until it is dropped.
#[derive(Debug)]
pub struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// So many threads for each core.
    pub fn start(threads_a_core: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let compute = |_| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    while began.elapsed() < COMPUTE {
                        black_box((0..1000_u32).sum::<u32>());
                    }
                    thread::sleep(COMPUTE / 9);
                }
            })
        };
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            threads: (0..cores * threads_a_core).map(compute).collect(),
            stop,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Since when the share of the machine's cores is measured that computed something.
#[derive(Debug)]
pub struct BusyShare {
    since: Ticks,
}

impl BusyShare {
    /// From now on.
    ///
    /// # Panics
    ///
    /// If proc(5) has no `stat`.
    pub fn start() -> Self {
        Self { since: ticks() }
    }

    /// The share so far, 0 to 1, whatever process it was; time that another machine took from this
    /// one counts as busy.
    ///
    /// # Panics
    ///
    /// As [`BusyShare::start`].
    pub fn so_far(&self) -> f64 {
        let now = ticks();
        let all = now.all.saturating_sub(self.since.all).max(1);
        let idle = now.idle.saturating_sub(self.since.idle);
        1.0 - idle as f64 / all as f64
    }
}

/// Of all cores since the machine's start.
#[derive(Debug)]
struct Ticks {
    all: u64,
    idle: u64,
}

fn ticks() -> Ticks {
    let text = fs::read_to_string("/proc/stat").expect("the system tells its times");
    let line = text.lines().next().unwrap_or_default();
    let numbers = line.split_whitespace().skip(1).map(str::parse::<u64>);
    // User, nice, system, idle, waiting for disks, interrupts (two), stolen; what follows is in
    // these already.
    let numbers: Vec<_> = numbers.map_while(Result::ok).take(8).collect();
    assert_eq!(numbers.len(), 8, "/proc/stat begins with {line:?}");
    Ticks {
        all: numbers.iter().sum(),
        idle: numbers[3] + numbers[4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_with_something_to_do_is_busy() {
        let share = BusyShare::start();
        let _busy = Busy::start(1);
        // It looks until it is so, for others may have kept the cores from us.
        while share.so_far() < 0.5 {
            thread::yield_now();
        }
        assert!(share.so_far() <= 1.0);
    }
}
