//! Measures Winograd's convolutions against the multiply-add peak of this machine: the products of
//! the direct form per second, so that more than the peak is a gain.
//!
//! `cargo run --release -p taskweave-kernels --example winograd_throughput`, then if wanted
//! `-- images inputs outputs size`

use std::time::Instant;

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check::noise;
use taskweave_kernels::conv2d::winograd::{self, F4};
use taskweave_kernels::conv2d::{self, Conv2dShape};
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch;
use taskweave_kernels::lanes::lanes_len;
use taskweave_kernels::peak::fma_peak_gflops;
use taskweave_kernels::window::{Padding, Window};

const REPETITIONS: usize = 12;

/// The least time of a call, in seconds.
fn time(mut call: impl FnMut()) -> f64 {
    let mut least = f64::INFINITY;
    for _ in 0..REPETITIONS {
        let start = Instant::now();
        call();
        least = least.min(start.elapsed().as_secs_f64());
    }
    least
}

fn main() {
    // On a thread of the pool, as in training: then a call does not begin by waking one.
    rayon::scope(|_| {
        let sizes: Vec<usize> = std::env::args()
            .skip(1)
            .map(|size| size.parse().expect("sizes are four whole numbers"))
            .collect();
        match sizes[..] {
            [] => {
                for sizes in [[512, 64, 64, 27], [512, 32, 32, 28], [512, 32, 64, 27]] {
                    measure(sizes);
                }
            }
            [images, inputs, outputs, size] => measure([images, inputs, outputs, size]),
            _ => panic!("sizes are four whole numbers: images inputs outputs size"),
        }
    });
}

fn measure([images, inputs, outputs, size]: [usize; 4]) {
    let window = Window {
        kernel: [3, 3],
        stride: [1, 1],
        padding: Padding::Same,
    };
    let shape = Conv2dShape {
        images,
        inputs,
        outputs,
        height: size,
        width: size,
        window,
    };
    let threads = rayon::current_num_threads();
    println!("{images} images, {inputs} to {outputs} channels of {size}×{size}, {threads} threads");

    let x = Buffer::from_slice(&noise(1, lanes_len(images, shape.input_features())));
    let grad_output = Buffer::from_slice(&noise(2, lanes_len(images, shape.output_features())));
    let weights = Buffer::from_slice(&noise(3, shape.weights()));
    let bias = noise(4, outputs);
    let mut y = grad_output.clone();
    let mut grad_x = x.clone();
    let mut grad_weights = weights.clone();

    let sets = match std::env::var_os(dispatch::ENV) {
        Some(_) => &[dispatch::active()],
        None => dispatch::all(),
    };
    for &set in sets {
        let peak = fma_peak_gflops(set, threads);
        println!("{}: peak {peak:.0} GFLOP/s", set.name());
        let report = |name: &str, seconds: f64| {
            let products = images * size * size * 9 * inputs * outputs;
            let rate = 2e-9 * products as f64 / seconds;
            println!(
                "  {name:13} {rate:6.1} GFLOP/s, {:.2} of peak ({:.2} ms)",
                rate / peak,
                seconds * 1e3
            );
        };
        let layer = Affine {
            weights: &weights,
            bias: Some(&bias),
            activation: Activation::Relu,
        };
        if std::env::var_os("DIRECT").is_some() {
            report(
                "direct",
                time(|| conv2d::forward(set, &shape, layer, &x, &mut y)),
            );
        }
        report(
            "forward",
            time(|| winograd::forward::<F4>(set, &shape, layer, &x, &mut y)),
        );
        report(
            "grad_input",
            time(|| winograd::grad_input::<F4>(set, &shape, &grad_output, &weights, &mut grad_x)),
        );
        report(
            "grad_weights",
            time(|| winograd::grad_weights::<F4>(set, &shape, &x, &grad_output, &mut grad_weights)),
        );
    }
}
