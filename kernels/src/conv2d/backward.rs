//! The backward pass, block by block of sixteen images: first the gradient of the sums, which undoes
//! pooling and activation, then what follows from it.

use rayon::prelude::*;

use super::correlation::Correlation;
use super::max_pool::{Pooled, Pooling};
use super::taps::Direction;
use super::{Conv2dShape, Epilogue, Shared, grad_weights, pooling};
use crate::dense::Activation;
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check};
use crate::window::Window;

/// Parts at most of a sum over images; each takes memory for a whole weight gradient.
const MOST_PARTS: usize = 16;

/// The forward pass that a backward pass belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// The input, in lanes.
    pub x: &'a [f32],
    /// Row-major `[kernel height, kernel width, inputs, outputs]`.
    pub weights: &'a [f32],
    /// The output, in lanes, after the pooling if there is one.
    pub y: &'a [f32],
    /// What followed the sums.
    pub activation: Activation,
    /// The max pooling that followed that.
    pub max_pool: Option<MaxPooled<'a>>,
}

/// A max pooling that was part of a forward pass: see [`forward_max_pool`].
#[derive(Clone, Copy, Debug)]
pub struct MaxPooled<'a> {
    /// Its window.
    pub window: Window,
    /// Where in its window each maximum was.
    pub argmax: &'a [u8],
}

/// The gradients to compute; what nobody needs is `None`.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the input, in lanes.
    pub input: Option<&'a mut [f32]>,
    /// Of the weights, row-major `[kernel height, kernel width, inputs, outputs]`.
    pub weights: Option<&'a mut [f32]>,
    /// Of the bias, `[outputs]`.
    pub bias: Option<&'a mut [f32]>,
}

/// The gradients of a convolution from that of its output, in lanes, zero in empty lanes.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn backward(
    set: InstructionSet,
    shape: &Conv2dShape,
    recorded: Recorded<'_>,
    grad_output: &[f32],
    gradients: Gradients<'_>,
) {
    let input_len = shape.input_features() * LANES;
    let pooling = recorded
        .max_pool
        .map(|max_pool| pooling(shape, max_pool.window));
    let output_len = match &pooling {
        Some(pooling) => pooling.channels * pooling.plane() * LANES,
        None => shape.output_features() * LANES,
    };
    let blocks = blocks(shape.images);
    check("x", recorded.x.len(), blocks * input_len);
    check("weights", recorded.weights.len(), shape.weights());
    check("y", recorded.y.len(), blocks * output_len);
    check("grad_output", grad_output.len(), blocks * output_len);
    if let Some(max_pool) = recorded.max_pool {
        check("argmax", max_pool.argmax.len(), recorded.y.len());
    }
    let mut no_input = [];
    let wants_input = gradients.input.is_some();
    let grad_input = gradients.input.unwrap_or(&mut no_input);
    if wants_input {
        check("grad_input", grad_input.len(), blocks * input_len);
    }
    for (what, gradient, len) in [
        ("grad_weights", &gradients.weights, shape.weights()),
        ("grad_bias", &gradients.bias, shape.outputs),
    ] {
        if let Some(gradient) = gradient {
            check(what, gradient.len(), len);
        }
    }
    let correlation =
        wants_input.then(|| Correlation::new(set, shape, Direction::Gradient, recorded.weights));
    let correlation_len = correlation.as_ref().map_or(0, Correlation::scratch_len);
    let parts = blocks.min(MOST_PARTS);
    let part_blocks = blocks.div_ceil(parts.max(1)).max(1);
    let weights_len = gradients.weights.as_ref().map_or(0, |_| shape.weights());
    let bias_len = gradients.bias.as_ref().map_or(0, |_| shape.outputs);
    let part_len = (weights_len + bias_len).max(1);
    let grad_len = match (recorded.activation, &pooling) {
        (Activation::Linear, None) => 0,
        _ => shape.output_features() * LANES,
    };
    let padded_len = if weights_len > 0 {
        grad_weights::padded_len(shape)
    } else {
        0
    };
    let parts = blocks.div_ceil(part_blocks);
    let shared = Shared(grad_input.as_mut_ptr());
    with_scratch(parts * part_len, |sums| {
        sums.par_chunks_mut(part_len)
            .enumerate()
            .with_max_len(1)
            .for_each(|(part, sums)| {
                sums.fill(0.0);
                let (sum_weights, sum_bias) = sums.split_at_mut(weights_len);
                for block in part * part_blocks..blocks.min((part + 1) * part_blocks) {
                    with_scratch(grad_len + padded_len + correlation_len, |scratch| {
                        let (grad, scratch) = scratch.split_at_mut(grad_len);
                        let (padded, correlation_scratch) = scratch.split_at_mut(padded_len);
                        set.run(BackwardBlock {
                            shape,
                            correlation: correlation.as_ref(),
                            correlation_scratch,
                            x: &recorded.x[block * input_len..][..input_len],
                            y: &recorded.y[block * output_len..][..output_len],
                            relu: recorded.activation == Activation::Relu,
                            pooling: pooling.as_ref(),
                            argmax: match recorded.max_pool {
                                Some(max_pool) => {
                                    &max_pool.argmax[block * output_len..][..output_len]
                                }
                                None => &[],
                            },
                            grad_output: &grad_output[block * output_len..][..output_len],
                            grad,
                            padded,
                            grad_input: shared.start().wrapping_add(block * input_len),
                            sum_weights,
                            sum_bias: &mut sum_bias[..bias_len],
                        });
                    });
                }
            });
        add_parts(gradients.weights, sums, part_len, 0);
        add_parts(gradients.bias, sums, part_len, weights_len);
    });
}

