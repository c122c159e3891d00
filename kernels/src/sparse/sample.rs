//! The gradient of the values: products of input and output gradient, summed at owned positions alone.

use rayon::prelude::*;
use std::ops::Range;

use super::code::{Sampler, TOGETHER, Tile};
use super::index::{BLOCK, run_tile};
use super::lists::row_step;
use super::products::Samples;
use super::sheets::{Sheets, TilePlace, Window};
use crate::conv2d::add_parts;
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::is_small;
use crate::gemm::scratch::with_scratch;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::Shared;

/// Channels of the result that share a packed chunk, at most.
const MOST_RESULTS: usize = 512;

/// Tasks to aim at, and parts that a sum over sheets is cut into.
const TASKS: usize = 16;

/// Floats of all parts of the sums, at most: 32 MB.
const MOST_PARTS: usize = 8 << 20;

/// Sums behind those of a list that are added to with it: zeros.
pub(super) const SLACK: usize = TOGETHER;

/// `Σ source · grad` at every position of an index, over all pixels of all sheets.
pub(super) struct Sampling<'a> {
    pub(super) samples: &'a Samples,
    pub(super) source: &'a [f32],
    pub(super) sheets: Sheets,
    /// See [`Window::before`].
    pub(super) before: [usize; 2],
    /// Zero in empty lanes.
    pub(super) grad: &'a [f32],
    pub(super) grad_sheets: Sheets,
}

impl Sampling<'_> {
    /// Computes the gradient of every value.
    ///
    /// # Panics
    /// If a slice is shorter than the sheets and the index say.
    pub(super) fn run(&self, set: InstructionSet, grad_values: &mut [f32]) {
        let (index, sheets) = (&*self.samples.index, &self.grad_sheets);
        let outline = &index.outline;
        assert_eq!(grad_values.len(), index.offsets.len());
        let [rows, columns] = sheets.size;
        if sheets.count == 0 || outline.results == 0 || rows == 0 || columns == 0 {
            grad_values.fill(0.0);
            return;
        }
        let reach = sheets.end(outline.results);
        assert!(
            reach <= self.grad.len(),
            "{} floats of {reach}",
            self.grad.len()
        );
        let sampler = self.samples.sampler(sheets.strides());
        let [down, across] = sheets.tiles(&outline.reach);
        let sheet_tiles = down * across;
        let len = grad_values.len();
        let parts = TASKS.min(MOST_PARTS / len.max(1)).clamp(1, sheets.count);
        let part_sheets = sheets.count.div_ceil(parts);
        let parts = sheets.count.div_ceil(part_sheets);
        // Chunks are shared out before results, for each group of which the source is packed anew.
        let range = index
            .outline
            .chunks()
            .div_ceil(TASKS.div_ceil(parts))
            .max(1);
        let ranges = outline.chunks().div_ceil(range);
        let group = outline
            .results
            .div_ceil(TASKS.div_ceil(parts * ranges.max(1)));
        let group = group.next_multiple_of(BLOCK).min(MOST_RESULTS);
        let groups = outline.results.div_ceil(group);
        let run = |task: usize, sums: Shared| {
            let (part, task) = (task / (groups * ranges), task % (groups * ranges));
            let (group_of, range_of) = (task % groups * group, task / groups * range);
            let first = part * part_sheets;
            let results = group_of..outline.results.min(group_of + group);
            let chunks = range_of..outline.chunks().min(range_of + range);
            let weights = chunks.clone();
            let weights = weights.map(|chunk| index.weights(chunk, results.clone()).len());
            let sums_len = weights.sum::<usize>() + SLACK;
            with_scratch(outline.packed_len() + sums_len, |scratch| {
                let (packed, own) = scratch.split_at_mut(outline.packed_len());
                own.fill(0.0);
                set.run(Task {
                    sampling: self,
                    sampler,
                    tiles: first * sheet_tiles..sheets.count.min(first + part_sheets) * sheet_tiles,
                    results: results.clone(),
                    chunks: chunks.clone(),
                    packed,
                    sums: own,
                });
                let target = sums.start().wrapping_add(part * len);
                let mut rest = &*own;
                for chunk in chunks {
                    let weights = index.weights(chunk, results.clone());
                    let (sums, behind) = rest.split_at(weights.len());
                    rest = behind;
                    for (at, &sum) in weights.zip(sums) {
                        // SAFETY: every value belongs to one chunk and one channel of the result, and
                        // so in this part to this task.
                        unsafe { *target.add(at) = sum };
                    }
                }
            });
        };
        let tasks = parts * groups * ranges;
        let run_all = |sums: Shared| {
            if is_small(len * sheets.count * rows * columns * LANES) {
                (0..tasks).for_each(|task| run(task, sums));
            } else {
                let tasks = (0..tasks).into_par_iter().with_max_len(1);
                tasks.for_each(|task| run(task, sums));
            }
        };
        if parts == 1 {
            run_all(Shared::new(grad_values.as_mut_ptr()));
            return;
        }
        with_scratch(parts * len, |sums| {
            run_all(Shared::new(sums.as_mut_ptr()));
            add_parts(grad_values, sums.chunks_exact(len.max(1)));
        });
    }
}

