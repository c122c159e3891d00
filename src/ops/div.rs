//! Division.

use super::broadcast;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = a / b`, element by element; row-major, shapes broadcast as in NumPy.
///
/// ∂L/∂a = ∂L/∂y / b and ∂L/∂b = -∂L/∂y · a / b², each summed over what was broadcast.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let a = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?);
/// let b = tape.leaf(Tensor::from_vec(vec![2.0, 4.0], [2])?);
/// let y = tape.apply(ops::Div, &[a, b])?;
/// assert_eq!(tape.value(y).data(), [0.5, 0.5, 1.5, 1.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Div;

impl Op for Div {
    fn name(&self) -> &'static str {
        "Div"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        broadcast::output_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        broadcast::forward(pass, |a, b| a / b);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        broadcast::backward(
            pass,
            |grad, _, b| grad / b,
            |grad, a, b| -grad * (a / b) / b,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};
    use crate::tensor::Tensor;

    /// ∂/∂b is -(a₀ + a₁) / b² over the column of a.
    #[test]
    fn gradients_are_summed_over_what_was_broadcast() {
        let a = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2]).unwrap();
        let (_, [grad_a, grad_b]) = value_and_gradients(Div, [a, vector(&[2.0, 4.0])]);
        assert_eq!(grad_a, [0.5, 0.25, 0.5, 0.25]);
        assert_eq!(grad_b, [-1.0, -0.375]);
    }
}
