//! The hyperbolic tangent.

use super::unary;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = tanh x`, row-major or in lanes.
///
/// ∂L/∂x = ∂L/∂y · (1 - y²).
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![0.0, 100.0, -100.0], [3])?);
/// let y = tape.apply(ops::Tanh, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.0, 1.0, -1.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tanh;

impl Op for Tanh {
    fn name(&self) -> &'static str {
        "Tanh"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        unary::same_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        unary::forward(pass, f32::tanh);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        unary::backward(pass, |grad, _, y| grad * (1.0 - y) * (1.0 + y));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::tensor::Tensor;

    fn value_and_gradient(values: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut tape = Tape::new();
        let x = Tensor::from_vec(values.to_vec(), [values.len()]).unwrap();
        let x = tape.parameter(x);
        let y = tape.apply(Tanh, &[x]).unwrap();
        let loss = tape.apply(crate::ops::Sum::all(), &[y]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        let (y, grad) = (tape.value(y), tape.grad(x).unwrap());
        (y.data().to_vec(), grad.data().to_vec())
    }

    #[test]
    fn it_saturates_without_a_gradient() {
        let (y, grad) = value_and_gradient(&[0.0, 100.0, f32::NEG_INFINITY]);
        assert_eq!(y, [0.0, 1.0, -1.0]);
        assert_eq!(grad, [1.0, 0.0, 0.0]);
    }
}
