//! What operations of two operands share: NumPy's broadcasting.
//!
//! Shapes are aligned at their last axes; a missing axis or one of size 1 repeats. The gradient of
//! an operand that was repeated is summed over its repetitions, in f64.

use super::operands;
use super::strided::{Walk, row_major_strides};
use crate::autograd::{Backward, Forward};
use crate::tensor::{Tensor, TensorError, TensorSpec};

/// The shape that both dimensions lists broadcast to, if there is one.
pub(super) fn broadcast_dims(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let aligned = |dims: &[usize], axis: usize| {
        let missing = rank - dims.len();
        if axis < missing {
            1
        } else {
            dims[axis - missing]
        }
    };
    (0..rank)
        .map(|axis| match (aligned(a, axis), aligned(b, axis)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Strides of a row-major operand along the axes of the shape it is broadcast to.
pub(super) fn broadcast_strides(dims: &[usize], rank: usize) -> Vec<usize> {
    let mut strides = vec![0; rank - dims.len()];
    let own = row_major_strides(dims);
    strides.extend(
        dims.iter()
            .zip(own)
            .map(|(&dim, stride)| if dim == 1 { 0 } else { stride }),
    );
    strides
}

/// The output's shape, both operands row-major.
pub(super) fn output_spec(
    op: &'static str,
    inputs: &[&TensorSpec],
) -> Result<TensorSpec, TensorError> {
    let [a, b] = operands::row_major(op, inputs)?;
    broadcast_dims(a.shape.dims(), b.shape.dims())
        .map(TensorSpec::row_major)
        .ok_or_else(|| {
            operands::misfit(
                op,
                inputs,
                "aligned at the last axis, sizes must be equal or 1",
            )
        })
}

/// `output = function(a, b)`.
pub(super) fn forward(pass: Forward<'_>, function: impl Fn(f32, f32) -> f32) {
    let [a, b] = [pass.inputs[0], pass.inputs[1]];
    let [own, to_a, to_b] = strides_of(pass.output, [a, b]);
    let walk = Walk::new(pass.output.shape().dims(), [&own, &to_a, &to_b]);
    let (a, b, output) = (a.data(), b.data(), pass.output.data_mut());
    walk.for_each_run(|run| {
        let [at, at_a, at_b] = run.offsets;
        let output = &mut output[at..at + run.len];
        match run.strides {
            [1, 1, 1] => {
                let (a, b) = (&a[at_a..at_a + run.len], &b[at_b..at_b + run.len]);
                for ((output, &a), &b) in output.iter_mut().zip(a).zip(b) {
                    *output = function(a, b);
                }
            }
            [_, stride_a, stride_b] => {
                for (i, output) in output.iter_mut().enumerate() {
                    *output = function(a[at_a + i * stride_a], b[at_b + i * stride_b]);
                }
            }
        }
    });
}

/// `grad_a = by_a(grad_output, a, b)` and `grad_b = by_b(grad_output, a, b)`, each where it is
/// wanted, summed over what was broadcast.
pub(super) fn backward(
    pass: Backward<'_>,
    by_a: impl Fn(f32, f32, f32) -> f32,
    by_b: impl Fn(f32, f32, f32) -> f32,
) {
    let operands = [pass.inputs[0], pass.inputs[1]];
    let (grad_a, grad_b) = pass.grad_inputs.split_at_mut(1);
    if let Some(grad) = &mut grad_a[0] {
        backward_one(operands, pass.grad_output, grad, by_a);
    }
    if let Some(grad) = &mut grad_b[0] {
        backward_one(operands, pass.grad_output, grad, by_b);
    }
}

fn backward_one(
    [a, b]: [&Tensor; 2],
    grad_output: &Tensor,
    grad_input: &mut Tensor,
    gradient: impl Fn(f32, f32, f32) -> f32,
) {
    let [own, to_a, to_b] = strides_of(grad_output, [a, b]);
    let to_input = broadcast_strides(grad_input.shape().dims(), own.len());
    let dims = grad_output.shape().dims();
    let walk = Walk::new(dims, [&own, &to_a, &to_b, &to_input]);
    let (a, b, grad_output) = (a.data(), b.data(), grad_output.data());
    if grad_input.data().len() == grad_output.len() {
        let grad_input = grad_input.data_mut();
        walk.for_each_run(|run| {
            for [at, at_a, at_b, at_input] in run.places() {
                grad_input[at_input] = gradient(grad_output[at], a[at_a], b[at_b]);
            }
        });
        return;
    }
    let mut sums = vec![0.0; grad_input.data().len()];
    walk.for_each_run(|run| {
        for [at, at_a, at_b, at_input] in run.places() {
            sums[at_input] += f64::from(gradient(grad_output[at], a[at_a], b[at_b]));
        }
    });
    for (grad, sum) in grad_input.data_mut().iter_mut().zip(sums) {
        *grad = sum as f32;
    }
}

fn strides_of(output: &Tensor, [a, b]: [&Tensor; 2]) -> [Vec<usize>; 3] {
    let rank = output.shape().rank();
    [
        row_major_strides(output.shape().dims()),
        broadcast_strides(a.shape().dims(), rank),
        broadcast_strides(b.shape().dims(), rank),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_aligned_at_the_last_axis() {
        assert_eq!(broadcast_dims(&[4, 3], &[3]), Some(vec![4, 3]));
        assert_eq!(broadcast_dims(&[4, 1], &[1, 3]), Some(vec![4, 3]));
        assert_eq!(broadcast_dims(&[], &[2]), Some(vec![2]));
        assert_eq!(broadcast_dims(&[0, 3], &[1]), Some(vec![0, 3]));
        assert_eq!(broadcast_dims(&[4, 3], &[4]), None);
        assert_eq!(broadcast_dims(&[0], &[2]), None);
    }

    #[test]
    fn repeated_axes_have_stride_zero() {
        assert_eq!(broadcast_strides(&[4, 1, 3], 4), [0, 3, 0, 1]);
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let error = output_spec(
            "Add",
            &[
                &TensorSpec::row_major([4, 3]),
                &TensorSpec::row_major([2, 3]),
            ],
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "Add: shapes [4, 3] and [2, 3] do not fit; aligned at the last axis, sizes must be \
             equal or 1"
        );
    }
}
