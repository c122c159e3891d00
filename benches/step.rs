//! A training step and a prediction of small nets, timed once the net has learnt its batch by heart.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use taskweave::nn::NetSpec;
use taskweave::ops::Precision;
use taskweave::train::{Workload, WorkloadSettings};

/// Steps after which every net here knows its batch.
const MOST_STEPS: usize = 300;

/// A workload under a name.
struct Case {
    name: &'static str,
    settings: WorkloadSettings,
}

fn cases() -> [Case; 3] {
    let small = || NetSpec::mlp(784, &[256; 2], 10);
    [
        Case {
            name: "784-256-256-10, batch 128",
            settings: WorkloadSettings {
                net: small(),
                precision: Precision::F32,
                batch: 128,
                tasks: 1,
                percentile: None,
            },
        },
        Case {
            name: "two tasks of 784-256-256-10, batch 128",
            settings: WorkloadSettings {
                net: small(),
                precision: Precision::F32,
                batch: 128,
                tasks: 2,
                percentile: Some(50.0),
            },
        },
        Case {
            name: "convnet, batch 16",
            settings: WorkloadSettings {
                net: NetSpec::convnet(1),
                precision: Precision::F32,
                batch: 16,
                tasks: 1,
                percentile: None,
            },
        },
    ]
}

/// Whether the nets predict every label of their batches.
fn is_learnt(workload: &mut Workload, tasks: usize) -> bool {
    (0..tasks).all(|task| {
        let predictions = workload.predict(task).unwrap();
        let mut pairs = predictions.iter().zip(workload.labels(task));
        pairs.all(|(&prediction, &label)| prediction == u32::from(label))
    })
}

fn steps_and_predictions(criterion: &mut Criterion) {
    for case in cases() {
        let WorkloadSettings { batch, tasks, .. } = case.settings;
        let mut workload = Workload::new(&case.settings).unwrap();
        let mut steps = 0;
        while !is_learnt(&mut workload, tasks) {
            assert!(steps < MOST_STEPS, "{}: not learnt by heart", case.name);
            workload.step().unwrap();
            steps += 1;
        }
        let mut group = criterion.benchmark_group(case.name);
        group.sample_size(20);
        group.throughput(Throughput::Elements((tasks * batch) as u64));
        group.bench_function("training step, Adam", |bencher| {
            bencher.iter(|| black_box(workload.step().unwrap()));
        });
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function("prediction", |bencher| {
            bencher.iter(|| black_box(workload.predict(0).unwrap()));
        });
        group.finish();
    }
}

criterion_group!(benches, steps_and_predictions);
criterion_main!(benches);