impl Sampling<'_> {
    /// Floats that [`add_rows`](Self::add_rows) works in.
    pub(super) fn packed_len(&self) -> usize {
        self.samples.index.outline.packed_len()
    }

    /// Adds the products of some rows of one sheet, whole tiles of them or up to the last, to the
    /// sums of all values in the order of the index, behind which there are [`SLACK`] more.
    ///
    /// # Panics
    /// If a slice is shorter than the sheets and the index say.
    pub(super) fn add_rows(
        &self,
        set: InstructionSet,
        rows: Range<usize>,
        (packed, sums): (&mut [f32], &mut [f32]),
    ) {
        let (index, sheets) = (&*self.samples.index, &self.grad_sheets);
        let outline = &index.outline;
        let [height, width] = outline.reach.tile;
        assert_eq!(sheets.count, 1);
        assert!(rows.end <= sheets.size[0] && rows.start.is_multiple_of(height));
        assert!(rows.end.is_multiple_of(height) || rows.end == sheets.size[0]);
        assert!(sheets.end(outline.results) <= self.grad.len());
        assert!(index.offsets.len() + SLACK <= sums.len());
        let across = sheets.size[1].div_ceil(width);
        if rows.is_empty() || across == 0 {
            return;
        }
        set.run(Task {
            sampling: self,
            sampler: self.samples.sampler(sheets.strides()),
            tiles: rows.start / height * across..rows.end.div_ceil(height) * across,
            results: 0..outline.results,
            chunks: 0..outline.chunks(),
            packed,
            sums,
        });
    }
}

/// Some chunks of some channels of the result, over some tiles.
struct Task<'a> {
    sampling: &'a Sampling<'a>,
    /// Code, if there is any.
    sampler: Option<&'a Sampler>,
    tiles: Range<usize>,
    results: Range<usize>,
    chunks: Range<usize>,
    packed: &'a mut [f32],
    /// One for each of its values, chunk by chunk, and [`SLACK`], to which products are added.
    sums: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        run_tile(
            isa,
            self.sampling.samples.index.outline.reach.is_line(),
            self,
        );
    }
}

