//! Measures the matrix products of one dense layer, and the general one of the same size, against
//! the multiply-add peak of this machine, on every instruction set that it has, or on the one that
//! `TASKWEAVE_ISA` names.
//!
//! `cargo run --release -p taskweave-kernels --example gemm_throughput -- [images inputs outputs]`

use std::time::Instant;

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check::noise;
use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
use taskweave_kernels::dispatch;
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};
use taskweave_kernels::lanes::lanes_len;
use taskweave_kernels::peak::fma_peak_gflops;

const REPETITIONS: usize = 60;

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
    // On a thread of the pool, as in training: then a product does not begin by waking one.
    rayon::scope(|_| measure());
}

fn measure() {
    let sizes: Vec<usize> = std::env::args()
        .skip(1)
        .map(|size| size.parse().expect("sizes are three whole numbers"))
        .collect();
    let [images, inputs, outputs] = match sizes[..] {
        [] => [512, 1000, 1000],
        [images, inputs, outputs] => [images, inputs, outputs],
        _ => panic!("sizes are three whole numbers: images inputs outputs"),
    };
    let shape = DenseShape {
        images,
        inputs,
        outputs,
    };
    let threads = rayon::current_num_threads();
    println!("{images}×{inputs}×{outputs}, {threads} threads");

    let x = Buffer::from_slice(&noise(1, lanes_len(images, inputs)));
    let grad_output = Buffer::from_slice(&noise(2, lanes_len(images, outputs)));
    let weights = Buffer::from_slice(&noise(3, inputs * outputs));
    let bias = noise(4, outputs);
    let mut y = grad_output.clone();
    let mut grad_x = x.clone();
    let mut grad_weights = weights.clone();
    let mut product = Buffer::zeroed(images * outputs);

    let sets = match std::env::var_os(dispatch::ENV) {
        Some(_) => &[dispatch::active()],
        None => dispatch::all(),
    };
    for &set in sets {
        let peak = fma_peak_gflops(set, threads);
        println!("{}: peak {peak:.0} GFLOP/s", set.name());
        let report = |name: &str, (least, median): (f64, f64)| {
            let operations = 2e-9 * (images * inputs * outputs) as f64;
            println!(
                "  {name:13} {:6.1} GFLOP/s at best, {:.3} of peak; {:6.1}, {:.3} in the median ({:.3} ms)",
                operations / least,
                operations / least / peak,
                operations / median,
                operations / median / peak,
                median * 1e3
            );
        };
        let layer = Affine {
            weights: &weights,
            bias: Some(&bias),
            activation: Activation::Relu,
        };
        let forward = time(|| dense::forward(set, shape, layer, &x, &mut y));
        report("forward", forward);
        let grad_input =
            time(|| dense::grad_input(set, shape, &grad_output, &weights, &mut grad_x));
        report("grad_input", grad_input);
        let grad_w = time(|| dense::grad_weights(set, shape, &x, &grad_output, &mut grad_weights));
        report("grad_weights", grad_w);
        let args = Gemm {
            m: images,
            n: outputs,
            k: inputs,
            alpha: 1.0,
            a: Matrix::row_major(&x[..images * inputs], inputs),
            b: Matrix::row_major(&weights, outputs),
            beta: 0.0,
        };
        let general = time(|| gemm(set, &args, &mut product, [outputs, 1]));
        report("gemm", general);
    }
}
