//! Rows of results: where they go, the packed rows that they reach, and their pixels one by one.

use std::ops::Range;

use super::endings::Ending;
use super::product::{PIXELS, Product, Task};
use super::program::{MOST_ROWS, NEAR};
use crate::dispatch::Kernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::sparse::sheets::Sheets;

/// Where each row that windows on a row of the tile reach begins.
pub(super) type Starts = [*const f32; MOST_ROWS];

/// Where the results of a row go.
pub(super) struct Target<'a> {
    pub(super) start: *mut f32,
    pub(super) sheets: &'a Sheets,
    pub(super) sheet: usize,
    pub(super) row: usize,
}

impl Target<'_> {
    /// Asks for the places of so many results of so many pixels, from the first one on.
    #[inline(always)]
    pub(super) fn prefetch<I: Isa>(&self, isa: I, first: *mut f32, [results, pixels]: [usize; 2]) {
        for result in 0..results {
            for pixel in 0..pixels {
                let step = result * self.sheets.channel() + pixel * LANES;
                isa.prefetch(first.wrapping_add(step));
            }
        }
    }

    /// The place of a result at a column.
    #[inline(always)]
    pub(super) fn place(&self, result: usize, column: usize) -> *mut f32 {
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
    pub(super) fn new(task: Task<'a>, scratch: &'a mut [f32], packed_rows: usize) -> Self {
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
    fn starts<I: Isa>(&mut self, isa: I, row: usize) -> (Starts, usize) {
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
        // SAFETY: as the caller vouches.
        unsafe {
            match self.task.product.program.pixels {
                1 => self.compute_pixels(isa, row, (starts, pixel), target),
                _ => self.task.compute_pairs(isa, row, starts, target),
            }
        }
    }

    /// Computes a row pixel by pixel.
    ///
    /// # Safety
    /// As of [`compute`](Self::compute).
    #[inline(always)]
    unsafe fn compute_pixels<I: Isa>(
        &mut self,
        isa: I,
        row: usize,
        (starts, pixel): (Starts, usize),
        target: &Target<'_>,
    ) {
        let task = &self.task;
        let Product {
            correlation,
            program,
            ..
        } = *task.product;
        let tile = &task.tile;
        let pixel_len = task.pixel_len();
        let ahead = task.next_row(row);
        let mut frame = task.frame(target);
        frame.sums = self.sums.as_mut_ptr();
        for chunk in task.chunks.clone() {
            let is_last = chunk + 1 == task.chunks.end;
            let ending = match is_last {
                true => task.results(1),
                false => Ending::Sums,
            };
            let segments = &program.segments[chunk * program.groups()..];
            let mut next_code = task.next_code(chunk);
            for first_column in (0..tile.len[1]).step_by(PIXELS) {
                let columns = first_column..tile.len[1].min(first_column + PIXELS);
                for (at, group) in task.groups.clone().enumerate() {
                    let results = program.results_of(group);
                    let segment = segments[group];
                    task.point(&mut frame, group, segment);
                    frame.ending = program.ending(group, ending);
                    let asked = chunk * program.chunk + at * segment.asked;
                    ahead.point(&mut frame, asked, starts[0]);
                    frame.ahead = frame.ahead.wrapping_add(first_column * LANES);
                    let start = match chunk == task.chunks.start {
                        true => segment.from_zero,
                        false => segment.onward,
                    };
                    for column in columns.clone() {
                        next_code.prefetch_share(isa);
                        if correlation.sheets.has_features {
                            task.prefetch_features(isa, column, chunk, at);
                        } else if segment.asked == 0 && chunk == task.chunks.start {
                            ahead.prefetch(isa, at, column);
                        }
                        let place = column * pixel + chunk * program.chunk * LANES;
                        frame.rows = starts.map(|start| start.wrapping_add(place + NEAR * LANES));
                        frame.target = target.place(results.start, tile.first[1] + column);
                        if is_last && correlation.rectified {
                            if first_column == 0 && at == 0 {
                                target.prefetch(isa, frame.target, [results.len(), 1]);
                            }
                            // A call ahead: memory takes longer to answer than one call.
                            let (next, column) = task.next_results(group, column);
                            let place = target.place(next.start, tile.first[1] + column);
                            target.prefetch(isa, place, [next.len(), 1]);
                        }
                        let sums_at = match task.chunks.len() {
                            0 | 1 => 0,
                            _ => column * pixel_len,
                        };
                        let sums = &mut self.sums[sums_at..][..pixel_len];
                        frame.sums = sums[at * program.group * LANES..].as_mut_ptr();
                        // SAFETY: only a set with AVX-512 has a program; the code reads a vector for each
                        // weight, of channels that there are, in rows that were packed or are features of
                        // one block, as many values as are its own, and for each result of the group a bias
                        // and, between chunks, a vector of sums. The caller vouches for the target.
                        unsafe { program.code.call(start, &frame) };
                        frame.ahead = frame.ahead.wrapping_add(LANES);
                    }
                }
            }
        }
    }
}

/// Some rows of a task, each a few groups at a time.
pub(super) struct SomeRows<'r, 'a> {
    pub(super) rows: &'r mut Rows<'a>,
    pub(super) range: Range<usize>,
    pub(super) groups: usize,
    pub(super) target: *mut f32,
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
