//! Times the products of dense layers and the general one, after checking their answers.
//!
//! `cargo bench -p taskweave-kernels --bench gemm`; `cargo test --benches` only runs each once.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};
use taskweave_kernels::lanes::{lanes_len, pack, unpack};
use taskweave_kernels::naive;

/// Images, inputs and outputs: a hidden layer of the MLP in training and at a batch of one block, its
/// first layer and its last.
const SHAPES: [[usize; 3]; 4] = [
    [512, 1000, 1000],
    [16, 1000, 1000],
    [512, 784, 1000],
    [512, 1000, 10],
];

/// Rows of a result that are checked: a naive product of them all would take longer than the bench.
const CHECKED_ROWS: usize = 5;

/// Holds the first rows of `x · weights` to the naive reference.
fn check(shape: DenseShape, x: &[f32], weights: &[f32], y: &[f32]) {
    let rows = shape.images.min(CHECKED_ROWS);
    let shape = DenseShape {
        images: rows,
        ..shape
    };
    let x = &x[..rows * shape.inputs];
    let product = |x: &[f32], weights: &[f32]| {
        let (x, weights) = (naive::convert(x), naive::convert(weights));
        naive::dense::<f64>(shape, &x, &weights, &vec![0.0; shape.outputs])
    };
    let size = |values: &[f32]| values.iter().map(|value| value.abs()).collect::<Vec<_>>();
    let magnitude = product(&size(x), &size(weights));
    assert_close_each(&y[..rows * shape.outputs], &product(x, weights), |index| {
        Tolerance::dot(shape.inputs, magnitude[index])
    });
}

fn bench_shape(criterion: &mut Criterion, set: InstructionSet, shape: DenseShape) {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    let rows = noise(1, images * inputs);
    let mut x = Buffer::zeroed(lanes_len(images, inputs));
    pack(set, images, inputs, &rows, &mut x);
    let weights = Buffer::from_slice(&noise(2, inputs * outputs));
    let mut grad_output = Buffer::zeroed(lanes_len(images, outputs));
    pack(
        set,
        images,
        outputs,
        &noise(3, images * outputs),
        &mut grad_output,
    );
    let mut y = grad_output.clone();
    let mut grad_x = x.clone();
    let mut grad_weights = weights.clone();
    let mut product = vec![0.0; images * outputs];

    let mut group =
        criterion.benchmark_group(format!("{}/{images}x{inputs}x{outputs}", set.name()));
    group.throughput(Throughput::Elements((images * inputs * outputs) as u64));

    let layer = Affine {
        weights: &weights,
        bias: None,
        activation: Activation::Linear,
    };
    dense::forward(set, shape, layer, &x, &mut y);
    unpack(set, images, outputs, &y, &mut product);
    check(shape, &rows, &weights, &product);
    group.bench_function("forward", |bencher| {
        bencher.iter(|| dense::forward(set, shape, layer, black_box(&x), &mut y));
    });
    group.bench_function("grad_input", |bencher| {
        bencher
            .iter(|| dense::grad_input(set, shape, black_box(&grad_output), &weights, &mut grad_x));
    });
    group.bench_function("grad_weights", |bencher| {
        bencher.iter(|| {
            dense::grad_weights(set, shape, black_box(&x), &grad_output, &mut grad_weights);
        });
    });

    let args = Gemm {
        m: images,
        n: outputs,
        k: inputs,
        alpha: 1.0,
        a: Matrix::row_major(&rows, inputs),
        b: Matrix::row_major(&weights, outputs),
        beta: 0.0,
    };
    product.fill(f32::NAN);
    gemm(set, &args, &mut product, [outputs, 1]);
    check(shape, &rows, &weights, &product);
    group.bench_function("gemm", |bencher| {
        bencher.iter(|| gemm(set, black_box(&args), &mut product, [outputs, 1]));
    });
    group.finish();
}

fn products(criterion: &mut Criterion) {
    for &set in dispatch::all() {
        for [images, inputs, outputs] in SHAPES {
            bench_shape(
                criterion,
                set,
                DenseShape {
                    images,
                    inputs,
                    outputs,
                },
            );
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = products
}
criterion_main!(benches);
