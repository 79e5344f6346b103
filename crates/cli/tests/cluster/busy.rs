//! A machine that has more to do than it can.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, available_parallelism};
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::load::Load;

/// Threads that compute nine tenths of the time, two for each core, until it is dropped.
struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let compute = |_| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    while began.elapsed() < Duration::from_millis(9) {
                        black_box((0..1000_u32).sum::<u32>());
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let count = 2 * available_parallelism().unwrap().get();
        Self {
            threads: (0..count).map(compute).collect(),
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

#[test]
fn nobody_is_taken_for_dead() {
    let cluster = Cluster::new();
    let _workers = [cluster.worker(&[]), cluster.worker(&[])];
    let frontend = cluster.frontend();
    frontend.until_workers(2);
    let _busy = Busy::start();
    let load = Load::start(&[frontend.address], 8, 60);
    load.go_on_for(40);
    load.finish().assert_all_complete();
    assert_eq!((frontend.retries(), frontend.workers()), (0, 2));
}
