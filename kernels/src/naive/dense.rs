//! A dense layer, its three gradients, and relu.

use super::{Float, Gemm, Matrix, gemm};

/// Sizes of a dense layer: input `[batch, inputs]`, weights `[inputs, outputs]`, bias `[outputs]`,
/// output `[batch, outputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DenseShape {
    /// Images.
    pub images: usize,
    /// Features of an input.
    pub inputs: usize,
    /// Features of an output.
    pub outputs: usize,
}

/// `input · weights + bias`.
pub fn dense<T: Float>(shape: DenseShape, input: &[T], weights: &[T], bias: &[T]) -> Vec<T> {
    let mut output = Vec::with_capacity(shape.images * shape.outputs);
    for _ in 0..shape.images {
        output.extend_from_slice(&bias[..shape.outputs]);
    }
    let product = Gemm {
        m: shape.images,
        n: shape.outputs,
        k: shape.inputs,
        alpha: T::ONE,
        a: Matrix::row_major(input, shape.inputs),
        b: Matrix::row_major(weights, shape.outputs),
        beta: T::ONE,
    };
    gemm(&product, &mut output, [shape.outputs, 1]);
    output
}

/// `grad_output · weightsᵀ`, of `[batch, inputs]`.
pub fn dense_grad_input<T: Float>(shape: DenseShape, grad_output: &[T], weights: &[T]) -> Vec<T> {
    let mut grad_input = vec![T::ZERO; shape.images * shape.inputs];
    let product = Gemm {
        m: shape.images,
        n: shape.inputs,
        k: shape.outputs,
        alpha: T::ONE,
        a: Matrix::row_major(grad_output, shape.outputs),
        b: Matrix::row_major(weights, shape.outputs).transposed(),
        beta: T::ZERO,
    };
    gemm(&product, &mut grad_input, [shape.inputs, 1]);
    grad_input
}

/// `inputᵀ · grad_output`, of `[inputs, outputs]`, summed over the batch.
pub fn dense_grad_weights<T: Float>(shape: DenseShape, input: &[T], grad_output: &[T]) -> Vec<T> {
    let mut grad_weights = vec![T::ZERO; shape.inputs * shape.outputs];
    let product = Gemm {
        m: shape.inputs,
        n: shape.outputs,
        k: shape.images,
        alpha: T::ONE,
        a: Matrix::row_major(input, shape.inputs).transposed(),
        b: Matrix::row_major(grad_output, shape.outputs),
        beta: T::ZERO,
    };
    gemm(&product, &mut grad_weights, [shape.outputs, 1]);
    grad_weights
}

/// `grad_output` summed over the batch, of `[outputs]`.
pub fn dense_grad_bias<T: Float>(shape: DenseShape, grad_output: &[T]) -> Vec<T> {
    let mut grad_bias = vec![T::ZERO; shape.outputs];
    for image in 0..shape.images {
        for (output, sum) in grad_bias.iter_mut().enumerate() {
            *sum += grad_output[image * shape.outputs + output];
        }
    }
    grad_bias
}

/// max(x, 0); NaN stays NaN.
pub fn relu<T: Float>(input: &[T]) -> Vec<T> {
    let clamp = |&x: &T| if x <= T::ZERO { T::ZERO } else { x };
    input.iter().map(clamp).collect()
}

/// The gradient of [`relu`]: `grad_output` where `output` is positive, else (beside NaN too) zero.
pub fn relu_backward<T: Float>(output: &[T], grad_output: &[T]) -> Vec<T> {
    assert_eq!(output.len(), grad_output.len());
    let pass = |(&y, &grad): (&T, &T)| if y > T::ZERO { grad } else { T::ZERO };
    output.iter().zip(grad_output).map(pass).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close};

    const SHAPE: DenseShape = DenseShape {
        images: 2,
        inputs: 3,
        outputs: 2,
    };
    const INPUT: [f64; 6] = [1.0, -2.0, 3.0, 0.5, 4.0, -1.0];
    const WEIGHTS: [f64; 6] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    const BIAS: [f64; 2] = [0.5, -0.5];

    #[test]
    fn forward_by_hand() {
        let output = dense(SHAPE, &INPUT, &WEIGHTS, &BIAS);
        assert_eq!(output, [10.5, 11.5, 8.0, 10.5]);
    }

    /// The three gradients against central differences of `sum(grad_output · dense(..))`.
    #[test]
    fn gradients_match_finite_differences() {
        let grad_output = [0.3, -0.7, 1.1, 0.2];
        let objective = |input: &[f64], weights: &[f64], bias: &[f64]| -> f64 {
            let output = dense(SHAPE, input, weights, bias);
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
            &dense_grad_input(SHAPE, &grad_output, &WEIGHTS),
            &difference(&INPUT, &|input| objective(input, &WEIGHTS, &BIAS)),
            tolerance,
        );
        assert_close(
            &dense_grad_weights(SHAPE, &INPUT, &grad_output),
            &difference(&WEIGHTS, &|weights| objective(&INPUT, weights, &BIAS)),
            tolerance,
        );
        assert_close(
            &dense_grad_bias(SHAPE, &grad_output),
            &difference(&BIAS, &|bias| objective(&INPUT, &WEIGHTS, bias)),
            tolerance,
        );
    }

    #[test]
    fn relu_cuts_and_passes() {
        let output = relu(&[-1.0, 0.0, 2.0]);
        assert_eq!(output, [0.0, 0.0, 2.0]);
        assert_eq!(relu_backward(&output, &[5.0, 6.0, 7.0]), [0.0, 0.0, 7.0]);
        assert!(relu(&[f32::NAN])[0].is_nan());
    }
}
