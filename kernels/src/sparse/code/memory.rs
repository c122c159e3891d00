//! Memory that may be executed.

use std::fmt;
use std::io;

use memmap2::{Mmap, MmapMut};

/// Functions of machine code: memory that is written once, then executed and never written again.
pub(in crate::sparse) struct Code(Mmap);

impl Code {
    /// Puts functions where they may be executed.
    ///
    /// # Errors
    /// When there is no memory, or the system lets nobody execute what they wrote.
    pub(in crate::sparse) fn new(bytes: &[u8]) -> io::Result<Self> {
        let mut memory = MmapMut::map_anon(bytes.len().max(1))?;
        memory[..bytes.len()].copy_from_slice(bytes);
        memory.make_exec().map(Self)
    }

    /// Where a byte lies.
    pub(super) fn address(&self, at: u32) -> *const u8 {
        self.0[at as usize..].as_ptr()
    }

    /// Calls the function that begins at a byte, with a frame that it knows.
    ///
    /// # Safety
    /// At that byte a function begins that returns and keeps to the System V calling convention, the
    /// processor has the instructions in it, and what they read and write through the frame is valid.
    #[inline(always)]
    pub(super) unsafe fn call<F>(&self, at: u32, frame: &F) {
        let start = self.address(at);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the caller vouches for the function and the frame.
        unsafe {
            let function: unsafe extern "sysv64" fn(*const F) = std::mem::transmute(start);
            function(frame);
        }
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("{start:p} and {:p} on another processor", frame);
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of code", self.0.len())
    }
}
