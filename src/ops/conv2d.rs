//! A two-dimensional convolution over lanes, with activation and pooling in one pass.

use taskweave_kernels::conv2d::{self, Conv2dShape, Gradients, MaxPooled, Recorded};
use taskweave_kernels::dense::Affine;
use taskweave_kernels::dense::bf16::{self, PointwiseShape};
use taskweave_kernels::dispatch::active;
use taskweave_kernels::elementwise;
use taskweave_kernels::in_place::InPlace;
use taskweave_kernels::window::{Padding, Window};

use super::{Activation, Precision, operands, pooling};
use crate::autograd::{Backward, Forward, Op, OutputRead, Replaced};
use crate::tensor::{Layout, Tensor, TensorError, TensorSpec};

/// `y = activation(x ⋆ weights + bias)`, where ⋆ is cross-correlation, as in every deep-learning
/// library.
///
/// Inputs: x in lanes `[N, C, H, W]`, weights row-major `[kernel height, kernel width, C, O]` as in
/// Keras, and a bias, row-major `[O]`, which may be left out. The output is in lanes,
/// `[N, O, H', W']`. With z = ∂L/∂y where y > 0 (relu) or everywhere (linear): ∂L/∂x is z under the
/// windows that reach x, ∂L/∂weights = Σ x · z over images and pixels, ∂L/∂bias = Σ z.
///
/// With `max_pool` the output is pooled behind the activation, which then is never stored; z goes to
/// the first of the largest values of each window.
///
/// ```
/// use taskweave::{autograd::Tape, ops::{Activation, Conv2d, Precision}, tensor::Tensor};
/// use taskweave_kernels::window::Padding;
/// let mut tape = Tape::new();
/// let image = Tensor::from_vec(vec![1.0, 2.0, 4.0, 8.0], [1, 1, 2, 2])?.to_lanes()?;
/// let x = tape.leaf(image);
/// let weights = tape.parameter(Tensor::from_vec(vec![1.0, -1.0], [1, 2, 1, 1])?);
/// let edges = Conv2d {
///     stride: [1, 1],
///     padding: Padding::Same,
///     activation: Activation::Linear,
///     max_pool: None,
///     precision: Precision::F32,
/// };
/// let y = tape.apply(edges, &[x, weights])?;
/// assert_eq!(tape.value(y).to_row_major().data(), [-1.0, 2.0, -4.0, 8.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Conv2d {
    /// Rows and columns that the window moves by.
    pub stride: [usize; 2],
    /// What the window finds past the edges.
    pub padding: Padding,
    /// What follows the sums.
    pub activation: Activation,
    /// The window of a max pooling behind that; it has at most 256 places.
    pub max_pool: Option<Window>,
    /// Of the products of a [pointwise](Self::is_pointwise) convolution; others are f32 whatever is
    /// said here, and the gradient of the bias always is.
    pub precision: Precision,
}

impl Conv2d {
    /// Whether a convolution by this kernel, `[height, width]`, does the same to every pixel by itself,
    /// without pooling: only these have products in bf16.
    pub fn is_pointwise(&self, kernel: [usize; 2]) -> bool {
        kernel == [1, 1] && self.stride == [1, 1] && self.max_pool.is_none()
    }

    /// The sizes for products in bf16, if there are any.
    fn pointwise(&self, shape: &Conv2dShape) -> Option<PointwiseShape> {
        match self.precision {
            Precision::Bf16 if self.is_pointwise(shape.window.kernel) => PointwiseShape::of(shape),
            _ => None,
        }
    }

    /// The sizes of the convolution, if the operands are those of one.
    fn shape(&self, x: &TensorSpec, weights: &TensorSpec) -> Option<Conv2dShape> {
        match (x.shape.dims(), weights.shape.dims()) {
            (
                &[images, inputs, height, width],
                &[kernel_height, kernel_width, channels, outputs],
            ) if inputs == channels
                && kernel_height > 0
                && kernel_width > 0
                && self.stride.iter().all(|&stride| stride > 0) =>
            {
                let window = Window {
                    kernel: [kernel_height, kernel_width],
                    stride: self.stride,
                    padding: self.padding,
                };
                Some(Conv2dShape {
                    images,
                    inputs,
                    outputs,
                    height,
                    width,
                    window,
                })
            }
            _ => None,
        }
    }

