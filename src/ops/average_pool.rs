//! Pooling by the mean.

use taskweave_kernels::dispatch::active;
use taskweave_kernels::pool;
use taskweave_kernels::window::Window;

use super::pooling;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// The mean of the values under each window: lanes `[N, C, H, W]` to lanes `[N, C, H', W']`.
///
/// Only places on the image count, as in TensorFlow: padding changes no mean. ∂L/∂x is the sum of
/// ∂L/∂y / places over the windows on x.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// use taskweave_kernels::window::{Padding, Window};
/// let mut tape = Tape::new();
/// let image = Tensor::from_vec(vec![1.0, 5.0, 2.0, 7.0, 3.0, 4.0], [1, 1, 2, 3])?;
/// let x = tape.leaf(image.to_lanes()?);
/// let window = Window { kernel: [2, 2], stride: [2, 2], padding: Padding::Same };
/// let y = tape.apply(ops::AveragePool { window }, &[x])?;
/// assert_eq!(tape.value(y).to_row_major().data(), [4.0, 3.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct AveragePool {
    /// What is pooled together.
    pub window: Window,
}

impl Op for AveragePool {
    fn name(&self) -> &'static str {
        "AveragePool"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        pooling::output_spec(self.name(), self.window, inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let shape = pooling::shape(self.window, pass.inputs[0].spec());
        let (x, y) = (pass.inputs[0].data(), pass.output.data_mut());
        pool::average_forward(active(), &shape, x, y);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        let shape = pooling::shape(self.window, pass.inputs[0].spec());
        let grad = pass.grad_output.data();
        pool::average_backward(active(), &shape, grad, grad_input.data_mut());
    }
}
