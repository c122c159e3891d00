//! Times pooling and batch normalisation on every instruction set of the machine, each after its
//! answer has been held to the naive one.
//!
//! They are bound by memory, so the rates are in bytes read and written.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use taskweave_kernels::batch_norm::{self, BatchNormShape, Gradients, Normalization};
use taskweave_kernels::batch_norm::{Recorded, Statistics};
use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check::{Tolerance, assert_close, noise};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::lanes::{LANES, blocks, lanes_len, pack, unpack};
use taskweave_kernels::naive;
use taskweave_kernels::pool::{self, PoolShape};
use taskweave_kernels::window::{Padding, Window};

/// Overlapping windows over what a 3×3 convolution leaves of 29×29 pixels: 95 MB of planes.
const OVERLAPPING: PoolShape = PoolShape {
    images: 512,
    channels: 64,
    height: 27,
    width: 27,
    window: Window {
        kernel: [2, 2],
        stride: [1, 1],
        padding: Padding::Valid,
    },
};

/// The usual halving of both sides.
const HALVING: PoolShape = PoolShape {
    window: Window {
        kernel: [2, 2],
        stride: [2, 2],
        padding: Padding::Same,
    },
    ..OVERLAPPING
};

/// A window that the kernels have no path of their own for.
const PADDED: PoolShape = PoolShape {
    window: Window {
        kernel: [3, 3],
        stride: [2, 2],
        padding: Padding::Same,
    },
    ..OVERLAPPING
};

/// Images whose answers are checked: the naive loops over all would take longer than the bench.
const CHECKED: usize = 17;

/// The gradient of a pooling's input, row-major, for some images.
fn naive_gradient(shape: &PoolShape, x: &[f64], grad: &[f64], maximum: bool) -> Vec<f64> {
    if maximum {
        let (_, argmax) = naive::max_pool(shape, x);
        naive::max_pool_backward(shape, &argmax, grad)
    } else {
        naive::average_pool_backward(shape, grad)
    }
}

/// Holds forward and backward passes of a few images to the naive ones.
fn check_pooling(set: InstructionSet, shape: PoolShape) {
    let shape = PoolShape {
        images: CHECKED,
        ..shape
    };
    let (inputs, outputs) = (shape.input_features(), shape.output_features());
    let (x, grad) = (noise(1, CHECKED * inputs), noise(2, CHECKED * outputs));
    let (mut x_lanes, mut grad_lanes) = (
        vec![0.0; lanes_len(CHECKED, inputs)],
        vec![0.0; lanes_len(CHECKED, outputs)],
    );
    pack(set, CHECKED, inputs, &x, &mut x_lanes);
    pack(set, CHECKED, outputs, &grad, &mut grad_lanes);
    let (exact, exact_grad) = (naive::convert(&x), naive::convert(&grad));
    for maximum in [true, false] {
        let mut y = vec![f32::NAN; grad_lanes.len()];
        let mut argmax = vec![0; y.len()];
        let mut grad_input = vec![f32::NAN; x_lanes.len()];
        let expected = if maximum {
            pool::max_forward(set, &shape, &x_lanes, &mut y, Some(&mut argmax));
            pool::max_backward(set, &shape, &argmax, &grad_lanes, &mut grad_input);
            naive::max_pool(&shape, &exact).0
        } else {
            pool::average_forward(set, &shape, &x_lanes, &mut y);
            pool::average_backward(set, &shape, &grad_lanes, &mut grad_input);
            naive::average_pool(&shape, &exact)
        };
        let mut rows = vec![f32::NAN; CHECKED * outputs];
        unpack(set, CHECKED, outputs, &y, &mut rows);
        assert_close(&rows, &expected, Tolerance::absolute(1e-6));
        let mut rows = vec![f32::NAN; CHECKED * inputs];
        unpack(set, CHECKED, inputs, &grad_input, &mut rows);
        let expected = naive_gradient(&shape, &exact, &exact_grad, maximum);
        assert_close(&rows, &expected, Tolerance::absolute(1e-6));
    }
}

fn pooling(criterion: &mut Criterion) {
    for (name, shape) in [
        ("overlapping", OVERLAPPING),
        ("halving", HALVING),
        ("padded", PADDED),
    ] {
        let mut group = criterion.benchmark_group(format!("pool_{name}"));
        group.sample_size(10);
        let input_len = lanes_len(shape.images, shape.input_features());
        let output_len = lanes_len(shape.images, shape.output_features());
        let x = Buffer::from_slice(&noise(1, input_len));
        let mut y = Buffer::from_slice(&noise(2, output_len));
        let mut grad = Buffer::zeroed(input_len);
        let mut argmax = vec![0; output_len];
        let floats = 4 * (input_len + output_len) as u64;
        for &set in dispatch::all() {
            check_pooling(set, shape);
            group.throughput(Throughput::Bytes(floats + output_len as u64));
            group.bench_function(BenchmarkId::new(set.name(), "max"), |bencher| {
                bencher.iter(|| pool::max_forward(set, &shape, &x, &mut y, Some(&mut argmax)));
            });
            group.bench_function(BenchmarkId::new(set.name(), "max_backward"), |bencher| {
                bencher.iter(|| pool::max_backward(set, &shape, &argmax, &y, &mut grad));
            });
            group.throughput(Throughput::Bytes(floats));
            group.bench_function(BenchmarkId::new(set.name(), "average"), |bencher| {
                bencher.iter(|| pool::average_forward(set, &shape, &x, &mut y));
            });
            let id = BenchmarkId::new(set.name(), "average_backward");
            group.bench_function(id, |bencher| {
                bencher.iter(|| pool::average_backward(set, &shape, &y, &mut grad));
            });
        }
        group.finish();
    }
}

