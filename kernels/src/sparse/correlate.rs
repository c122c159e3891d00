//! Sums of weights times windows, in either direction.

use rayon::prelude::*;
use std::ops::Range;

use super::code::{Product, Program};
use super::index::{BLOCK, Index};
use super::lists;
use super::products::{Products, Way};
use super::sheets::{Sheets, TilePlace};
use crate::conv2d::Pooling;
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::is_small;
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::{Shared, is_streamed};

/// Channels of the result that share a packed chunk: their sums, 14 vectors each, are 229 KB.
const MOST_RESULTS: usize = 256;

/// Tasks to aim at: enough for many cores, and for the last one not to keep the others waiting.
pub(super) const LEAST_TASKS: usize = 16;

/// Terms of a sum that is cut into parts, at least for each of them.
const LEAST_TERMS: usize = 2048;

/// Pixels of the result that are tasks enough, so that sums of one pixel need not be cut.
const MANY_PIXELS: usize = 512;

/// `activation(source ⋆ weights + bias)`.
#[derive(Clone, Copy)]
pub(super) struct Correlation<'a> {
    pub(super) products: &'a Products,
    /// In the order of the products.
    pub(super) values: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) relu: bool,
    /// The result replaces what lies there, and is zero where that is not positive.
    pub(super) rectified: bool,
    pub(super) source: &'a [f32],
    pub(super) sheets: Sheets,
    /// See [`Window::before`](super::sheets::Window::before).
    pub(super) before: [usize; 2],
    pub(super) result_sheets: Sheets,
}

/// How sums are cut.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    pub(super) count: usize,
    /// Source channels of each but the last.
    pub(super) sources: usize,
    /// Floats from one to the next, each laid out as the result.
    pub(super) len: usize,
}

