//! What the tests of operations share.

use super::Sum;
use crate::autograd::{Op, Tape};
use crate::tensor::Tensor;

/// A row-major tensor of one axis.
pub(crate) fn vector(values: &[f32]) -> Tensor {
    Tensor::from_vec(values.to_vec(), [values.len()]).unwrap()
}

/// The output of `op`, and per input the gradient of the output's sum.
pub(crate) fn value_and_gradients<const N: usize>(
    op: impl Op + 'static,
    inputs: [Tensor; N],
) -> (Vec<f32>, [Vec<f32>; N]) {
    let mut tape = Tape::new();
    let inputs = inputs.map(|input| tape.parameter(input));
    let y = tape.apply(op, &inputs).unwrap();
    let loss = tape.apply(Sum::all(), &[y]).unwrap();
    tape.backward(&[(loss, 1.0)]).unwrap();
    let grads = inputs.map(|input| tape.grad(input).unwrap().data().to_vec());
    (tape.value(y).data().to_vec(), grads)
}