/// Adds the parts of a sum in order.
fn add_parts(gradient: Option<&mut [f32]>, parts: &[f32], part_len: usize, start: usize) {
    let Some(gradient) = gradient else { return };
    gradient.fill(0.0);
    for part in parts.chunks_exact(part_len) {
        for (sum, value) in gradient.iter_mut().zip(&part[start..]) {
            *sum += value;
        }
    }
}

/// The backward pass of one block of images.
struct BackwardBlock<'a> {
    shape: &'a Conv2dShape,
    /// Of the input gradient, if it is wanted.
    correlation: Option<&'a Correlation>,
    correlation_scratch: &'a mut [f32],
    x: &'a [f32],
    y: &'a [f32],
    relu: bool,
    pooling: Option<&'a Pooling>,
    argmax: &'a [u8],
    grad_output: &'a [f32],
    /// Room for the gradient of the sums, unless that is the gradient of the output.
    grad: &'a mut [f32],
    /// Room for one channel between zeros; empty if the weight gradient is not wanted.
    padded: &'a mut [f32],
    /// The block of the input gradient.
    grad_input: *mut f32,
    /// Added to, if wanted.
    sum_weights: &'a mut [f32],
    sum_bias: &'a mut [f32],
}

impl Kernel for BackwardBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let grad = match (self.pooling, self.relu) {
            (Some(pooling), relu) => {
                let pooled = Pooled {
                    output: self.y,
                    argmax: self.argmax,
                    relu,
                };
                pooling.unpool(isa, pooled, self.grad_output, self.grad);
                &*self.grad
            }
            (None, false) => self.grad_output,
            (None, true) => {
                let outputs = self.y.as_chunks::<LANES>().0;
                let grads = self.grad_output.as_chunks::<LANES>().0;
                let targets = self.grad.as_chunks_mut::<LANES>().0;
                for ((target, y), grad) in targets.iter_mut().zip(outputs).zip(grads) {
                    isa.store(target, isa.select_gt_zero(isa.load(y), isa.load(grad)));
                }
                &*self.grad
            }
        };
        if let Some(correlation) = self.correlation {
            let bands = correlation.result_size()[0].div_ceil(correlation.band());
            let target = correlation.whole(self.grad_input);
            let scratch = self.correlation_scratch;
            // SAFETY: every block of the input gradient belongs to one task.
            unsafe { correlation.rows(isa, grad, 0..bands, Epilogue::NONE, target, scratch) };
        }
        if !self.sum_weights.is_empty() {
            grad_weights::add_block(isa, self.shape, self.x, grad, self.padded, self.sum_weights);
        }
        let planes = grad.chunks_exact((grad.len() / self.shape.outputs.max(1)).max(1));
        for (sum, plane) in self.sum_bias.iter_mut().zip(planes) {
            let mut lanes = isa.zero();
            for vector in plane.as_chunks::<LANES>().0 {
                lanes = isa.add(lanes, isa.load(vector));
            }
            *sum += isa.sum(lanes);
        }
    }
}
