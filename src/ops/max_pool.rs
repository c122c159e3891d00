//! Pooling by the maximum.

use taskweave_kernels::dispatch::active;
use taskweave_kernels::pool;
use taskweave_kernels::window::Window;

use super::pooling;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// The largest value under each window: lanes `[N, C, H, W]` to lanes `[N, C, H', W']`.
///
/// Of equal values the first in row-major order is taken, padding never is, and a window that holds
/// NaN gives NaN. ∂L/∂x is ∂L/∂y at the place that y came from, summed over the windows; of NaN
/// that is the first one. A window has at most 256 places.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// use taskweave_kernels::window::{Padding, Window};
/// let mut tape = Tape::new();
/// let image = Tensor::from_vec(vec![1.0, 5.0, 2.0, 7.0, 3.0, 4.0], [1, 1, 2, 3])?;
/// let x = tape.leaf(image.to_lanes()?);
/// let window = Window { kernel: [2, 2], stride: [1, 1], padding: Padding::Valid };
/// let y = tape.apply(ops::MaxPool { window }, &[x])?;
/// assert_eq!(tape.value(y).to_row_major().data(), [7.0, 5.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MaxPool {
    /// What is pooled together.
    pub window: Window,
}

impl Op for MaxPool {
    fn name(&self) -> &'static str {
        "MaxPool"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let output = pooling::output_spec(self.name(), self.window, inputs)?;
        pooling::check_places(self.name(), self.window)?;
        Ok(output)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let shape = pooling::shape(self.window, pass.inputs[0].spec());
        let y = pass.output.data_mut();
        let argmax = pooling::argmax(pass.saved, y.len(), pass.is_evaluation);
        pool::max_forward(active(), &shape, pass.inputs[0].data(), y, argmax);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        let shape = pooling::shape(self.window, pass.inputs[0].spec());
        let grad = pass.grad_output.data();
        let argmax = &pass.saved.bytes()[..grad.len()];
        pool::max_backward(active(), &shape, argmax, grad, grad_input.data_mut());
    }
}

#[cfg(test)]
mod tests {
    use taskweave_kernels::window::Padding;

    use super::*;

    #[test]
    fn a_window_of_too_many_places_is_refused() {
        let pool = |kernel| MaxPool {
            window: Window {
                kernel,
                stride: [1, 1],
                padding: Padding::Same,
            },
        };
        let x = TensorSpec::lanes([1, 1, 300, 300]);
        assert!(pool([16, 16]).output_spec(&[&x]).is_ok());
        let error = pool([17, 16]).output_spec(&[&x]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "MaxPool: a window of 17 × 16 has 272 places; a maximum is taken of at most 256"
        );
    }
}
