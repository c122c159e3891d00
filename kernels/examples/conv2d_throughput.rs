//! Measures the 3×3 convolutions of the small convolutional network, forward and backward, against
//! the multiply-add peak of this machine, on every instruction set that it has, or on the one that
//! `TASKWEAVE_ISA` names; `TASKWEAVE_CONV` forces a way to convolve.
//!
//! `cargo run --release -p taskweave-kernels --example conv2d_throughput -- [images]`

use std::time::Instant;

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check::noise;
use taskweave_kernels::conv2d::{self, Conv2dShape, Gradients, MaxPooled, Recorded};
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch;
use taskweave_kernels::lanes::lanes_len;
use taskweave_kernels::peak::fma_peak_gflops;
use taskweave_kernels::window::{Padding, Window};

const REPETITIONS: usize = 8;

/// The least and the median time of a call, in seconds.
fn time(mut call: impl FnMut()) -> (f64, f64) {
    let mut seconds: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let start = Instant::now();
            call();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (seconds[0], seconds[REPETITIONS / 2])
}

fn main() {
    // On a thread of the pool, as in training: then a call does not begin by waking one.
    rayon::scope(|_| measure());
}

fn measure() {
    let images = match std::env::args().nth(1) {
        Some(images) => images.parse().expect("images are a whole number"),
        None => 512,
    };
    let sets = match dispatch::from_env() {
        Ok(set) if std::env::var_os(dispatch::ENV).is_some() => vec![set],
        Ok(_) => dispatch::all().to_vec(),
        Err(error) => panic!("{error}"),
    };
    let threads = rayon::current_num_threads();
    for set in sets {
        let peak = fma_peak_gflops(set, threads);
        println!(
            "{}: peak {peak:.0} GFLOP/s on {threads} threads",
            set.name()
        );
        for (inputs, outputs, size) in [(1, 32, 28), (32, 32, 28), (32, 64, 27), (64, 64, 27)] {
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
            let x = Buffer::from_slice(&noise(1, lanes_len(images, shape.input_features())));
            let weights = noise(2, shape.weights());
            let bias = noise(3, outputs);
            let mut y = Buffer::zeroed(lanes_len(images, shape.output_features()));
            let grad_output = Buffer::from_slice(&noise(4, y.len()));
            let mut grad_x = Buffer::zeroed(x.len());
            let (mut grad_weights, mut grad_bias) = (weights.clone(), bias.clone());
            let flops = 2.0 * (images * shape.output_features() * 9 * inputs) as f64;
            let report = |what: &str, (least, median): (f64, f64)| {
                println!(
                    "  {inputs:>2} to {outputs} on {size}×{size}, {what:<13}\
                     {:>8.2} ms{:>8.2} ms{:>7.1} %",
                    1e3 * least,
                    1e3 * median,
                    1e-7 * flops / least / peak
                );
            };
            let layer = Affine {
                weights: &weights,
                bias: Some(&bias),
                activation: Activation::Relu,
            };
            report(
                "forward",
                time(|| conv2d::forward(set, &shape, layer, &x, &mut y)),
            );
            let pool = Window {
                kernel: [2, 2],
                stride: [1, 1],
                padding: Padding::Valid,
            };
            let pooled_features = outputs * (size - 1) * (size - 1);
            let mut pooled = Buffer::zeroed(lanes_len(images, pooled_features));
            let mut argmax = vec![0; pooled.len()];
            report(
                "with pooling",
                time(|| {
                    conv2d::forward_max_pool(
                        set,
                        &shape,
                        layer,
                        pool,
                        &x,
                        &mut pooled,
                        Some(&mut argmax),
                    );
                }),
            );
            let grad_pooled = Buffer::from_slice(&noise(5, pooled.len()));
            let behind = Recorded {
                x: &x,
                weights: &weights,
                y: &pooled,
                activation: Activation::Relu,
                max_pool: Some(MaxPooled {
                    window: pool,
                    argmax: &argmax,
                }),
            };
            let all = time(|| {
                let gradients = Gradients {
                    input: Some(&mut grad_x),
                    weights: Some(&mut grad_weights),
                    bias: Some(&mut grad_bias),
                };
                conv2d::backward(set, &shape, behind, &grad_pooled, gradients);
            });
            report("both, pooled", all);
            let recorded = Recorded {
                x: &x,
                weights: &weights,
                y: &y,
                activation: Activation::Relu,
                max_pool: None,
            };
            let input = time(|| {
                let gradients = Gradients {
                    input: Some(&mut grad_x),
                    ..Gradients::default()
                };
                conv2d::backward(set, &shape, recorded, &grad_output, gradients);
            });
            report("grad input", input);
            let weights = time(|| {
                let gradients = Gradients {
                    weights: Some(&mut grad_weights),
                    bias: Some(&mut grad_bias),
                    ..Gradients::default()
                };
                conv2d::backward(set, &shape, recorded, &grad_output, gradients);
            });
            report("grad weights", weights);
        }
    }
}