const NORMALISED: BatchNormShape = BatchNormShape {
    images: 512,
    channels: 64,
    pixels: 27 * 27,
};

/// A batch with what its normalisation reads and writes.
struct Batch {
    shape: BatchNormShape,
    x: Buffer,
    grad_output: Buffer,
    y: Buffer,
    grad_input: Buffer,
    mean: Vec<f32>,
    variance: Vec<f32>,
    inverse: Vec<f32>,
    ones: Vec<f32>,
    grad_gamma: Vec<f32>,
    grad_beta: Vec<f32>,
}

impl Batch {
    /// Only whole blocks, so that the noise lies in no empty lane.
    fn new(shape: BatchNormShape) -> Self {
        let len = blocks(shape.images) * shape.features() * LANES;
        let channels = || vec![f32::NAN; shape.channels];
        Self {
            shape,
            x: Buffer::from_slice(&noise(3, len)),
            grad_output: Buffer::from_slice(&noise(4, len)),
            y: Buffer::zeroed(len),
            grad_input: Buffer::zeroed(len),
            mean: channels(),
            variance: channels(),
            inverse: channels(),
            ones: vec![1.0; shape.channels],
            grad_gamma: channels(),
            grad_beta: channels(),
        }
    }

    fn forward(&mut self, set: InstructionSet) {
        let (mean, variance) = (&mut self.mean, &mut self.variance);
        batch_norm::statistics(set, self.shape, &self.x, mean, variance);
        batch_norm::inverse_deviation(variance, 1e-3, &mut self.inverse);
        let normalization = Normalization {
            mean,
            inverse_deviation: &self.inverse,
            gamma: &self.ones,
            beta: &self.ones,
        };
        batch_norm::forward(set, self.shape, normalization, &self.x, &mut self.y);
    }

    fn backward(&mut self, set: InstructionSet) {
        let recorded = Recorded {
            x: &self.x,
            normalization: Normalization {
                mean: &self.mean,
                inverse_deviation: &self.inverse,
                gamma: &self.ones,
                beta: &self.ones,
            },
            statistics: Statistics::Batch,
        };
        let gradients = Gradients {
            input: Some(&mut self.grad_input),
            gamma: &mut self.grad_gamma,
            beta: &mut self.grad_beta,
        };
        batch_norm::backward(set, self.shape, recorded, &self.grad_output, gradients);
    }

    fn rows(&self, set: InstructionSet, lanes: &[f32]) -> Vec<f32> {
        let (images, features) = (self.shape.images, self.shape.features());
        let mut rows = vec![f32::NAN; images * features];
        unpack(set, images, features, lanes, &mut rows);
        rows
    }
}

/// Holds the passes of a block of images to the naive ones.
fn check_batch_norm(set: InstructionSet) {
    let mut batch = Batch::new(BatchNormShape {
        images: LANES,
        ..NORMALISED
    });
    batch.forward(set);
    batch.backward(set);
    let shape = batch.shape;
    let x: Vec<f64> = naive::convert(&batch.rows(set, &batch.x));
    let grad: Vec<f64> = naive::convert(&batch.rows(set, &batch.grad_output));
    let (mean, variance) = naive::batch_statistics(shape, &x);
    let normalization = Normalization {
        mean: &mean,
        inverse_deviation: &naive::inverse_deviation(&variance, 1e-3),
        gamma: &vec![1.0; shape.channels],
        beta: &vec![1.0; shape.channels],
    };
    let y = naive::batch_norm(shape, normalization, &x);
    let tolerance = Tolerance::absolute(1e-5);
    assert_close(&batch.rows(set, &batch.y), &y, tolerance);
    let expected = naive::batch_norm_backward(shape, normalization, &x, &grad);
    let grad_input = batch.rows(set, &batch.grad_input);
    assert_close(&grad_input, &expected.input_by_batch, tolerance);
}

fn normalisation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("batch_norm");
    group.sample_size(10);
    let mut batch = Batch::new(NORMALISED);
    let len = 4 * batch.x.len() as u64;
    for &set in dispatch::all() {
        check_batch_norm(set);
        group.throughput(Throughput::Bytes(3 * len));
        group.bench_function(BenchmarkId::new(set.name(), "forward"), |bencher| {
            bencher.iter(|| black_box(&mut batch).forward(set));
        });
        group.throughput(Throughput::Bytes(5 * len));
        group.bench_function(BenchmarkId::new(set.name(), "backward"), |bencher| {
            bencher.iter(|| black_box(&mut batch).backward(set));
        });
    }
    group.finish();
}

criterion_group!(benches, pooling, normalisation);
criterion_main!(benches);
