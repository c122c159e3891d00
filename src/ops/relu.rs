//! The rectifier.

use taskweave_kernels::{dispatch::active, elementwise};

use super::unary;
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
        unary::same_spec(self.name(), inputs)
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
    use crate::autograd::Tape;
    use crate::tensor::Tensor;

    fn value_and_gradient(values: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut tape = Tape::new();
        let x = Tensor::from_vec(values.to_vec(), [values.len()]).unwrap();
        let x = tape.parameter(x);
        let y = tape.apply(Relu, &[x]).unwrap();
        let loss = tape.apply(crate::ops::Sum::all(), &[y]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        let (y, grad) = (tape.value(y), tape.grad(x).unwrap());
        (y.data().to_vec(), grad.data().to_vec())
    }

    #[test]
    fn at_zero_the_gradient_is_zero_and_nan_stays_nan() {
        let (y, grad) = value_and_gradient(&[-3.0, 0.0, 2.0, f32::NAN]);
        assert_eq!(y[..3], [0.0, 0.0, 2.0]);
        assert!(y[3].is_nan());
        assert_eq!(grad[..3], [0.0, 0.0, 1.0]);
    }
}
