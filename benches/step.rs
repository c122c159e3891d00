//! One training step of a small net, whose loss is checked to fall before it is timed.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use taskweave::nn::{Initializer, NetSpec};
use taskweave::optim::{Optimizer, OptimizerSpec};
use taskweave::random::{Purpose, Stream};
use taskweave::train::{Model, TaskImages};

const BATCH: usize = 128;

struct Work {
    model: Model,
    optimizer: Optimizer,
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Work {
    fn new() -> Self {
        let net = NetSpec::mlp(784, &[256; 2], 10);
        let mut stream = Stream::new(0, Purpose::Benchmark, 0, 0);
        let pixels = (0..BATCH * net.input.features())
            .map(|_| stream.below(256) as u8)
            .collect();
        let labels = (0..BATCH).map(|_| stream.below(10) as u8).collect();
        let parameters = net.parameters();
        let weights = parameters
            .iter()
            .map(|parameter| Initializer::GlorotUniform.draw(parameter, &mut stream));
        let mut model = Model::new(BATCH, 255.0);
        model
            .add_task("benchmark", net.clone(), weights.collect())
            .unwrap();
        Self {
            optimizer: model.optimizer(OptimizerSpec::adam()),
            model,
            pixels,
            labels,
        }
    }

    fn step(&mut self) -> f32 {
        let images = TaskImages::new(&self.pixels, &self.labels, 784, 10).unwrap();
        let order: Vec<usize> = (0..BATCH).collect();
        self.model.set_batch(0, &images, &order);
        self.optimizer.begin_step();
        self.model.forward(&[0]).unwrap();
        let loss = self.model.loss(0);
        self.model.learn(0, 1.0, &mut self.optimizer).unwrap();
        self.model.release(0);
        loss
    }
}

fn training_step(criterion: &mut Criterion) {
    let mut work = Work::new();
    let losses: Vec<f32> = (0..20).map(|_| work.step()).collect();
    assert!(losses.iter().all(|loss| loss.is_finite()), "{losses:?}");
    assert!(
        losses[19] < losses[0],
        "twenty steps on one batch lower its loss: {losses:?}"
    );
    let mut group = criterion.benchmark_group("training step");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("784-256-256-10, batch 128, Adam", |bencher| {
        bencher.iter(|| black_box(work.step()));
    });
    group.finish();
}

criterion_group!(benches, training_step);
criterion_main!(benches);
