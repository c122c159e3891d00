//! Sums of weights times windows by generated code.
//!
//! Pixels are packed with their channels side by side, so that what one pixel of the result reaches lies
//! in the first-level cache and within reach of a displacement of one byte. Each row is packed once, into
//! a ring of as many rows as the window has; features need not be packed at all.
//!
//! Either one pixel goes through the code of all groups, and what it reaches stays in the first-level cache,
//! or a row of pixels goes through the code of some groups, and that does.

use std::ops::Range;
use std::ptr;

use super::endings::Ending;
use super::program::{Frame, MOST_ROWS, MOST_SUMS, NEAR, Program};
use super::rows::{Rows, SomeRows, Target};
use super::segment::Segment;
use crate::dispatch::InstructionSet;
use crate::gemm::scratch::with_scratch;
use crate::isa::processor;
use crate::lanes::LANES;
use crate::shared::Shared;
use crate::sparse::correlate::{Correlation, LEAST_TASKS, Parts};
use crate::sparse::sheets::TilePlace;

/// Bytes of code that a task goes through for each turn of pixels, at most: a quarter of the second-level cache,
/// which holds them beside all else.
fn most_code() -> usize {
    processor::second_level_cache() / 4
}

/// Floats of packed rows, at most: 512 KB.
const MOST_PACKED: usize = 128 << 10;

/// Pixels that take turns in the code of a group, which then comes from the second-level cache half as often:
/// as many as have what they reach in the first-level cache together.
pub(super) const PIXELS: usize = 2;

/// What results without a bias add.
static NO_BIAS: [f32; MOST_SUMS] = [0.0; MOST_SUMS];

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
        let pieces = (program.turn_len() / parts.count)
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
        let pieces = self.program.turn_len().div_ceil(most_code());
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
        let Correlation { sheets, source, .. } = self.correlation;
        sheets.has_far_features(source)
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

    /// Floats of a packed row: all channels of all pixels that windows on the tile reach, and behind an odd number
    /// of columns on one more.
    pub(super) fn row_len(&self) -> usize {
        let program = self.product.program;
        let columns = self.tile.len[1].next_multiple_of(program.pixels);
        (columns + program.kernel[1] - 1) * program.sources * LANES
    }

    pub(super) fn packed_len(&self) -> usize {
        match self.product.correlation.sheets.has_features {
            true => 0,
            false => self.product.program.kernel[0] * self.row_len(),
        }
    }

    /// What becomes of whole sums of so many pixels.
    pub(super) fn results(&self, pixels: usize) -> Ending {
        let Product {
            correlation,
            parts,
            streamed,
            ..
        } = *self.product;
        Ending::Results {
            rectified: parts.count == 1 && correlation.rectified,
            streamed,
            pixels,
        }
    }

    /// What all code for a row is called with.
    #[inline(always)]
    pub(super) fn frame(&self, target: &Target<'_>) -> Frame {
        let Product {
            correlation,
            program,
            parts,
            ..
        } = *self.product;
        Frame {
            rows: [ptr::null(); MOST_ROWS],
            values: correlation.values.as_ptr(),
            sums: ptr::null_mut(),
            ending: program.ending(0, Ending::Sums),
            target: target.start,
            target_step: target.sheets.channel() * size_of::<f32>(),
            bias: NO_BIAS.as_ptr(),
            floor: match parts.count == 1 && correlation.relu {
                true => 0.0,
                false => f32::NEG_INFINITY,
            },
            ahead: ptr::null(),
            ahead_step: 0,
        }
    }

    /// Points a frame to the values and the bias of a group.
    #[inline(always)]
    pub(super) fn point(&self, frame: &mut Frame, group: usize, segment: Segment) {
        let Product {
            correlation,
            program,
            parts,
            ..
        } = *self.product;
        frame.values = correlation.values[segment.value as usize..]
            .as_ptr()
            .wrapping_add(NEAR);
        if let Some(bias) = correlation.bias.filter(|_| parts.count == 1) {
            frame.bias = bias[program.results_of(group)].as_ptr();
        }
    }

    /// Floats of the sums of one pixel.
    pub(super) fn pixel_len(&self) -> usize {
        self.groups.len() * self.product.program.group * LANES
    }

    fn sums_len(&self) -> usize {
        match self.chunks.len() {
            0 | 1 => self.pixel_len(),
            _ => self.pixel_len() * self.tile.len[1],
        }
    }
}
