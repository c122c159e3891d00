//! What operations of one operand, element by element, share.

use super::operands;
use crate::autograd::{Backward, Forward};
use crate::tensor::{TensorError, TensorSpec};

/// The operand's own shape and layout. In lanes the function must map every finite value to a
/// finite one, because empty lanes hold any finite value.
pub(super) fn same_spec(
    op: &'static str,
    inputs: &[&TensorSpec],
) -> Result<TensorSpec, TensorError> {
    let [input] = operands::exactly(op, inputs)?;
    Ok(input.clone())
}

/// The operand's own shape, row-major only.
pub(super) fn same_row_major(
    op: &'static str,
    inputs: &[&TensorSpec],
) -> Result<TensorSpec, TensorError> {
    let [input] = operands::row_major(op, inputs)?;
    Ok(input.clone())
}

/// `output = function(input)`.
pub(super) fn forward(pass: Forward<'_>, function: impl Fn(f32) -> f32) {
    let input = pass.inputs[0].data();
    for (output, &input) in pass.output.data_mut().iter_mut().zip(input) {
        *output = function(input);
    }
}

/// `grad_input = gradient(grad_output, input, output)`, where it is wanted.
pub(super) fn backward(pass: Backward<'_>, gradient: impl Fn(f32, f32, f32) -> f32) {
    let Some(grad_input) = &mut pass.grad_inputs[0] else {
        return;
    };
    let values = pass.inputs[0].data().iter().zip(pass.output.data());
    let grads = grad_input
        .data_mut()
        .iter_mut()
        .zip(pass.grad_output.data());
    for ((grad_input, &grad_output), (&input, &output)) in grads.zip(values) {
        *grad_input = gradient(grad_output, input, output);
    }
}
