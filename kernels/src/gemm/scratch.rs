//! Memory for packed operands: one stack of buffers per thread, kept for the next call.

use std::cell::RefCell;

use crate::buffer::{Buffer, HUGE_PAGE_BYTES};

/// From so many floats on, a quarter of a huge page, scratch takes a whole one: the points of
/// Winograd's transforms lie further apart than a small page is long.
const HUGE_FROM: usize = HUGE_PAGE_BYTES / 4 / size_of::<f32>();

thread_local! {
    static FREE: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Calls `use_it` with `len` floats of unspecified content, aligned to 64 bytes. Calls may nest; after
/// the first call of a size at a depth of nesting nothing is allocated.
pub(crate) fn with_scratch<R>(len: usize, use_it: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out of the cell: a thread that waits inside `use_it` may run another task that comes here.
    let mut buffer = FREE.with_borrow_mut(|free| free.pop()).unwrap_or_default();
    if len >= HUGE_FROM {
        buffer.resize(len.next_multiple_of(HUGE_PAGE_BYTES / size_of::<f32>()));
    }
    buffer.resize(len);
    let result = use_it(&mut buffer);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}
