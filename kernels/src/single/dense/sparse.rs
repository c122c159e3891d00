//! Dense layers of one image and few weights.

use std::ops::Range;

use rayon::prelude::*;

use super::outputs::Outputs;
use super::windows::Windows;
use super::{add_parts, begin, finish};
use crate::dense::Activation;
use crate::dispatch::InstructionSet;
use crate::gemm::scratch::with_scratch;
use crate::lanes::{LANES, check};
use crate::sparse::Pattern;

/// Inputs of a part: 16 KB, which stay in the first-level cache while its weights pass.
pub(super) const PART: usize = 1 << 12;

/// Weights of a task, about.
const TASK: usize = 1 << 14;

/// The weights of a dense layer, few of which are there, by output: each with the place of its input among
/// those of a part.
///
/// A pattern keeps its values by input, as training wants them; an output that is summed in one go wants
/// them together. So they are brought here once for many images.
///
/// Memory: 10 bytes for each weight, about.
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
    set: InstructionSet,
    layout: Layout,
}

/// How weights stand.
#[derive(Clone, Debug)]
enum Layout {
    /// For sixteen outputs at a time.
    Windows(Windows),
    /// For each output.
    Outputs(Outputs),
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
        let set = pattern.set();
        let (size, positions) = ([inputs, outputs], pattern.positions());
        // Elsewhere no permutation of registers picks from a whole window.
        let layout = match set.is_avx512() {
            true => Layout::Windows(Windows::new(size, positions)),
            false => Layout::Outputs(Outputs::new(size, positions)),
        };
        Self {
            inputs,
            outputs,
            set,
            layout,
        }
    }

    /// Takes the values of the pattern, in its order.
    ///
    /// # Panics
    /// If there is not a value for every weight.
    pub fn set_values(&mut self, values: &[f32]) {
        match &mut self.layout {
            Layout::Windows(windows) => windows.set_values(values),
            Layout::Outputs(outputs) => outputs.set_values(values),
        }
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
        // A unit is what sums are computed of together; there are as many in each part of the inputs.
        let (weights, units, width) = match &self.layout {
            Layout::Windows(windows) => (windows.len(), self.outputs.div_ceil(LANES), LANES),
            Layout::Outputs(outputs) => (outputs.len(), self.outputs, 1),
        };
        let of_part = units * width;
        let units = units * self.inputs.div_ceil(PART);
        if units > 0 {
            let tasks = (weights / TASK).clamp(1, units);
            let units_of_task = units.div_ceil(tasks);
            with_scratch(units * width, |sums| {
                let task = |(task, sums): (usize, &mut [f32])| {
                    let first = task * units_of_task;
                    self.add(first..units.min(first + units_of_task), x, sums);
                };
                let of_task = units_of_task * width;
                if tasks == 1 {
                    sums.chunks_mut(of_task).enumerate().for_each(task);
                } else {
                    let chunks = sums.par_chunks_mut(of_task).enumerate();
                    chunks.with_max_len(1).for_each(task);
                }
                add_parts(sums, of_part, y);
            });
        }
        finish(activation, y);
    }

    /// The sums of some units.
    fn add(&self, units: Range<usize>, x: &[f32], sums: &mut [f32]) {
        match &self.layout {
            Layout::Windows(windows) => windows.add(self.set, units, x, sums),
            Layout::Outputs(outputs) => outputs.add(units, x, sums),
        }
    }
}
