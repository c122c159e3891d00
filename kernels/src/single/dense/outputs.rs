//! The few weights of a dense layer, output by output.

use std::ops::Range;

use super::super::lists::Lists;
use super::sparse::PART;

/// Sums that are added up side by side, so that none waits for another.
const SUMS: usize = 8;

/// The weights of a layer: of a part of the inputs those of each output. A place is an input counted from
/// the first of its part.
#[derive(Clone, Debug)]
pub(super) struct Outputs {
    inputs: usize,
    outputs: usize,
    lists: Lists<u16>,
}

impl Outputs {
    /// The weights of these positions, in order, in a layer of `[inputs, outputs]`; their values are zero.
    pub(super) fn new([inputs, outputs]: [usize; 2], positions: &[u32]) -> Self {
        let places = positions.iter().map(|&position| {
            let (input, output) = (position as usize / outputs, position as usize % outputs);
            (input / PART * outputs + output, (input % PART) as u16)
        });
        Self {
            inputs,
            outputs,
            lists: Lists::new(inputs.div_ceil(PART) * outputs, places),
        }
    }

    /// Takes the values of the pattern, in its order.
    ///
    /// # Panics
    /// If there is not a value for every weight.
    pub(super) fn set_values(&mut self, values: &[f32]) {
        self.lists.set_values(values);
    }

    /// How many weights there are.
    pub(super) fn len(&self) -> usize {
        self.lists.values().len()
    }

    /// The sums of some outputs of parts, of which one follows the other.
    pub(super) fn add(&self, lists: Range<usize>, x: &[f32], sums: &mut [f32]) {
        for (list, sum) in lists.zip(sums) {
            *sum = self.sum(list, x);
        }
    }

    /// The sum of one part of one output.
    fn sum(&self, list: usize, x: &[f32]) -> f32 {
        let (sources, values) = self.lists.list(list);
        let part = list / self.outputs * PART;
        let x = &x[part..self.inputs.min(part + PART)];
        let (groups, rest) = sources.as_chunks::<SUMS>();
        let (group_values, rest_values) = values.as_chunks::<SUMS>();
        let mut sums = [0.0; SUMS];
        for (sources, values) in groups.iter().zip(group_values) {
            for ((sum, &source), value) in sums.iter_mut().zip(sources).zip(values) {
                // SAFETY: a source is the place of an input within its part, which `new` made sure of
                // and nothing changes.
                *sum += unsafe { x.get_unchecked(source as usize) } * value;
            }
        }
        let mut sum: f32 = sums.iter().sum();
        for (&source, value) in rest.iter().zip(rest_values) {
            sum += x[source as usize] * value;
        }
        sum
    }
}
