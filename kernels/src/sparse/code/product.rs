//! Sums of weights times windows by generated code.
//!
//! Pixels are packed with their channels side by side, so that what one pixel of the result reaches lies
//! in the first-level cache and within reach of a displacement of one byte. Each row is packed once, into
//! a ring of as many rows as the window has; features need not be packed at all.

use std::ops::Range;

use super::endings::Ending;
use super::program::{Frame, MOST_RESULTS, MOST_ROWS, NEAR, Program};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::{Isa, processor};
use crate::lanes::LANES;
use crate::shared::Shared;
use crate::sparse::correlate::{Correlation, LEAST_TASKS, Parts};
use crate::sparse::sheets::{Sheets, TilePlace};

/// Bytes of code that a task goes through for each pixel, at most: a quarter of the second-level cache, which holds
/// them beside all else.
fn most_code() -> usize {
    processor::second_level_cache() / 4
}

/// Floats of packed rows, at most: 512 KB.
const MOST_PACKED: usize = 128 << 10;

/// Floats of features that no second-level cache holds, 8 MB: they are asked for ahead.
const FAR: usize = 2 << 20;

/// Blocks of features that take turns in the code of a group, which then comes from the second-level cache half as
/// often: as many as have what they reach in the first-level cache together.
pub(super) const TURNS: usize = 2;

/// What results without a bias add.
static NO_BIAS: [f32; MOST_RESULTS] = [0.0; MOST_RESULTS];

/// A product, and the parts of its sums that are wanted.
pub(in crate::sparse) struct Product<'a> {
    pub(in crate::sparse) correlation: &'a Correlation<'a>,
    pub(in crate::sparse) program: &'a Program,
    /// Of whole chunks each.
    pub(in crate::sparse) parts: Parts,
    /// Whether to write past the caches.
    pub(in crate::sparse) streamed: bool,
}

