//! The logistic function.

use super::unary;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = 1 / (1 + e⁻ˣ)`, row-major or in lanes.
///
/// ∂L/∂x = ∂L/∂y · e⁻|ˣ| / (1 + e⁻|ˣ|)², which equals y · (1 - y) but keeps its digits where y is
/// nearly one.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![0.0, 200.0, -200.0], [3])?);
/// let y = tape.apply(ops::Sigmoid, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.5, 1.0, 0.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid;

impl Op for Sigmoid {
    fn name(&self) -> &'static str {
        "Sigmoid"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        unary::same_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        unary::forward(pass, sigmoid);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        unary::backward(pass, |grad, x, _| grad * slope(x));
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn slope(x: f32) -> f32 {
    let decay = (-x.abs()).exp();
    decay / ((1.0 + decay) * (1.0 + decay))
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
        let y = tape.apply(Sigmoid, &[x]).unwrap();
        let loss = tape.apply(crate::ops::Sum::all(), &[y]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        let (y, grad) = (tape.value(y), tape.grad(x).unwrap());
        (y.data().to_vec(), grad.data().to_vec())
    }

    #[test]
    fn it_saturates_without_overflow() {
        let (y, grad) = value_and_gradient(&[0.0, 200.0, -200.0, f32::INFINITY]);
        assert_eq!(y, [0.5, 1.0, 0.0, 1.0]);
        assert_eq!(grad, [0.25, 0.0, 0.0, 0.0]);
    }

    /// y(1 - y) is zero from x = 17 on.
    #[test]
    fn the_gradient_keeps_its_digits_near_one() {
        let (_, grad) = value_and_gradient(&[20.0, -20.0]);
        let expected = (-20.0f32).exp();
        assert!((grad[0] / expected - 1.0).abs() < 1e-6);
        assert_eq!(grad[0], grad[1]);
    }
}
