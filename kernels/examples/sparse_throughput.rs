//! Measures sparse kernels beside the dense ones of the same layers, and against the multiply-add peak of
//! this machine, counted on the weights that there are.
//!
//! `cargo run --release -p taskweave-kernels --example sparse_throughput -- [images] [densities in %]`

use std::time::Instant;

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check;
use taskweave_kernels::conv2d::{self, Conv2dShape, Gradients, Recorded};
use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::lanes::lanes_len;
use taskweave_kernels::peak::fma_peak_gflops;
use taskweave_kernels::sparse::{self, Pattern};
use taskweave_kernels::window::{Padding, Window};

const REPETITIONS: usize = 8;

/// Random numbers where tensors lie: in huge pages, and aligned so that they may be written past the caches.
fn noise(seed: u64, len: usize) -> Buffer {
    Buffer::from_slice(&check::noise(seed, len))
}

/// The least time of a call, in seconds.
fn time(mut call: impl FnMut()) -> f64 {
    let seconds = (0..REPETITIONS).map(|_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

fn mask(len: usize, density: f64) -> Vec<u8> {
    let chance = |value: f32| u8::from(f64::from(value).abs() < density);
    check::noise(77, len).into_iter().map(chance).collect()
}

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .skip(1)
        .map(|text| text.parse().expect("a whole number"))
        .collect();
    let images = numbers.first().copied().unwrap_or(512);
    let densities = match numbers.get(1..) {
        Some(rest) if !rest.is_empty() => rest.to_vec(),
        _ => vec![5, 10, 20, 50],
    };
    // On a thread of the pool, as in training.
    rayon::scope(|_| {
        let set = dispatch::from_env().expect("a set that this machine has");
        let peak = fma_peak_gflops(set, rayon::current_num_threads());
        println!("{}: peak {peak:.0} GFLOP/s, batch {images}", set.name());
        for [inputs, outputs] in [[1_000, 1_000], [43_264, 256]] {
            let shape = DenseShape {
                images,
                inputs,
                outputs,
            };
            dense_layer(set, shape, &densities, peak);
        }
        let convolutions = [
            [1, 32, 28],
            [3, 32, 28],
            [32, 32, 28],
            [32, 64, 27],
            [64, 64, 27],
        ];
        for [inputs, outputs, size] in convolutions {
            let shape = Conv2dShape {
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
            };
            convolution(set, &shape, &densities, peak);
        }
    });
}

/// A layer of these weights, with relu and without a bias.
fn layer(weights: &[f32]) -> Affine<'_> {
    Affine {
        weights,
        bias: None,
        activation: Activation::Relu,
    }
}

/// Forward, input gradient and weight gradient: seconds.
type Times = [f64; 3];

fn report(name: &str, density: usize, peak: f64, products: f64, times: Times, dense: Times) {
    print!("{name:<16}{density:>3} %");
    for (time, dense) in times.into_iter().zip(dense) {
        let share = 100.0 * 2e-9 * products / time / peak;
        let factor = dense / time;
        print!("{:>9.2} ms{share:>5.0} %{factor:>6.2}x", 1e3 * time);
    }
    println!();
}

fn dense_layer(set: InstructionSet, shape: DenseShape, densities: &[usize], peak: f64) {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    let x = noise(1, lanes_len(images, inputs));
    let grad = noise(2, lanes_len(images, outputs));
    let (mut y, mut grad_x) = (Buffer::zeroed(grad.len()), Buffer::zeroed(x.len()));
    let weights = noise(3, inputs * outputs);
    let mut grad_weights = vec![0.0; weights.len()];
    let dense = [
        time(|| dense::forward(set, shape, layer(&weights), &x, &mut y)),
        time(|| dense::grad_input(set, shape, &grad, &weights, &mut grad_x)),
        time(|| dense::grad_weights(set, shape, &x, &grad, &mut grad_weights)),
    ];
    for &density in densities {
        let owned = mask(inputs * outputs, density as f64 / 100.0);
        let pattern = Pattern::dense(set, [inputs, outputs], &owned);
        let values = noise(4, pattern.len());
        let mut grad_values = vec![0.0; values.len()];
        let times = [
            time(|| sparse::dense::forward(set, &pattern, images, layer(&values), &x, &mut y)),
            time(|| {
                sparse::dense::grad_input(set, &pattern, images, &grad, &values, &mut grad_x);
            }),
            time(|| {
                sparse::dense::grad_values(set, &pattern, images, &x, &grad, &mut grad_values);
            }),
        ];
        let products = (pattern.len() * images) as f64;
        let name = format!("{inputs} to {outputs}");
        report(&name, density, peak, products, times, dense);
    }
}

fn convolution(set: InstructionSet, shape: &Conv2dShape, densities: &[usize], peak: f64) {
    let images = shape.images;
    let x = noise(1, lanes_len(images, shape.input_features()));
    let grad = noise(2, lanes_len(images, shape.output_features()));
    let (mut y, mut grad_x) = (Buffer::zeroed(grad.len()), Buffer::zeroed(x.len()));
    let weights = noise(3, shape.weights());
    let mut grad_weights = vec![0.0; weights.len()];
    let recorded = Recorded {
        x: &x,
        weights: &weights,
        y: &[],
        activation: Activation::Linear,
        max_pool: None,
    };
    let dense = [
        time(|| conv2d::forward(set, shape, layer(&weights), &x, &mut y)),
        time(|| {
            let gradients = Gradients {
                input: Some(&mut grad_x),
                ..Gradients::default()
            };
            conv2d::backward(set, shape, recorded, &grad, gradients);
        }),
        time(|| {
            let gradients = Gradients {
                weights: Some(&mut grad_weights),
                ..Gradients::default()
            };
            conv2d::backward(set, shape, recorded, &grad, gradients);
        }),
    ];
    for &density in densities {
        let owned = mask(shape.weights(), density as f64 / 100.0);
        let channels = [shape.inputs, shape.outputs];
        let pattern = Pattern::conv2d(set, shape.window, channels, &owned);
        let values = noise(4, pattern.len());
        let mut grad_values = vec![0.0; values.len()];
        let times = [
            time(|| sparse::conv2d::forward(set, &pattern, shape, layer(&values), &x, &mut y)),
            time(|| {
                sparse::conv2d::grad_input(set, &pattern, shape, &grad, &values, &mut grad_x);
            }),
            time(|| {
                sparse::conv2d::grad_values(set, &pattern, shape, &x, &grad, &mut grad_values);
            }),
        ];
        let pixels = shape.height * shape.width;
        let products = (pattern.len() * images * pixels) as f64;
        let name = format!("{} to {}", shape.inputs, shape.outputs);
        report(&name, density, peak, products, times, dense);
    }
}
