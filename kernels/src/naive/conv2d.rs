//! Two-dimensional convolution (cross-correlation, as in every deep-learning library) and its
//! gradients.

use super::Float;
use crate::window::Window;

/// Sizes of a convolution: input `[images, inputs, height, width]`, weights
/// `[kernel height, kernel width, inputs, outputs]`, bias `[outputs]`, output
/// `[images, outputs, output height, output width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dShape {
    /// Images.
    pub images: usize,
    /// Channels of the input.
    pub inputs: usize,
    /// Channels of the output.
    pub outputs: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// The window that moves over them.
    pub window: Window,
}

impl Conv2dShape {
    /// Rows and columns of the output.
    pub fn output(&self) -> [usize; 2] {
        self.window.output([self.height, self.width])
    }

    /// Values of one image of the input.
    pub fn input_features(&self) -> usize {
        self.inputs * self.height * self.width
    }

    /// Values of one image of the output.
    pub fn output_features(&self) -> usize {
        let [height, width] = self.output();
        self.outputs * height * width
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        let [height, width] = self.window.kernel;
        height * width * self.inputs * self.outputs
    }
}

/// Calls `visit` with the places of input, weight and output of every product of the convolution.
fn for_each_product(shape: &Conv2dShape, mut visit: impl FnMut(usize, usize, usize)) {
    let [rows, columns] = shape.window.axes([shape.height, shape.width]);
    for image in 0..shape.images {
        for output in 0..shape.outputs {
            for y in 0..rows.output {
                for x in 0..columns.output {
                    let to =
                        ((image * shape.outputs + output) * rows.output + y) * columns.output + x;
                    for ky in rows.inside(y) {
                        for kx in columns.inside(x) {
                            let from_y = y * rows.stride + ky - rows.before;
                            let from_x = x * columns.stride + kx - columns.before;
                            for input in 0..shape.inputs {
                                let plane = (image * shape.inputs + input) * shape.height;
                                let from = (plane + from_y) * shape.width + from_x;
                                let tap = (ky * columns.kernel + kx) * shape.inputs + input;
                                visit(from, tap * shape.outputs + output, to);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `input ⋆ weights + bias`.
pub fn conv2d<T: Float>(shape: &Conv2dShape, input: &[T], weights: &[T], bias: &[T]) -> Vec<T> {
    let [height, width] = shape.output();
    let plane = height * width;
    let mut output = Vec::with_capacity(shape.images * shape.output_features());
    for _ in 0..shape.images {
        for &bias in &bias[..shape.outputs] {
            output.extend(std::iter::repeat_n(bias, plane));
        }
    }
    for_each_product(shape, |from, weight, to| {
        output[to] += input[from] * weights[weight];
    });
    output
}

/// The gradient with respect to the input.
pub fn conv2d_grad_input<T: Float>(
    shape: &Conv2dShape,
    grad_output: &[T],
    weights: &[T],
) -> Vec<T> {
    let mut grad_input = vec![T::ZERO; shape.images * shape.input_features()];
    for_each_product(shape, |from, weight, to| {
        grad_input[from] += grad_output[to] * weights[weight];
    });
    grad_input
}

/// The gradient with respect to the weights, summed over the batch.
pub fn conv2d_grad_weights<T: Float>(
    shape: &Conv2dShape,
    input: &[T],
    grad_output: &[T],
) -> Vec<T> {
    let mut grad_weights = vec![T::ZERO; shape.weights()];
    for_each_product(shape, |from, weight, to| {
        grad_weights[weight] += input[from] * grad_output[to];
    });
    grad_weights
}

/// The gradient with respect to the bias: `grad_output` summed over the batch and its pixels.
pub fn conv2d_grad_bias<T: Float>(shape: &Conv2dShape, grad_output: &[T]) -> Vec<T> {
    let [height, width] = shape.output();
    let mut grad_bias = vec![T::ZERO; shape.outputs];
    for (index, &grad) in grad_output.iter().enumerate() {
        grad_bias[index / (height * width) % shape.outputs] += grad;
    }
    grad_bias
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close};
    use crate::window::Padding;

    fn shape(kernel: [usize; 2], stride: [usize; 2], padding: Padding) -> Conv2dShape {
        Conv2dShape {
            images: 1,
            inputs: 1,
            outputs: 1,
            height: 3,
            width: 4,
            window: Window {
                kernel,
                stride,
                padding,
            },
        }
    }

    #[test]
    fn forward_by_hand() {
        let input: Vec<f64> = (1..=12).map(f64::from).collect();
        let valid = shape([2, 2], [1, 2], Padding::Valid);
        let output = conv2d(&valid, &input, &[1.0, 0.0, 0.0, 10.0], &[0.5]);
        assert_eq!(output, [61.5, 83.5, 105.5, 127.5]);
        let same = shape([3, 3], [2, 2], Padding::Same);
        let output = conv2d(&same, &input, &[1.0; 9], &[0.0]);
        assert_eq!(output, [24.0, 22.0, 48.0, 38.0]);
    }

    #[test]
    fn gradients_match_finite_differences() {
        let shape = Conv2dShape {
            images: 2,
            inputs: 2,
            outputs: 3,
            ..shape([3, 2], [1, 2], Padding::Same)
        };
        let wave = |len: usize, step: f64| -> Vec<f64> {
            (0..len).map(|at| (at as f64 * step).sin()).collect()
        };
        let input = wave(2 * shape.input_features(), 0.7);
        let weights = wave(shape.weights(), 1.3);
        let bias = wave(3, 2.1);
        let grad_output = wave(2 * shape.output_features(), 0.9);
        let objective = |input: &[f64], weights: &[f64], bias: &[f64]| -> f64 {
            let output = conv2d(&shape, input, weights, bias);
            output
                .iter()
                .zip(&grad_output)
                .map(|(y, grad)| y * grad)
                .sum()
        };
        let difference = |values: &[f64], objective: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
            let at = |index: usize, step: f64| {
                let mut moved = values.to_vec();
                moved[index] += step;
                objective(&moved)
            };
            (0..values.len())
                .map(|index| (at(index, 1e-4) - at(index, -1e-4)) / 2e-4)
                .collect()
        };
        let tolerance = Tolerance::absolute(1e-9);
        assert_close(
            &conv2d_grad_input(&shape, &grad_output, &weights),
            &difference(&input, &|input| objective(input, &weights, &bias)),
            tolerance,
        );
        assert_close(
            &conv2d_grad_weights(&shape, &input, &grad_output),
            &difference(&weights, &|weights| objective(&input, weights, &bias)),
            tolerance,
        );
        assert_close(
            &conv2d_grad_bias(&shape, &grad_output),
            &difference(&bias, &|bias| objective(&input, &weights, bias)),
            tolerance,
        );
    }
}