impl Product<'_> {
    /// Computes every part, `parts.len` floats behind the one before it. The correlation has checked its
    /// operands.
    pub(in crate::sparse) fn run(&self, set: InstructionSet, target: Shared) {
        let Self { program, parts, .. } = self;
        let sheets = &self.correlation.result_sheets;
        let [rows, columns] = sheets.size;
        let chunks = program.chunks();
        let part_chunks = match parts.count {
            1 => chunks,
            _ => parts.sources / program.chunk,
        };
        // Where there are few pixels, results are shared out besides.
        let pixels = sheets.count * rows * columns;
        // What comes from memory is better read once than its code.
        let most_code = match self.has_far_features() {
            true => usize::MAX,
            false => most_code(),
        };
        let pieces = (program.code_len / parts.count)
            .div_ceil(most_code)
            .max(LEAST_TASKS.div_ceil(parts.count * pixels));
        let groups = program.groups().div_ceil(pieces.clamp(1, program.groups()));
        let pieces = program.groups().div_ceil(groups);
        let wanted = LEAST_TASKS.div_ceil(parts.count * pieces * sheets.count);
        let (band_rows, band_columns) = match self.correlation.sheets.has_features {
            true => (1, columns.div_ceil(wanted)),
            false => (rows.div_ceil(wanted), self.packed_columns(columns)),
        };
        let (down, across) = (rows.div_ceil(band_rows), columns.div_ceil(band_columns));
        let places = sheets.count * down * across;
        let task = |task: usize| {
            let (part_of, task) = (task / (pieces * places), task % (pieces * places));
            let (piece, place) = (task / places, task % places);
            let (sheet, place) = (place / (down * across), place % (down * across));
            let first = [place / across * band_rows, place % across * band_columns];
            let first_chunk = part_of * part_chunks;
            let first_group = piece * groups;
            let task = Task {
                product: self,
                tile: TilePlace {
                    sheet,
                    first,
                    len: [
                        band_rows.min(rows - first[0]),
                        band_columns.min(columns - first[1]),
                    ],
                },
                chunks: first_chunk..chunks.min(first_chunk + part_chunks),
                groups: first_group..program.groups().min(first_group + groups),
            };
            let target = target.start().wrapping_add(part_of * parts.len);
            let (first, len) = (task.tile.first[0], task.tile.len[0]);
            task.with_rows(|mut rows| {
                set.run(SomeRows {
                    rows: &mut rows,
                    range: first..first + len,
                    groups,
                    target,
                });
            });
        };
        self.correlation
            .for_each(parts.count * pieces * places, task);
    }

    /// The whole of a sheet.
    pub(super) fn sheet(&self, sheet: usize) -> Task<'_> {
        Task {
            product: self,
            tile: TilePlace {
                sheet,
                first: [0, 0],
                len: self.correlation.result_sheets.size,
            },
            chunks: 0..self.program.chunks(),
            groups: 0..self.program.groups(),
        }
    }

    /// Floats that [`run_rows`](Self::run_rows) works in.
    pub(in crate::sparse) fn rows_len(&self) -> usize {
        self.sheet(0).scratch_len()
    }

    /// Computes some rows of the only sheet, behind those that were computed before, in memory that
    /// still holds what they left there. The correlation has checked its operands.
    pub(in crate::sparse) fn run_rows(
        &self,
        set: InstructionSet,
        range: Range<usize>,
        scratch: &mut [f32],
        target: Shared,
    ) {
        let [height, _] = self.program.kernel;
        let packed_rows = match range.start {
            0 => 0,
            start => start - 1 + height,
        };
        let pieces = self.program.code_len.div_ceil(most_code());
        let groups = self.program.groups();
        let mut rows = Rows::new(self.sheet(0), scratch, packed_rows);
        set.run(SomeRows {
            rows: &mut rows,
            range,
            groups: groups.div_ceil(pieces.clamp(1, groups)),
            target: target.start(),
        });
    }

    /// Whether features come from memory.
    pub(super) fn has_far_features(&self) -> bool {
        self.correlation.sheets.has_features && self.correlation.source.len() >= FAR
    }

    /// Columns of a band whose packed rows the second-level cache holds.
    fn packed_columns(&self, columns: usize) -> usize {
        let [height, width] = self.program.kernel;
        let held = MOST_PACKED / (height * self.program.sources.max(1) * LANES);
        let most = held.saturating_sub(width - 1).max(4);
        columns.div_ceil(columns.div_ceil(most))
    }
}

/// Some chunks and groups, on a tile of the result.
pub(super) struct Task<'a> {
    pub(super) product: &'a Product<'a>,
    pub(super) tile: TilePlace,
    pub(super) chunks: Range<usize>,
    pub(super) groups: Range<usize>,
}

impl<'a> Task<'a> {
    /// Calls `code` with the memory for its rows.
    pub(super) fn with_rows(self, code: impl FnOnce(Rows<'_>)) {
        with_scratch(self.scratch_len(), |scratch| {
            code(Rows::new(self, scratch, 0));
        });
    }

    fn scratch_len(&self) -> usize {
        self.packed_len() + self.sums_len()
    }

    /// Floats of a packed row: all channels of all pixels that windows on the tile reach, and one behind it that
    /// is computed with the last one.
    fn row_len(&self) -> usize {
        let program = self.product.program;
        let columns = self.tile.len[1].next_multiple_of(program.pixels);
        (columns + program.kernel[1] - 1) * program.sources * LANES
    }

    fn packed_len(&self) -> usize {
        match self.product.correlation.sheets.has_features {
            true => 0,
            false => self.product.program.kernel[0] * self.row_len(),
        }
    }

    /// Floats of the sums of pixels that are computed together, for one group.
    fn group_len(&self) -> usize {
        let program = self.product.program;
        program.pixels * program.group * LANES
    }

    /// Floats of the sums of so many columns, for all groups.
    fn sums_of(&self, columns: usize) -> usize {
        columns / self.product.program.pixels * self.groups.len() * self.group_len()
    }

    fn sums_len(&self) -> usize {
        let pixels = self.product.program.pixels;
        match self.chunks.len() {
            0 | 1 => self.sums_of(pixels),
            _ => self.sums_of(self.tile.len[1].next_multiple_of(pixels)),
        }
    }
}

/// Where the results of a row go.
pub(super) struct Target<'a> {
    pub(super) start: *mut f32,
    pub(super) sheets: &'a Sheets,
    pub(super) sheet: usize,
    pub(super) row: usize,
}

