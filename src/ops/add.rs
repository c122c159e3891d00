//! Addition.

use super::broadcast;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = a + b`, element by element; row-major, shapes broadcast as in NumPy.
///
/// ∂L/∂a = ∂L/∂y and ∂L/∂b = ∂L/∂y, each summed over what was broadcast.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let a = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?);
/// let b = tape.leaf(Tensor::from_vec(vec![10.0, 20.0], [2])?);
/// let y = tape.apply(ops::Add, &[a, b])?;
/// assert_eq!(tape.value(y).data(), [11.0, 22.0, 13.0, 24.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        broadcast::output_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        broadcast::forward(pass, |a, b| a + b);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        broadcast::backward(pass, |grad, _, _| grad, |grad, _, _| grad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};
    use crate::tensor::Tensor;

    /// Each element of b is used in two rows.
    #[test]
    fn gradients_are_summed_over_what_was_broadcast() {
        let a = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2]).unwrap();
        let (_, [grad_a, grad_b]) = value_and_gradients(Add, [a, vector(&[5.0, 6.0])]);
        assert_eq!(grad_a, [1.0; 4]);
        assert_eq!(grad_b, [2.0; 2]);
    }
}
