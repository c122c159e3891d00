//! Two-dimensional convolution over lanes, forward and backward.
//!
//! Activations lie in lanes, `[blocks][channels][height][width][16]` (see [`lanes`](crate::lanes)),
//! weights row-major `[kernel height, kernel width, inputs, outputs]` as in Keras. Whole blocks are
//! computed, empty lanes included: the input may hold any finite values in empty lanes, while an
//! output gradient must hold zeros there, since the weight gradient sums over all sixteen lanes.
//!
//! No window is ever written out (there is no `im2col` in memory): see [`direct`] for how the sums
//! run. Work goes block by block of sixteen images; the gradient of the sums before an activation
//! exists for one block at a time only.
//!
//! No result depends on the number of threads: each sum over images runs in a fixed number of parts,
//! which are added in order.
//!
//! ```
//! use taskweave_kernels::conv2d::{self, Conv2dShape};
//! use taskweave_kernels::dense::{Activation, Affine};
//! use taskweave_kernels::window::{Padding, Window};
//! use taskweave_kernels::{dispatch, lanes};
//!
//! let set = dispatch::active();
//! let window = Window { kernel: [1, 2], stride: [1, 1], padding: Padding::Valid };
//! let shape = Conv2dShape { images: 1, inputs: 1, outputs: 1, height: 1, width: 3, window };
//! let mut x = vec![0.0; lanes::lanes_len(1, 3)];
//! lanes::pack(set, 1, 3, &[1.0, 2.0, 4.0], &mut x);
//! let layer = Affine { weights: &[-1.0, 1.0], bias: None, activation: Activation::Linear };
//! let mut y = vec![0.0; lanes::lanes_len(1, 2)];
//! conv2d::forward(set, &shape, layer, &x, &mut y);
//! assert_eq!([y[0], y[16]], [1.0, 2.0]);
//! ```

use rayon::prelude::*;

use crate::dense::{Activation, Affine};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check, lanes_len};
pub use crate::naive::Conv2dShape;

mod direct;
mod grad_weights;
mod taps;
pub mod winograd;

use direct::{Plan, RowTarget};
use taps::Direction;

/// Tasks to aim at: enough for many cores, and for the last one not to keep the others waiting.
const TASKS: usize = 32;

/// Parts at most of a sum over images; each takes memory for a whole weight gradient.
const MOST_PARTS: usize = 16;

/// What happens to the sums of a tile before they are written.
#[derive(Clone, Copy)]
struct Epilogue<'a> {
    /// One value per channel.
    bias: Option<&'a [f32]>,
    relu: bool,
}

/// A result that many tasks write, each its own part.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: the tasks of one call write disjoint rows through it.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// A method, so that closures capture the whole and not the pointer in it.
    fn start(self) -> *mut f32 {
        self.0
    }
}

/// `y = activation(x ⋆ weights + bias)`, from lanes `[inputs, height, width]` to lanes of the output.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn forward(
    set: InstructionSet,
    shape: &Conv2dShape,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    check(
        "x",
        x.len(),
        lanes_len(shape.images, shape.input_features()),
    );
    check("weights", layer.weights.len(), shape.weights());
    check(
        "y",
        y.len(),
        lanes_len(shape.images, shape.output_features()),
    );
    if let Some(bias) = layer.bias {
        check("bias", bias.len(), shape.outputs);
    }
    let plan = Plan::new(set, shape, Direction::Forward, layer.weights);
    let epilogue = Epilogue {
        bias: layer.bias,
        relu: layer.activation == Activation::Relu,
    };
    correlate(set, &plan, x, epilogue, y);
}

