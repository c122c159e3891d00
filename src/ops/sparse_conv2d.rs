//! A two-dimensional convolution over lanes with few weights.

use std::sync::Arc;

use taskweave_kernels::conv2d::{self, Conv2dShape, MaxPooled, Recorded};
use taskweave_kernels::dense::Affine;
use taskweave_kernels::dispatch::active;
use taskweave_kernels::elementwise;
use taskweave_kernels::in_place::InPlace;
use taskweave_kernels::sparse::conv2d::Input;
use taskweave_kernels::sparse::{self, Passes, Pattern};
use taskweave_kernels::window::{Padding, Window};

use super::{Activation, operands, pooling};
use crate::autograd::{Backward, Forward, Op, OutputRead, Replaced};
use crate::tensor::{Layout, Tensor, TensorError, TensorSpec};

/// [`Conv2d`](super::Conv2d) where only the weights of a pattern are there, the others zero.
///
/// Inputs: x in lanes `[N, C, H, W]`; the values of the pattern in its order, row-major `[weights]`; and
/// a bias, row-major `[O]`, which may be left out. The output is in lanes, `[N, O, H', W']`, pooled
/// behind the activation if there is a `max_pool`. Gradients are those of the masked convolution; that
/// of the values is computed at their positions alone. Passes that are not to be sparse go by the dense
/// kernels, whose weights are made of the values each time.
///
/// ```
/// use std::sync::Arc;
/// use taskweave::{autograd::Tape, ops::{Activation, SparseConv2d}, tensor::Tensor};
/// use taskweave_kernels::window::{Padding, Window};
/// use taskweave_kernels::{dispatch, sparse::{Passes, Pattern}};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 4.0], [1, 1, 1, 3])?.to_lanes()?);
/// let window = Window { kernel: [1, 3], stride: [1, 1], padding: Padding::Same };
/// // Only the weight of the place to the right.
/// let pattern = Pattern::conv2d(dispatch::active(), window, [1, 1], &[0, 0, 1]);
/// let values = tape.parameter(Tensor::from_vec(vec![10.0], [1])?);
/// let shift = SparseConv2d {
///     pattern: Arc::new(pattern),
///     passes: Passes::ALL,
///     padding: Padding::Same,
///     activation: Activation::Linear,
///     max_pool: None,
/// };
/// let y = tape.apply(shift, &[x, values])?;
/// assert_eq!(tape.value(y).to_row_major().data(), [20.0, 40.0, 0.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SparseConv2d {
    /// Which weights there are, of which window.
    pub pattern: Arc<Pattern>,
    /// Which passes sparse kernels compute.
    pub passes: Passes,
    /// What the window finds past the edges.
    pub padding: Padding,
    /// What follows the sums.
    pub activation: Activation,
    /// The window of a max pooling behind that; it has at most 256 places.
    pub max_pool: Option<Window>,
}

impl SparseConv2d {
    /// The sizes of the convolution, if x is an operand of one.
    fn shape(&self, x: &TensorSpec) -> Option<Conv2dShape> {
        let [kernel_height, kernel_width, channels, outputs] = self.pattern.dims();
        match *x.shape.dims() {
            [images, inputs, height, width] if inputs == channels => Some(Conv2dShape {
                images,
                inputs,
                outputs,
                height,
                width,
                window: Window {
                    kernel: [kernel_height, kernel_width],
                    stride: self.pattern.stride(),
                    padding: self.padding,
                },
            }),
            _ => None,
        }
    }

    fn shape_of(&self, x: &Tensor) -> Conv2dShape {
        let shape = self.shape(x.spec());
        shape.expect("output_spec accepted the operands")
    }
}

