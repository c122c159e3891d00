//! The rectifier.

use taskweave_kernels::{dispatch::active, elementwise};

use super::operands;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = max(x, 0)`, row-major or in lanes; NaN stays NaN.
///
/// ∂L/∂x = ∂L/∂y where y > 0, else zero.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![-1.0, 0.0, 2.5], [3])?);
/// let y = tape.apply(ops::Relu, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.0, 0.0, 2.5]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Relu;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "Relu"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let [input] = operands::exactly(self.name(), inputs)?;
        Ok(input.clone())
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        elementwise::relu(active(), pass.inputs[0].data(), pass.output.data_mut());
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        let grad = pass.grad_output;
        elementwise::relu_backward(active(), pass.output.data(), grad.data_mut());
        std::mem::swap(grad, grad_input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};

    #[test]
    fn at_zero_the_gradient_is_zero_and_nan_stays_nan() {
        let (y, [grad]) = value_and_gradients(Relu, [vector(&[-3.0, 0.0, 2.0, f32::NAN])]);
        assert_eq!(y[..3], [0.0, 0.0, 2.0]);
        assert!(y[3].is_nan());
        assert_eq!(grad[..3], [0.0, 0.0, 1.0]);
    }
}
