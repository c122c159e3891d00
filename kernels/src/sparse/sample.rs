//! The gradient of the values: products of input and output gradient, summed at owned positions alone.

use rayon::prelude::*;
use std::ops::Range;

use super::correlate::row_step;
use super::pattern::{Index, run_tile};
use super::sheets::{Sheets, TilePlace, Window};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::is_small;
use crate::gemm::scratch::with_scratch;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::Shared;

/// Channels of the result that share a packed chunk, at least and at most.
const RESULTS: [usize; 2] = [64, 512];

/// Tasks to aim at, and parts that a sum over sheets is cut into.
const TASKS: usize = 16;

/// Floats of all parts of the sums, at most: 32 MB.
const MOST_PARTS: usize = 8 << 20;

/// `Σ source · grad` at every position of an index, over all pixels of all sheets.
pub(super) struct Sampling<'a> {
    pub(super) index: &'a Index,
    pub(super) source: &'a [f32],
    pub(super) sheets: Sheets,
    /// See [`Window::before`].
    pub(super) before: [usize; 2],
    /// Zero in empty lanes.
    pub(super) grad: &'a [f32],
    pub(super) grad_sheets: Sheets,
    /// Whether to add to what the gradient holds.
    pub(super) adds: bool,
}

impl Sampling<'_> {
    /// Computes the gradient of every value.
    ///
    /// # Panics
    /// If a slice is shorter than the sheets and the index say.
    pub(super) fn run(&self, set: InstructionSet, grad_values: &mut [f32]) {
        let (index, sheets) = (self.index, &self.grad_sheets);
        assert_eq!(grad_values.len(), index.offsets.len());
        let [rows, columns] = sheets.size;
        if sheets.count == 0 || index.results == 0 || rows == 0 || columns == 0 {
            if !self.adds {
                grad_values.fill(0.0);
            }
            return;
        }
        let last = [rows - 1, columns - 1];
        let reach = sheets.place(sheets.count - 1, index.results - 1, last) + LANES;
        assert!(
            reach <= self.grad.len(),
            "{} floats of {reach}",
            self.grad.len()
        );
        let len = grad_values.len();
        let parts = TASKS.min(MOST_PARTS / len.max(1)).clamp(1, sheets.count);
        let part_sheets = sheets.count.div_ceil(parts);
        let parts = sheets.count.div_ceil(part_sheets);
        // Chunks are shared out before results, for each group of which the source is packed anew.
        let range = index.chunks().div_ceil(TASKS.div_ceil(parts)).max(1);
        let ranges = index.chunks().div_ceil(range);
        let group = index
            .results
            .div_ceil(TASKS.div_ceil(parts * ranges.max(1)));
        let group = group.clamp(RESULTS[0], RESULTS[1]).min(index.results);
        let groups = index.results.div_ceil(group);
        let run = |task: usize, sums: Shared| {
            let (part, task) = (task / (groups * ranges), task % (groups * ranges));
            let (group_of, range_of) = (task % groups * group, task / groups * range);
            let first = part * part_sheets;
            with_scratch(index.packed_len(), |packed| {
                set.run(Task {
                    sampling: self,
                    sheets: first..sheets.count.min(first + part_sheets),
                    results: group_of..index.results.min(group_of + group),
                    chunks: range_of..index.chunks().min(range_of + range),
                    packed,
                    sums: sums.start().wrapping_add(part * len),
                });
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
        if parts == 1 && !self.adds {
            run_all(Shared::new(grad_values.as_mut_ptr()));
            return;
        }
        with_scratch(parts * len, |sums| {
            run_all(Shared::new(sums.as_mut_ptr()));
            for (at, part) in sums.chunks_exact(len.max(1)).enumerate() {
                let is_first = at == 0 && !self.adds;
                for (grad, sum) in grad_values.iter_mut().zip(part) {
                    *grad = if is_first { *sum } else { *grad + sum };
                }
            }
        });
    }
}

/// Some chunks of some channels of the result, over some sheets.
struct Task<'a> {
    sampling: &'a Sampling<'a>,
    sheets: Range<usize>,
    results: Range<usize>,
    chunks: Range<usize>,
    packed: &'a mut [f32],
    /// One for each value.
    sums: *mut f32,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        run_tile(isa, self.sampling.index.reach.is_line(), self);
    }
}

