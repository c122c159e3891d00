//! The products of dense layers and of 1×1 convolutions, of operands rounded to bf16.
//!
//! Activations, weights and gradients are f32, as elsewhere; they are rounded on the way into a
//! product, to the nearest bf16 (see [`round`](crate::isa::bf16::round)), and its sums are f32, one
//! after the other in one order. Bias and activation follow in f32. The results are the same bit for
//! bit on any number of threads and on every instruction set but `amx`, whose tile registers sum in
//! another order.
//!
//! A convolution by windows of one pixel that move by one is a dense layer of every pixel, and a dense
//! layer is one of a single pixel: here both are a [`PointwiseShape`].
//!
//! Empty lanes of the input may hold any values below 3.38e38 and those of an output gradient must
//! hold zeros, as in [`dense`](super).
//!
//! ```
//! use taskweave_kernels::dense::{Activation, Affine, DenseShape, bf16};
//! use taskweave_kernels::dispatch;
//!
//! let shape = DenseShape { images: 1, inputs: 2, outputs: 1 };
//! let layer = Affine { weights: &[1.0, 2.0], bias: None, activation: Activation::Linear };
//! // 1 + 1/256 lies halfway between two bf16, and rounds to 1.
//! let x = [[1.0 + 1.0 / 256.0; 16], [3.0; 16]].concat();
//! let mut y = [0.0; 16];
//! bf16::forward(dispatch::active(), shape.into(), layer, &x, &mut y);
//! assert_eq!(y, [7.0; 16]);
//! ```

use rayon::prelude::*;

use super::{Activation, Affine, DenseShape};
use crate::dispatch::InstructionSet;
use crate::gemm::Matrix;
use crate::gemm::bf16::{DEPTH, LaneLayout, Operand, Product, Target, multiply};
use crate::gemm::epilogue::{Epilogue, Stored, WeightProduct, take_step};
use crate::gemm::scratch::with_scratch;
use crate::lanes::{LANES, blocks, check, lanes_len};
use crate::naive::Conv2dShape;
use crate::update::Update;

/// Steps of the sum over images that a part of a weight gradient should have at least.
const PART_STEPS: usize = 8 << 10;

/// Parts of such a sum at most.
const MOST_PARTS: usize = 16;

/// Weights of a gradient that is summed in parts at most: larger ones are tasks enough in one.
const MOST_PART_WEIGHTS: usize = 16 << 10;

/// Sizes of a layer that does the same to every pixel: input `[images, inputs, pixels]`, weights
/// `[inputs, outputs]`, output `[images, outputs, pixels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointwiseShape {
    /// Images.
    pub images: usize,
    /// Pixels of an image.
    pub pixels: usize,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
}

impl From<DenseShape> for PointwiseShape {
    fn from(shape: DenseShape) -> Self {
        Self {
            images: shape.images,
            pixels: 1,
            inputs: shape.inputs,
            outputs: shape.outputs,
        }
    }
}

impl PointwiseShape {
    /// A convolution by windows of one pixel that move by one; `None` of any other.
    pub fn of(shape: &Conv2dShape) -> Option<Self> {
        let window = shape.window;
        (window.kernel == [1, 1] && window.stride == [1, 1]).then_some(Self {
            images: shape.images,
            pixels: shape.height * shape.width,
            inputs: shape.inputs,
            outputs: shape.outputs,
        })
    }

    /// Values of all images in one channel, empty lanes included.
    fn values(&self) -> usize {
        blocks(self.images) * self.pixels * LANES
    }

    /// Parts that a weight gradient is summed in: blocks of images permitting.
    fn parts(&self) -> usize {
        match self.inputs * self.outputs {
            0..=MOST_PART_WEIGHTS => (self.values() / PART_STEPS).clamp(1, MOST_PARTS),
            _ => 1,
        }
    }

    fn input(&self) -> LaneLayout {
        LaneLayout {
            channels: self.inputs,
            pixels: self.pixels,
        }
    }

    fn output(&self) -> LaneLayout {
        LaneLayout {
            channels: self.outputs,
            pixels: self.pixels,
        }
    }

    fn input_len(&self) -> usize {
        lanes_len(self.images, self.inputs * self.pixels)
    }

    fn output_len(&self) -> usize {
        lanes_len(self.images, self.outputs * self.pixels)
    }
}

/// `y = activation(x · weights + bias)` of every pixel, from lanes `[inputs, pixels]` to lanes
/// `[outputs, pixels]`.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn forward(
    set: InstructionSet,
    shape: PointwiseShape,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    let PointwiseShape {
        inputs, outputs, ..
    } = shape;
    check("x", x.len(), shape.input_len());
    check("weights", layer.weights.len(), inputs * outputs);
    check("y", y.len(), shape.output_len());
    if let Some(bias) = layer.bias {
        check("bias", bias.len(), outputs);
    }
    let product = Product {
        rows: outputs,
        columns: shape.values(),
        depth: inputs,
        a: Operand::Matrix(Matrix::row_major(layer.weights, outputs).transposed()),
        b: Operand::Images(x, shape.input()),
        target: Target::Lanes(shape.output()),
        epilogue: Stored {
            bias: layer.bias,
            relu: layer.activation == Activation::Relu,
            ..Stored::PLAIN
        },
    };
    multiply(set, &product, y);
}

