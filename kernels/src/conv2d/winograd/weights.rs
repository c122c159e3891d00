//! Weights to transformed weights, in the panels that the micro-kernel reads.

use rayon::prelude::*;

use super::correlate::Plan;
use super::tiles::Square;
use super::transform::{MOST_POINTS, Transform};
use crate::conv2d::taps::Direction;
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::LANES;

/// Transforms weights `[3, 3, inputs, outputs]` into [`Plan::weights_len`] floats:
/// `[panel][point][source][rows of a panel]`, the last panel filled up with zeros.
///
/// # Panics
/// If a slice has another length than the plan demands.
pub(crate) fn transform_weights<T: Transform>(
    set: InstructionSet,
    plan: &Plan<T>,
    weights: &[f32],
    transformed: &mut [f32],
) {
    assert_eq!(weights.len(), 9 * plan.sources * plan.results);
    assert_eq!(transformed.len(), plan.weights_len());
    if transformed.is_empty() {
        return;
    }
    transformed
        .par_chunks_mut(plan.panel_len())
        .enumerate()
        .for_each(|(index, panel)| {
            set.run(Panel {
                plan,
                weights,
                first: index * plan.panel_rows,
                panel,
            });
        });
}

struct Panel<'a, T> {
    plan: &'a Plan<T>,
    weights: &'a [f32],
    /// The first channel of the result in this panel.
    first: usize,
    panel: &'a mut [f32],
}

impl<T: Transform> Kernel for Panel<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plan = self.plan;
        let rows = plan.panel_rows;
        let used = rows.min(plan.results - self.first);
        for source in 0..plan.sources {
            let mut half: Square<I::F32> = [[isa.zero(); MOST_POINTS]; MOST_POINTS];
            for (column, half) in half.iter_mut().enumerate().take(3) {
                let mut line = [isa.zero(); MOST_POINTS];
                for (row, value) in line.iter_mut().enumerate().take(3) {
                    let mut lanes = [0.0; LANES];
                    for (index, lane) in lanes.iter_mut().enumerate().take(used) {
                        let result = self.first + index;
                        *lane = self.weights[match plan.direction {
                            Direction::Forward => {
                                ((row * 3 + column) * plan.sources + source) * plan.results + result
                            }
                            // The taps in reverse order.
                            Direction::Gradient => {
                                (8 - (row * 3 + column)) * plan.results * plan.sources
                                    + result * plan.sources
                                    + source
                            }
                        }];
                    }
                    *value = isa.load(&lanes);
                }
                *half = T::weights(isa, line);
            }
            for i in 0..T::POINTS {
                let line = T::weights(isa, half.map(|column| column[i]));
                for (j, &value) in line.iter().enumerate().take(T::POINTS) {
                    let start = ((i * T::POINTS + j) * plan.sources + source) * rows;
                    let lanes = isa.to_array(value);
                    self.panel[start..start + rows].copy_from_slice(&lanes[..rows]);
                }
            }
        }
    }
}
