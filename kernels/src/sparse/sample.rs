//! The gradient of the values: products of input and output gradient, summed at owned positions alone.

use std::ops::Range;

use super::index::{BLOCK, Index, Outline};
use super::sheets::Sheets;
use crate::conv2d::add_parts;
use crate::dispatch::InstructionSet;
use crate::gemm::driver::{for_each_by_halves, is_small};
use crate::gemm::scratch::with_scratch;
use crate::isa::processor;
use crate::lanes::LANES;
use crate::shared::Shared;
use walk::Task;

mod ahead;
mod walk;

/// Channels of the result that share a packed chunk, at most.
const MOST_RESULTS: usize = 512;

/// Tasks to aim at, and parts that a sum over sheets is cut into.
const TASKS: usize = 16;

/// Floats of all parts of the sums, at most: 32 MB.
const MOST_PARTS: usize = 8 << 20;

/// Positions whose sums are brought from vectors to numbers together; and so numbers behind those of all
/// positions, to which zeros are added.
pub(super) const SLACK: usize = 8;

/// Floats of a packed chunk of single pixels, at most, where the first-level cache has 48 KB: 40 of them. The
/// larger it is, the fewer times the gradient comes from the second-level cache. Of windows, whose sums have a
/// list for each of few channels, larger chunks are no faster.
const PACKED_IN_48_KB: usize = 40 << 8;

/// What becomes of the outline of the products forward where the positions have an index of their own.
pub(super) fn outline(outline: Outline) -> Outline {
    match outline.reach.is_line() && processor::first_level_cache() >= 48 << 10 {
        true => outline.with_packed(PACKED_IN_48_KB),
        false => outline,
    }
}

/// `Σ source · grad` at every position of an index, over all pixels of all sheets.
pub(super) struct Sampling<'a> {
    /// The positions, in the order of the products forward.
    pub(super) index: &'a Index,
    pub(super) source: &'a [f32],
    pub(super) sheets: Sheets,
    /// See [`Window::before`].
    pub(super) before: [usize; 2],
    /// Zero in empty lanes.
    pub(super) grad: &'a [f32],
    pub(super) grad_sheets: Sheets,
}

impl Sampling<'_> {
    /// Computes the gradient of every value, in the order of the values.
    ///
    /// # Panics
    /// If a slice is shorter than the sheets and the index say.
    pub(super) fn run(&self, set: InstructionSet, grad_values: &mut [f32]) {
        let (index, sheets) = (self.index, &self.grad_sheets);
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
        let places = index.order.places();
        // The sums of a part stand in the order of the index, the only ones where the values do.
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
                        let at = if parts == 1 { places[at] as usize } else { at };
                        // SAFETY: every value belongs to one chunk and one channel of the result, and
                        // so in this part to this task; places are a permutation.
                        unsafe { *target.add(at) = sum };
                    }
                }
            });
        };
        let tasks = parts * groups * ranges;
        let run_all = |sums: Shared| {
            let shared = !is_small(len * sheets.count * rows * columns * LANES);
            for_each_by_halves(tasks, shared, |task| run(task, sums));
        };
        if parts == 1 {
            run_all(Shared::new(grad_values.as_mut_ptr()));
            return;
        }
        with_scratch(parts * len, |sums| {
            run_all(Shared::new(sums.as_mut_ptr()));
            let parts = sums.chunks_exact(len.max(1));
            let order = &index.order;
            order.with_unordered(grad_values, |sums| add_parts(sums, parts));
        });
    }
}

impl Sampling<'_> {
    /// Floats that [`add_rows`](Self::add_rows) works in.
    pub(super) fn packed_len(&self) -> usize {
        self.index.outline.packed_len()
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
        let (index, sheets) = (self.index, &self.grad_sheets);
        let outline = &index.outline;
        let [height, width] = outline.reach.tile;
        assert_eq!(sheets.count, 1);
        assert!(rows.end <= sheets.size[0] && rows.start.is_multiple_of(height));
        let held = sheets.held();
        assert!(rows.is_empty() || held.start <= rows.start && rows.end <= held.end);
        assert!(rows.end.is_multiple_of(height) || rows.end == sheets.size[0]);
        assert!(sheets.end(outline.results) <= self.grad.len());
        assert!(index.offsets.len() + SLACK <= sums.len());
        let across = sheets.size[1].div_ceil(width);
        if rows.is_empty() || across == 0 {
            return;
        }
        set.run(Task {
            sampling: self,
            tiles: rows.start / height * across..rows.end.div_ceil(height) * across,
            results: 0..outline.results,
            chunks: 0..outline.chunks(),
            packed,
            sums,
        });
    }
}
