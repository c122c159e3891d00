//! The natural logarithm.

use super::unary;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = ln x`, row-major. −∞ at zero and NaN below, as in NumPy.
///
/// ∂L/∂x = ∂L/∂y / x.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 0.0, f32::INFINITY], [3])?);
/// let y = tape.apply(ops::Log, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.0, f32::NEG_INFINITY, f32::INFINITY]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Op for Log {
    fn name(&self) -> &'static str {
        "Log"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        unary::same_row_major(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        unary::forward(pass, f32::ln);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        unary::backward(pass, |grad, x, _| grad / x);
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
        let y = tape.apply(Log, &[x]).unwrap();
        let loss = tape.apply(crate::ops::Sum::all(), &[y]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        let (y, grad) = (tape.value(y), tape.grad(x).unwrap());
        (y.data().to_vec(), grad.data().to_vec())
    }

    #[test]
    fn outside_its_domain_it_is_not_finite() {
        let (y, grad) = value_and_gradient(&[0.0, -1.0, 4.0]);
        assert_eq!(y[0], f32::NEG_INFINITY);
        assert!(y[1].is_nan());
        assert_eq!(grad[2], 0.25);
    }
}
