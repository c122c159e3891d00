//! Convolutions: those of the convolutional net.

use std::io::Write;

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::conv2d::{self, Conv2dShape, Gradients, Recorded};
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch;
use taskweave_kernels::window::{Padding, Window};

use super::operands::{lanes_of_noise, noise};
use super::{Bench, Failure, Load};

/// Channels in, channels out, height and width: the first layer over grey and over colour, the others.
const LAYERS: [[usize; 3]; 5] = [
    [1, 32, 28],
    [3, 32, 28],
    [32, 32, 28],
    [32, 64, 27],
    [64, 64, 27],
];

/// Every layer forward, with relu, and its two gradients from that of its sums: in a step, it arrives rectified.
pub(super) fn layers<W: Write>(bench: &mut Bench<'_, W>) -> Result<(), Failure> {
    for sizes in LAYERS {
        layer(&shape(sizes, bench.batch()), bench)?;
    }
    Ok(())
}

/// A 3×3 convolution of these channels and this height and width.
pub(super) fn shape([inputs, outputs, size]: [usize; 3], images: usize) -> Conv2dShape {
    Conv2dShape {
        images,
        inputs,
        outputs,
        height: size,
        width: size,
        window: Window {
            kernel: [3, 3],
            stride: [1, 1],
            padding: Padding::Same,
        },
    }
}

fn layer<W: Write>(shape: &Conv2dShape, bench: &mut Bench<'_, W>) -> Result<(), Failure> {
    let set = dispatch::active();
    let images = shape.images;
    let x = lanes_of_noise(images, shape.input_features(), 0);
    let grad_output = lanes_of_noise(images, shape.output_features(), 1);
    let (weights, bias) = (noise(shape.weights(), 2), noise(shape.outputs, 3));
    let mut y = Buffer::zeroed(grad_output.len());
    let mut grad_x = Buffer::zeroed(x.len());
    let (mut grad_weights, mut grad_bias) = (weights.clone(), bias.clone());
    let [kernel_height, kernel_width] = shape.window.kernel;
    let products = images * shape.output_features() * kernel_height * kernel_width * shape.inputs;
    let load = Load::MultiplyAdds(products);
    let name = |pass: &str| {
        let (inputs, outputs) = (shape.inputs, shape.outputs);
        format!(
            "conv {inputs}->{outputs} {}x{}, {pass}",
            shape.height, shape.width
        )
    };
    bench.time(name("forward"), load, || {
        let layer = Affine {
            weights: &weights,
            bias: Some(&bias),
            activation: Activation::Relu,
        };
        conv2d::forward(set, shape, layer, &x, &mut y);
    })?;
    let recorded = Recorded {
        x: &x,
        weights: &weights,
        y: &[],
        activation: Activation::Linear,
        max_pool: None,
    };
    bench.time(name("grad input"), load, || {
        let gradients = Gradients {
            input: Some(&mut grad_x),
            ..Gradients::default()
        };
        conv2d::backward(set, shape, recorded, &grad_output, gradients);
    })?;
    bench.time(name("grad weights"), load, || {
        let gradients = Gradients {
            weights: Some(&mut grad_weights),
            bias: Some(&mut grad_bias),
            ..Gradients::default()
        };
        conv2d::backward(set, shape, recorded, &grad_output, gradients);
    })
}
