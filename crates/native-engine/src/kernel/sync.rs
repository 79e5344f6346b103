//! What [`Pool`](super::Pool) takes from the system. Its model check, `tests/pool_model.rs`,
//! compiles the same pool over loom's versions of these.

use std::cell::UnsafeCell;
pub(super) use std::hint::spin_loop;
pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
pub(super) use std::sync::{Arc, Condvar, Mutex, PoisonError};
pub(super) use std::thread::{Builder, JoinHandle, yield_now};

/// How often a worker looks for a new loop before it sleeps: some 50 to 100 microseconds, longer
/// than the gaps between the loops of one step.
pub(super) const SPINS_BEFORE_SLEEP: u32 = 2_000;

/// How often the caller looks for the last items to finish before it offers its core to others.
pub(super) const SPINS_BEFORE_YIELD: u32 = 200;

/// A value whose accesses are ordered by something else.
pub(super) struct RawCell<T>(UnsafeCell<T>);

impl<T: Copy> RawCell<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    ///
    /// No write may happen at the same time.
    pub(super) unsafe fn get(&self) -> T {
        // SAFETY: the caller excludes writes.
        unsafe { *self.0.get() }
    }

    /// # Safety
    ///
    /// No other access may happen at the same time.
    pub(super) unsafe fn set(&self, value: T) {
        // SAFETY: the caller excludes other accesses.
        unsafe { *self.0.get() = value };
    }
}