impl Correlation<'_> {
    /// Computes the whole result.
    ///
    /// # Panics
    /// If a slice is shorter than the sheets and the index say.
    pub(super) fn run(&self, set: InstructionSet, result: &mut [f32]) {
        let sheets = &self.result_sheets;
        let [rows, columns] = sheets.size;
        if sheets.count == 0 || self.products.outline.results == 0 || rows == 0 || columns == 0 {
            return;
        }
        let reach = sheets.end(self.products.outline.results);
        assert!(reach <= result.len(), "{} floats of {reach}", result.len());
        self.check();
        let parts = self.parts(reach);
        let target = Shared::new(result.as_mut_ptr());
        if parts.count == 1 {
            let streamed = is_streamed(result.as_ptr(), result.len());
            return self.run_parts(set, parts, target, streamed);
        }
        with_scratch(parts.count * reach, |sums| {
            self.run_parts(set, parts, Shared::new(sums.as_mut_ptr()), false);
            let results = self.products.outline.results;
            let groups = 0..results.div_ceil(BLOCK);
            groups.into_par_iter().for_each(|at| {
                set.run(Total {
                    correlation: self,
                    results: at * BLOCK..results.min((at + 1) * BLOCK),
                    parts: sums,
                    part_len: reach,
                    target: target.start(),
                });
            });
        });
    }

    /// Floats that [`run_rows`](Self::run_rows) works in.
    pub(super) fn rows_len(&self) -> usize {
        match &self.products.way {
            Way::Code(program) => self.whole(program, false).rows_len(),
            Way::Lists(index) => {
                let outline = &index.outline;
                let [rows, columns] = outline.reach.tile;
                outline.packed_len() + outline.results.min(MOST_RESULTS) * rows * columns * LANES
            }
        }
    }

    /// Computes rows of the only sheet from `done` up to `end`, whole tiles of them, in memory that holds
    /// what the rows before left there, and says up to where it came; the last row ends a tile.
    ///
    /// # Panics
    /// If a slice is shorter than the sheets and the index say.
    pub(super) fn run_rows(
        &self,
        set: InstructionSet,
        (done, end): (usize, usize),
        scratch: &mut [f32],
        (result, streamed): (&mut [f32], bool),
    ) -> usize {
        let (sheets, outline) = (&self.result_sheets, &self.products.outline);
        let [rows, columns] = sheets.size;
        assert!(sheets.count == 1 && end <= rows && scratch.len() >= self.rows_len());
        let reach = sheets.end(outline.results);
        assert!(reach <= result.len(), "{} floats of {reach}", result.len());
        self.check();
        if end <= done || columns == 0 || outline.results == 0 {
            return done;
        }
        let target = Shared::new(result.as_mut_ptr());
        let index = match &self.products.way {
            Way::Code(program) => {
                self.whole(program, streamed)
                    .run_rows(set, done..end, scratch, target);
                return end;
            }
            Way::Lists(index) => index,
        };
        let [height, _] = outline.reach.tile;
        let end = if end == rows {
            end
        } else {
            end / height * height
        };
        let [_, across] = sheets.tiles(&outline.reach);
        let (packed, sums) = scratch.split_at_mut(outline.packed_len());
        for tile in done / height * across..end.div_ceil(height) * across {
            for first in (0..outline.results).step_by(MOST_RESULTS) {
                set.run(lists::Task {
                    correlation: self,
                    index,
                    tile: TilePlace::new(sheets, &outline.reach, tile),
                    results: first..outline.results.min(first + MOST_RESULTS),
                    chunks: 0..outline.chunks(),
                    packed,
                    sums,
                    target: target.start(),
                    streamed,
                });
            }
        }
        end.max(done)
    }

    /// The product whose sums are not cut.
    fn whole<'a>(&'a self, program: &'a Program, streamed: bool) -> Product<'a> {
        let sources = self.products.outline.sources;
        let parts = Parts {
            count: 1,
            sources,
            len: 0,
        };
        Product {
            correlation: self,
            program,
            parts,
            streamed,
        }
    }

    /// Computes the largest value in each window over the result, which itself is never stored, and its
    /// place if that is wanted, if there is code that does.
    ///
    /// # Panics
    /// As [`run`](Self::run), or if the pooled output has another length.
    pub(super) fn run_pooled(
        &self,
        set: InstructionSet,
        pooling: &Pooling,
        output: &mut [f32],
        argmax: Option<&mut [u8]>,
    ) -> bool {
        let program = match &self.products.way {
            Way::Code(program) if self.parts(0).count == 1 && !output.is_empty() => program,
            _ => return false,
        };
        assert_eq!(
            output.len(),
            self.result_sheets.count * pooling.output_len()
        );
        if let Some(argmax) = &argmax {
            assert_eq!(argmax.len(), output.len());
        }
        self.check();
        let product = self.whole(program, false);
        product.run_pooled(set, pooling, output, argmax);
        true
    }

    /// Holds the operands to the sheets and the products.
    fn check(&self) {
        let outline = &self.products.outline;
        let read = self.sheets.end(outline.sources);
        assert!(
            read <= self.source.len(),
            "{} floats of {read}",
            self.source.len()
        );
        assert_eq!(self.values.len(), self.products.order().len());
        assert!(self.bias.is_none_or(|bias| bias.len() == outline.results));
    }

    /// Long sums are cut where pixels alone would be few tasks, for each of which all weights would
    /// come from memory anew.
    fn parts(&self, len: usize) -> Parts {
        let (outline, sheets) = (&self.products.outline, &self.result_sheets);
        let unit = Program::chunk(outline);
        let pixels = sheets.count * sheets.size[0] * sheets.size[1];
        let wanted = match outline.reach.is_line() {
            true => MANY_PIXELS.div_ceil(pixels).min(LEAST_TASKS),
            false => 1,
        };
        let count = wanted.min(outline.sources / LEAST_TERMS).max(1);
        let sources = outline
            .sources
            .max(1)
            .div_ceil(count)
            .next_multiple_of(unit);
        Parts {
            count: outline.sources.max(1).div_ceil(sources),
            sources,
            len,
        }
    }

    fn run_parts(&self, set: InstructionSet, parts: Parts, target: Shared, streamed: bool) {
        match &self.products.way {
            Way::Code(program) => {
                let product = Product {
                    correlation: self,
                    program,
                    parts,
                    streamed,
                };
                product.run(set, target);
            }
            Way::Lists(index) => self.by_lists(set, index, (parts, target, streamed)),
        }
    }

    fn by_lists(
        &self,
        set: InstructionSet,
        index: &Index,
        (parts, target, streamed): (Parts, Shared, bool),
    ) {
        let (outline, sheets) = (&self.products.outline, &self.result_sheets);
        let [down, across] = sheets.tiles(&outline.reach);
        let tiles = sheets.count * down * across;
        let part_chunks = parts.sources.div_ceil(outline.chunk);
        // For each group of results the source is packed anew.
        let wanted = LEAST_TASKS.div_ceil(parts.count * tiles);
        let group = outline.results.div_ceil(wanted);
        let group = group.next_multiple_of(BLOCK).min(MOST_RESULTS);
        let groups = outline.results.div_ceil(group);
        let [tile_rows, pixels] = outline.reach.tile;
        let sums_len = group * tile_rows * pixels * LANES;
        self.for_each(parts.count * tiles * groups, |task| {
            let (part, task) = (task / (tiles * groups), task % (tiles * groups));
            let first = task % groups * group;
            with_scratch(outline.packed_len() + sums_len, |scratch| {
                let (packed, sums) = scratch.split_at_mut(outline.packed_len());
                set.run(lists::Task {
                    correlation: self,
                    index,
                    tile: TilePlace::new(sheets, &outline.reach, task / groups),
                    results: first..outline.results.min(first + group),
                    chunks: part * part_chunks..outline.chunks().min((part + 1) * part_chunks),
                    packed,
                    sums,
                    target: target.start().wrapping_add(part * parts.len),
                    streamed,
                });
            });
        });
    }

    /// Runs tasks, in parallel unless all of them together are small.
    pub(super) fn for_each(&self, tasks: usize, task: impl Fn(usize) + Send + Sync) {
        let [rows, columns] = self.result_sheets.size;
        let pixels = self.result_sheets.count * rows * columns;
        if is_small(self.values.len() * pixels * LANES) {
            (0..tasks).for_each(task);
        } else {
            (0..tasks).into_par_iter().for_each(task);
        }
    }

    /// Writes what becomes of a whole sum of products for a channel of the result, past the caches if that
    /// is to be `streamed`.
    ///
    /// # Safety
    /// As [`Isa::write_ptr`]; the target is valid for reading, too.
    #[inline(always)]
    pub(super) unsafe fn write<I: Isa>(
        &self,
        isa: I,
        result: usize,
        sum: I::F32,
        (target, streamed): (*mut f32, bool),
    ) {
        let bias = isa.splat(self.bias.map_or(0.0, |bias| bias[result]));
        // No floor leaves every value as it is, NaN too.
        let floor = isa.splat(if self.relu { 0.0 } else { f32::NEG_INFINITY });
        let mut value = isa.max(floor, isa.add(sum, bias));
        // SAFETY: as the caller vouches.
        unsafe {
            if self.rectified {
                value = isa.select_gt_zero(isa.load_ptr(target), value);
            }
            isa.write_ptr(target, value, streamed);
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
                    let target = self.target.wrapping_add(place);
                    // SAFETY: `run` held the result to the sheets; no other task has this channel.
                    unsafe { self.correlation.write(isa, result, sum, (target, false)) };
                }
            }
        }
    }
}