impl TileKernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Sampling {
            index,
            source,
            sheets,
            before,
            grad,
            grad_sheets,
            ..
        } = self.sampling;
        let reach = &index.reach;
        let window = Window {
            values: source,
            sheets,
            reach,
            before: *before,
        };
        for chunk in self.chunks.clone() {
            let starts = index.starts_of(chunk, self.results.clone());
            for at in starts[0] as usize..starts[self.results.len()] as usize {
                // SAFETY: every value belongs to one chunk and one channel of the result, and so
                // in this part to this task.
                unsafe { *self.sums.add(at) = 0.0 };
            }
        }
        let [down, across] = grad_sheets.tiles(reach);
        let tiles = self.sheets.start * down * across..self.sheets.end * down * across;
        for tile in tiles {
            let tile = TilePlace::new(grad_sheets, reach, tile);
            for chunk in self.chunks.clone() {
                let starts = index.starts_of(chunk, self.results.clone());
                if starts[0] == starts[self.results.len()] {
                    continue;
                }
                let first = chunk * index.chunk;
                let channels = first..index.sources.min(first + index.chunk);
                window.pack(isa, &tile, channels, self.packed);
                for (list, result) in starts.windows(2).zip(self.results.clone()) {
                    let list = list[0] as usize..list[1] as usize;
                    if chunk == self.chunks.start {
                        grad_sheets.prefetch(isa, grad.as_ptr(), &tile, result + 1);
                    }
                    let place = grad_sheets.place(tile.sheet, result, tile.first);
                    let mut walk = Walk {
                        offsets: &index.offsets[list.clone()],
                        x: self.packed.as_ptr(),
                        x_row: row_step(reach),
                        x_pixel: reach.stride[1] * LANES,
                        grad: grad[place..].as_ptr(),
                        grad_row: grad_sheets.row(),
                        grad_pixel: grad_sheets.pixel,
                        len: tile.len,
                        sums: self.sums.wrapping_add(list.start),
                    };
                    // SAFETY: the index was built for packed chunks of this reach; `run` held the
                    // gradient to its sheets, on which the tile lies; the sums are this task's.
                    unsafe {
                        while walk.offsets.len() >= ROWS {
                            walk.add::<I, ROWS>(isa);
                        }
                        while walk.offsets.len() >= 3 {
                            walk.add::<I, 3>(isa);
                        }
                        while !walk.offsets.is_empty() {
                            walk.add::<I, 1>(isa);
                        }
                    }
                }
            }
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
    /// Of the next position.
    sums: *mut f32,
}

impl Walk<'_> {
    /// Adds the products of the tile to the sums of the next `COUNT` positions.
    ///
    /// # Safety
    /// There are so many. Every vector of the tile is valid for reading, in the packed chunk at each
    /// offset and in the gradient, and the sums for reading and writing.
    #[inline(always)]
    unsafe fn add<I: Isa, const COUNT: usize>(&mut self, isa: I) {
        let (next, rest) = self.offsets.split_at(COUNT);
        let mut x = [self.x; COUNT];
        for (x, &offset) in x.iter_mut().zip(next) {
            *x = x.wrapping_add(offset as usize);
        }
        let mut sums = [isa.zero(); COUNT];
        for row in 0..self.len[0] {
            for column in 0..self.len[1] {
                let at = row * self.x_row + column * self.x_pixel;
                let grad = row * self.grad_row + column * self.grad_pixel;
                // SAFETY: the caller vouches for the vectors of the tile.
                let grad = unsafe { isa.load_ptr(self.grad.add(grad)) };
                for (sum, x) in sums.iter_mut().zip(x) {
                    // SAFETY: as above.
                    let x = unsafe { isa.load_ptr(x.add(at)) };
                    *sum = isa.mul_add(x, grad, *sum);
                }
            }
        }
        let mut eight = [isa.zero(); 8];
        eight[..COUNT].copy_from_slice(&sums);
        let totals = match COUNT {
            1 => [isa.sum(eight[0]); 8],
            _ => isa.sum_eight(eight),
        };
        for (at, total) in totals.into_iter().enumerate().take(COUNT) {
            // SAFETY: the caller vouches for the sums.
            unsafe { *self.sums.add(at) += total };
        }
        self.offsets = rest;
        self.sums = self.sums.wrapping_add(COUNT);
    }
}
