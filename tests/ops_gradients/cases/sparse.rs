//! Cases of the sparse operations: the masked dense ones.

use std::sync::Arc;

use taskweave::ops;
use taskweave_kernels::dispatch;
use taskweave_kernels::naive::{self, Conv2dShape, DenseShape, PoolShape};
use taskweave_kernels::sparse::{Passes, Pattern};
use taskweave_kernels::window::{Padding, Window};

use super::{Case, lanes, tensor};

/// About two in five positions.
fn mask(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::from(at * 7 % 5 < 2)).collect()
}

/// The whole weights from those of a pattern.
fn whole(pattern: &Pattern, values: &[f64]) -> Vec<f64> {
    let mut weights = vec![0.0; pattern.dims().iter().product()];
    for (&position, &value) in pattern.positions().iter().zip(values) {
        weights[position as usize] = value;
    }
    weights
}

fn rectified(activation: ops::Activation, y: Vec<f64>) -> Vec<f64> {
    match activation {
        ops::Activation::Linear => y,
        ops::Activation::Relu => naive::relu(&y),
    }
}

pub(super) fn add(cases: &mut Vec<Case>) {
    for [images, inputs, outputs] in [[1, 1, 1], [3, 4, 2], [17, 5, 9]] {
        for activation in [ops::Activation::Linear, ops::Activation::Relu] {
            let shape = DenseShape {
                images,
                inputs,
                outputs,
            };
            let owned = mask(inputs * outputs);
            let pattern = Pattern::dense(dispatch::active(), [inputs, outputs], &owned);
            let pattern = Arc::new(pattern);
            let operands = vec![
                lanes(&tensor(&[images, inputs], 0)),
                tensor(&[pattern.len()], 1),
                tensor(&[outputs], 2),
            ];
            let op = ops::SparseDense {
                pattern: Arc::clone(&pattern),
                activation,
            };
            cases.push(Case::new(op, operands, move |x| {
                let weights = whole(&pattern, &x[1]);
                rectified(activation, naive::dense(shape, &x[0], &weights, &x[2]))
            }));
        }
    }
    add_convolutions(cases);
}

fn add_convolutions(cases: &mut Vec<Case>) {
    let pool = Window {
        kernel: [2, 2],
        stride: [1, 1],
        padding: Padding::Valid,
    };
    for (images, channels, size, kernel, stride, padding) in [
        (17, [2, 3], [4, 3], [3, 3], [1, 1], Padding::Same),
        (3, [3, 2], [5, 4], [2, 3], [2, 1], Padding::Valid),
    ] {
        let [forward, grad_input, grad_weights] = [4, 2, 1];
        for (activation, biased, max_pool, dense) in [
            (ops::Activation::Linear, false, None, 0),
            (ops::Activation::Relu, true, None, 0),
            (ops::Activation::Relu, true, Some(pool), 0),
            (ops::Activation::Relu, true, None, forward),
            (ops::Activation::Relu, true, Some(pool), forward),
            (ops::Activation::Linear, true, None, grad_input),
            (ops::Activation::Relu, true, Some(pool), grad_input),
            (ops::Activation::Relu, false, None, grad_weights),
            (ops::Activation::Relu, true, Some(pool), grad_weights),
            (
                ops::Activation::Linear,
                true,
                None,
                grad_input | grad_weights,
            ),
        ] {
            if max_pool.is_some() && padding == Padding::Valid {
                continue;
            }
            let passes = Passes {
                forward: dense & forward == 0,
                grad_input: dense & grad_input == 0,
                grad_weights: dense & grad_weights == 0,
            };
            let window = Window {
                kernel,
                stride,
                padding,
            };
            let shape = Conv2dShape {
                images,
                inputs: channels[0],
                outputs: channels[1],
                height: size[0],
                width: size[1],
                window,
            };
            let owned = mask(shape.weights());
            let pattern = Pattern::conv2d(dispatch::active(), window, channels, &owned);
            let pattern = Arc::new(pattern);
            let x = tensor(&[images, channels[0], size[0], size[1]], 0);
            let mut operands = vec![lanes(&x), tensor(&[pattern.len()], 1)];
            operands.extend(biased.then(|| tensor(&[channels[1]], 2)));
            let op = ops::SparseConv2d {
                pattern: Arc::clone(&pattern),
                passes,
                padding,
                activation,
                max_pool,
            };
            cases.push(Case::new(op, operands, move |inputs| {
                let none = vec![0.0; shape.outputs];
                let bias = inputs.get(2).unwrap_or(&none);
                let weights = whole(&pattern, &inputs[1]);
                let y = naive::conv2d(&shape, &inputs[0], &weights, bias);
                let y = rectified(activation, y);
                let Some(window) = max_pool else {
                    return y;
                };
                let [height, width] = shape.output();
                let pool = PoolShape {
                    images,
                    channels: shape.outputs,
                    height,
                    width,
                    window,
                };
                naive::max_pool(&pool, &y).0
            }));
        }
    }
}
