//! Times the loss of a batch and the optimiser steps on every instruction set of the machine, each
//! after its answer has been held to the naive one.
//!
//! An optimiser step is bound by memory, so its rate is in bytes moved.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check::{Tolerance, assert_close, noise};
use taskweave_kernels::softmax::{SoftmaxShape, cross_entropy};
use taskweave_kernels::update::{AdamStep, MomentumStep, Parameters, adam, momentum};
use taskweave_kernels::{dispatch, lanes, naive};

/// Parameters of a step: two layers of 1000×1000, more than the L2 of a core holds.
const PARAMETERS: usize = 2_000_000;

const ADAM: AdamStep = AdamStep {
    learning_rate: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-7,
    weight_decay: 0.0,
    step: 10,
};

const MOMENTUM: MomentumStep = MomentumStep {
    learning_rate: 1e-2,
    momentum: 0.9,
    nesterov: true,
};

fn softmax_cross_entropy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("softmax_cross_entropy");
    for classes in [10, 1000] {
        let shape = SoftmaxShape {
            images: 512,
            classes,
        };
        let rows = noise(1, shape.images * classes);
        let labels: Vec<u32> = (0..shape.images)
            .map(|image| (image % classes) as u32)
            .collect();
        let exact: Vec<f64> = naive::convert(&rows);
        let (expected, _) = naive::softmax_cross_entropy(classes, &exact, &labels);
        group.throughput(Throughput::Elements(shape.len() as u64));
        for &set in dispatch::all() {
            let mut logits = Buffer::zeroed(shape.len());
            let mut grad = Buffer::zeroed(shape.len());
            lanes::pack(set, shape.images, classes, &rows, &mut logits);
            let mut step = || {
                cross_entropy(set, shape, &logits, &labels, Some(&mut grad))
                    .expect("every label is below the number of classes")
            };
            assert_close(&[step()], &[expected], Tolerance::relative(1e-6));
            let id = BenchmarkId::new(set.name(), format!("512x{classes}"));
            group.bench_function(id, |bencher| bencher.iter(&mut step));
        }
    }
    group.finish();
}

/// Weights, gradient and two states, as an optimiser has them.
struct Model {
    weights: Buffer,
    grad: Buffer,
    first: Buffer,
    second: Buffer,
}

impl Model {
    fn new() -> Self {
        let second: Vec<f32> = noise(4, PARAMETERS)
            .iter()
            .map(|value| value.abs())
            .collect();
        Self {
            weights: Buffer::from_slice(&noise(1, PARAMETERS)),
            grad: Buffer::from_slice(&noise(2, PARAMETERS)),
            first: Buffer::from_slice(&noise(3, PARAMETERS)),
            second: Buffer::from_slice(&second),
        }
    }

    fn adam(&mut self, set: dispatch::InstructionSet, owned: Option<&[u8]>) {
        let parameters = Parameters {
            weights: &mut self.weights,
            grad: &self.grad,
            owned,
        };
        adam(set, &ADAM, parameters, &mut self.first, &mut self.second);
    }

    fn momentum(&mut self, set: dispatch::InstructionSet) {
        let parameters = Parameters {
            weights: &mut self.weights,
            grad: &self.grad,
            owned: None,
        };
        momentum(set, &MOMENTUM, parameters, &mut self.first);
    }
}

fn updates(criterion: &mut Criterion) {
    let before = Model::new();
    let owned: Vec<u8> = (0..PARAMETERS)
        .map(|index| u8::from(index % 10 == 0))
        .collect();
    let weights: Vec<f64> = naive::convert(&before.weights);
    let grad: Vec<f64> = naive::convert(&before.grad);
    let mut first: Vec<f64> = naive::convert(&before.first);
    let mut second: Vec<f64> = naive::convert(&before.second);
    let mut after_adam = weights.clone();
    naive::adam(&ADAM, &mut after_adam, &grad, &mut first, &mut second);
    let after_masked: Vec<f64> = (0..PARAMETERS)
        .map(|index| {
            if owned[index] == 0 {
                weights[index]
            } else {
                after_adam[index]
            }
        })
        .collect();
    let mut velocity: Vec<f64> = naive::convert(&before.first);
    let mut after_momentum = weights;
    naive::momentum(&MOMENTUM, &mut after_momentum, &grad, &mut velocity);
    let tolerance = Tolerance::absolute(1e-5);

    let mut group = criterion.benchmark_group("update_2M");
    for &set in dispatch::all() {
        let mut model = Model::new();
        model.adam(set, None);
        assert_close(&model.weights, &after_adam, tolerance);
        group.throughput(Throughput::Bytes(28 * PARAMETERS as u64));
        group.bench_function(BenchmarkId::new(set.name(), "adam"), |bencher| {
            bencher.iter(|| model.adam(set, None));
        });

        let mut model = Model::new();
        model.adam(set, Some(&owned));
        assert_close(&model.weights, &after_masked, tolerance);
        group.throughput(Throughput::Bytes(29 * PARAMETERS as u64));
        group.bench_function(BenchmarkId::new(set.name(), "masked_adam"), |bencher| {
            bencher.iter(|| model.adam(set, Some(&owned)));
        });

        let mut model = Model::new();
        model.momentum(set);
        assert_close(&model.weights, &after_momentum, tolerance);
        group.throughput(Throughput::Bytes(20 * PARAMETERS as u64));
        group.bench_function(BenchmarkId::new(set.name(), "nesterov"), |bencher| {
            bencher.iter(|| model.momentum(set));
        });
    }
    group.finish();
}

criterion_group!(benches, softmax_cross_entropy, updates);
criterion_main!(benches);
