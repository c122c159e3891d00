//! Times sparse kernels on every instruction set of the machine, for batches in lanes and for one image,
//! after checking their answers.
//!
//! `cargo bench -p taskweave-kernels --bench sparse`; `cargo test --benches` only runs each once.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::conv2d::Conv2dShape;
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch;
use taskweave_kernels::naive::{self, DenseShape};
use taskweave_kernels::single::{self, SparseDense};
use taskweave_kernels::sparse::{self, Pattern};
use taskweave_kernels::window::{Padding, Window};

#[path = "../tests/masks/mod.rs"]
mod masks;
use masks::{magnitudes, masked};

/// Shares of the weights, in per cent.
const DENSITIES: [usize; 2] = [10, 20];

const IMAGES: usize = 64;

/// A layer of the dense net.
const DENSE: DenseShape = DenseShape {
    images: IMAGES,
    inputs: 1_000,
    outputs: 1_000,
};

/// The last convolution of the convolutional net.
const CONV: Conv2dShape = Conv2dShape {
    images: IMAGES,
    inputs: 64,
    outputs: 64,
    height: 27,
    width: 27,
    window: Window {
        kernel: [3, 3],
        stride: [1, 1],
        padding: Padding::Same,
    },
};

/// Weights of which so many per cent are there, and which.
fn weights(len: usize, per_cent: usize) -> (Vec<f32>, Vec<u8>) {
    let lots = noise(7, len);
    let owned: Vec<u8> = lots
        .iter()
        .map(|lot| u8::from(f64::from(lot.abs()) < per_cent as f64 / 100.0))
        .collect();
    (masked(&noise(1, len), &owned), owned)
}

fn values(pattern: &Pattern, weights: &[f32]) -> Vec<f32> {
    let mut values = vec![0.0; pattern.len()];
    pattern.gather(weights, &mut values);
    values
}

fn layer(values: &[f32]) -> Affine<'_> {
    Affine {
        weights: values,
        bias: None,
        activation: Activation::Linear,
    }
}

/// Holds the first image's results to the reference.
fn check(found: &[f32], expected: &[f64], magnitude: &[f64], terms: usize) {
    let found = &found[..expected.len()];
    assert_close_each(found, expected, |at| Tolerance::dot(terms, magnitude[at]));
}

fn dense(criterion: &mut Criterion) {
    let DenseShape {
        inputs, outputs, ..
    } = DENSE;
    let mut group = criterion.benchmark_group("sparse_dense");
    let first = DenseShape { images: 1, ..DENSE };
    let (x, bias) = (noise(2, IMAGES * inputs), vec![0.0; outputs]);
    for per_cent in DENSITIES {
        let (weights, owned) = weights(inputs * outputs, per_cent);
        let (one, no_bias) = (&x[..inputs], naive::convert(&bias));
        let expected = naive::dense(
            first,
            &naive::convert(one),
            &naive::convert(&weights),
            &no_bias,
        );
        let magnitude = naive::dense(first, &magnitudes(one), &magnitudes(&weights), &no_bias);
        for &set in dispatch::all() {
            let pattern = Pattern::dense(set, [inputs, outputs], &owned);
            let values = values(&pattern, &weights);
            let id = |what: &str| BenchmarkId::new(format!("{what}_{per_cent}"), set.name());
            let mut y = vec![0.0; IMAGES * outputs];
            let mut forward = || {
                sparse::dense::forward_rows(set, &pattern, IMAGES, layer(&values), &x, &mut y);
            };
            forward();
            group.throughput(Throughput::Elements((IMAGES * pattern.len()) as u64));
            group.bench_function(id("forward"), |bencher| bencher.iter(&mut forward));
            check(&y, &expected, &magnitude, inputs);

            let mut single = SparseDense::new(&pattern);
            single.set_values(&values);
            let mut y = vec![0.0; outputs];
            let mut forward = || single.forward(None, Activation::Linear, one, &mut y);
            forward();
            group.throughput(Throughput::Elements(pattern.len() as u64));
            group.bench_function(id("single"), |bencher| bencher.iter(&mut forward));
            check(&y, &expected, &magnitude, inputs);
        }
    }
    group.finish();
}

fn conv2d(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sparse_conv2d");
    let first = Conv2dShape { images: 1, ..CONV };
    let x = noise(2, CONV.images * CONV.input_features());
    let no_bias = vec![0.0; CONV.outputs];
    let terms = CONV.weights() / CONV.outputs;
    let places: usize = CONV.output().iter().product();
    for per_cent in DENSITIES {
        let (weights, owned) = weights(CONV.weights(), per_cent);
        let one = &x[..CONV.input_features()];
        let expected = naive::conv2d(
            &first,
            &naive::convert(one),
            &naive::convert(&weights),
            &no_bias,
        );
        let magnitude = naive::conv2d(&first, &magnitudes(one), &magnitudes(&weights), &no_bias);
        for &set in dispatch::all() {
            let pattern = Pattern::conv2d(set, CONV.window, [CONV.inputs, CONV.outputs], &owned);
            let values = values(&pattern, &weights);
            let id = |what: &str| BenchmarkId::new(format!("{what}_{per_cent}"), set.name());
            let mut y = vec![0.0; CONV.images * CONV.output_features()];
            let mut forward = || {
                sparse::conv2d::forward_rows(set, &pattern, &CONV, layer(&values), &x, &mut y);
            };
            forward();
            group.throughput(Throughput::Elements(
                (IMAGES * places * pattern.len()) as u64,
            ));
            group.bench_function(id("forward"), |bencher| bencher.iter(&mut forward));
            check(&y, &expected, &magnitude, terms);

            let mut y = vec![0.0; CONV.output_features()];
            let mut one_by_one = single::SparseConv2d::new(&pattern, &first);
            one_by_one.set_values(&values);
            let mut forward = || {
                one_by_one.forward(set, None, Activation::Linear, one, &mut y);
            };
            forward();
            group.throughput(Throughput::Elements((places * pattern.len()) as u64));
            group.bench_function(id("single"), |bencher| bencher.iter(&mut forward));
            check(&y, &expected, &magnitude, terms);
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = dense, conv2d
}
criterion_main!(benches);
