//! Memory that costs nothing until it is written.

use std::alloc::{Layout, alloc_zeroed};

/// `count` zeros that the system provides page by page; `None` if it refuses.
pub(crate) fn zeroed_floats(count: usize) -> Option<Vec<f32>> {
    if count == 0 {
        return Some(Vec::new());
    }
    let layout = Layout::array::<f32>(count).ok()?;
    // SAFETY: the layout is not empty.
    let data = unsafe { alloc_zeroed(layout) }.cast::<f32>();
    if data.is_null() {
        return None;
    }
    // SAFETY: the global allocator made this memory with the layout of `count` floats, all zero,
    // which is a valid float; the vector is its only owner.
    Some(unsafe { Vec::from_raw_parts(data, count, count) })
}
