//! The micro-kernel of a bf16 product: that of the f32 one, with a pair of steps in each lane.

use super::super::tile::{Finish, Tile};
use crate::isa::Isa;

/// Computes one tile of `ROWS` by `VECTORS` vectors. Of the operands, which are packed, only the inner
/// steps count, and those are pairs.
///
/// # Safety
/// As [`micro_kernel`](super::super::tile::micro_kernel).
#[inline(always)]
pub(super) unsafe fn micro_kernel<I: Isa, F: Finish, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    tile: &Tile<F>,
) {
    F::prepare(isa, tile, VECTORS);
    let mut sums = [[isa.zero(); VECTORS]; ROWS];
    let (mut a, mut b) = (tile.a, tile.b);
    for _ in 0..tile.inner {
        let mut vectors = [isa.zero(); VECTORS];
        for (v, vector) in vectors.iter_mut().enumerate() {
            // SAFETY: the caller vouches for every vector of every pair of steps.
            *vector = unsafe { isa.load_ptr(b.add(v * tile.b_vector)) };
        }
        for (r, row) in sums.iter_mut().enumerate() {
            // SAFETY: the caller vouches for `ROWS` pairs.
            let pair = isa.splat(unsafe { *a.add(r) });
            for (sum, vector) in row.iter_mut().zip(vectors) {
                *sum = isa.dot_bf16(*sum, pair, vector);
            }
        }
        a = a.wrapping_add(ROWS);
        b = b.wrapping_add(tile.b_step);
    }
    // SAFETY: the caller vouches for all that the finish names.
    unsafe { F::finish(isa, tile, sums) };
}
