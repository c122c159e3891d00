//! The backward pass, block by block of sixteen images: first the gradient of the sums, which undoes
//! pooling and activation, then what follows from it.

use rayon::prelude::*;

use super::correlation::{Correlation, Method, with_correlation};
use super::max_pool::{Pooled, Pooling};
use super::taps::Direction;
use super::weight_gradient::WeightGradient;
use super::winograd::{F4, PlaneTarget, Transform};
use super::{Conv2dShape, Epilogue, part_blocks};
use crate::dense::Activation;
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check};
use crate::shared::Shared;
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
    let blocks = blocks(shape.images);
    let input_len = blocks * shape.input_features() * LANES;
    check("x", recorded.x.len(), input_len);
    check("weights", recorded.weights.len(), shape.weights());
    check("y", recorded.y.len(), grad_output.len());
    let by = (shape, Method::of(shape));
    backward_by::<F4>(set, by, recorded, grad_output, gradients);
}

/// [`backward`] by a method and a transform. `x` is empty where only the input gradient is wanted,
/// the weights where it is not, `y` where neither activation nor pooling followed.
pub(super) fn backward_by<T: Transform>(
    set: InstructionSet,
    by: (&Conv2dShape, Method),
    recorded: Recorded<'_>,
    grad_output: &[f32],
    gradients: Gradients<'_>,
) {
    let (shape, method) = by;
    let Gradients {
        input,
        weights,
        bias,
    } = gradients;
    let pooling = recorded
        .max_pool
        .map(|max_pool| Pooling::new(shape, max_pool.window));
    let input_len = shape.input_features() * LANES;
    let output_len = match &pooling {
        Some(pooling) => pooling.output_len(),
        None => shape.output_features() * LANES,
    };
    let blocks = blocks(shape.images);
    check("grad_output", grad_output.len(), blocks * output_len);
    if input.is_some() {
        check("weights", recorded.weights.len(), shape.weights());
    }
    if weights.is_some() {
        check("x", recorded.x.len(), blocks * input_len);
    }
    if let Some(max_pool) = recorded.max_pool {
        check("argmax", max_pool.argmax.len(), grad_output.len());
    }
    for (what, gradient, len) in [
        ("grad_input", &input, blocks * input_len),
        ("grad_weights", &weights, shape.weights()),
        ("grad_bias", &bias, shape.outputs),
    ] {
        if let Some(gradient) = gradient {
            check(what, gradient.len(), len);
        }
    }
    let weights = weights.filter(|gradient| !gradient.is_empty());
    // The same parts whichever gradients are wanted.
    let sums_len = WeightGradient::<T>::new(shape, method).sums_len();
    let part_blocks = part_blocks(blocks, sums_len);
    let work = Work {
        shape,
        recorded,
        pooling,
        weight_gradient: weights
            .is_some()
            .then(|| WeightGradient::new(shape, method)),
        grad_output,
        lens: [input_len, output_len],
        blocks: [blocks, part_blocks],
    };
    match input {
        Some(gradient) => {
            let direction = Direction::Gradient;
            with_correlation::<T, _>(set, by, direction, recorded.weights, |correlation| {
                work.run(set, Some((correlation, gradient)), weights, bias);
            });
        }
        None => work.run(set, None, weights, bias),
    }
}

/// A backward pass over a batch.
struct Work<'a, T> {
    shape: &'a Conv2dShape,
    recorded: Recorded<'a>,
    pooling: Option<Pooling>,
    /// If it is wanted.
    weight_gradient: Option<WeightGradient<'a, T>>,
    grad_output: &'a [f32],
    /// Floats of a block of the input and of the output.
    lens: [usize; 2],
    /// Blocks of images, and those of a part of the sums.
    blocks: [usize; 2],
}

