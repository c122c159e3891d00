//! Poolings: those of the convolutional net.

use std::io::Write;

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::dispatch;
use taskweave_kernels::lanes::lanes_len;
use taskweave_kernels::pool::{self, PoolShape};
use taskweave_kernels::window::{Padding, Window};

use super::operands::lanes_of_noise;
use super::{Bench, Failure, Load};

/// Channels, and height and width.
const LAYERS: [[usize; 2]; 2] = [[32, 28], [64, 27]];

/// Every layer by maximum and by average, forward and its gradient. In training a maximum comes
/// with its convolution; here it stands alone.
pub(super) fn layers<W: Write>(bench: &mut Bench<'_, W>) -> Result<(), Failure> {
    for [channels, size] in LAYERS {
        let shape = PoolShape {
            images: bench.batch(),
            channels,
            height: size,
            width: size,
            window: Window {
                kernel: [2, 2],
                stride: [1, 1],
                padding: Padding::Valid,
            },
        };
        layer(&shape, bench)?;
    }
    Ok(())
}

fn layer<W: Write>(shape: &PoolShape, bench: &mut Bench<'_, W>) -> Result<(), Failure> {
    let set = dispatch::active();
    let x = lanes_of_noise(shape.images, shape.input_features(), 0);
    let grad_output = lanes_of_noise(shape.images, shape.output_features(), 1);
    let mut y = Buffer::zeroed(lanes_len(shape.images, shape.output_features()));
    let mut grad_x = Buffer::zeroed(x.len());
    // The place of a maximum is a byte.
    let mut argmax = vec![0; y.len()];
    let values = Load::Bytes(4 * (x.len() + y.len()));
    let values_and_places = Load::Bytes(4 * (x.len() + y.len()) + argmax.len());
    let name = |kind: &str, pass: &str| {
        let (channels, size) = (shape.channels, shape.height);
        format!("{kind} pool {channels}x{size}x{size}, {pass}")
    };
    bench.time(name("max", "forward"), values_and_places, || {
        pool::max_forward(set, shape, &x, &mut y, Some(&mut argmax));
    })?;
    bench.time(name("max", "grad input"), values_and_places, || {
        pool::max_backward(set, shape, &argmax, &grad_output, &mut grad_x);
    })?;
    bench.time(name("average", "forward"), values, || {
        pool::average_forward(set, shape, &x, &mut y);
    })?;
    bench.time(name("average", "grad input"), values, || {
        pool::average_backward(set, shape, &grad_output, &mut grad_x);
    })
}
