//! Keras replayed: six recorded training steps of small nets, and every recorded decision of its
//! early stopping. The traces were made with Keras 3 on TensorFlow 2.21 and BeyondML 0.1.7, in f32.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use serde::Deserialize;
use taskweave::data::npy;
use taskweave::multitask::MeanGradient;
use taskweave::nn::NetSpec;
use taskweave::optim::{AdamSettings, OptimizerSpec};
use taskweave::tensor::Tensor;
use taskweave::train::{EarlyStopping, EarlyStoppingSettings, Model, owners_by_importance};

const LOSS_TOLERANCE: f32 = 5e-6;
const WEIGHT_TOLERANCE: f32 = 1e-5;

/// The sizes of all traced nets: 12 inputs, two relu layers, 5 classes, batches of 20.
const BATCH: usize = 20;
const STEPS: usize = 6;

fn net() -> NetSpec {
    NetSpec::mlp(12, &[16, 16], 5)
}

struct Trace {
    archive: zip::ZipArchive<File>,
}

impl Trace {
    fn open(name: &str) -> Self {
        let path = fixture(&format!("{name}.npz"));
        Self {
            archive: zip::ZipArchive::new(File::open(path).unwrap()).unwrap(),
        }
    }

    /// An array's shape and values.
    fn array(&mut self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let mut bytes = Vec::new();
        let mut file = self.archive.by_name(&format!("{name}.npy")).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        let array = npy::parse(&bytes).unwrap();
        let values = match array.integers() {
            Ok(integers) => integers.into_iter().map(|value| value as f32).collect(),
            Err(_) => array.f32().unwrap(),
        };
        (array.shape().to_vec(), values)
    }

    /// One task's parameters, from arrays `prefix/layer/part` with a leading axis of `tasks` tasks.
    fn parameters(
        &mut self,
        prefix: &str,
        names: &[&str],
        task: usize,
        tasks: usize,
    ) -> Vec<Vec<f32>> {
        names
            .iter()
            .map(|name| {
                let (_, values) = self.array(&format!("{prefix}/{name}"));
                let len = values.len() / tasks;
                values[task * len..(task + 1) * len].to_vec()
            })
            .collect()
    }

    /// One step's batch of a task: images and labels.
    fn batch(&mut self, task: usize, step: usize) -> (Vec<f32>, Vec<f32>) {
        let (shape, x) = self.array(&format!("x{task}"));
        assert_eq!(shape, [STEPS, BATCH, 12]);
        let (_, y) = self.array(&format!("y{task}"));
        let images = BATCH * 12;
        (
            x[step * images..(step + 1) * images].to_vec(),
            y[step * BATCH..(step + 1) * BATCH].to_vec(),
        )
    }
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/traces")
        .join(name)
}

/// Fails where a value is further off than allowed, or not a number.
fn assert_within(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= tolerance;
        assert!(
            close,
            "{what}, position {at}: {found} instead of {expected}"
        );
    }
}

fn tensors(values: Vec<Vec<f32>>) -> Vec<Tensor> {
    let specs = net().parameters();
    specs
        .iter()
        .zip(values)
        .map(|(spec, values)| Tensor::from_vec(values, spec.shape.clone()).unwrap())
        .collect()
}

/// Trains the recorded steps and compares losses, first gradients, last weights and predictions.
fn replay(trace: &mut Trace, model: &mut Model, optimizer: OptimizerSpec, names: &[&str]) {
    let tasks: Vec<usize> = (0..model.tasks().len()).collect();
    let weights: Vec<(usize, f32)> = tasks.iter().map(|&task| (task, 1.0)).collect();
    let mut optimizer = model.optimizer(optimizer);
    let (_, losses) = trace.array("losses");
    for step in 0..STEPS {
        for &task in &tasks {
            let (x, y) = trace.batch(task, step);
            model.set_values(task, &x, &y);
        }
        model.forward(&tasks).unwrap();
        for &task in &tasks {
            let expected = losses[step * tasks.len() + task];
            let what = format!("loss of task {task} in step {step}");
            assert_within(&what, &[model.loss(task)], &[expected], LOSS_TOLERANCE);
        }
        model.backward(&weights).unwrap();
        if step == 0 {
            for &task in &tasks {
                let expected = trace.parameters("g0", names, task, tasks.len());
                for ((grad, expected), name) in model.gradients(task).zip(&expected).zip(names) {
                    let mut grad = grad.unwrap().data().to_vec();
                    if let Some(owned) = model.tasks()[task].owned() {
                        let index = names.iter().position(|other| other == name).unwrap();
                        for (grad, owned) in grad.iter_mut().zip(&owned[index]) {
                            *grad *= f32::from(*owned);
                        }
                    }
                    assert_within(&format!("gradient of {name}"), &grad, expected, 2e-6);
                }
            }
        }
        optimizer.begin_step();
        for &task in &tasks {
            model.update(task, &mut optimizer);
        }
    }
    for &task in &tasks {
        let expected = trace.parameters("w1", names, task, tasks.len());
        for ((value, expected), name) in model.parameters(task).zip(&expected).zip(names) {
            assert_within(name, value.data(), expected, WEIGHT_TOLERANCE);
        }
        let (x, y) = trace.batch(task, 0);
        model.set_values(task, &x, &y);
        model.forward(&[task]).unwrap();
        let (_, probabilities) = trace.array(&format!("p{task}"));
        assert_within(
            "probabilities",
            &softmax(model.logits(task)),
            &probabilities,
            1e-5,
        );
    }
}