    fn shape_of(&self, inputs: &[&Tensor]) -> Conv2dShape {
        self.shape(inputs[0].spec(), inputs[1].spec())
            .expect("output_spec accepted the operands")
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "Conv2d"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let (x, weights, bias) = match *inputs {
            [x, weights] => (x, weights, None),
            _ => {
                let [x, weights, bias] = operands::exactly(self.name(), inputs)?;
                operands::layout(self.name(), 2, bias, Layout::RowMajor)?;
                (x, weights, Some(bias))
            }
        };
        operands::layout(self.name(), 0, x, Layout::Lanes)?;
        operands::layout(self.name(), 1, weights, Layout::RowMajor)?;
        let misfit = |expected: String| operands::misfit(self.name(), inputs, expected);
        let shape = self.shape(x, weights).ok_or_else(|| {
            misfit(format!(
                "x is [N, C, H, W], weights [kernel height, kernel width, C, outputs] and strides, \
                 here {:?}, are at least 1",
                self.stride
            ))
        })?;
        if bias.is_some_and(|bias| bias.shape.dims() != [shape.outputs]) {
            return Err(misfit(format!("the bias is [{}]", shape.outputs)));
        }
        let [height, width] = shape.output();
        if (height == 0 || width == 0) && shape.height * shape.width > 0 {
            return Err(misfit("the window is larger than the image".to_owned()));
        }
        let [height, width] = match self.max_pool {
            Some(window) => {
                pooling::check_places(self.name(), window)?;
                pooling::output_size(self.name(), window, inputs, [height, width])?
            }
            None => [height, width],
        };
        Ok(TensorSpec::lanes([
            shape.images,
            shape.outputs,
            height,
            width,
        ]))
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let layer = Affine {
            weights: pass.inputs[1].data(),
            bias: pass.inputs.get(2).map(|bias| bias.data()),
            activation: self.activation,
        };
        let shape = self.shape_of(pass.inputs);
        let (x, y) = (pass.inputs[0].data(), pass.output.data_mut());
        if let Some(shape) = self.pointwise(&shape) {
            bf16::forward(active(), shape, layer, x, y);
            return Ok(());
        }
        match self.max_pool {
            Some(window) => {
                let argmax = pooling::argmax(pass.saved, y.len(), pass.is_evaluation);
                conv2d::forward_max_pool(active(), &shape, layer, window, x, y, argmax);
            }
            None => conv2d::forward(active(), &shape, layer, x, y),
        }
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let [x, weights] = [pass.inputs[0], pass.inputs[1]];
        let spec = match &pass.replaced {
            Some(replaced) => replaced.input.spec(),
            None => x.spec(),
        };
        let shape = self.shape(spec, weights.spec());
        let shape = shape.expect("output_spec accepted the operands");
        let recorded = Recorded {
            x: x.data(),
            weights: weights.data(),
            y: pass.output.data(),
            activation: match pass.rectified {
                true => Activation::Linear,
                false => self.activation,
            },
            max_pool: self.max_pool.map(|window| MaxPooled {
                window,
                argmax: &pass.saved.bytes()[..pass.grad_output.data().len()],
            }),
        };
        let mut grads = pass.grad_inputs.iter_mut();
        let mut next = || Some(grads.next()?.as_mut()?.data_mut());
        let gradients = Gradients {
            input: next(),
            weights: next(),
            bias: next(),
        };
        if let Some(pointwise) = self.pointwise(&shape) {
            if recorded.activation == Activation::Relu {
                elementwise::relu_backward(active(), recorded.y, pass.grad_output.data_mut());
            }
            let grad_output = pass.grad_output.data();
            return pointwise_backward(&shape, pointwise, recorded, grad_output, gradients);
        }
        let (set, grad_output) = (active(), pass.grad_output.data());
        match pass.replaced {
            Some(Replaced { input, rectified }) => {
                let x = input.data_mut();
                let input = InPlace { x, rectified };
                conv2d::backward_in_place(set, &shape, recorded, input, grad_output, gradients);
            }
            None => conv2d::backward(set, &shape, recorded, grad_output, gradients),
        }
    }

    fn reads_output(&self) -> OutputRead {
        self.activation.into()
    }

    fn replaces_input(&self, inputs: &[&Tensor], _: bool) -> bool {
        let shape = self.shape_of(inputs);
        self.pointwise(&shape).is_none()
    }
}

/// The gradients from that of the sums before the activation: products in bf16, that of the bias in
/// f32.
fn pointwise_backward(
    shape: &Conv2dShape,
    pointwise: PointwiseShape,
    recorded: Recorded<'_>,
    grad_output: &[f32],
    gradients: Gradients<'_>,
) {
    let set = active();
    let Gradients {
        input,
        weights,
        bias,
    } = gradients;
    if let Some(target) = weights {
        bf16::grad_weights(set, pointwise, recorded.x, grad_output, target);
    }
    if let Some(target) = input {
        bf16::grad_input(set, pointwise, grad_output, recorded.weights, target);
    }
    if bias.is_some() {
        let linear = Recorded {
            activation: Activation::Linear,
            ..recorded
        };
        let only_bias = Gradients {
            input: None,
            weights: None,
            bias,
        };
        conv2d::backward(set, shape, linear, grad_output, only_bias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let op = |stride| Conv2d {
            stride,
            padding: Padding::Valid,
            activation: Activation::Linear,
            max_pool: None,
            precision: Precision::F32,
        };
        let message = |stride, x: [usize; 4], weights: [usize; 4], bias: usize| {
            let (x, weights) = (TensorSpec::lanes(x), TensorSpec::row_major(weights));
            let bias = TensorSpec::row_major([bias]);
            let error = op(stride).output_spec(&[&x, &weights, &bias]).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            message([1, 1], [2, 3, 5, 5], [3, 3, 4, 6], 6),
            "Conv2d: shapes [2, 3, 5, 5] and [3, 3, 4, 6] and [6] do not fit; x is [N, C, H, W], \
             weights [kernel height, kernel width, C, outputs] and strides, here [1, 1], are at \
             least 1"
        );
        assert!(message([0, 1], [2, 3, 5, 5], [3, 3, 3, 6], 6).contains("here [0, 1]"));
        assert!(message([1, 1], [2, 3, 5, 5], [3, 3, 3, 6], 5).ends_with("the bias is [6]"));
        assert!(
            message([1, 1], [2, 3, 5, 2], [3, 3, 3, 6], 6)
                .ends_with("the window is larger than the image")
        );
        let x = TensorSpec::lanes([2, 3, 5, 5]);
        assert_eq!(
            op([1, 1]).output_spec(&[&x]).unwrap_err().to_string(),
            "Conv2d takes 3 inputs, but 1 were given"
        );
    }
}
