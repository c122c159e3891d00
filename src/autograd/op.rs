//! What an operation must provide.

use taskweave_kernels::buffer::Buffer;

use crate::tensor::{Tensor, TensorError, TensorSpec};

/// A differentiable operation on tensors.
///
/// The output's shape follows from the inputs' shapes; forward and backward see tensors of the
/// shapes that [`output_spec`](Op::output_spec) accepted. A user's own operation implements this
/// trait and is used like the built-in ones: [`Tape::apply`](super::Tape::apply).
pub trait Op: Send + Sync {
    /// The operation's name, for messages.
    fn name(&self) -> &'static str;

    /// Shape and layout of the output.
    ///
    /// # Errors
    /// When the operation does not take inputs of these shapes or layouts.
    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError>;

    /// Computes the output; its contents before are unspecified.
    ///
    /// # Errors
    /// When an input holds a value that the operation cannot take.
    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError>;

    /// Computes the gradient of every input that needs one, from the gradient of the output.
    fn backward(&self, pass: Backward<'_>);
}

/// The forward pass of one operation.
pub struct Forward<'a> {
    /// The inputs, in the order they were given.
    pub inputs: &'a [&'a Tensor],
    /// The output to write.
    pub output: &'a mut Tensor,
    /// Memory that the operation may resize and fill for its own backward pass.
    pub saved: &'a mut Buffer,
}

/// The backward pass of one operation.
pub struct Backward<'a> {
    /// The inputs of the forward pass.
    pub inputs: &'a [&'a Tensor],
    /// The output of the forward pass.
    pub output: &'a Tensor,
    /// What the forward pass saved.
    pub saved: &'a mut Buffer,
    /// The gradient of the loss with respect to the output. Nobody reads it afterwards, so the
    /// operation may work in place.
    pub grad_output: &'a mut Tensor,
    /// Per input: the gradient to write (never to add to; contents before are unspecified), or
    /// `None` where no gradient is needed.
    pub grad_inputs: &'a mut [Option<Tensor>],
}
