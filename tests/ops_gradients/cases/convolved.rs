//! Cases of the convolution.

use taskweave::ops;
use taskweave_kernels::naive::{self, Conv2dShape, PoolShape};
use taskweave_kernels::window::{Padding, Window};

use super::{Case, lanes, tensor};

/// A pooling behind the convolution.
const POOL: Window = Window {
    kernel: [2, 2],
    stride: [1, 1],
    padding: Padding::Valid,
};

pub(super) fn add(cases: &mut Vec<Case>) {
    for (images, channels, size, kernel, stride, padding) in [
        (1, [1, 1], [3, 3], [3, 3], [1, 1], Padding::Same),
        (17, [2, 3], [4, 3], [2, 3], [1, 2], Padding::Same),
        (3, [3, 9], [5, 4], [3, 3], [2, 1], Padding::Valid),
        // Channels for Winograd's transforms.
        (1, [16, 16], [3, 3], [3, 3], [1, 1], Padding::Same),
    ] {
        for (activation, biased, max_pool) in [
            (ops::Activation::Linear, true, None),
            (ops::Activation::Linear, false, None),
            (ops::Activation::Relu, true, None),
            (ops::Activation::Relu, true, Some(POOL)),
            (ops::Activation::Linear, false, Some(POOL)),
        ] {
            if max_pool.is_some() && padding == Padding::Valid {
                continue;
            }
            let shape = Conv2dShape {
                images,
                inputs: channels[0],
                outputs: channels[1],
                height: size[0],
                width: size[1],
                window: Window {
                    kernel,
                    stride,
                    padding,
                },
            };
            let x = tensor(&[images, channels[0], size[0], size[1]], 0);
            let weights = tensor(&[kernel[0], kernel[1], channels[0], channels[1]], 1);
            let mut inputs = vec![lanes(&x), weights];
            inputs.extend(biased.then(|| tensor(&[channels[1]], 2)));
            let op = ops::Conv2d {
                stride,
                padding,
                activation,
                max_pool,
                precision: ops::Precision::F32,
            };
            cases.push(Case::new(op, inputs, move |inputs| {
                let none = vec![0.0; shape.outputs];
                let bias = inputs.get(2).unwrap_or(&none);
                let y = naive::conv2d(&shape, &inputs[0], &inputs[1], bias);
                let y = match activation {
                    ops::Activation::Linear => y,
                    ops::Activation::Relu => naive::relu(&y),
                };
                match max_pool {
                    None => y,
                    Some(window) => {
                        let [height, width] = shape.output();
                        let pool = PoolShape {
                            images,
                            channels: shape.outputs,
                            height,
                            width,
                            window,
                        };
                        naive::max_pool(&pool, &y).0
                    }
                }
            }));
        }
    }
}
