//! Sparse kernels: dense layers and convolutions of which few weights are there.

use std::io::Write;

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::conv2d::Conv2dShape;
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch;
use taskweave_kernels::sparse::{self, Pattern};

use super::conv2d::shape;
use super::operands::{lanes_of_noise, noise};
use super::{Bench, Failure, Load};
use crate::multitask::{choose_owners, share};
use crate::random::{Purpose, Stream};

/// Inputs and outputs of the dense layers: those of the dense net, and the first behind the convolutions.
const DENSE: [[usize; 2]; 2] = [[1_000, 1_000], [43_264, 256]];

/// Channels in, channels out, height and width.
const CONVOLUTIONS: [[usize; 3]; 3] = [[32, 32, 28], [32, 64, 27], [64, 64, 27]];

/// Every layer forward and its two gradients, by the weights of largest magnitude. The multiply-adds are
/// those of the weights that there are.
pub(super) fn layers<W: Write>(percentile: f64, bench: &mut Bench<'_, W>) -> Result<(), Failure> {
    for [inputs, outputs] in DENSE {
        dense(percentile, [inputs, outputs], bench)?;
    }
    for sizes in CONVOLUTIONS {
        convolution(percentile, &shape(sizes, bench.batch()), bench)?;
    }
    Ok(())
}

/// The positions of the largest of some weights.
fn owned(weights: &[f32], percentile: f64) -> Result<Vec<u8>, Failure> {
    let shares = [share(weights.len(), percentile)];
    let ties = |_| Stream::new(0, Purpose::Benchmark, 0, 0);
    let owners = choose_owners(&shares, vec![false; weights.len()], &[weights], ties);
    let owners = owners.map_err(|error| Failure::error(error.to_string()))?;
    Ok(owners.into_iter().next().unwrap_or_default())
}

/// The values of a pattern out of whole weights.
fn values(pattern: &Pattern, weights: &[f32]) -> Vec<f32> {
    let mut values = vec![0.0; pattern.len()];
    pattern.gather(weights, &mut values);
    values
}

fn layer<'a>(values: &'a [f32], bias: &'a [f32]) -> Affine<'a> {
    Affine {
        weights: values,
        bias: Some(bias),
        activation: Activation::Relu,
    }
}

fn dense<W: Write>(
    percentile: f64,
    [inputs, outputs]: [usize; 2],
    bench: &mut Bench<'_, W>,
) -> Result<(), Failure> {
    let (set, images) = (dispatch::active(), bench.batch());
    let weights = noise(inputs * outputs, 2);
    let pattern = Pattern::dense(set, [inputs, outputs], &owned(&weights, percentile)?);
    let (values, bias) = (values(&pattern, &weights), noise(outputs, 3));
    let x = lanes_of_noise(images, inputs, 0);
    let grad_output = lanes_of_noise(images, outputs, 1);
    let mut y = Buffer::zeroed(grad_output.len());
    let mut grad_x = Buffer::zeroed(x.len());
    let mut grad_values = values.clone();
    let load = Load::MultiplyAdds(images * pattern.len());
    let name = |pass: &str| format!("sparse dense {inputs}->{outputs} at {percentile} %, {pass}");
    bench.time(name("forward"), load, || {
        sparse::dense::forward(set, &pattern, images, layer(&values, &bias), &x, &mut y);
    })?;
    bench.time(name("grad input"), load, || {
        sparse::dense::grad_input(set, &pattern, images, &grad_output, &values, &mut grad_x);
    })?;
    bench.time(name("grad weights"), load, || {
        sparse::dense::grad_values(set, &pattern, images, &x, &grad_output, &mut grad_values);
    })
}

fn convolution<W: Write>(
    percentile: f64,
    shape: &Conv2dShape,
    bench: &mut Bench<'_, W>,
) -> Result<(), Failure> {
    let set = dispatch::active();
    let weights = noise(shape.weights(), 2);
    let channels = [shape.inputs, shape.outputs];
    let pattern = Pattern::conv2d(set, shape.window, channels, &owned(&weights, percentile)?);
    let (values, bias) = (values(&pattern, &weights), noise(shape.outputs, 3));
    let x = lanes_of_noise(shape.images, shape.input_features(), 0);
    let grad_output = lanes_of_noise(shape.images, shape.output_features(), 1);
    let mut y = Buffer::zeroed(grad_output.len());
    let mut grad_x = Buffer::zeroed(x.len());
    let mut grad_values = values.clone();
    let places: usize = shape.output().iter().product();
    let load = Load::MultiplyAdds(shape.images * places * pattern.len());
    let name = |pass: &str| {
        let Conv2dShape {
            inputs,
            outputs,
            height,
            width,
            ..
        } = shape;
        format!("sparse conv {inputs}->{outputs} {height}x{width} at {percentile} %, {pass}")
    };
    bench.time(name("forward"), load, || {
        sparse::conv2d::forward(set, &pattern, shape, layer(&values, &bias), &x, &mut y);
    })?;
    bench.time(name("grad input"), load, || {
        sparse::conv2d::grad_input(set, &pattern, shape, &grad_output, &values, &mut grad_x);
    })?;
    bench.time(name("grad weights"), load, || {
        sparse::conv2d::grad_values(set, &pattern, shape, &x, &grad_output, &mut grad_values);
    })
}
