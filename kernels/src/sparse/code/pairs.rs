//! Rows of results two pixels at a time.

use super::product::{Product, Task};
use super::program::{MOST_BUNDLE, NEAR};
use super::rows::{Starts, Target};
use crate::isa::Isa;
use crate::lanes::LANES;

impl Task<'_> {
    /// Computes a row of the tile, of which windows find what they reach behind these starts. The code of some groups
    /// stays in the first-level cache for all columns.
    ///
    /// # Safety
    /// As of [`Rows::compute`](super::rows::Rows::compute).
    #[inline(always)]
    pub(super) unsafe fn compute_pairs<I: Isa>(
        &self,
        isa: I,
        row: usize,
        starts: Starts,
        target: &Target<'_>,
    ) {
        let Product {
            correlation,
            program,
            ..
        } = *self.product;
        let columns = self.tile.len[1];
        let ahead = self.next_row(row);
        let starts = starts.map(|start| start.wrapping_add(NEAR * LANES));
        let common = self.frame(target);
        let mut frames = [common; MOST_BUNDLE];
        for first_group in self.groups.clone().step_by(program.bundle) {
            let bundle = first_group..self.groups.end.min(first_group + program.bundle);
            let frames = &mut frames[..bundle.len()];
            for (frame, group) in frames.iter_mut().zip(bundle.clone()) {
                self.point(frame, group, program.segments[group]);
                frame.target = target.place(program.results_of(group).start, self.tile.first[1]);
                frame.ending = program.ending(group, self.results(2));
                let asked = (group - self.groups.start) * program.segments[group].asked;
                ahead.point(frame, asked, starts[0]);
            }
            for column in (0..columns).step_by(2) {
                let pixels = 2.min(columns - column);
                for (frame, group) in frames.iter_mut().zip(bundle.clone()) {
                    if correlation.rectified {
                        let results = program.results_of(group).len();
                        target.prefetch(isa, frame.target, [results, pixels]);
                    }
                    if pixels < 2 {
                        frame.ending = program.ending(group, self.results(pixels));
                    }
                    let place = column * program.sources * LANES;
                    frame.rows = starts.map(|start| start.wrapping_add(place));
                    // SAFETY: only a set with AVX-512 has a program; the code reads two vectors for each weight, of
                    // channels that there are, in rows that were packed, as many values as are its own, and for each
                    // result of the group a bias. The caller vouches for the target.
                    unsafe { program.code.call(program.segments[group].from_zero, frame) };
                    frame.target = frame.target.wrapping_add(2 * LANES);
                    frame.ahead = frame.ahead.wrapping_add(2 * LANES);
                }
            }
        }
    }
}
