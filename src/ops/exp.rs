//! The exponential function.

use super::unary;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = eˣ`, row-major. Infinite above x = 88.72.
///
/// ∂L/∂x = ∂L/∂y · y.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![0.0, 89.0, f32::NEG_INFINITY], [3])?);
/// let y = tape.apply(ops::Exp, &[x])?;
/// assert_eq!(tape.value(y).data(), [1.0, f32::INFINITY, 0.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Exp;

impl Op for Exp {
    fn name(&self) -> &'static str {
        "Exp"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        unary::same_row_major(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        unary::forward(pass, f32::exp);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        unary::backward(pass, |grad, _, y| grad * y);
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
        let y = tape.apply(Exp, &[x]).unwrap();
        let loss = tape.apply(crate::ops::Sum::all(), &[y]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        let (y, grad) = (tape.value(y), tape.grad(x).unwrap());
        (y.data().to_vec(), grad.data().to_vec())
    }

    #[test]
    fn the_gradient_is_the_value() {
        let (y, grad) = value_and_gradient(&[-1.0, 0.0, 2.0]);
        assert_eq!(y, grad);
        assert_eq!(y[1], 1.0);
    }
}
