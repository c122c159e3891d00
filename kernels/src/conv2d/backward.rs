//! The backward pass, block by block of sixteen images: first the gradient of the sums, which undoes
//! pooling and activation, then what follows from it.

use rayon::prelude::*;

use super::correlation::Correlation;
use super::max_pool::{Pooled, Pooling};
use super::taps::Direction;
use super::weight_gradient::WeightGradient;
use super::winograd::PlaneTarget;
use super::{Conv2dShape, Epilogue, Shared, part_blocks};
use crate::dense::Activation;
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check};
use crate::window::Window;

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

/// A max pooling that was part of a forward pass: see [`forward_max_pool`](super::forward_max_pool).
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
        .map(|max_pool| Pooling::new(shape, max_pool.window));
    let output_len = match &pooling {
        Some(pooling) => pooling.output_len(),
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
    let weight_gradient = gradients
        .weights
        .as_ref()
        .filter(|gradient| !gradient.is_empty())
        .map(|_| WeightGradient::new(shape));
    let scratch_len = correlation
        .as_ref()
        .map_or(0, Correlation::scratch_len)
        .max(
            weight_gradient
                .as_ref()
                .map_or(0, WeightGradient::scratch_len),
        );
    let grad_len = match (recorded.activation, &pooling) {
        (Activation::Linear, None) => 0,
        _ => shape.output_features() * LANES,
    };
    let weights_len = weight_gradient.as_ref().map_or(0, WeightGradient::sums_len);
    let bias_len = gradients.bias.as_ref().map_or(0, |_| shape.outputs);
    // The same whichever gradients are wanted.
    let part_blocks = part_blocks(blocks, WeightGradient::new(shape).sums_len());
    let parts = blocks.div_ceil(part_blocks);
    let shared = Shared(grad_input.as_mut_ptr());
    with_scratch(parts * (weights_len + bias_len), |sums| {
        let (weight_sums, bias_sums) = sums.split_at_mut(parts * weights_len);
        // A chunk of no floats is no chunk: parts without sums of a kind still need their turn.
        let mut weight_parts = weight_sums.chunks_exact_mut(weights_len.max(1));
        let mut bias_parts = bias_sums.chunks_exact_mut(bias_len.max(1));
        let tasks: Vec<_> = (0..parts)
            .map(|part| {
                let weights = weight_parts.next().unwrap_or_default();
                (part, weights, bias_parts.next().unwrap_or_default())
            })
            .collect();
        tasks
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(part, sum_weights, sum_bias)| {
                sum_bias.fill(0.0);
                let first = part * part_blocks;
                for block in first..blocks.min(first + part_blocks) {
                    with_scratch(grad_len + scratch_len, |scratch| {
                        let (grad, scratch) = scratch.split_at_mut(grad_len);
                        set.run(BackwardBlock {
                            shape,
                            correlation: correlation.as_ref(),
                            weight_gradient: weight_gradient.as_ref(),
                            scratch,
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
                            grad_input: shared.start().wrapping_add(block * input_len),
                            is_first: block == first,
                            sum_weights: &mut *sum_weights,
                            sum_bias: &mut *sum_bias,
                        });
                    });
                }
            });
        if let (Some(method), Some(gradient)) = (&weight_gradient, gradients.weights) {
            method.finish(set, weight_sums, gradient);
        }
        if let Some(gradient) = gradients.bias {
            add_parts(gradient, bias_sums);
        }
    });
}

/// Adds the parts of a sum in order.
pub(super) fn add_parts(sum: &mut [f32], parts: &[f32]) {
    sum.fill(0.0);
    for part in parts.chunks_exact(sum.len().max(1)) {
        for (sum, value) in sum.iter_mut().zip(part) {
            *sum += value;
        }
    }
}

/// The backward pass of one block of images.
struct BackwardBlock<'a> {
    shape: &'a Conv2dShape,
    /// Of the input gradient, if it is wanted.
    correlation: Option<&'a Correlation>,
    /// If it is wanted.
    weight_gradient: Option<&'a WeightGradient<'a>>,
    /// What both of them work in.
    scratch: &'a mut [f32],
    x: &'a [f32],
    y: &'a [f32],
    relu: bool,
    pooling: Option<&'a Pooling>,
    argmax: &'a [u8],
    grad_output: &'a [f32],
    /// Room for the gradient of the sums, unless that is the gradient of the output.
    grad: &'a mut [f32],
    /// The block of the input gradient.
    grad_input: *mut f32,
    /// Whether the sums of weights hold nothing yet.
    is_first: bool,
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
            let target = PlaneTarget::whole(correlation.result_size(), self.grad_input);
            let len = correlation.scratch_len();
            let scratch = &mut self.scratch[..len];
            // SAFETY: every block of the input gradient belongs to one task.
            unsafe { correlation.rows(isa, grad, 0..bands, Epilogue::NONE, target, scratch) };
        }
        if let Some(method) = self.weight_gradient {
            let scratch = &mut self.scratch[..method.scratch_len()];
            let values = [self.x, grad];
            method.add_block(isa, values, self.is_first, self.sum_weights, scratch);
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
