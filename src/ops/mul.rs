//! Multiplication, element by element.

use super::broadcast;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = a · b`, element by element; row-major, shapes broadcast as in NumPy.
///
/// ∂L/∂a = ∂L/∂y · b and ∂L/∂b = ∂L/∂y · a, each summed over what was broadcast.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let a = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?);
/// let b = tape.leaf(Tensor::from_vec(vec![10.0, 20.0], [2])?);
/// let y = tape.apply(ops::Mul, &[a, b])?;
/// assert_eq!(tape.value(y).data(), [10.0, 40.0, 30.0, 80.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Mul;

impl Op for Mul {
    fn name(&self) -> &'static str {
        "Mul"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        broadcast::output_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        broadcast::forward(pass, |a, b| a * b);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        broadcast::backward(pass, |grad, _, b| grad * b, |grad, a, _| grad * a);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};
    use crate::tensor::Tensor;

    /// ∂/∂b is the sum of the column of a.
    #[test]
    fn gradients_are_summed_over_what_was_broadcast() {
        let a = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2]).unwrap();
        let (_, [grad_a, grad_b]) = value_and_gradients(Mul, [a, vector(&[5.0, 6.0])]);
        assert_eq!(grad_a, [5.0, 6.0, 5.0, 6.0]);
        assert_eq!(grad_b, [4.0, 6.0]);
    }
}