/// `grad_input = grad_output · weightsᵀ` of every pixel, from lanes `[outputs, pixels]` to lanes
/// `[inputs, pixels]`.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn grad_input(
    set: InstructionSet,
    shape: PointwiseShape,
    grad_output: &[f32],
    weights: &[f32],
    grad_input: &mut [f32],
) {
    let PointwiseShape {
        inputs, outputs, ..
    } = shape;
    check("grad_output", grad_output.len(), shape.output_len());
    check("weights", weights.len(), inputs * outputs);
    check("grad_input", grad_input.len(), shape.input_len());
    let product = Product {
        rows: inputs,
        columns: shape.values(),
        depth: outputs,
        a: Operand::Matrix(Matrix::row_major(weights, outputs)),
        b: Operand::Images(grad_output, shape.output()),
        target: Target::Lanes(shape.input()),
        epilogue: Stored::PLAIN,
    };
    multiply(set, &product, grad_input);
}

/// `grad_weights = Σ over images and pixels of xᵀ · grad_output`, row-major `[inputs, outputs]`.
///
/// Where there are few weights and many pixels, the sum is cut into parts, whose number depends on
/// the shape alone and which are added in order.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn grad_weights(
    set: InstructionSet,
    shape: PointwiseShape,
    x: &[f32],
    grad_output: &[f32],
    grad_weights: &mut [f32],
) {
    let len = shape.inputs * shape.outputs;
    check("grad_weights", grad_weights.len(), len);
    let product = over_images(shape, x, grad_output, Stored::PLAIN);
    let blocks = blocks(shape.images);
    let part_blocks = blocks.div_ceil(shape.parts()).max(1);
    let parts = blocks.div_ceil(part_blocks);
    if parts <= 1 || len == 0 {
        return multiply(set, &product, grad_weights);
    }
    let (x_len, grad_len) = (x.len() / blocks, grad_output.len() / blocks);
    with_scratch(parts * len, |sums| {
        sums.par_chunks_exact_mut(len)
            .zip(x.par_chunks(part_blocks * x_len))
            .zip(grad_output.par_chunks(part_blocks * grad_len))
            .for_each(|((sums, x), grad_output)| {
                let shape = PointwiseShape {
                    images: x.len() / x_len * LANES,
                    ..shape
                };
                multiply(
                    set,
                    &over_images(shape, x, grad_output, Stored::PLAIN),
                    sums,
                );
            });
        let (first, others) = sums.split_at(len);
        grad_weights.copy_from_slice(first);
        for part in others.chunks_exact(len) {
            for (sum, value) in grad_weights.iter_mut().zip(part) {
                *sum += value;
            }
        }
    });
}

/// Takes one step of an optimiser over the weights by [`grad_weights`], which itself is not stored
/// where the sum has one block. The weights end as they do from the gradient and [`Update::apply`],
/// bit for bit.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn update_weights(
    set: InstructionSet,
    shape: PointwiseShape,
    x: &[f32],
    grad_output: &[f32],
    update: Update<'_>,
) {
    let len = shape.inputs * shape.outputs;
    check("weights", update.weights.len(), len);
    let product = OverImages {
        set,
        shape,
        x,
        grad_output,
    };
    take_step(set, product, update);
}

/// The product of activations and gradients, summed over images and pixels, into rows of outputs.
#[derive(Clone, Copy)]
struct OverImages<'a> {
    set: InstructionSet,
    shape: PointwiseShape,
    x: &'a [f32],
    grad_output: &'a [f32],
}

impl WeightProduct for OverImages<'_> {
    fn has_whole_sums(self) -> bool {
        self.shape.values() <= DEPTH
    }

    fn multiply<E: Epilogue>(self, epilogue: E, result: &mut [f32]) {
        let product = over_images(self.shape, self.x, self.grad_output, epilogue);
        multiply(self.set, &product, result);
    }

    fn store(self, grad: &mut [f32]) {
        grad_weights(self.set, self.shape, self.x, self.grad_output, grad);
    }
}

/// See [`OverImages`].
fn over_images<'a, E: Epilogue>(
    shape: PointwiseShape,
    x: &'a [f32],
    grad_output: &'a [f32],
    epilogue: E,
) -> Product<'a, E> {
    check("x", x.len(), shape.input_len());
    check("grad_output", grad_output.len(), shape.output_len());
    Product {
        rows: shape.inputs,
        columns: shape.outputs,
        depth: shape.values(),
        a: Operand::Channels(x, shape.input()),
        b: Operand::Channels(grad_output, shape.output()),
        target: Target::Rows {
            columns: shape.outputs,
            stride: shape.outputs,
        },
        epilogue,
    }
}
