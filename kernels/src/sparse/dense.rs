//! Dense layers with few weights, out of lanes.
//!
//! Operands are those of [`dense`](crate::dense), but for the weights, whose values stand as a [`Pattern`]
//! says. The gradient of the bias is [`dense::grad_bias`](crate::dense::grad_bias).

use super::Pattern;
use super::correlate::Correlation;
use super::sample::Sampling;
use super::sheets::Sheets;
use crate::dense::{Activation, Affine};
use crate::dispatch::InstructionSet;
use crate::gemm::scratch::with_scratch;
use crate::in_place::InPlace;
use crate::lanes::{blocks, check, lanes_len, pack, unpack};

/// Inputs and outputs of the layer of a pattern.
fn features(pattern: &Pattern) -> [usize; 2] {
    let [_, _, inputs, outputs] = pattern.dims();
    pattern.check([1, 1, inputs, outputs], [1, 1]);
    [inputs, outputs]
}

/// `y = activation(x · weights + bias)`, from lanes of inputs to lanes of outputs.
///
/// # Panics
/// If a slice has another length than the pattern demands, or it is none of a dense layer.
pub fn forward(
    set: InstructionSet,
    pattern: &Pattern,
    images: usize,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    let [inputs, outputs] = features(pattern);
    check("x", x.len(), lanes_len(images, inputs));
    check("values", layer.weights.len(), pattern.len());
    check("y", y.len(), lanes_len(images, outputs));
    if let Some(bias) = layer.bias {
        check("bias", bias.len(), outputs);
    }
    let blocks = blocks(images);
    pattern
        .forward()
        .order()
        .with_ordered(layer.weights, |values| {
            let product = Correlation {
                products: pattern.forward(),
                values,
                bias: layer.bias,
                relu: layer.activation == Activation::Relu,
                rectified: false,
                source: x,
                sheets: Sheets::of_features(blocks, inputs),
                before: [0; 2],
                result_sheets: Sheets::of_features(blocks, outputs),
            };
            product.run(set, y);
        });
}

/// `grad_input = grad_output · weightsᵀ`, from lanes of outputs to lanes of inputs.
///
/// # Panics
/// If a slice has another length than the pattern demands, or it is none of a dense layer.
pub fn grad_input(
    set: InstructionSet,
    pattern: &Pattern,
    images: usize,
    grad_output: &[f32],
    values: &[f32],
    grad_input: &mut [f32],
) {
    correlate_back(
        set,
        pattern,
        images,
        (grad_output, values),
        (grad_input, false),
    );
}

/// [`grad_input`] in the place of the input.
///
/// # Panics
/// As [`grad_input`].
pub fn grad_input_in_place(
    set: InstructionSet,
    pattern: &Pattern,
    images: usize,
    grad_output: &[f32],
    values: &[f32],
    input: InPlace<'_>,
) {
    let target = (input.x, input.rectified);
    correlate_back(set, pattern, images, (grad_output, values), target);
}

/// The gradient of the input, perhaps zero where what it replaces is not positive.
fn correlate_back(
    set: InstructionSet,
    pattern: &Pattern,
    images: usize,
    (grad_output, values): (&[f32], &[f32]),
    (grad_input, rectified): (&mut [f32], bool),
) {
    let [inputs, outputs] = features(pattern);
    check("grad_output", grad_output.len(), lanes_len(images, outputs));
    check("values", values.len(), pattern.len());
    check("grad_input", grad_input.len(), lanes_len(images, inputs));
    let blocks = blocks(images);
    pattern.gradient().order().with_ordered(values, |values| {
        let product = Correlation {
            products: pattern.gradient(),
            values,
            bias: None,
            relu: false,
            rectified,
            source: grad_output,
            sheets: Sheets::of_features(blocks, outputs),
            before: [0; 2],
            result_sheets: Sheets::of_features(blocks, inputs),
        };
        product.run(set, grad_input);
    });
}

/// `grad_values`: at each position of the pattern, `Σ over images of x · grad_output`. Empty lanes of
/// `grad_output` must be zero and of `x` finite.
///
/// # Panics
/// If a slice has another length than the pattern demands, or it is none of a dense layer.
pub fn grad_values(
    set: InstructionSet,
    pattern: &Pattern,
    images: usize,
    x: &[f32],
    grad_output: &[f32],
    grad_values: &mut [f32],
) {
    let [inputs, outputs] = features(pattern);
    check("x", x.len(), lanes_len(images, inputs));
    check("grad_output", grad_output.len(), lanes_len(images, outputs));
    check("grad_values", grad_values.len(), pattern.len());
    let blocks = blocks(images);
    let sampling = Sampling {
        index: pattern.samples(),
        source: x,
        sheets: Sheets::of_features(blocks, inputs),
        before: [0; 2],
        grad: grad_output,
        grad_sheets: Sheets::of_features(blocks, outputs),
    };
    sampling.run(set, grad_values);
}

/// [`forward`] from row-major `[images, inputs]` to row-major `[images, outputs]`.
///
/// # Panics
/// As [`forward`].
pub fn forward_rows(
    set: InstructionSet,
    pattern: &Pattern,
    images: usize,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    let [inputs, outputs] = features(pattern);
    in_lanes(set, images, [inputs, outputs], x, y, |x, y| {
        forward(set, pattern, images, layer, x, y);
    });
}

/// [`grad_input`] from row-major `[images, outputs]` to row-major `[images, inputs]`.
///
/// # Panics
/// As [`grad_input`].
pub fn grad_input_rows(
    set: InstructionSet,
    pattern: &Pattern,
    images: usize,
    grad_output: &[f32],
    values: &[f32],
    grad: &mut [f32],
) {
    let [inputs, outputs] = features(pattern);
    in_lanes(
        set,
        images,
        [outputs, inputs],
        grad_output,
        grad,
        |from, to| {
            grad_input(set, pattern, images, from, values, to);
        },
    );
}

/// [`grad_values`] from row-major `[images, inputs]` and `[images, outputs]`.
///
/// # Panics
/// As [`grad_values`].
pub fn grad_values_rows(
    set: InstructionSet,
    pattern: &Pattern,
    images: usize,
    x: &[f32],
    grad_output: &[f32],
    grad: &mut [f32],
) {
    let [inputs, outputs] = features(pattern);
    with_lanes(set, images, inputs, x, |x| {
        with_lanes(set, images, outputs, grad_output, |grad_output| {
            grad_values(set, pattern, images, x, grad_output, grad);
        });
    });
}

/// Calls `code` with rows in lanes.
pub(super) fn with_lanes(
    set: InstructionSet,
    images: usize,
    features: usize,
    rows: &[f32],
    code: impl FnOnce(&[f32]),
) {
    with_scratch(lanes_len(images, features), |lanes| {
        pack(set, images, features, rows, lanes);
        code(lanes);
    });
}

/// Calls `code` with rows in lanes and a place for those of the result, which become rows.
pub(super) fn in_lanes(
    set: InstructionSet,
    images: usize,
    [source, result]: [usize; 2],
    rows: &[f32],
    result_rows: &mut [f32],
    code: impl FnOnce(&[f32], &mut [f32]),
) {
    with_lanes(set, images, source, rows, |lanes| {
        with_scratch(lanes_len(images, result), |result_lanes| {
            code(lanes, result_lanes);
            unpack(set, images, result, result_lanes, result_rows);
        });
    });
}
