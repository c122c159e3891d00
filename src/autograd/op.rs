//! What an operation must provide.

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::dense::Activation;
use taskweave_kernels::update::Update;

use crate::tensor::{Tensor, TensorError, TensorSpec};

/// A differentiable operation on tensors.
///
/// The output's shape follows from the inputs' shapes; forward and backward see tensors of the
/// shapes that [`output_spec`](Op::output_spec) accepted. A user's own operation implements this
/// trait and is used like the built-in ones: [`Tape::apply`](super::Tape::apply). It sees row-major
/// slices unless it accepts lanes itself, and
/// [`check_gradients`](super::gradient_check::check_gradients) holds its gradients to central
/// differences of a plain f64 version.
///
/// ```
/// use taskweave::autograd::{Backward, Forward, Op, Tape, gradient_check::check_gradients};
/// use taskweave::tensor::{Layout, Tensor, TensorError, TensorSpec};
///
/// /// `y = ln(1 + eˣ)`, a smooth rectifier; ∂L/∂x = ∂L/∂y / (1 + e⁻ˣ).
/// struct Softplus;
///
/// impl Op for Softplus {
///     fn name(&self) -> &'static str {
///         "Softplus"
///     }
///
///     fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
///         match inputs {
///             [x] if x.layout == Layout::RowMajor => Ok((*x).clone()),
///             _ => Err(TensorError::Value {
///                 op: self.name(),
///                 message: "it takes one row-major tensor".to_string(),
///             }),
///         }
///     }
///
///     fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
///         let input = pass.inputs[0].data();
///         for (y, x) in pass.output.data_mut().iter_mut().zip(input) {
///             *y = x.max(0.0) + (-x.abs()).exp().ln_1p();
///         }
///         Ok(())
///     }
///
///     fn backward(&self, pass: Backward<'_>) {
///         if let Some(grad_input) = &mut pass.grad_inputs[0] {
///             let known = pass.inputs[0].data().iter().zip(pass.grad_output.data());
///             for (grad, (x, grad_output)) in grad_input.data_mut().iter_mut().zip(known) {
///                 *grad = grad_output / (1.0 + (-x).exp());
///             }
///         }
///     }
/// }
///
/// let x = Tensor::from_vec(vec![-2.0, 0.0, 3.0], [3])?;
/// let plain = |inputs: &[Vec<f64>]| inputs[0].iter().map(|x| x.exp().ln_1p()).collect();
/// check_gradients(&Softplus, &[x.clone()], &plain)?;
///
/// let mut tape = Tape::new();
/// let x = tape.parameter(x);
/// let y = tape.apply(Softplus, &[x])?;
/// assert!((tape.value(y).data()[1] - std::f32::consts::LN_2).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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

    /// What the backward pass reads of the output.
    fn reads_output(&self) -> OutputRead {
        OutputRead::Values
    }

    /// The input that the backward pass can update by its gradient, which then is never stored: see
    /// [`Backward::update`].
    fn updates(&self) -> Option<usize> {
        None
    }

    /// Whether the backward pass can put the gradient of the first input into the place of that input,
    /// asked for an update or not: see [`Backward::replaced`].
    fn replaces_input(&self, _inputs: &[&Tensor], _updates: bool) -> bool {
        false
    }
}

/// What a backward pass reads of the output of its forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputRead {
    /// Its values.
    Values,
    /// Where it is positive: the gradient counts there and nowhere else, as behind a relu.
    Sign,
    /// Nothing.
    Nothing,
}

impl From<Activation> for OutputRead {
    /// What the gradient of an activation reads of its output.
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Relu => Self::Sign,
            Activation::Linear => Self::Nothing,
        }
    }
}

/// What a pass is for; some operations differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A step of training.
    Training {
        /// Tells the step from every other, for operations that draw at random.
        step: u64,
    },
    /// Use of what was learnt: nothing random, no statistics of the batch.
    Inference,
}

/// The forward pass of one operation.
pub struct Forward<'a> {
    /// What the pass is for.
    pub mode: Mode,
    /// The inputs, in the order they were given.
    pub inputs: &'a [&'a Tensor],
    /// The output to write.
    pub output: &'a mut Tensor,
    /// Memory that the operation may resize and fill for its own backward pass.
    pub saved: &'a mut Buffer,
    /// Whether no backward pass follows, so that nothing need be saved for it.
    pub is_evaluation: bool,
}

/// The backward pass of one operation.
pub struct Backward<'a> {
    /// What the forward pass was for.
    pub mode: Mode,
    /// The inputs of the forward pass.
    pub inputs: &'a [&'a Tensor],
    /// The output of the forward pass; empty if the gradient took its place, which only happens where
    /// the operation does not [read its values](Op::reads_output).
    pub output: &'a Tensor,
    /// The gradient of the output is zero already wherever the output was not positive.
    pub rectified: bool,
    /// What the forward pass saved.
    pub saved: &'a mut Buffer,
    /// The gradient of the loss with respect to the output. Nobody reads it afterwards, so the
    /// operation may work in place.
    pub grad_output: &'a mut Tensor,
    /// Per input: the gradient to write (never to add to; contents before are unspecified), or
    /// `None` where no gradient is needed.
    pub grad_inputs: &'a mut [Option<Tensor>],
    /// A step over the [input that is updated](Op::updates). Its values are those of the update, to be
    /// read as they were before it; the tensor among the inputs is empty.
    pub update: Option<Update<'a>>,
    /// The first input, if its gradient takes its place; the tensor among the inputs is empty.
    pub replaced: Option<Replaced<'a>>,
}

/// An input whose gradient takes its place.
pub struct Replaced<'a> {
    /// The input's values, to be replaced.
    pub input: &'a mut Tensor,
    /// Whether the gradient is zero wherever the input was not positive.
    pub rectified: bool,
}