impl Target<'_> {
    /// The place of a result at a column.
    #[inline(always)]
    fn place(&self, result: usize, column: usize) -> *mut f32 {
        let place = self.sheets.place(self.sheet, result, [self.row, column]);
        self.start.wrapping_add(place)
    }
}

/// A task, and its memory.
pub(super) struct Rows<'a> {
    pub(super) task: Task<'a>,
    /// A ring of rows.
    packed: &'a mut [f32],
    sums: &'a mut [f32],
    /// Rows that were packed or left out.
    packed_rows: usize,
}

impl<'a> Rows<'a> {
    /// Rows of a task in its memory, into which so many were packed before.
    fn new(task: Task<'a>, scratch: &'a mut [f32], packed_rows: usize) -> Self {
        let (packed, sums) = scratch.split_at_mut(task.packed_len());
        Self {
            task,
            packed,
            sums,
            packed_rows,
        }
    }
}

impl Rows<'_> {
    /// Where each row that windows on a row of the tile reach begins, and floats from pixel to pixel.
    #[inline(always)]
    fn starts<I: Isa>(&mut self, isa: I, row: usize) -> ([*const f32; MOST_ROWS], usize) {
        let task = &self.task;
        let Product {
            correlation,
            program,
            ..
        } = *task.product;
        let (sheets, tile) = (&correlation.sheets, &task.tile);
        let mut starts = [correlation.source.as_ptr(); MOST_ROWS];
        if sheets.has_features {
            let first = sheets.place(tile.sheet, 0, [row, tile.first[1]]);
            starts[0] = correlation.source[first..].as_ptr();
            return (starts, sheets.pixel);
        }
        let [height, _] = program.kernel;
        let row_len = task.row_len();
        let first = row - tile.first[0];
        for packed_row in self.packed_rows.max(first)..first + height {
            let slot = packed_row % height * row_len;
            let target = &mut self.packed[slot..][..row_len];
            task.pack_row(isa, tile.first[0] + packed_row, target);
        }
        self.packed_rows = first + height;
        for (at, start) in starts.iter_mut().enumerate().take(height) {
            let slot = (first + at) % height;
            *start = self.packed[slot * row_len..].as_ptr();
        }
        (starts, program.sources * LANES)
    }

    /// Computes a row of the tile; rows come from the top, some of them perhaps left out.
    ///
    /// # Safety
    /// Of each of the task's results every column of the tile is valid for writing in the target, and
    /// for reading if it is rectified; if it is streamed, it is aligned.
    #[inline(always)]
    pub(super) unsafe fn compute<I: Isa>(&mut self, isa: I, row: usize, target: &Target<'_>) {
        let (starts, pixel) = self.starts(isa, row);
        let task = &self.task;
        let Product {
            correlation,
            program,
            parts,
            streamed,
        } = *task.product;
        let tile = &task.tile;
        let group_len = task.group_len();
        let is_whole = parts.count == 1;
        let mut frame = Frame {
            rows: starts,
            values: correlation.values.as_ptr(),
            sums: self.sums.as_mut_ptr(),
            ending: program.ending(0, Ending::Sums),
            target: target.start,
            target_step: target.sheets.channel() * size_of::<f32>(),
            bias: NO_BIAS.as_ptr(),
            floor: match is_whole && correlation.relu {
                true => 0.0,
                false => f32::NEG_INFINITY,
            },
        };
        // Features: what a block reaches stays in the first-level cache for all groups. Windows: the code of some
        // groups does, for all pixels of the row.
        let (turns, bundle) = match correlation.sheets.has_features {
            true => (TURNS, 1),
            false => (tile.len[1], program.bundle),
        };
        let groups = task.groups.clone();
        for chunk in task.chunks.clone() {
            let is_first = chunk == task.chunks.start;
            let is_last = chunk + 1 == task.chunks.end;
            let segments = &program.segments[chunk * program.groups()..];
            for first_column in (0..tile.len[1]).step_by(turns) {
                let end = tile.len[1].min(first_column + turns);
                let ahead = task.ahead([row, first_column], chunk);
                for first_group in groups.clone().step_by(bundle) {
                    let bundle = first_group..groups.end.min(first_group + bundle);
                    for column in (first_column..end).step_by(program.pixels) {
                        let count = program.pixels.min(end - column);
                        let ending = match is_last {
                            true => Ending::Results {
                                rectified: is_whole && correlation.rectified,
                                streamed,
                                first: count < program.pixels,
                            },
                            false => Ending::Sums,
                        };
                        let place = column * pixel + chunk * program.chunk * LANES;
                        frame.rows = starts.map(|start| start.wrapping_add(place + NEAR * LANES));
                        let sums = match task.chunks.len() {
                            0 | 1 => 0,
                            _ => task.sums_of(column),
                        };
                        for group in bundle.clone() {
                            let at = group - groups.start;
                            let results = program.results_of(group);
                            let segment = segments[group];
                            let turn = column - first_column;
                            ahead.prefetch(isa, at, turn..turn + count);
                            frame.values = correlation.values[segment.value as usize..]
                                .as_ptr()
                                .wrapping_add(NEAR);
                            if let Some(bias) = correlation.bias.filter(|_| is_whole) {
                                frame.bias = bias[results.clone()].as_ptr();
                            }
                            frame.ending = program.ending(group, ending);
                            frame.target = target.place(results.start, tile.first[1] + column);
                            if is_last && correlation.rectified {
                                for result in 0..results.len() {
                                    let step = result * target.sheets.channel();
                                    for pixel in 0..count {
                                        let step = step + pixel * LANES;
                                        isa.prefetch(frame.target.wrapping_add(step));
                                    }
                                }
                            }
                            let sums = &mut self.sums[sums + at * group_len..][..group_len];
                            frame.sums = sums.as_mut_ptr();
                            let start = match is_first {
                                true => segment.from_zero,
                                false => segment.onward,
                            };
                            // SAFETY: only a set with AVX-512 has a program; the code reads a vector for
                            // each weight and pixel, of channels that there are, in rows that were packed or
                            // are features of one block, as many values as are its own, and for each result
                            // of the group a bias and, between chunks, a vector of sums a pixel. The caller
                            // vouches for the target.
                            unsafe { program.code.call(start, &frame) };
                        }
                    }
                }
            }
        }
    }
}

/// Some rows of a task, each a few groups at a time.
struct SomeRows<'r, 'a> {
    rows: &'r mut Rows<'a>,
    range: Range<usize>,
    groups: usize,
    target: *mut f32,
}

impl Kernel for SomeRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let product = self.rows.task.product;
        let all = self.rows.task.groups.clone();
        for row in self.range {
            let target = Target {
                start: self.target,
                sheets: &product.correlation.result_sheets,
                sheet: self.rows.task.tile.sheet,
                row,
            };
            for first in all.clone().step_by(self.groups) {
                self.rows.task.groups = first..all.end.min(first + self.groups);
                // SAFETY: `Correlation` held the result to the sheets; no other task has these pixels
                // of these channels.
                unsafe { self.rows.compute(isa, row, &target) };
            }
        }
        self.rows.task.groups = all;
        if product.streamed {
            isa.fence();
        }
    }
}
