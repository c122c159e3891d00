//! Sums of weights times windows by lists of weights.

use std::ops::Range;

use super::correlate::Correlation;
use super::index::{Index, Reach, run_tile};
use super::sheets::{Next, TilePlace, Window};
use crate::dispatch::Kernel;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;

/// Pixels of a tile that is narrower than others, at most: it is computed in fewer registers.
const NARROW: usize = 4;

/// One tile of some channels of the result.
pub(super) struct Task<'a> {
    pub(super) correlation: &'a Correlation<'a>,
    pub(super) index: &'a Index,
    pub(super) tile: TilePlace,
    pub(super) results: Range<usize>,
    /// Of the source; if they are not all, bare sums are wanted.
    pub(super) chunks: Range<usize>,
    pub(super) packed: &'a mut [f32],
    pub(super) sums: &'a mut [f32],
    pub(super) target: *mut f32,
    /// Whether to write past the caches.
    pub(super) streamed: bool,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        run_tile(isa, self.index.outline.reach.is_line(), self);
    }
}

impl TileKernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Self {
            correlation,
            index,
            tile,
            results,
            chunks,
            packed,
            sums,
            target,
            streamed,
        } = self;
        let outline = &index.outline;
        let reach = &outline.reach;
        assert_eq!(reach.tile[1], VECTORS);
        let window = Window {
            values: correlation.source,
            sheets: &correlation.sheets,
            reach,
            before: correlation.before,
        };
        let row_len = VECTORS * LANES;
        let result_len = reach.tile[0] * row_len;
        sums[..results.len() * result_len].fill(0.0);
        let is_narrow = VECTORS > NARROW && tile.len[1] <= NARROW;
        for chunk in chunks.clone() {
            if index.weights(chunk, results.clone()).is_empty() {
                continue;
            }
            window.pack(
                isa,
                &tile,
                outline.channels(chunk),
                (packed, Some(Next::Channels)),
            );
            let is_last = chunk + 1 == chunks.end;
            for (result, list) in index.lists(chunk, results.clone()) {
                let sums = &mut sums[(result - results.start) * result_len..][..result_len];
                if is_last && !streamed {
                    correlation
                        .result_sheets
                        .prefetch(isa, target, &tile, result);
                }
                if list.is_empty() {
                    continue;
                }
                let offsets = &index.offsets[list.clone()];
                let values = &correlation.values[list];
                for row in 0..tile.len[0] {
                    let weights = Weights {
                        offsets,
                        values,
                        x: packed[row * row_step(reach)..].as_ptr(),
                        step: reach.stride[1] * LANES,
                        sums: sums[row * row_len..][..row_len].as_mut_ptr(),
                    };
                    // SAFETY: the index was built for packed chunks of this reach, so every pixel
                    // of every row of the tile lies in the chunk; the sums have a vector for each.
                    unsafe {
                        match (is_narrow, reach.stride[1]) {
                            (true, 1) => accumulate::<I, NARROW, LANES>(isa, &weights),
                            (true, _) => accumulate::<I, NARROW, 0>(isa, &weights),
                            (false, 1) => accumulate::<I, VECTORS, LANES>(isa, &weights),
                            (false, _) => accumulate::<I, VECTORS, 0>(isa, &weights),
                        }
                    }
                }
            }
        }
        let is_whole = chunks == (0..outline.chunks());
        for (result, sums) in results.zip(sums.chunks_exact(result_len)) {
            for (row, sums) in sums.chunks_exact(row_len).enumerate().take(tile.len[0]) {
                let (sums, _) = sums.as_chunks::<LANES>();
                for (column, sum) in sums.iter().enumerate().take(tile.len[1]) {
                    let at = [tile.first[0] + row, tile.first[1] + column];
                    let place = correlation.result_sheets.place(tile.sheet, result, at);
                    let sum = isa.load(sum);
                    let target = target.wrapping_add(place);
                    // SAFETY: `run` held the result to the sheets; no other task has this tile of
                    // this channel; what is streamed is aligned.
                    unsafe {
                        match is_whole {
                            true => correlation.write(isa, result, sum, (target, streamed)),
                            false => isa.store_ptr(target, sum),
                        }
                    }
                }
            }
        }
        if streamed {
            isa.fence();
        }
    }
}

/// Floats of a packed chunk from one row of a tile to the next.
pub(super) fn row_step(reach: &Reach) -> usize {
    reach.stride[0] * reach.packed[1] * LANES
}

/// A list of weights, what they are multiplied with and where their sums go.
struct Weights<'a> {
    offsets: &'a [u32],
    values: &'a [f32],
    x: *const f32,
    /// Floats from one pixel to the next.
    step: usize,
    sums: *mut f32,
}

/// Adds the products of a list of weights with `PIXELS` vectors, which are `STEP` floats apart, or
/// [`Weights::step`] if that is zero.
///
/// # Safety
/// Every vector `x[offset + pixel · step]` is valid for reading, and `PIXELS` vectors of sums for
/// reading and writing.
#[inline(always)]
unsafe fn accumulate<I: Isa, const PIXELS: usize, const STEP: usize>(
    isa: I,
    weights: &Weights<'_>,
) {
    let step = if STEP == 0 { weights.step } else { STEP };
    let mut sums = [isa.zero(); PIXELS];
    for (pixel, sum) in sums.iter_mut().enumerate() {
        // SAFETY: the caller vouches for the sums.
        *sum = unsafe { isa.load_ptr(weights.sums.add(pixel * LANES)) };
    }
    for (&offset, &value) in weights.offsets.iter().zip(weights.values) {
        let value = isa.splat(value);
        let x = isa.address(weights.x, offset as usize);
        for (pixel, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the vectors of every weight.
            let x = unsafe { isa.load_ptr(x.add(pixel * step)) };
            *sum = isa.mul_add(value, x, *sum);
        }
    }
    for (pixel, &sum) in sums.iter().enumerate() {
        // SAFETY: the caller vouches for the sums.
        unsafe { isa.store_ptr(weights.sums.add(pixel * LANES), sum) };
    }
}
