//! Convolutions with few weights, out of lanes.
//!
//! Operands are those of [`conv2d`](crate::conv2d), but for the weights, whose values stand as a
//! [`Pattern`] says. A max pooling behind the convolution takes some blocks of images at a time, so that
//! what is pooled never exists for more of them.

use std::ops::Range;

use super::Pattern;
use super::correlate::Correlation;
use super::dense::{in_lanes, with_lanes};
use super::sample::Sampling;
use super::sheets::Sheets;
use crate::conv2d::{Conv2dShape, Pooling};
use crate::dense::{Activation, Affine};
use crate::dispatch::InstructionSet;
use crate::gemm::scratch::with_scratch;
use crate::lanes::{LANES, blocks, check, lanes_len};
use crate::pool::{self, PoolShape};
use crate::window::Window;

mod backward;

pub use backward::{Gradients, Input, backward, backward_max_pool};

/// Blocks of images that are pooled at a time: of 64 channels of 27×27 pixels, 24 MB.
const POOLED_BLOCKS: usize = 4;

/// Holds a pattern to a convolution.
#[track_caller]
pub(crate) fn check_pattern(pattern: &Pattern, shape: &Conv2dShape) {
    let [height, width] = shape.window.kernel;
    let dims = [height, width, shape.inputs, shape.outputs];
    pattern.check(dims, shape.window.stride);
}

fn input_sheets(shape: &Conv2dShape) -> Sheets {
    let size = [shape.height, shape.width];
    Sheets::of_images(blocks(shape.images), shape.inputs, size)
}

fn output_sheets(shape: &Conv2dShape) -> Sheets {
    Sheets::of_images(blocks(shape.images), shape.outputs, shape.output())
}

/// `y = activation(x ⋆ weights + bias)`, from lanes `[inputs, height, width]` to lanes of the output.
///
/// # Panics
/// If a slice has another length than the shape demands, or the pattern is none of its weights.
pub fn forward(
    set: InstructionSet,
    pattern: &Pattern,
    shape: &Conv2dShape,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    let output_len = lanes_len(shape.images, shape.output_features());
    check("y", y.len(), output_len);
    with_forward(pattern, shape, layer, x, |product| product.run(set, y));
}

/// Calls `code` with the product of a pass forward, whose operands it holds to the shape.
#[track_caller]
fn with_forward(
    pattern: &Pattern,
    shape: &Conv2dShape,
    layer: Affine<'_>,
    x: &[f32],
    code: impl FnOnce(Correlation<'_>),
) {
    check_pattern(pattern, shape);
    let input_len = lanes_len(shape.images, shape.input_features());
    check("x", x.len(), input_len);
    check("values", layer.weights.len(), pattern.len());
    if let Some(bias) = layer.bias {
        check("bias", bias.len(), shape.outputs);
    }
    let axes = shape.window.axes([shape.height, shape.width]);
    let products = pattern.forward();
    products.order().with_ordered(layer.weights, |values| {
        code(Correlation {
            products,
            values,
            bias: layer.bias,
            relu: layer.activation == Activation::Relu,
            rectified: false,
            source: x,
            sheets: input_sheets(shape),
            before: axes.map(|axis| axis.before),
            result_sheets: output_sheets(shape),
        });
    });
}

/// The gradient with respect to the input, from lanes of the output to lanes of the input.
///
/// # Panics
/// If a slice has another length than the shape demands, or the pattern is none of its weights.
pub fn grad_input(
    set: InstructionSet,
    pattern: &Pattern,
    shape: &Conv2dShape,
    grad_output: &[f32],
    values: &[f32],
    grad_input: &mut [f32],
) {
    check_pattern(pattern, shape);
    let output_len = lanes_len(shape.images, shape.output_features());
    check("grad_output", grad_output.len(), output_len);
    check("values", values.len(), pattern.len());
    let input_len = lanes_len(shape.images, shape.input_features());
    check("grad_input", grad_input.len(), input_len);
    pattern.gradient().order().with_ordered(values, |values| {
        let product = back(pattern, shape, (grad_output, values), false);
        product.run(set, grad_input);
    });
}

/// The product that is the gradient with respect to the input, of values in its order; perhaps zero where
/// what it replaces is not positive.
fn back<'a>(
    pattern: &'a Pattern,
    shape: &Conv2dShape,
    (grad_output, values): (&'a [f32], &'a [f32]),
    rectified: bool,
) -> Correlation<'a> {
    let axes = shape.window.axes([shape.height, shape.width]);
    Correlation {
        products: pattern.gradient(),
        values,
        bias: None,
        relu: false,
        rectified,
        source: grad_output,
        sheets: output_sheets(shape),
        // All windows that reach a place.
        before: axes.map(|axis| axis.kernel - 1 - axis.before),
        result_sheets: input_sheets(shape),
    }
}

