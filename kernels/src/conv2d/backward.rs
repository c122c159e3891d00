//! The backward pass, block by block of sixteen images: first the gradient of the sums, which undoes
//! pooling and activation, then what follows from it: that of the weights, and last that of the input,
//! which may then replace the input.

use std::slice;

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
use crate::in_place::InPlace;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check, lanes_len};
use crate::shared::{Shared, is_streamed};
use crate::window::Window;

/// The forward pass that a backward pass belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// The input, in lanes.
    pub x: &'a [f32],
    /// Row-major `[kernel height, kernel width, inputs, outputs]`.
    pub weights: &'a [f32],
    /// The output, in lanes, after the pooling if there is one; may be empty if there is no activation.
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
    let input_len = lanes_len(shape.images, shape.input_features());
    check("x", recorded.x.len(), input_len);
    check("weights", recorded.weights.len(), shape.weights());
    let by = (shape, Method::of(shape));
    backward_by::<F4>(set, by, recorded, grad_output, gradients, None);
}

/// [`backward`] where the gradient of the input takes its place: `recorded.x` is empty, and
/// `gradients.input` is `None`. Each value is that of [`backward`], bit for bit, or zero if the input
/// came out of a relu and was not positive.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn backward_in_place(
    set: InstructionSet,
    shape: &Conv2dShape,
    recorded: Recorded<'_>,
    input: InPlace<'_>,
    grad_output: &[f32],
    gradients: Gradients<'_>,
) {
    check("x", recorded.x.len(), 0);
    assert!(gradients.input.is_none(), "two places for one gradient");
    let by = (shape, Method::of(shape));
    backward_by::<F4>(set, by, recorded, grad_output, gradients, Some(input));
}

/// The gradient with respect to the bias: `grad_output`, in lanes, summed over images and pixels. Empty
/// lanes must be zero.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn grad_bias(
    set: InstructionSet,
    shape: &Conv2dShape,
    grad_output: &[f32],
    grad_bias: &mut [f32],
) {
    let sums = Recorded {
        x: &[],
        weights: &[],
        y: &[],
        activation: Activation::Linear,
        max_pool: None,
    };
    let gradients = Gradients {
        bias: Some(grad_bias),
        ..Gradients::default()
    };
    let by = (shape, Method::Direct);
    backward_by::<F4>(set, by, sums, grad_output, gradients, None);
}

