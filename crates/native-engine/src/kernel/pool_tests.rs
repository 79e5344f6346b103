#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::yield_now;

use super::Pool;

fn pool(threads: usize) -> Pool {
    Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
}

#[test]
fn every_item_runs_once_in_every_loop() {
    for threads in [1, 2, 3, 8] {
        let mut pool = pool(threads);
        for items in (0..200).chain([5_000]) {
            let runs: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
            pool.for_each(items, &|item| {
                runs[item].fetch_add(1, Ordering::Relaxed);
            });
            assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
        }
    }
}

#[test]
fn rows_are_covered_without_overlap() {
    let mut pool = pool(3);
    for rows in 0..100 {
        let runs: Vec<AtomicUsize> = (0..rows).map(|_| AtomicUsize::new(0)).collect();
        pool.for_rows(rows, &|range| {
            for row in range {
                runs[row].fetch_add(1, Ordering::Relaxed);
            }
        });
        assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
    }
}

#[test]
fn sleeping_workers_wake_up() {
    let mut pool = pool(4);
    for _ in 0..20 {
        while pool.sleepers() < 3 {
            yield_now();
        }
        // No item ends before four threads have one each.
        let all = std::sync::Barrier::new(4);
        pool.for_each(4, &|_| {
            all.wait();
        });
    }
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
    let mut pool = pool(4);
    let failed = catch_unwind(AssertUnwindSafe(|| {
        pool.for_each(100, &|item| assert_ne!(item, 77, "item 77"));
    }));
    assert!(failed.is_err());
    let sum = AtomicUsize::new(0);
    pool.for_each(100, &|item| {
        sum.fetch_add(item, Ordering::Relaxed);
    });
    assert_eq!(sum.into_inner(), 4_950);
}
