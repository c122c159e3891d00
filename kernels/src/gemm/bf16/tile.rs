//! The register tile of a bf16 product: that of the f32 one, with a pair of steps in each lane.

use crate::isa::Isa;
use crate::lanes::LANES;

/// Where the operands and the result of one tile lie.
#[derive(Clone, Copy)]
pub(super) struct Tile<const VECTORS: usize> {
    /// A panel of pairs, `[pairs][ROWS]`.
    pub(super) a: *const f32,
    /// A panel of vectors of pairs, `b_step` floats from one pair of steps to the next.
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    pub(super) pairs: usize,
    /// The first row of the result, vector by vector, and the floats to the next row.
    pub(super) c: [*mut f32; VECTORS],
    pub(super) c_row: usize,
    /// Rows to write; the others are computed and dropped.
    pub(super) rows: usize,
    /// Lanes to write of the last vector.
    pub(super) last_lanes: usize,
    /// Whether the sums go on from what the result holds.
    pub(super) goes_on: bool,
    /// Add one value per row in the end, the first of them here; null for none.
    pub(super) bias: *const f32,
    /// Replace negative values by zero in the end.
    pub(super) relu: bool,
}

/// Computes one tile. A sum over several blocks of steps goes through memory in between, as it is:
/// the result does not depend on how the steps are cut.
///
/// # Safety
/// The panels are valid for reading; `rows` rows of the result, its last vector `last_lanes` lanes
/// wide, are valid for writing and reading by this call alone; `bias` is null or valid for `rows`
/// floats.
#[inline(always)]
pub(super) unsafe fn micro_kernel<I: Isa, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    tile: &Tile<VECTORS>,
) {
    let whole = tile.rows == ROWS && tile.last_lanes == LANES;
    let mut sums = [[isa.zero(); VECTORS]; ROWS];
    if tile.goes_on {
        for (r, row) in sums.iter_mut().enumerate() {
            for (v, sum) in row.iter_mut().enumerate() {
                // SAFETY: the caller vouches for the result.
                unsafe {
                    if whole {
                        *sum = isa.load_ptr(tile.c[v].wrapping_add(r * tile.c_row));
                    } else if r < tile.rows {
                        *sum = isa
                            .load_first_ptr(tile.c[v].wrapping_add(r * tile.c_row), tile.lanes(v));
                    }
                }
            }
        }
    }
    let (mut a, mut b) = (tile.a, tile.b);
    for _ in 0..tile.pairs {
        let mut vectors = [isa.zero(); VECTORS];
        for (v, vector) in vectors.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the panels.
            *vector = unsafe { isa.load_ptr(b.add(v * LANES)) };
        }
        for (r, row) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let pair = isa.splat(unsafe { *a.add(r) });
            for (sum, vector) in row.iter_mut().zip(vectors) {
                *sum = isa.dot_bf16(*sum, pair, vector);
            }
        }
        a = a.wrapping_add(ROWS);
        b = b.wrapping_add(tile.b_step);
    }
    if whole {
        // A pass for each step, so that the sums never leave their registers.
        if !tile.bias.is_null() {
            for (r, row) in sums.iter_mut().enumerate() {
                // SAFETY: a bias that is not null has as many values as there are rows.
                let bias = isa.splat(unsafe { *tile.bias.add(r) });
                for sum in row {
                    *sum = isa.add(*sum, bias);
                }
            }
        }
        if tile.relu {
            for row in &mut sums {
                for sum in row {
                    // In this order NaN stays NaN.
                    *sum = isa.max(isa.zero(), *sum);
                }
            }
        }
        for (r, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                // SAFETY: the caller vouches for the result.
                unsafe { isa.store_ptr(tile.c[v].wrapping_add(r * tile.c_row), sum) };
            }
        }
        return;
    }
    // A copy: the sums themselves must not be indexed by what is known only at run time, or they
    // would lie in memory all along.
    let sums = sums;
    for (r, row) in sums.iter().enumerate().take(tile.rows) {
        for (v, &sum) in row.iter().enumerate() {
            let mut sum = sum;
            // SAFETY: the caller vouches for the result, and for a bias that is not null.
            unsafe {
                if !tile.bias.is_null() {
                    sum = isa.add(sum, isa.splat(*tile.bias.add(r)));
                }
                if tile.relu {
                    sum = isa.max(isa.zero(), sum);
                }
                let place = tile.c[v].wrapping_add(r * tile.c_row);
                isa.store_first_ptr(place, sum, tile.lanes(v));
            }
        }
    }
}

impl<const VECTORS: usize> Tile<VECTORS> {
    /// Lanes of a vector that belong to the result.
    #[inline(always)]
    fn lanes(&self, vector: usize) -> usize {
        if vector + 1 == VECTORS {
            self.last_lanes
        } else {
            LANES
        }
    }
}
