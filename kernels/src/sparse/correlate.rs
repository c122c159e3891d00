//! Sums of weights times windows, in either direction.

use rayon::prelude::*;
use std::ops::Range;

use super::pattern::{Index, Reach, run_tile};
use super::sheets::{Sheets, TilePlace, Window};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::is_small;
use crate::gemm::scratch::with_scratch;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::Shared;

/// Channels of the result that share a packed chunk: their sums, 14 vectors each, are 229 KB.
const MOST_RESULTS: usize = 256;

/// Channels of the result below which packing would cost too much beside the products.
const LEAST_RESULTS: usize = 64;

/// Tasks to aim at: enough for many cores, and for the last one not to keep the others waiting.
const LEAST_TASKS: usize = 16;

/// Pixels of a tile that is narrower than others, at most: it is computed in fewer registers.
const NARROW: usize = 4;

/// `activation(source ⋆ weights + bias)`.
pub(super) struct Correlation<'a> {
    pub(super) index: &'a Index,
    /// In the order of the index.
    pub(super) values: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) relu: bool,
    pub(super) source: &'a [f32],
    pub(super) sheets: Sheets,
    /// See [`Window::before`].
    pub(super) before: [usize; 2],
    pub(super) result_sheets: Sheets,
}

impl Correlation<'_> {
    /// Computes the whole result.
    ///
    /// # Panics
    /// If a slice is shorter than the sheets and the index say.
    pub(super) fn run(&self, set: InstructionSet, result: &mut [f32]) {
        let (index, sheets) = (self.index, &self.result_sheets);
        let [rows, columns] = sheets.size;
        if sheets.count == 0 || index.results == 0 || rows == 0 || columns == 0 {
            return;
        }
        let last = [rows - 1, columns - 1];
        let reach = sheets.place(sheets.count - 1, index.results - 1, last) + LANES;
        assert!(reach <= result.len(), "{} floats of {reach}", result.len());
        assert_eq!(self.values.len(), index.offsets.len());
        assert!(self.bias.is_none_or(|bias| bias.len() == index.results));
        let [down, across] = sheets.tiles(&index.reach);
        let tiles = sheets.count * down * across;
        let groups = LEAST_TASKS.div_ceil(tiles);
        let group = index.results.div_ceil(groups);
        let group = group.clamp(LEAST_RESULTS, MOST_RESULTS).min(index.results);
        let groups = index.results.div_ceil(group);
        let [tile_rows, pixels] = index.reach.tile;
        let sums_len = group * tile_rows * pixels * LANES;
        let target = Shared::new(result.as_mut_ptr());
        let run = |task: usize| {
            let first = task % groups * group;
            with_scratch(index.packed_len() + sums_len, |scratch| {
                let (packed, sums) = scratch.split_at_mut(index.packed_len());
                set.run(Task {
                    correlation: self,
                    tile: TilePlace::new(sheets, &index.reach, task / groups),
                    results: first..index.results.min(first + group),
                    packed,
                    sums,
                    target: target.start(),
                });
            });
        };
        let work = self.values.len() * sheets.count * rows * columns * LANES;
        if is_small(work) {
            (0..tiles * groups).for_each(run);
        } else {
            (0..tiles * groups).into_par_iter().for_each(run);
        }
    }
}

/// One tile of some channels of the result.
struct Task<'a> {
    correlation: &'a Correlation<'a>,
    tile: TilePlace,
    results: Range<usize>,
    packed: &'a mut [f32],
    sums: &'a mut [f32],
    target: *mut f32,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        run_tile(isa, self.correlation.index.reach.is_line(), self);
    }
}

impl TileKernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Self {
            correlation,
            tile,
            results,
            packed,
            sums,
            target,
        } = self;
        let index = correlation.index;
        let reach = &index.reach;
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
        for chunk in 0..index.chunks() {
            let starts = index.starts_of(chunk, results.clone());
            if starts.first() == starts.last() {
                continue;
            }
            let first = chunk * index.chunk;
            let channels = first..index.sources.min(first + index.chunk);
            window.pack(isa, &tile, channels, packed);
            let is_last = chunk + 1 == index.chunks();
            let lists = starts.windows(2).zip(results.clone());
            for ((list, result), sums) in lists.zip(sums.chunks_exact_mut(result_len)) {
                let list = list[0] as usize..list[1] as usize;
                if is_last {
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
        // No floor leaves every value as it is, NaN too.
        let floor = isa.splat(if correlation.relu {
            0.0
        } else {
            f32::NEG_INFINITY
        });
        for (result, sums) in results.zip(sums.chunks_exact(result_len)) {
            let bias = correlation.bias.map_or(0.0, |bias| bias[result]);
            let bias = isa.splat(bias);
            for (row, sums) in sums.chunks_exact(row_len).enumerate().take(tile.len[0]) {
                let (sums, _) = sums.as_chunks::<LANES>();
                for (column, sum) in sums.iter().enumerate().take(tile.len[1]) {
                    let at = [tile.first[0] + row, tile.first[1] + column];
                    let place = correlation.result_sheets.place(tile.sheet, result, at);
                    let value = isa.max(floor, isa.add(isa.load(sum), bias));
                    // SAFETY: `run` held the result to the sheets; no other task has this tile of
                    // this channel.
                    unsafe { isa.store_ptr(target.wrapping_add(place), value) };
                }
            }
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
        // SAFETY: the caller vouches for the vectors of every weight.
        let x = unsafe { weights.x.add(offset as usize) };
        for (pixel, sum) in sums.iter_mut().enumerate() {
            // SAFETY: as above.
            let x = unsafe { isa.load_ptr(x.add(pixel * step)) };
            *sum = isa.mul_add(value, x, *sum);
        }
    }
    for (pixel, &sum) in sums.iter().enumerate() {
        // SAFETY: the caller vouches for the sums.
        unsafe { isa.store_ptr(weights.sums.add(pixel * LANES), sum) };
    }
}
