//! The square root.

use super::unary;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = √x`, row-major. NaN below zero, as in NumPy; the gradient is infinite at zero.
///
/// ∂L/∂x = ∂L/∂y / (2y).
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![0.0, 4.0, 2.25], [3])?);
/// let y = tape.apply(ops::Sqrt, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.0, 2.0, 1.5]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sqrt;

impl Op for Sqrt {
    fn name(&self) -> &'static str {
        "Sqrt"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        unary::same_row_major(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        unary::forward(pass, f32::sqrt);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        unary::backward(pass, |grad, _, y| 0.5 * grad / y);
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
        let y = tape.apply(Sqrt, &[x]).unwrap();
        let loss = tape.apply(crate::ops::Sum::all(), &[y]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        let (y, grad) = (tape.value(y), tape.grad(x).unwrap());
        (y.data().to_vec(), grad.data().to_vec())
    }

    #[test]
    fn the_gradient_is_half_the_reciprocal_root() {
        let (y, grad) = value_and_gradient(&[4.0, 0.0, -1.0]);
        assert_eq!(y[..2], [2.0, 0.0]);
        assert!(y[2].is_nan());
        assert_eq!(grad[..2], [0.25, f32::INFINITY]);
    }
}