/// Every row of every block, in parallel.
fn correlate(
    set: InstructionSet,
    plan: &Plan,
    source: &[f32],
    epilogue: Epilogue<'_>,
    result: &mut [f32],
) {
    let (source_len, result_len) = (plan.source_len(), plan.result_len());
    if result_len == 0 {
        return;
    }
    let blocks = result.len() / result_len;
    let bands = TASKS.div_ceil(blocks.max(1)).min(plan.result_rows);
    let band_rows = plan.result_rows.div_ceil(bands);
    let shared = Shared(result.as_mut_ptr());
    (0..blocks * bands)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let (block, band) = (task / bands, task % bands);
            let rows = band * band_rows..plan.result_rows.min((band + 1) * band_rows);
            set.run(Rows {
                plan,
                source: &source[block * source_len..][..source_len],
                epilogue,
                rows,
                target: shared.start().wrapping_add(block * result_len),
            });
        });
}

/// Some rows of one block.
struct Rows<'a> {
    plan: &'a Plan,
    source: &'a [f32],
    epilogue: Epilogue<'a>,
    rows: std::ops::Range<usize>,
    /// The block of the result.
    target: *mut f32,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row_len = self.plan.result_columns * LANES;
        for y in self.rows {
            let target = RowTarget {
                start: self.target.wrapping_add(y * row_len),
                channel_stride: self.plan.result_rows * row_len,
            };
            // SAFETY: `correlate` gives every task rows of its own within the result.
            unsafe { direct::row(isa, self.plan, self.source, y, self.epilogue, target) };
        }
    }
}

/// The forward pass that a backward pass belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// The input, in lanes.
    pub x: &'a [f32],
    /// Row-major `[kernel height, kernel width, inputs, outputs]`.
    pub weights: &'a [f32],
    /// The output, in lanes.
    pub y: &'a [f32],
    /// What followed the sums.
    pub activation: Activation,
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
    let (input_len, output_len) = (
        shape.input_features() * LANES,
        shape.output_features() * LANES,
    );
    let blocks = blocks(shape.images);
    check("x", recorded.x.len(), blocks * input_len);
    check("weights", recorded.weights.len(), shape.weights());
    check("y", recorded.y.len(), blocks * output_len);
    check("grad_output", grad_output.len(), blocks * output_len);
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
    let plan = wants_input.then(|| Plan::new(set, shape, Direction::Gradient, recorded.weights));
    let parts = blocks.min(MOST_PARTS);
    let part_blocks = blocks.div_ceil(parts.max(1)).max(1);
    let weights_len = gradients.weights.as_ref().map_or(0, |_| shape.weights());
    let bias_len = gradients.bias.as_ref().map_or(0, |_| shape.outputs);
    let part_len = (weights_len + bias_len).max(1);
    let grad_len = match recorded.activation {
        Activation::Linear => 0,
        Activation::Relu => output_len,
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
                    with_scratch(grad_len + padded_len, |scratch| {
                        let (grad, padded) = scratch.split_at_mut(grad_len);
                        set.run(BackwardBlock {
                            shape,
                            plan: plan.as_ref(),
                            x: &recorded.x[block * input_len..][..input_len],
                            y: &recorded.y[block * output_len..][..output_len],
                            activation: recorded.activation,
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
    plan: Option<&'a Plan>,
    x: &'a [f32],
    y: &'a [f32],
    activation: Activation,
    grad_output: &'a [f32],
    /// Room for the gradient before the activation.
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
        let grad = match self.activation {
            Activation::Linear => self.grad_output,
            Activation::Relu => {
                let outputs = self.y.as_chunks::<LANES>().0;
                let grads = self.grad_output.as_chunks::<LANES>().0;
                let targets = self.grad.as_chunks_mut::<LANES>().0;
                for ((target, y), grad) in targets.iter_mut().zip(outputs).zip(grads) {
                    isa.store(target, isa.select_gt_zero(isa.load(y), isa.load(grad)));
                }
                &*self.grad
            }
        };
        if let Some(plan) = self.plan {
            let row_len = plan.result_columns * LANES;
            let epilogue = Epilogue {
                bias: None,
                relu: false,
            };
            for y in 0..plan.result_rows {
                let target = RowTarget {
                    start: self.grad_input.wrapping_add(y * row_len),
                    channel_stride: plan.result_rows * row_len,
                };
                // SAFETY: every block of the input gradient belongs to one task.
                unsafe { direct::row(isa, plan, grad, y, epilogue, target) };
            }
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