/// [`backward`], or [`backward_in_place`] if there is such an input, by a method and a transform. `x`
/// is empty where only the input gradient is wanted, the weights where it is not.
pub(super) fn backward_by<T: Transform>(
    set: InstructionSet,
    by: (&Conv2dShape, Method),
    recorded: Recorded<'_>,
    grad_output: &[f32],
    gradients: Gradients<'_>,
    in_place: Option<InPlace<'_>>,
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
    let wants_input = input.is_some() || in_place.is_some();
    if wants_input {
        check("weights", recorded.weights.len(), shape.weights());
    }
    if let Some(InPlace { x, .. }) = &in_place {
        check("x", x.len(), blocks * input_len);
    } else if weights.is_some() {
        check("x", recorded.x.len(), blocks * input_len);
    }
    if recorded.activation == Activation::Relu {
        check("y", recorded.y.len(), grad_output.len());
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
    let input = match (in_place, input) {
        (Some(InPlace { x, rectified }), _) => {
            let place = Shared::new(x.as_mut_ptr());
            Input {
                x: place,
                grad: place,
                rectified,
                streamed: false,
            }
        }
        (None, grad) => Input {
            x: Shared::new(recorded.x.as_ptr().cast_mut()),
            streamed: grad
                .as_ref()
                .is_some_and(|grad| is_streamed(grad.as_ptr(), grad.len())),
            grad: Shared::new(grad.map_or(std::ptr::null_mut(), <[f32]>::as_mut_ptr)),
            rectified: false,
        },
    };
    let work = Work {
        shape,
        recorded,
        input,
        pooling,
        weight_gradient: weights
            .is_some()
            .then(|| WeightGradient::new(shape, method)),
        grad_output,
        lens: [input_len, output_len],
        blocks: [blocks, part_blocks],
    };
    if wants_input {
        let direction = Direction::Gradient;
        with_correlation::<T, _>(set, by, direction, recorded.weights, |correlation| {
            work.run(set, Some(correlation), weights, bias);
        });
    } else {
        work.run(set, None, weights, bias);
    }
}

/// Where the input lies, and where its gradient goes: perhaps the same place.
#[derive(Clone, Copy)]
struct Input {
    /// Only read.
    x: Shared,
    /// Null if it is not wanted.
    grad: Shared,
    /// See [`InPlace`].
    rectified: bool,
    /// See [`PlaneTarget`].
    streamed: bool,
}

/// A backward pass over a batch.
struct Work<'a, T> {
    shape: &'a Conv2dShape,
    /// But for `x`: see `input`.
    recorded: Recorded<'a>,
    input: Input,
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
        correlation: Option<&Correlation<'_, T>>,
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
                            x: self.input.x.start().wrapping_add(block * input_len),
                            y: part_of(recorded.y, block, output_len),
                            relu: recorded.activation == Activation::Relu,
                            pooling: pooling.as_ref(),
                            argmax: match recorded.max_pool {
                                Some(max_pool) => part_of(max_pool.argmax, block, output_len),
                                None => &[],
                            },
                            grad_output: part_of(self.grad_output, block, output_len),
                            grad,
                            grad_input: self.input.grad.start().wrapping_add(block * input_len),
                            rectified: self.input.rectified,
                            streamed: self.input.streamed,
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
pub(crate) fn add_parts<'a>(sum: &mut [f32], parts: impl Iterator<Item = &'a [f32]>) {
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
    /// The block of the input: nobody writes there before its gradient is.
    x: *const f32,
    y: &'a [f32],
    relu: bool,
    pooling: Option<&'a Pooling>,
    argmax: &'a [u8],
    grad_output: &'a [f32],
    /// Room for the gradient of the sums, unless that is the gradient of the output.
    grad: &'a mut [f32],
    /// The block of the input gradient.
    grad_input: *mut f32,
    rectified: bool,
    streamed: bool,
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
                let rows = 0..self.shape.output()[0];
                let target = (rows.clone(), &mut *self.grad);
                pooling.unpool(isa, pooled, self.grad_output, rows, target);
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
        let sum_bias = self.sum_bias;
        if let Some(method) = self.weight_gradient {
            let scratch = &mut self.scratch[..method.scratch_len()];
            // SAFETY: `backward_by` held the input to its length where the gradient of the weights is
            // wanted; the block belongs to this task, which writes there only below.
            let x = unsafe { slice::from_raw_parts(self.x, self.shape.input_features() * LANES) };
            let sums = (self.sum_weights, sum_bias);
            method.add_block(isa, [x, grad], self.is_first, sums, scratch);
        } else {
            add_planes(isa, grad, sum_bias);
        }
        if let Some(correlation) = self.correlation {
            let bands = correlation.result_size()[0].div_ceil(correlation.band());
            let size = correlation.result_size();
            let target = PlaneTarget::whole(size, self.grad_input, self.streamed);
            let len = correlation.scratch_len();
            let scratch = &mut self.scratch[..len];
            let epilogue = Epilogue {
                rectified: self.rectified,
                ..Epilogue::NONE
            };
            // SAFETY: every block of the input gradient belongs to one task; what is rectified holds
            // the input.
            unsafe { correlation.rows(isa, grad, 0..bands, epilogue, target, scratch) };
        }
    }
}

/// Adds the sums of every plane of one block of gradients, a channel each.
#[inline(always)]
pub(super) fn add_planes<I: Isa>(isa: I, grad: &[f32], sums: &mut [f32]) {
    let planes = grad.chunks_exact((grad.len() / sums.len().max(1)).max(1));
    for (sum, plane) in sums.iter_mut().zip(planes) {
        let mut lanes = isa.zero();
        for vector in plane.as_chunks::<LANES>().0 {
            lanes = isa.add(lanes, isa.load(vector));
        }
        *sum += isa.sum(lanes);
    }
}
