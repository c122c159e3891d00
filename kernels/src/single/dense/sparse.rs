//! Dense layers of one image and few weights.

use rayon::prelude::*;

use super::super::lists::Lists;
use super::{add_parts, begin, finish};
use crate::dense::Activation;
use crate::gemm::scratch::with_scratch;
use crate::lanes::check;
use crate::sparse::Pattern;

/// Inputs of a part: 16 KB, which stay in the first-level cache while its weights pass.
const PART: usize = 1 << 12;

/// Weights of a task, about.
const TASK: usize = 1 << 14;

/// Sums that are added up side by side, so that none waits for another.
const SUMS: usize = 8;

/// The weights of a dense layer, few of which are there, by output: each with the place of its input among
/// those of a part.
///
/// A pattern keeps its values by input, as training wants them; an output that is summed in one go wants
/// them together. So they are brought here once for many images.
///
/// Memory: 10 bytes for each weight.
///
/// ```
/// use taskweave_kernels::dense::Activation;
/// use taskweave_kernels::{dispatch, single, sparse::Pattern};
/// let pattern = Pattern::dense(dispatch::active(), [3, 2], &[1, 0, 0, 1, 1, 0]);
/// let mut layer = single::SparseDense::new(&pattern);
/// layer.set_values(&[2.0, 3.0, 4.0]);
/// let mut y = [0.0; 2];
/// layer.forward(None, Activation::Linear, &[1.0, 10.0, 100.0], &mut y);
/// assert_eq!(y, [402.0, 30.0]);
/// ```
#[derive(Clone, Debug)]
pub struct SparseDense {
    inputs: usize,
    outputs: usize,
    /// Part by part of the inputs those of each output; a place is an input counted from the first of its
    /// part.
    lists: Lists<u16>,
}

impl SparseDense {
    /// The weights of a pattern, all of them zero.
    ///
    /// # Panics
    /// If the pattern is none of a dense layer.
    pub fn new(pattern: &Pattern) -> Self {
        let [height, width, inputs, outputs] = pattern.dims();
        assert_eq!(
            [height, width],
            [1, 1],
            "the pattern is one of a convolution"
        );
        let places = pattern.positions().iter().map(|&position| {
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
    pub fn set_values(&mut self, values: &[f32]) {
        self.lists.set_values(values);
    }

    /// `y = activation(x · weights + bias)` of one row of inputs.
    ///
    /// # Panics
    /// If a slice has another length than the layer demands.
    pub fn forward(&self, bias: Option<&[f32]>, activation: Activation, x: &[f32], y: &mut [f32]) {
        check("x", x.len(), self.inputs);
        check("y", y.len(), self.outputs);
        if let Some(bias) = bias {
            check("bias", bias.len(), self.outputs);
        }
        begin(bias, y);
        let lists = self.lists.count();
        if lists > 0 {
            let tasks = (self.lists.values().len() / TASK).clamp(1, lists);
            let lists_of_task = lists.div_ceil(tasks);
            with_scratch(lists, |sums| {
                let task = |(task, sums): (usize, &mut [f32])| {
                    for (list, sum) in (task * lists_of_task..).zip(sums) {
                        *sum = self.sum(list, x);
                    }
                };
                if tasks == 1 {
                    sums.chunks_mut(lists_of_task).enumerate().for_each(task);
                } else {
                    let chunks = sums.par_chunks_mut(lists_of_task).enumerate();
                    chunks.with_max_len(1).for_each(task);
                }
                add_parts(sums, y);
            });
        }
        finish(activation, y);
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
