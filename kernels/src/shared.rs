//! A result that many tasks write, each its own part.

use crate::lanes::LANES;

/// Where a result begins. Whoever writes through it says why the parts of the tasks do not overlap.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32);

// SAFETY: it is an address; every write through it is unsafe and gives its reason.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(start: *mut f32) -> Self {
        Self(start)
    }

    /// A method, so that closures capture the whole and not the pointer in it.
    pub(crate) fn start(self) -> *mut f32 {
        self.0
    }
}

/// Results of as many floats, 32 MB, have left the caches of most cores before anybody reads them.
const STREAMED_FROM: usize = 8 << 20;

/// Whether a result of `len` floats from `start` on is written past the caches.
pub(crate) fn is_streamed(start: *const f32, len: usize) -> bool {
    len >= STREAMED_FROM && (start as usize).is_multiple_of(size_of::<[f32; LANES]>())
}
