//! Operations of one operand, element by element.

use super::operands;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// A function of one operand, element by element: all that an [`Op`] of this kind consists of. The
/// output has the operand's shape and layout.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
///
/// /// `y = x²`; ∂L/∂x = ∂L/∂y · 2x.
/// struct Square;
///
/// impl ops::Elementwise for Square {
///     const NAME: &'static str = "Square";
///     const IN_LANES: bool = true;
///
///     fn value(x: f32) -> f32 {
///         x * x
///     }
///
///     fn gradient(grad_output: f32, x: f32, _: f32) -> f32 {
///         grad_output * 2.0 * x
///     }
/// }
///
/// let mut tape = Tape::new();
/// let x = tape.parameter(Tensor::from_vec(vec![3.0], [1])?);
/// let y = tape.apply(Square, &[x])?;
/// tape.backward(&[(y, 1.0)])?;
/// assert_eq!(tape.value(y).data(), [9.0]);
/// assert_eq!(tape.grad(x).unwrap().data(), [6.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Elementwise: Send + Sync {
    /// The operation's name, for messages.
    const NAME: &'static str;
    /// Whether it takes lanes too, not only row-major operands. Empty lanes hold any finite value, so
    /// the function must then map every finite value to a finite one.
    const IN_LANES: bool;

    /// y of x.
    fn value(x: f32) -> f32;

    /// ∂L/∂x of ∂L/∂y, x and y.
    fn gradient(grad_output: f32, x: f32, y: f32) -> f32;
}

impl<F: Elementwise> Op for F {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let [input] = if F::IN_LANES {
            operands::exactly(F::NAME, inputs)?
        } else {
            operands::row_major(F::NAME, inputs)?
        };
        Ok(input.clone())
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let input = pass.inputs[0].data();
        for (y, &x) in pass.output.data_mut().iter_mut().zip(input) {
            *y = F::value(x);
        }
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        let values = pass.inputs[0].data().iter().zip(pass.output.data());
        let grads = grad_input
            .data_mut()
            .iter_mut()
            .zip(pass.grad_output.data());
        for ((grad_input, &grad_output), (&x, &y)) in grads.zip(values) {
            *grad_input = F::gradient(grad_output, x, y);
        }
    }
}