/// The gradient with respect to the values. Empty lanes of `grad_output` must be zero and of `x` finite.
///
/// # Panics
/// If a slice has another length than the shape demands, or the pattern is none of its weights.
pub fn grad_values(
    set: InstructionSet,
    pattern: &Pattern,
    shape: &Conv2dShape,
    x: &[f32],
    grad_output: &[f32],
    grad_values: &mut [f32],
) {
    check_pattern(pattern, shape);
    check("grad_values", grad_values.len(), pattern.len());
    let input_len = lanes_len(shape.images, shape.input_features());
    check("x", x.len(), input_len);
    let output_len = lanes_len(shape.images, shape.output_features());
    check("grad_output", grad_output.len(), output_len);
    sampling(pattern, shape, [x, grad_output]).run(set, grad_values);
}

/// The gradient with respect to the values.
fn sampling<'a>(
    pattern: &'a Pattern,
    shape: &Conv2dShape,
    [x, grad_output]: [&'a [f32]; 2],
) -> Sampling<'a> {
    let axes = shape.window.axes([shape.height, shape.width]);
    Sampling {
        index: pattern.samples(),
        source: x,
        sheets: input_sheets(shape),
        before: axes.map(|axis| axis.before),
        grad: grad_output,
        grad_sheets: output_sheets(shape),
    }
}

/// Some blocks of a batch: their number in images, and where they lie in lanes of so many features.
fn parts(images: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let all = blocks(images);
    (0..all).step_by(POOLED_BLOCKS).map(move |first| {
        let end = all.min(first + POOLED_BLOCKS);
        (images.min(end * LANES) - first * LANES, first..end)
    })
}

/// The floats of some blocks.
fn of_blocks(blocks: &Range<usize>, features: usize) -> Range<usize> {
    blocks.start * features * LANES..blocks.end * features * LANES
}

/// The pooling behind a convolution.
fn pooling(shape: &Conv2dShape, window: Window) -> PoolShape {
    let [height, width] = shape.output();
    PoolShape {
        images: shape.images,
        channels: shape.outputs,
        height,
        width,
        window,
    }
}

/// [`forward`], then the largest value in each window, and its place if that is wanted.
///
/// # Panics
/// As [`forward`] and [`max_forward`](pool::max_forward).
pub fn forward_max_pool(
    set: InstructionSet,
    (pattern, shape): (&Pattern, &Conv2dShape),
    layer: Affine<'_>,
    window: Window,
    x: &[f32],
    y: &mut [f32],
    mut argmax: Option<&mut [u8]>,
) {
    let [height, width] = window.output(shape.output());
    let features = shape.outputs * height * width;
    check("y", y.len(), lanes_len(shape.images, features));
    if let Some(argmax) = &argmax {
        check("argmax", argmax.len(), y.len());
    }
    with_forward(pattern, shape, layer, x, |product| {
        if product.run_pooled(set, &Pooling::new(shape, window), y, argmax.as_deref_mut()) {
            return;
        }
        for (images, blocks) in parts(shape.images) {
            let shape = Conv2dShape { images, ..*shape };
            let part = Correlation {
                source: &x[of_blocks(&blocks, shape.input_features())],
                sheets: input_sheets(&shape),
                result_sheets: output_sheets(&shape),
                ..product
            };
            let place = of_blocks(&blocks, features);
            let argmax = argmax.as_mut().map(|argmax| &mut argmax[place.clone()]);
            let y = &mut y[place];
            with_scratch(lanes_len(images, shape.output_features()), |sums| {
                part.run(set, sums);
                pool::max_forward(set, &pooling(&shape, window), sums, y, argmax);
            });
        }
    });
}

/// [`forward`] from row-major `[images, inputs, height, width]` to row-major `[images, outputs, output
/// height, output width]`.
///
/// # Panics
/// As [`forward`].
pub fn forward_rows(
    set: InstructionSet,
    pattern: &Pattern,
    shape: &Conv2dShape,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    let features = [shape.input_features(), shape.output_features()];
    in_lanes(set, shape.images, features, x, y, |x, y| {
        forward(set, pattern, shape, layer, x, y);
    });
}

/// [`grad_input`] over row-major operands.
///
/// # Panics
/// As [`grad_input`].
pub fn grad_input_rows(
    set: InstructionSet,
    pattern: &Pattern,
    shape: &Conv2dShape,
    grad_output: &[f32],
    values: &[f32],
    grad: &mut [f32],
) {
    let features = [shape.output_features(), shape.input_features()];
    in_lanes(
        set,
        shape.images,
        features,
        grad_output,
        grad,
        |from, to| {
            grad_input(set, pattern, shape, from, values, to);
        },
    );
}

/// [`grad_values`] over row-major operands.
///
/// # Panics
/// As [`grad_values`].
pub fn grad_values_rows(
    set: InstructionSet,
    pattern: &Pattern,
    shape: &Conv2dShape,
    x: &[f32],
    grad_output: &[f32],
    grad: &mut [f32],
) {
    with_lanes(set, shape.images, shape.input_features(), x, |x| {
        let features = shape.output_features();
        with_lanes(set, shape.images, features, grad_output, |grad_output| {
            grad_values(set, pattern, shape, x, grad_output, grad);
        });
    });
}
