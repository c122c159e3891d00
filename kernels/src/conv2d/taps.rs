//! Which places of the source feed which place of the result, on one axis.
//!
//! A convolution and its input gradient are the same sum with other places: in the one a window
//! moves over the source by its stride, in the other each place of the result lies under the windows
//! that reach it. Here both become lists of taps.

use smallvec::SmallVec;

use crate::window::Axis;

/// A place of the kernel and the place of the source that it is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    pub(super) kernel: usize,
    pub(super) source: usize,
}

/// The taps of one place, without memory of their own for kernels of up to five places.
pub(super) type Taps = SmallVec<[Tap; 5]>;

/// Places of the result, `step` apart, whose taps are the same places of the kernel and lie
/// `source_step` apart from one to the next: neighbours that one tile of registers can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: usize,
    pub(super) step: usize,
    pub(super) count: usize,
    pub(super) source_step: usize,
    /// The taps of the first place.
    pub(super) taps: Taps,
}

/// All places of an axis: for strides of one, two edges and a middle.
pub(super) type Runs = SmallVec<[Run; 5]>;

/// The taps of an output place.
fn of_output(axis: &Axis, output: usize) -> Taps {
    axis.inside(output)
        .map(|kernel| Tap {
            kernel,
            source: output * axis.stride + kernel - axis.before,
        })
        .collect()
}

/// The taps of an input place: the windows that reach it.
fn of_input(axis: &Axis, input: usize) -> Taps {
    (0..axis.kernel)
        .filter_map(|kernel| {
            let start = (input + axis.before).checked_sub(kernel)?;
            let output = start / axis.stride;
            let reaches = start.is_multiple_of(axis.stride) && output < axis.output;
            reaches.then_some(Tap {
                kernel,
                source: output,
            })
        })
        .collect()
}

/// One axis of a sum over taps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Direction {
    /// From input to output.
    Forward,
    /// From the gradient of the output to that of the input.
    Gradient,
}

impl Direction {
    /// Places of the source and of the result.
    pub(super) fn lengths(self, axis: &Axis) -> [usize; 2] {
        match self {
            Self::Forward => [axis.input, axis.output],
            Self::Gradient => [axis.output, axis.input],
        }
    }

    /// The taps of a place of the result.
    pub(super) fn taps(self, axis: &Axis, place: usize) -> Taps {
        match self {
            Self::Forward => of_output(axis, place),
            Self::Gradient => of_input(axis, place),
        }
    }

    /// All places of the result in runs.
    pub(super) fn runs(self, axis: &Axis) -> Runs {
        let [_, len] = self.lengths(axis);
        let (step, source_step) = match self {
            Self::Forward => (1, axis.stride),
            Self::Gradient => (axis.stride, 1),
        };
        let mut runs = Runs::new();
        for phase in 0..step {
            let mut open: Option<Run> = None;
            for place in (phase..len).step_by(step) {
                let taps = self.taps(axis, place);
                match &mut open {
                    Some(run) if run.continues_with(&taps) => run.count += 1,
                    _ => runs.extend(open.replace(Run {
                        first: place,
                        step,
                        count: 1,
                        source_step,
                        taps,
                    })),
                }
            }
            runs.extend(open);
        }
        runs
    }
}

impl Run {
    fn continues_with(&self, taps: &[Tap]) -> bool {
        let shift = self.count * self.source_step;
        self.taps.len() == taps.len()
            && self.taps.iter().zip(taps).all(|(first, next)| {
                first.kernel == next.kernel && first.source + shift == next.source
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Padding, Window};
    use proptest::prelude::*;

    fn axis(input: usize, kernel: usize, stride: usize, padding: Padding) -> Axis {
        let window = Window {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding,
        };
        window.axes([input; 2])[0]
    }

    #[test]
    fn a_padded_row_is_two_edges_and_a_middle() {
        let axis = axis(28, 3, 1, Padding::Same);
        for direction in [Direction::Forward, Direction::Gradient] {
            let counts: Vec<usize> = direction.runs(&axis).iter().map(|run| run.count).collect();
            assert_eq!(counts, [1, 26, 1]);
        }
    }

    proptest! {
        #[test]
        fn runs_hold_every_product_once(
            (input, kernel, stride) in (1..14_usize, 1..6_usize, 1..4_usize),
            same in any::<bool>(),
        ) {
            let padding = if same { Padding::Same } else { Padding::Valid };
            let axis = axis(input, kernel, stride, padding);
            let mut products = Vec::new();
            for output in 0..axis.output {
                products.extend(axis.inside(output).map(|k| {
                    (output * stride + k - axis.before, k, output)
                }));
            }
            products.sort_unstable();
            for direction in [Direction::Forward, Direction::Gradient] {
                let mut found = Vec::new();
                let mut places = Vec::new();
                for run in direction.runs(&axis) {
                    for index in 0..run.count {
                        let place = run.first + index * run.step;
                        places.push(place);
                        found.extend(run.taps.iter().map(|tap| {
                            let source = tap.source + index * run.source_step;
                            match direction {
                                Direction::Forward => (source, tap.kernel, place),
                                Direction::Gradient => (place, tap.kernel, source),
                            }
                        }));
                    }
                }
                found.sort_unstable();
                prop_assert_eq!(&found, &products);
                places.sort_unstable();
                let [_, len] = direction.lengths(&axis);
                prop_assert_eq!(places, (0..len).collect::<Vec<_>>());
            }
        }
    }
}