impl TileKernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Sampling {
            samples,
            source,
            sheets,
            before,
            grad,
            grad_sheets,
            ..
        } = self.sampling;
        let index = &*samples.index;
        let outline = &index.outline;
        let reach = &outline.reach;
        let window = Window {
            values: source,
            sheets,
            reach,
            before: *before,
        };
        let tiles = self.tiles;
        let last_tile = grad_sheets.tile_count(reach) - 1;
        let sampler = self.sampler;
        // Of features, what one chunk wants of all tiles stays near, weights and sums among it; of images,
        // what all chunks want of one tile.
        let by_chunk = sheets.has_features;
        let (tile_count, chunk_count) = (tiles.len(), self.chunks.len());
        let steps = tile_count * chunk_count;
        let place = |step: usize| match by_chunk {
            true => (step % tile_count, step / tile_count),
            false => (step / chunk_count, step % chunk_count),
        };
        let tile_of = |at: usize| {
            let index = (tiles.start + at).min(last_tile);
            TilePlace::new(grad_sheets, reach, index)
        };
        let mut passed = 0;
        for step in 0..steps {
            let (tile_at, chunk_at) = place(step);
            let tile = tile_of(tile_at);
            let chunk = self.chunks.start + chunk_at;
            if chunk_at == 0 {
                passed = 0;
            }
            let weights = index.weights(chunk, self.results.clone());
            let first_sum = passed;
            if !by_chunk || tile_at + 1 == tile_count {
                passed += weights.len();
            }
            if weights.is_empty() {
                continue;
            }
            let channels = outline.channels(chunk);
            let ahead = by_chunk || sampler.is_none();
            window.pack(isa, &tile, channels, (self.packed, ahead));
            if let Some(sampler) = sampler {
                let (next_tile, next_chunk) = place(step + 1);
                let blocks = self.results.start / BLOCK..self.results.end.div_ceil(BLOCK);
                let channels = outline.channels(self.chunks.start + next_chunk);
                let share = self.results.len().div_ceil(chunk_count);
                let first = self.results.start + chunk_at * share;
                // Features were asked for while others were packed, and their gradient is near.
                let (rows, results) = match by_chunk {
                    true => (0, first..first),
                    false => {
                        let results = first..self.results.end.min(first + share);
                        (channels.len() * reach.packed[0], results)
                    }
                };
                let mut ahead = Ahead {
                    sampling: self.sampling,
                    window,
                    tile: tile_of(next_tile),
                    rows: 0..rows,
                    channels,
                    next_grad: tile_of(tile_at + 1),
                    results,
                    segments: sampler.segments(chunk, blocks.clone()),
                };
                for block in blocks {
                    let first = block * BLOCK;
                    let end = self.results.end.min(first + BLOCK);
                    let own = index.weights(chunk, first..end).start - weights.start;
                    let operands = Tile {
                        x: self.packed,
                        grad: &grad[grad_sheets.place(tile.sheet, first, tile.first)..],
                        len: tile.len,
                    };
                    let sums = &mut self.sums[first_sum + own..];
                    // SAFETY: the code was made from this index, of which this is a chunk and a block,
                    // packed for the tile, which lies on the gradient.
                    unsafe {
                        sampler.run(isa, [chunk, block], &operands, sums, || ahead.step(isa));
                    }
                }
                continue;
            }
            let lists = index.lists(chunk, self.results.clone());
            let next = lists.clone().skip(1).map(|(result, _)| Some(result));
            for ((result, list), next) in lists.zip(next.chain([None])) {
                if let Some(next) = next.filter(|_| chunk == self.chunks.start) {
                    grad_sheets.prefetch(isa, grad.as_ptr(), &tile, next);
                }
                let place = grad_sheets.place(tile.sheet, result, tile.first);
                let own = first_sum + list.start - weights.start;
                let own = own..own + list.len() + SLACK;
                let walk = Walk {
                    offsets: &index.offsets[list],
                    x: self.packed.as_ptr(),
                    x_row: row_step(reach),
                    x_pixel: reach.stride[1] * LANES,
                    grad: grad[place..].as_ptr(),
                    grad_row: grad_sheets.row(),
                    grad_pixel: grad_sheets.pixel,
                    len: tile.len,
                    sums: &mut self.sums[own],
                };
                // SAFETY: the index was built for packed chunks of this reach; `run` held the
                // gradient to its sheets, on which the tile lies.
                unsafe {
                    match (tile.len[1], reach.stride[1]) == (VECTORS, 1) {
                        true => walk.run::<I, ROWS, VECTORS>(isa),
                        false => walk.run::<I, ROWS, 0>(isa),
                    }
                }
            }
        }
    }
}

/// What is asked for while code runs, for it comes from memory.
struct Ahead<'a> {
    sampling: &'a Sampling<'a>,
    window: Window<'a>,
    /// What is packed next.
    tile: TilePlace,
    channels: Range<usize>,
    rows: Range<usize>,
    /// The tile of the gradient behind this one, and channels of it.
    next_grad: TilePlace,
    results: Range<usize>,
    /// Segments to come, before each of which a share is asked for.
    segments: usize,
}

