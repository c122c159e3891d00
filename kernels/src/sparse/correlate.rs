//! Sums of weights times windows, in either direction.

use rayon::prelude::*;
use std::ops::Range;

use super::index::{BLOCK, Index, Reach, run_tile};
use super::sheets::{Sheets, TilePlace, Window};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::is_small;
use crate::gemm::scratch::with_scratch;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::{Shared, is_streamed};

/// Channels of the result that share a packed chunk: their sums, 14 vectors each, are 229 KB.
const MOST_RESULTS: usize = 256;

/// Tasks to aim at: enough for many cores, and for the last one not to keep the others waiting.
const LEAST_TASKS: usize = 16;

/// Chunks in each part that a long sum is cut into, at least.
const LEAST_CHUNKS: usize = 16;

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
        let wanted = LEAST_TASKS.div_ceil(tiles);
        // A long sum is cut before its results are, for each group of which the source is packed anew.
        let parts = wanted.min(index.chunks() / LEAST_CHUNKS).max(1);
        let part_chunks = index.chunks().div_ceil(parts);
        let group = index.results.div_ceil(wanted.div_ceil(parts));
        let group = group.next_multiple_of(BLOCK).min(MOST_RESULTS);
        let groups = index.results.div_ceil(group);
        let [tile_rows, pixels] = index.reach.tile;
        let sums_len = group * tile_rows * pixels * LANES;
        let work = self.values.len() * sheets.count * rows * columns * LANES;
        let run = |target: Shared, streamed: bool| {
            let task = |task: usize| {
                let (part, task) = (task / (tiles * groups), task % (tiles * groups));
                let first = task % groups * group;
                with_scratch(index.packed_len() + sums_len, |scratch| {
                    let (packed, sums) = scratch.split_at_mut(index.packed_len());
                    set.run(Task {
                        correlation: self,
                        tile: TilePlace::new(sheets, &index.reach, task / groups),
                        results: first..index.results.min(first + group),
                        chunks: part * part_chunks..index.chunks().min((part + 1) * part_chunks),
                        packed,
                        sums,
                        target: target.start().wrapping_add(part * reach),
                        streamed,
                    });
                });
            };
            let tasks = 0..parts * tiles * groups;
            if is_small(work) {
                tasks.for_each(task);
            } else {
                tasks.into_par_iter().for_each(task);
            }
        };
        let target = Shared::new(result.as_mut_ptr());
        if parts == 1 {
            return run(target, is_streamed(result.as_ptr(), result.len()));
        }
        with_scratch(parts * reach, |sums| {
            run(Shared::new(sums.as_mut_ptr()), false);
            (0..groups).into_par_iter().for_each(|at| {
                set.run(Total {
                    correlation: self,
                    results: at * group..index.results.min((at + 1) * group),
                    parts: sums,
                    part_len: reach,
                    target: target.start(),
                });
            });
        });
    }

    /// What becomes of a sum of products for a channel of the result.
    #[inline(always)]
    fn finish<I: Isa>(&self, isa: I, result: usize, sum: I::F32) -> I::F32 {
        let bias = isa.splat(self.bias.map_or(0.0, |bias| bias[result]));
        // No floor leaves every value as it is, NaN too.
        let floor = isa.splat(if self.relu { 0.0 } else { f32::NEG_INFINITY });
        isa.max(floor, isa.add(sum, bias))
    }
}

/// One tile of some channels of the result.
struct Task<'a> {
    correlation: &'a Correlation<'a>,
    tile: TilePlace,
    results: Range<usize>,
    /// Of the source; if they are not all, bare sums are wanted.
    chunks: Range<usize>,
    packed: &'a mut [f32],
    sums: &'a mut [f32],
    target: *mut f32,
    /// Whether to write past the caches.
    streamed: bool,
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
            chunks,
            packed,
            sums,
            target,
            streamed,
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
        for chunk in chunks.clone() {
            if index.weights(chunk, results.clone()).is_empty() {
                continue;
            }
            let first = chunk * index.chunk;
            let channels = first..index.sources.min(first + index.chunk);
            window.pack(isa, &tile, channels, packed);
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
        let is_whole = chunks == (0..index.chunks());
        for (result, sums) in results.zip(sums.chunks_exact(result_len)) {
            for (row, sums) in sums.chunks_exact(row_len).enumerate().take(tile.len[0]) {
                let (sums, _) = sums.as_chunks::<LANES>();
                for (column, sum) in sums.iter().enumerate().take(tile.len[1]) {
                    let at = [tile.first[0] + row, tile.first[1] + column];
                    let place = correlation.result_sheets.place(tile.sheet, result, at);
                    let sum = isa.load(sum);
                    let value = match is_whole {
                        true => correlation.finish(isa, result, sum),
                        false => sum,
                    };
                    let target = target.wrapping_add(place);
                    // SAFETY: `run` held the result to the sheets; no other task has this tile of
                    // this channel; what is streamed is aligned.
                    unsafe { isa.write_ptr(target, value, streamed) };
                }
            }
        }
        if streamed {
            isa.fence();
        }
    }
}

/// Some channels of a result whose sums are in parts.
struct Total<'a> {
    correlation: &'a Correlation<'a>,
    results: Range<usize>,
    parts: &'a [f32],
    /// Floats of a part, each laid out as the result.
    part_len: usize,
    target: *mut f32,
}

impl Kernel for Total<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let sheets = &self.correlation.result_sheets;
        let [rows, columns] = sheets.size;
        for sheet in 0..sheets.count {
            for pixel in 0..rows * columns {
                for result in self.results.clone() {
                    let place = sheets.place(sheet, result, [pixel / columns, pixel % columns]);
                    let mut sum = isa.zero();
                    for part in self.parts.chunks_exact(self.part_len) {
                        let (part, _) = part[place..].as_chunks();
                        sum = isa.add(sum, isa.load(&part[0]));
                    }
                    let value = self.correlation.finish(isa, result, sum);
                    // SAFETY: `run` held the result to the sheets; no other task has this channel.
                    unsafe { isa.store_ptr(self.target.wrapping_add(place), value) };
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