impl<T: Transform> Work<'_, T> {
    fn run(
        &self,
        set: InstructionSet,
        input: Option<(&Correlation<'_, T>, &mut [f32])>,
        grad_weights: Option<&mut [f32]>,
        grad_bias: Option<&mut [f32]>,
    ) {
        let Self {
            shape,
            recorded,
            pooling,
            weight_gradient,
            ..
        } = self;
        let ([input_len, output_len], [blocks, part_blocks]) = (self.lens, self.blocks);
        let (correlation, grad_input) = input.unzip();
        let grad_input = Shared::new(grad_input.map_or(std::ptr::null_mut(), <[f32]>::as_mut_ptr));
        let input_scratch = correlation.map_or(0, Correlation::scratch_len);
        let weight_scratch = weight_gradient
            .as_ref()
            .map_or(0, WeightGradient::scratch_len);
        let scratch_len = input_scratch.max(weight_scratch);
        let grad_len = match (recorded.activation, pooling) {
            (Activation::Linear, None) => 0,
            _ => shape.output_features() * LANES,
        };
        let weights_len = weight_gradient.as_ref().map_or(0, WeightGradient::sums_len);
        let bias_len = grad_bias.as_ref().map_or(0, |_| shape.outputs);
        // A part without sums still needs its turn, and so a float.
        let part_len = (weights_len + bias_len).max(1).next_multiple_of(LANES);
        let parts = blocks.div_ceil(part_blocks);
        with_scratch(parts * part_len, |sums| {
            let parts = sums.par_chunks_mut(part_len).enumerate().with_max_len(1);
            parts.for_each(|(part, sums)| {
                let (sum_weights, sum_bias) = sums.split_at_mut(weights_len);
                let sum_bias = &mut sum_bias[..bias_len];
                sum_bias.fill(0.0);
                let first = part * part_blocks;
                for block in first..blocks.min(first + part_blocks) {
                    with_scratch(grad_len + scratch_len, |scratch| {
                        let (grad, scratch) = scratch.split_at_mut(grad_len);
                        set.run(BackwardBlock {
                            shape,
                            correlation,
                            weight_gradient: weight_gradient.as_ref(),
                            scratch,
                            x: part_of(recorded.x, block, input_len),
                            y: part_of(recorded.y, block, output_len),
                            relu: recorded.activation == Activation::Relu,
                            pooling: pooling.as_ref(),
                            argmax: match recorded.max_pool {
                                Some(max_pool) => part_of(max_pool.argmax, block, output_len),
                                None => &[],
                            },
                            grad_output: part_of(self.grad_output, block, output_len),
                            grad,
                            grad_input: grad_input.start().wrapping_add(block * input_len),
                            is_first: block == first,
                            sum_weights: &mut *sum_weights,
                            sum_bias: &mut *sum_bias,
                        });
                    });
                }
            });
            if let (Some(method), Some(gradient)) = (weight_gradient, grad_weights) {
                method.finish(set, sums, part_len, gradient);
            }
            if let Some(gradient) = grad_bias {
                let parts = sums.chunks_exact(part_len);
                add_parts(gradient, parts.map(|part| &part[weights_len..]));
            }
        });
    }
}

/// One block of values, if there are any.
fn part_of<T>(values: &[T], block: usize, len: usize) -> &[T] {
    if values.is_empty() {
        values
    } else {
        &values[block * len..][..len]
    }
}

/// Adds the parts of a sum in order; what they hold beyond it does not count.
pub(super) fn add_parts<'a>(sum: &mut [f32], parts: impl Iterator<Item = &'a [f32]>) {
    sum.fill(0.0);
    for part in parts {
        for (sum, value) in sum.iter_mut().zip(part) {
            *sum += value;
        }
    }
}

/// The backward pass of one block of images.
struct BackwardBlock<'a, T> {
    shape: &'a Conv2dShape,
    /// Of the input gradient, if it is wanted.
    correlation: Option<&'a Correlation<'a, T>>,
    /// If it is wanted.
    weight_gradient: Option<&'a WeightGradient<'a, T>>,
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

impl<T: Transform> Kernel for BackwardBlock<'_, T> {
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