impl Ahead<'_> {
    #[inline(always)]
    fn step<I: Isa>(&mut self, isa: I) {
        let [rows, results] =
            [&self.rows, &self.results].map(|left| left.len().div_ceil(self.segments.max(1)));
        self.segments = self.segments.saturating_sub(1);
        for row in self.rows.by_ref().take(rows) {
            self.window.ask(isa, &self.tile, &self.channels, row);
        }
        let Sampling {
            grad, grad_sheets, ..
        } = self.sampling;
        for result in self.results.by_ref().take(results) {
            grad_sheets.ask(isa, grad.as_ptr(), &self.next_grad, result);
        }
    }
}

/// The way through a list of positions with one channel of the gradient of one tile.
struct Walk<'a> {
    /// Those to come.
    offsets: &'a [u32],
    x: *const f32,
    x_row: usize,
    x_pixel: usize,
    grad: *const f32,
    grad_row: usize,
    grad_pixel: usize,
    /// Rows and columns.
    len: [usize; 2],
    /// Of those positions, and [`SLACK`].
    sums: &'a mut [f32],
}

impl Walk<'_> {
    /// Adds the products of the tile to the sums of all positions, `ROWS` of them at a time. The tile has
    /// `COLUMNS` columns, a vector apart, or if that is zero, as many and as far apart as it says.
    ///
    /// # Safety
    /// Every vector of the tile is valid for reading, in the packed chunk at each offset and in the
    /// gradient.
    #[inline(always)]
    unsafe fn run<I: Isa, const ROWS: usize, const COLUMNS: usize>(mut self, isa: I) {
        // SAFETY: as the caller vouches.
        unsafe {
            while self.offsets.len() >= ROWS {
                self.add::<I, ROWS, COLUMNS>(isa, ROWS);
            }
            // Rather some products too many than another round of them.
            match self.offsets.len() {
                0 => {}
                1 => self.add::<I, 1, COLUMNS>(isa, 1),
                2 => self.add::<I, 2, COLUMNS>(isa, 2),
                3 => self.add::<I, 4, COLUMNS>(isa, 3),
                4 => self.add::<I, 4, COLUMNS>(isa, 4),
                some => self.add::<I, ROWS, COLUMNS>(isa, some),
            }
        }
    }

    /// Adds the products of the tile to the sums of the next `used` positions, of `COUNT` at most; what
    /// stands in for the others does not count.
    ///
    /// # Safety
    /// See [`run`](Self::run).
    #[inline(always)]
    unsafe fn add<I: Isa, const COUNT: usize, const COLUMNS: usize>(
        &mut self,
        isa: I,
        used: usize,
    ) {
        const { assert!(COUNT <= SLACK) };
        let (next, rest) = self.offsets.split_at(used);
        let mut x = [self.x; COUNT];
        for (k, x) in x.iter_mut().enumerate() {
            let offset = next[if k < used { k } else { 0 }];
            *x = isa.address(*x, offset as usize);
        }
        let mut dots = [isa.zero(); COUNT];
        let (columns, x_pixel) = match COLUMNS {
            0 => (self.len[1], self.x_pixel),
            _ => (COLUMNS, LANES),
        };
        let mut grad_row = self.grad;
        for _ in 0..self.len[0] {
            let mut grad = grad_row;
            for column in 0..columns {
                // SAFETY: the caller vouches for the vectors of the tile.
                let factor = unsafe { isa.load_ptr(grad) };
                grad = grad.wrapping_add(self.grad_pixel);
                for (dot, x) in dots.iter_mut().zip(x) {
                    // SAFETY: as above.
                    let x = unsafe { isa.load_ptr(x.add(column * x_pixel)) };
                    *dot = isa.mul_add(x, factor, *dot);
                }
            }
            grad_row = grad_row.wrapping_add(self.grad_row);
            for x in &mut x {
                *x = x.wrapping_add(self.x_row);
            }
        }
        if COUNT == 1 {
            self.sums[0] += isa.sum(dots[0]);
        } else {
            let mut eight = [isa.zero(); SLACK];
            eight[..COUNT].copy_from_slice(&dots);
            let totals = isa.sum_eight(eight);
            // All of them in one vector.
            for (k, (sum, total)) in self.sums[..SLACK].iter_mut().zip(totals).enumerate() {
                *sum += if k < used { total } else { 0.0 };
            }
        }
        self.offsets = rest;
        self.sums = &mut std::mem::take(&mut self.sums)[used..];
    }
}