impl Op for SparseConv2d {
    fn name(&self) -> &'static str {
        "SparseConv2d"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let (x, values, bias) = match *inputs {
            [x, values] => (x, values, None),
            _ => {
                let [x, values, bias] = operands::exactly(self.name(), inputs)?;
                operands::layout(self.name(), 2, bias, Layout::RowMajor)?;
                (x, values, Some(bias))
            }
        };
        operands::layout(self.name(), 0, x, Layout::Lanes)?;
        operands::layout(self.name(), 1, values, Layout::RowMajor)?;
        let [height, width, channels, outputs] = self.pattern.dims();
        let fits = values.shape.dims() == [self.pattern.len()]
            && bias.is_none_or(|bias| bias.shape.dims() == [outputs]);
        let Some(shape) = self.shape(x).filter(|_| fits) else {
            let expected = format!(
                "of the pattern {height}×{width}×{channels}×{outputs} with {} weights, x is [N, \
                 {channels}, H, W], weights are [{}] and bias [{outputs}]",
                self.pattern.len(),
                self.pattern.len()
            );
            return Err(operands::misfit(self.name(), inputs, expected));
        };
        let [height, width] = shape.output();
        if (height == 0 || width == 0) && shape.height * shape.width > 0 {
            let message = "the window is larger than the image";
            return Err(operands::misfit(self.name(), inputs, message));
        }
        let [height, width] = match self.max_pool {
            Some(window) => {
                pooling::check_places(self.name(), window)?;
                pooling::output_size(self.name(), window, inputs, [height, width])?
            }
            None => [height, width],
        };
        Ok(TensorSpec::lanes([shape.images, outputs, height, width]))
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let values = pass.inputs[1].data();
        let layer = Affine {
            weights: values,
            bias: pass.inputs.get(2).map(|bias| bias.data()),
            activation: self.activation,
        };
        let shape = self.shape_of(pass.inputs[0]);
        let (set, x, y) = (active(), pass.inputs[0].data(), pass.output.data_mut());
        let windows = if self.max_pool.is_some() { y.len() } else { 0 };
        let argmax = pooling::argmax(pass.saved, windows, pass.is_evaluation);
        let pattern = &*self.pattern;
        match (self.max_pool, self.passes.forward) {
            (Some(window), true) => {
                let operands = (pattern, &shape);
                sparse::conv2d::forward_max_pool(set, operands, layer, window, x, y, argmax);
            }
            (Some(window), false) => pattern.with_whole(values, |weights| {
                let layer = Affine { weights, ..layer };
                conv2d::forward_max_pool(set, &shape, layer, window, x, y, argmax);
            }),
            (None, true) => sparse::conv2d::forward(set, pattern, &shape, layer, x, y),
            (None, false) => pattern.with_whole(values, |weights| {
                let layer = Affine { weights, ..layer };
                conv2d::forward(set, &shape, layer, x, y);
            }),
        }
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let values = pass.inputs[1].data();
        let mut replaced = pass.replaced;
        let x = match &replaced {
            Some(replaced) => &*replaced.input,
            None => pass.inputs[0],
        };
        let (set, shape) = (active(), self.shape_of(x));
        if self.activation == Activation::Relu && !pass.rectified {
            elementwise::relu_backward(set, pass.output.data(), pass.grad_output.data_mut());
        }
        let grad = pass.grad_output.data();
        let max_pool = self.max_pool.map(|window| MaxPooled {
            window,
            argmax: &pass.saved.bytes()[..grad.len()],
        });
        let mut grads = pass.grad_inputs.iter_mut();
        let mut next = || grads.next()?.as_mut().map(Tensor::data_mut);
        let (input, weights, bias) = (next(), next(), next());
        let Passes {
            grad_input,
            grad_weights,
            ..
        } = self.passes;
        let (sparse_input, dense_input) = to_either(grad_input, input);
        let (sparse_values, dense_values) = to_either(grad_weights, weights);
        if dense_input.is_some() || dense_values.is_some() {
            self.pattern.with_whole(values, |weights| {
                // What was rectified is so already.
                let recorded = Recorded {
                    x: x.data(),
                    weights,
                    y: &[],
                    activation: Activation::Linear,
                    max_pool,
                };
                let backward = |weights: Option<&mut [f32]>| {
                    let gradients = conv2d::Gradients {
                        input: dense_input,
                        weights,
                        bias: None,
                    };
                    conv2d::backward(set, &shape, recorded, grad, gradients);
                };
                match dense_values {
                    Some(target) => {
                        let pattern = &self.pattern;
                        pattern.with_whole_gradient(target, |whole| backward(Some(whole)));
                    }
                    None => backward(None),
                }
            });
        }
        let input = match &mut replaced {
            Some(Replaced { input, rectified }) => Input::Replaced(InPlace {
                x: input.data_mut(),
                rectified: *rectified,
            }),
            None => Input::Kept {
                x: pass.inputs[0].data(),
                grad: sparse_input,
            },
        };
        let gradients = sparse::conv2d::Gradients {
            values: sparse_values,
            bias,
        };
        let (layer, operands) = ((&*self.pattern, &shape), (input, values));
        match max_pool {
            Some(pooled) => {
                sparse::conv2d::backward_max_pool(set, layer, operands, pooled, grad, gradients);
            }
            None => sparse::conv2d::backward(set, layer, operands, grad, gradients),
        }
    }

    fn replaces_input(&self, _: &[&Tensor], _: bool) -> bool {
        self.passes.grad_input
    }

    fn reads_output(&self) -> OutputRead {
        self.activation.into()
    }
}

/// A gradient on its way to sparse kernels, or to dense ones.
fn to_either(
    is_sparse: bool,
    gradient: Option<&mut [f32]>,
) -> (Option<&mut [f32]>, Option<&mut [f32]>) {
    match is_sparse {
        true => (gradient, None),
        false => (None, gradient),
    }
}
