//! How a kernel learns the register tile of its instruction set.

use crate::isa::Isa;

/// A kernel over the register tile of the GEMM micro-kernel; see [`Isa::gemm_tile`].
pub trait TileKernel {
    /// What the kernel returns.
    type Output;

    /// Runs with tiles of `ROWS` broadcast values by `VECTORS` vectors of sixteen lanes.
    /// Implementations are `#[inline(always)]`.
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) -> Self::Output;
}
