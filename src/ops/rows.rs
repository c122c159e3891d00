//! What functions along the last axis share: they see one row at a time.

use super::operands;
use crate::autograd::{Backward, Forward};
use crate::tensor::{TensorError, TensorSpec};

/// The input's own shape, row-major with at least one axis.
pub(super) fn output_spec(
    op: &'static str,
    inputs: &[&TensorSpec],
) -> Result<TensorSpec, TensorError> {
    let [input] = operands::row_major(op, inputs)?;
    operands::axis(op, input.shape.rank().saturating_sub(1), input)?;
    Ok(input.clone())
}

/// `function(input, output)` for every row.
pub(super) fn forward(pass: Forward<'_>, function: impl Fn(&[f32], &mut [f32])) {
    let width = width(pass.output.spec());
    let inputs = pass.inputs[0].data().chunks_exact(width);
    let outputs = pass.output.data_mut().chunks_exact_mut(width);
    for (input, output) in inputs.zip(outputs) {
        function(input, output);
    }
}

/// `gradient(output, grad_output, grad_input)` for every row, where it is wanted.
pub(super) fn backward(pass: Backward<'_>, gradient: impl Fn(&[f32], &[f32], &mut [f32])) {
    let Some(grad_input) = &mut pass.grad_inputs[0] else {
        return;
    };
    let width = width(pass.output.spec());
    let outputs = pass.output.data().chunks_exact(width);
    let grad_outputs = pass.grad_output.data().chunks_exact(width);
    let grad_inputs = grad_input.data_mut().chunks_exact_mut(width);
    for ((output, grad_output), grad_input) in outputs.zip(grad_outputs).zip(grad_inputs) {
        gradient(output, grad_output, grad_input);
    }
}

/// Length of a row: at least 1, so that the rows of an empty tensor can be walked.
fn width(spec: &TensorSpec) -> usize {
    spec.shape.dims().last().copied().unwrap_or(1).max(1)
}

/// The largest of a row, which NaN never is.
pub(super) fn max(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}
