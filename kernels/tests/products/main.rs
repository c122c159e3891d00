//! Every matrix product against the naive reference in f64, on every instruction set of the machine.

use std::collections::BTreeSet;

use taskweave_kernels::check::noise;
use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
use taskweave_kernels::dispatch;
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};
use taskweave_kernels::lanes::lanes_len;
use taskweave_kernels::naive;

mod layers;
mod matrices;

/// Around every edge: tile heights 2, 6 and 14, one and two vectors, a block of lanes.
const EDGES: [usize; 17] = [0, 1, 2, 3, 5, 6, 7, 13, 14, 15, 16, 17, 28, 31, 32, 33, 49];
/// The rows and vectors of a task, a block of depth, and two of them.
const LONG: [usize; 11] = [55, 56, 57, 127, 128, 129, 511, 512, 513, 1000, 1025];

/// The sizes that each dimension takes on while the others stay small.
fn shapes() -> Vec<[usize; 3]> {
    let mut shapes = vec![
        [130, 140, 530],
        [140, 130, 530],
        [33, 513, 129],
        [0, 0, 0],
        [17, 0, 1],
    ];
    // Long sums of whole vectors, and rows a quarter of a page and a page apart.
    shapes.extend([[9, 64, 1040], [20, 48, 2100], [9, 256, 600], [5, 1024, 70]]);
    for size in EDGES.into_iter().chain(LONG) {
        shapes.extend([[size, 17, 19], [18, size, 35], [21, 13, size]]);
    }
    shapes
}

fn exact(values: &[f32]) -> Vec<f64> {
    naive::convert(values)
}

fn magnitudes(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value).abs()).collect()
}

/// The properties above iterate `dispatch::all`: this fails if it leaves out a set that the processor
/// reports.
#[test]
fn every_set_of_this_machine_was_run() {
    let run: BTreeSet<_> = dispatch::all().iter().map(|set| set.name()).collect();
    let mut present = BTreeSet::from(["portable"]);
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            present.insert("avx2");
        }
        if std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl")
        {
            present.insert("avx512");
        }
        // The processor's word, and the system's, which lends the registers.
        let known = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |flag: &str| known.split_whitespace().any(|word| word == flag);
        if ["avx512_bf16", "amx_tile", "amx_bf16"].into_iter().all(has) {
            present.insert("amx");
        }
    }
    assert_eq!(run, present, "sets that were run, and sets of this machine");
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let shape = DenseShape {
        images: 200,
        inputs: 500,
        outputs: 300,
    };
    let deep = DenseShape {
        images: 40,
        inputs: 5_000,
        outputs: 20,
    };
    let x = noise(1, lanes_len(200, 500).max(lanes_len(40, 5_000)));
    let deep_x = &x[..lanes_len(40, 5_000)];
    let x = &x[..lanes_len(200, 500)];
    let grad = noise(2, lanes_len(200, 300));
    let weights = noise(3, 500 * 300);
    for &set in dispatch::all() {
        let results = [1, 2, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool of a few threads");
            pool.install(|| {
                let layer = Affine {
                    weights: &weights,
                    bias: None,
                    activation: Activation::Relu,
                };
                let mut y = vec![0.0; grad.len()];
                dense::forward(set, shape, layer, x, &mut y);
                let layer = Affine {
                    weights: &weights[..5_000 * 20],
                    ..layer
                };
                let mut deep_y = vec![0.0; lanes_len(40, 20)];
                dense::forward(set, deep, layer, deep_x, &mut deep_y);
                let mut grad_x = vec![0.0; x.len()];
                dense::grad_input(set, shape, &grad, &weights, &mut grad_x);
                let mut grad_weights = vec![0.0; weights.len()];
                dense::grad_weights(set, shape, x, &grad, &mut grad_weights);
                let mut grad_bias = vec![0.0; 300];
                dense::grad_bias(set, shape, &grad, &mut grad_bias);
                let args = Gemm {
                    m: 200,
                    n: 300,
                    k: 500,
                    alpha: 0.7,
                    a: Matrix::row_major(x, 500),
                    b: Matrix::row_major(&weights, 300),
                    beta: 0.0,
                };
                let mut product = vec![0.0; 200 * 300];
                gemm(set, &args, &mut product, [300, 1]);
                [y, deep_y, grad_x, grad_weights, grad_bias, product]
                    .map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            })
        });
        assert!(results[0] == results[1], "{set:?}: 1 and 2 threads differ");
        assert!(results[0] == results[2], "{set:?}: 1 and 3 threads differ");
    }
}
