//! A training step and a prediction of small nets, timed when the net has learnt its batch.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use taskweave::nn::NetSpec;
use taskweave::train::{Workload, WorkloadSettings};

/// A workload under a name.
struct Case {
    name: &'static str,
    settings: WorkloadSettings,
    /// Steps until the net has learnt its batch by heart.
    steps: usize,
}

fn cases() -> [Case; 3] {
    let small = || NetSpec::mlp(784, &[256; 2], 10);
    [
        Case {
            name: "784-256-256-10, batch 128",
            settings: WorkloadSettings {
                net: small(),
                batch: 128,
                tasks: 1,
                percentile: None,
            },
            steps: 60,
        },
        Case {
            name: "two tasks of 784-256-256-10, batch 128",
            settings: WorkloadSettings {
                net: small(),
                batch: 128,
                tasks: 2,
                percentile: Some(50.0),
            },
            steps: 60,
        },
        Case {
            name: "convnet, batch 16",
            settings: WorkloadSettings {
                net: NetSpec::convnet(1),
                batch: 16,
                tasks: 1,
                percentile: None,
            },
            steps: 30,
        },
    ]
}

/// A workload whose nets predict every label of their batches.
fn learnt(case: &Case) -> Workload {
    let mut workload = Workload::new(&case.settings).unwrap();
    for _ in 0..case.steps {
        workload.step().unwrap();
    }
    for task in 0..case.settings.tasks {
        let labels: Vec<u32> = workload
            .labels(task)
            .iter()
            .map(|&label| u32::from(label))
            .collect();
        assert_eq!(workload.predict(task).unwrap(), labels, "{}", case.name);
    }
    workload
}

fn steps_and_predictions(criterion: &mut Criterion) {
    for case in cases() {
        let mut workload = learnt(&case);
        let WorkloadSettings { batch, tasks, .. } = case.settings;
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
