//! A row-major matrix that several threads fill at once.

use std::marker::PhantomData;
use std::ops::Range;

/// Hands out mutable parts of a matrix to tasks that write different elements.
pub(crate) struct DisjointRows<'a, T> {
    data: *mut T,
    len: usize,
    columns: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a mutable borrow of a slice that is split between threads; `part` obliges its
// callers to split it into parts that do not overlap.
unsafe impl<T: Send> Sync for DisjointRows<'_, T> {}

impl<'a, T> DisjointRows<'a, T> {
    /// Borrows `data` as rows of `columns` elements.
    pub(crate) fn new(data: &'a mut [T], columns: usize) -> Self {
        assert!(columns > 0 && data.len().is_multiple_of(columns));
        Self {
            data: data.as_mut_ptr(),
            len: data.len(),
            columns,
            borrow: PhantomData,
        }
    }

    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.len / self.columns
    }

    /// The given columns of one row.
    ///
    /// # Safety
    ///
    /// No two parts that are alive at the same time may overlap.
    ///
    /// # Panics
    ///
    /// If the part lies outside of the matrix.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, row: usize, columns: Range<usize>) -> &mut [T] {
        assert!(row < self.rows() && columns.start <= columns.end && columns.end <= self.columns);
        // SAFETY: the part lies inside of the borrowed slice (just checked), which nothing else
        // can reach while `self` borrows it, and the caller keeps parts from overlapping.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.data.add(row * self.columns + columns.start),
                columns.len(),
            )
        }
    }
}
