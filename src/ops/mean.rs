//! The mean over axes.

use super::reduce::{Axes, reduction_constructors};
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = Σ x / count` over all or some axes, row-major, summed in f64. An axis of size 0 is an error.
///
/// ∂L/∂x = ∂L/∂y / count, repeated along the reduced axes.
///
/// ```
/// use taskweave::{autograd::Tape, ops::Mean, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 9.0], [2, 3])?);
/// let y = tape.apply(Mean::all(), &[x])?;
/// assert_eq!(tape.value(y).data(), [4.0]);
/// let y = tape.apply(Mean::over([0]), &[x])?;
/// assert_eq!(tape.value(y).data(), [2.5, 3.5, 6.0]);
/// let y = tape.apply(Mean::over([1]).keep_dims(), &[x])?;
/// assert_eq!(tape.value(y).data(), [2.0, 6.0]);
/// assert_eq!(tape.value(y).shape().dims(), [2, 1]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Mean(Axes);

reduction_constructors!(Mean);

impl Op for Mean {
    fn name(&self) -> &'static str {
        "Mean"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        self.0.nonempty_output_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let count = self.0.count(pass.inputs[0]) as f64;
        self.0.sum(pass.inputs[0], 1.0 / count, pass.output);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        let count = self.0.count(grad_input) as f32;
        self.0.spread(pass.grad_output, 1.0 / count, grad_input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::tensor::Tensor;

    #[test]
    fn the_gradient_is_shared_among_the_elements() {
        let mut tape = Tape::new();
        let x = tape.parameter(Tensor::zeros_row_major([2, 4]));
        let y = tape.apply(Mean::all(), &[x]).unwrap();
        tape.backward(&[(y, 2.0)]).unwrap();
        assert_eq!(tape.grad(x).unwrap().data(), [0.25; 8]);
    }

    #[test]
    fn the_mean_of_nothing_is_refused() {
        let mut tape = Tape::new();
        let x = tape.leaf(Tensor::zeros_row_major([0, 3]));
        assert_eq!(
            tape.apply(Mean::all(), &[x]).unwrap_err().to_string(),
            "Mean: it has no value over the axes of size 0 in [0, 3]"
        );
    }
}
