//! Growable f32 storage for tensors: zeroed, 64-byte aligned, in huge pages where the system gives them.
//!
//! Touching freshly mapped 4 KB pages costs more than the arithmetic on them, so a buffer of
//! [`HUGE_PAGE_BYTES`] or more is its own anonymous mapping, advised to use huge pages. Memory is
//! kept when a buffer shrinks, so that a short batch never allocates.

use std::fmt;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Size of a transparent huge page on x86-64 and aarch64 Linux; smaller buffers come from the heap.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// One cache line, sixteen f32: the unit in which heap storage is allocated and aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; FLOATS_PER_LINE]);

const FLOATS_PER_LINE: usize = 16;

enum Storage {
    Heap(Vec<CacheLine>),
    Mapped(MmapMut),
}

/// Zeroed f32 storage aligned to 64 bytes. Dereferences to `[f32]`.
pub struct Buffer {
    storage: Storage,
    len: usize,
}

/// Floats as bytes, four each, in the order of the machine.
pub fn bytes_of(floats: &[f32]) -> &[u8] {
    // SAFETY: floats are initialised memory of four bytes each, borrowed with the slice.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), size_of_val(floats)) }
}

impl Buffer {
    /// A buffer of `len` zeros.
    ///
    /// # Panics
    /// If `len` floats exceed the address space, like `Vec`.
    pub fn zeroed(len: usize) -> Self {
        Self {
            storage: Storage::zeroed(len),
            len,
        }
    }

    /// A buffer that holds a copy of `values`.
    pub fn from_slice(values: &[f32]) -> Self {
        let mut buffer = Self::zeroed(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    /// Floats that fit without allocating anew.
    pub fn capacity(&self) -> usize {
        match &self.storage {
            Storage::Heap(lines) => lines.len() * FLOATS_PER_LINE,
            Storage::Mapped(map) => map.len() / size_of::<f32>(),
        }
    }

    /// Changes the length. Within the capacity the contents stay as they are (what lies beyond the
    /// old length holds stale values); beyond it the buffer is allocated anew, zeroed.
    pub fn resize(&mut self, len: usize) {
        if len > self.capacity() {
            self.storage = Storage::zeroed(len);
        }
        self.len = len;
    }

    /// The storage as bytes, four for each float.
    pub fn bytes(&self) -> &[u8] {
        bytes_of(self)
    }

    /// The storage as bytes, four for each float, to write; any bytes are floats.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = size_of_val(&**self);
        // SAFETY: as in `bytes`; the borrow of `self` is unique, and every pattern of bits is a float.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), len) }
    }
}

impl Storage {
    fn zeroed(len: usize) -> Self {
        let bytes = len
            .checked_mul(size_of::<f32>())
            .expect("capacity overflow");
        if bytes >= HUGE_PAGE_BYTES
            && let Ok(map) = MmapMut::map_anon(bytes.next_multiple_of(HUGE_PAGE_BYTES))
        {
            // Refused where the kernel has no huge pages: the mapping then works in small ones.
            #[cfg(target_os = "linux")]
            let _ = map.advise(memmap2::Advice::HugePage);
            return Self::Mapped(map);
        }
        Self::Heap(vec![
            CacheLine([0.0; FLOATS_PER_LINE]);
            len.div_ceil(FLOATS_PER_LINE)
        ])
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        let start: *const f32 = match &self.storage {
            Storage::Heap(lines) => lines.as_ptr().cast(),
            Storage::Mapped(map) => map.as_ptr().cast(),
        };
        // SAFETY: the storage holds at least `len` initialised floats (`resize` keeps `len` within
        // the capacity), is aligned to 64 bytes or a page, and is borrowed for the slice's lifetime.
        unsafe { std::slice::from_raw_parts(start, self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        let start: *mut f32 = match &mut self.storage {
            Storage::Heap(lines) => lines.as_mut_ptr().cast(),
            Storage::Mapped(map) => map.as_mut_ptr().cast(),
        };
        // SAFETY: as in `deref`; the borrow of `self` is unique.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::from_slice(self)
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeroed_and_aligned_on_heap_and_in_huge_pages() {
        let huge = HUGE_PAGE_BYTES / size_of::<f32>();
        for len in [0, 1, 15, 16, 17, huge - 1, huge, huge + 1] {
            let buffer = Buffer::zeroed(len);
            assert_eq!(buffer.len(), len);
            assert!(buffer.iter().all(|&value| value == 0.0));
            assert_eq!(buffer.as_ptr() as usize % 64, 0);
        }
    }

    #[test]
    fn bytes_are_those_of_the_floats() {
        let mut buffer = Buffer::from_slice(&[1.0, -2.0]);
        let floats: Vec<u8> = buffer.iter().flat_map(|v| v.to_ne_bytes()).collect();
        assert_eq!(buffer.bytes(), floats);
        buffer.bytes_mut()[..4].copy_from_slice(&3.5_f32.to_ne_bytes());
        assert_eq!(*buffer, [3.5, -2.0]);
    }

    #[test]
    fn resize_keeps_memory_when_it_shrinks() {
        let mut buffer = Buffer::from_slice(&[1.0; 100]);
        let start = buffer.as_ptr();
        buffer.resize(10);
        assert_eq!(&*buffer, &[1.0; 10]);
        buffer.resize(100);
        assert_eq!(buffer.as_ptr(), start);
        buffer.resize(1_000);
        assert_eq!(buffer.len(), 1_000);
        assert!(buffer.iter().all(|&value| value == 0.0));
    }
}