/// Softmax of logits in lanes `[20, 5]`, row-major.
fn softmax(logits: &Tensor) -> Vec<f32> {
    let mut rows = vec![0.0; BATCH * 5];
    let set = taskweave_kernels::dispatch::active();
    taskweave_kernels::lanes::unpack(set, BATCH, 5, logits.data(), &mut rows);
    for row in rows.chunks_exact_mut(5) {
        let total: f32 = row.iter().map(|logit| logit.exp()).sum();
        row.iter_mut()
            .for_each(|logit| *logit = logit.exp() / total);
    }
    rows
}

fn dense_names(layer: usize) -> [String; 2] {
    let layer = if layer == 0 {
        "dense".to_owned()
    } else {
        format!("dense_{layer}")
    };
    [format!("{layer}/kernel"), format!("{layer}/bias")]
}

const MASKED: [&str; 6] = [
    "multi_masked_dense/weights",
    "multi_masked_dense/bias",
    "multi_masked_dense_1/weights",
    "multi_masked_dense_1/bias",
    "multi_masked_dense_2/weights",
    "multi_masked_dense_2/bias",
];

/// Keras numbers its layers through all the nets of a session, from `first_layer` in this one.
fn replay_dedicated(name: &str, optimizer: OptimizerSpec, first_layer: usize) {
    let mut trace = Trace::open(name);
    let mut model = Model::new(BATCH, 1.0);
    let names: Vec<String> = (first_layer..first_layer + 3)
        .flat_map(dense_names)
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let initial = tensors(trace.parameters("w0", &names, 0, 1));
    model.add_task("traced", net(), initial).unwrap();
    replay(&mut trace, &mut model, optimizer, &names);
}

#[test]
fn mlp_adam() {
    replay_dedicated("mlp_adam", OptimizerSpec::adam(), 0);
}

#[test]
fn mlp_adamw() {
    let optimizer = OptimizerSpec::AdamW {
        adam: AdamSettings {
            learning_rate: 0.002,
            ..AdamSettings::default()
        },
        weight_decay: 0.01,
    };
    replay_dedicated("mlp_adamw", optimizer, 6);
}

#[test]
fn mlp_sgd_momentum() {
    let optimizer = OptimizerSpec::Sgd {
        learning_rate: 0.05,
        momentum: 0.9,
        nesterov: true,
    };
    replay_dedicated("mlp_sgd_momentum", optimizer, 3);
}

/// A two-task model at its initial weights, and the gradients that select its owners, summed batch
/// by batch over all 120 images.
fn masked_model(trace: &mut Trace) -> (Model, Vec<Vec<Vec<f32>>>) {
    let mut model = Model::new(BATCH, 1.0);
    for (task, name) in ["first", "second"].into_iter().enumerate() {
        let initial = tensors(trace.parameters("init", &MASKED, task, 2));
        model.add_task(name, net(), initial).unwrap();
    }
    let mut means: Vec<MeanGradient> = (0..2)
        .map(|_| MeanGradient::new(net().parameters().iter().map(|spec| spec.elements())))
        .collect();
    for step in 0..STEPS {
        for task in 0..2 {
            let (x, y) = trace.batch(task, step);
            model.set_values(task, &x, &y);
        }
        model.forward(&[0, 1]).unwrap();
        model.backward(&[(0, 1.0), (1, 1.0)]).unwrap();
        for (task, mean) in means.iter_mut().enumerate() {
            mean.add(BATCH, model.gradients(task));
        }
    }
    let means = means.into_iter().map(MeanGradient::mean).collect();
    (model, means)
}

#[test]
fn masked_mlp_80() {
    let mut trace = Trace::open("masked_mlp_80");
    let (mut model, gradients) = masked_model(&mut trace);
    let (_, percentile) = trace.array("percentile");
    let percentile = f64::from(percentile[0]);
    let owners = owners_by_importance(&model, &gradients, percentile, 0).unwrap();
    let masks = MASKED.map(|name| format!("{name}_mask"));
    let masks = masks.each_ref().map(String::as_str);
    for (task, owners) in owners.into_iter().enumerate() {
        let expected = trace.parameters("mask", &masks, task, 2);
        for ((owned, expected), name) in owners.iter().zip(&expected).zip(masks) {
            let owned: Vec<f32> = owned.iter().map(|&owned| f32::from(owned)).collect();
            assert_eq!(&owned, expected, "{name} of task {task}");
        }
        model.set_owned(task, owners);
        let expected = trace.parameters("w0", &MASKED, task, 2);
        for (value, expected) in model.parameters(task).zip(&expected) {
            assert_eq!(value.data(), expected);
        }
    }
    replay(&mut trace, &mut model, OptimizerSpec::adam(), &MASKED);
    for task in 0..2 {
        let owned = model.tasks()[task].owned().unwrap();
        for (value, owned) in model.parameters(task).zip(owned) {
            for (value, owned) in value.data().iter().zip(owned) {
                assert!(
                    *owned == 1 || value.to_bits() == 0,
                    "an unowned weight is {value}"
                );
            }
        }
    }
}

#[derive(Deserialize)]
struct StoppingCase {
    val_loss: Vec<f64>,
    min_delta: f64,
    patience: usize,
    epochs_run: usize,
    restored_epoch: usize,
}

#[test]
fn early_stopping_decides_like_keras() {
    let text = std::fs::read_to_string(fixture("early_stopping.json")).unwrap();
    let cases: Vec<StoppingCase> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 40);
    for (index, case) in cases.iter().enumerate() {
        let mut stopping = EarlyStopping::new(EarlyStoppingSettings {
            min_delta: case.min_delta,
            patience: case.patience,
        });
        let mut epochs = 0;
        for &loss in &case.val_loss {
            epochs += 1;
            if stopping.observe(loss).stop {
                break;
            }
        }
        assert_eq!(epochs, case.epochs_run, "case {index}");
        assert_eq!(stopping.best_epoch(), case.restored_epoch, "case {index}");
    }
}
