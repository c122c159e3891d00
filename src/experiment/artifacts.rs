//! What `--out` keeps: the models, the reports, every number, and the history of the training.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde_json::json;
use taskweave_kernels::dispatch;

use super::{Answer, Experiment, ExperimentError, ModelOutcome, RunSettings};
use crate::files::{temporary_in, write_whole};
use crate::train::Model;

/// Version of the layout of the model files and of `metrics.json`.
const FORMAT_VERSION: u32 = 1;

/// A folder that results are written to, each file beside its place and then renamed into it.
#[derive(Clone, Debug)]
pub struct OutputFolder {
    path: PathBuf,
}

impl OutputFolder {
    /// Creates the folder where it is missing and makes sure that files can be written there, so
    /// that a long run does not fail at its end.
    ///
    /// # Errors
    /// When the folder cannot be created or written to.
    pub fn create(path: &Path) -> Result<Self, ExperimentError> {
        let folder = Self {
            path: path.to_owned(),
        };
        std::fs::create_dir_all(path)
            .and_then(|()| temporary_in(path).map(drop))
            .map_err(|source| folder.error(path, source))?;
        Ok(folder)
    }

    /// Writes the model files, `report.txt`, `metrics.json` and `history.csv`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(
        &self,
        experiment: &Experiment,
        settings: &RunSettings,
        outcomes: &[ModelOutcome],
        report: &str,
    ) -> Result<(), ExperimentError> {
        for outcome in outcomes {
            let file = format!("{}.safetensors", outcome.name);
            self.write_file(&file, &model_file(experiment, settings, outcome)?)?;
        }
        self.write_file("report.txt", report.as_bytes())?;
        let mut metrics = serde_json::to_vec_pretty(&metrics(experiment, settings, outcomes))
            .map_err(|error| self.error(&self.path.join("metrics.json"), error.into()))?;
        metrics.push(b'\n');
        self.write_file("metrics.json", &metrics)?;
        self.write_file("history.csv", history(outcomes).as_bytes())
    }

    fn write_file(&self, name: &str, contents: &[u8]) -> Result<(), ExperimentError> {
        let path = self.path.join(name);
        write_whole(&path, |file| file.write_all(contents))
            .map_err(|source| self.error(&path, source))
    }

    fn error(&self, path: &Path, source: io::Error) -> ExperimentError {
        ExperimentError::Write {
            path: path.to_owned(),
            source,
        }
    }
}

/// The weights of a model in safetensors: `Digit/dense_0/kernel` and so on, `[inputs, outputs]` as in
/// Keras, and beside a shared tensor `Digit/dense_0/kernel.owned`, 1 where the task owns a position.
fn model_file(
    experiment: &Experiment,
    settings: &RunSettings,
    outcome: &ModelOutcome,
) -> Result<Vec<u8>, ExperimentError> {
    let store = |reason: String| ExperimentError::Store {
        model: outcome.name.clone(),
        reason,
    };
    let bytes = tensor_bytes(&outcome.model);
    let mut views = Vec::with_capacity(bytes.len());
    for tensor in &bytes {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)
            .map_err(|error| store(error.to_string()))?;
        views.push((tensor.name.as_str(), view));
    }
    // One key, since the order of several is not fixed and the file must be.
    let metadata = json!({
        "format_version": FORMAT_VERSION,
        "experiment": experiment.name,
        "model": outcome.kind,
        "tasks": outcome.tasks.iter().map(|task| &task.name).collect::<Vec<_>>(),
        "net": experiment.net,
        "pixel_divisor": experiment.pixel_divisor,
        "seed": settings.seed,
        "protocol": settings.protocol,
    });
    let metadata = HashMap::from([("taskweave".to_owned(), metadata.to_string())]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| store(error.to_string()))
}

struct StoredTensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn tensor_bytes(model: &Model) -> Vec<StoredTensor> {
    let mut tensors = Vec::new();
    for (index, task) in model.tasks().iter().enumerate() {
        let specs = task.spec().parameters();
        for (position, (spec, value)) in specs.iter().zip(model.parameters(index)).enumerate() {
            let name = format!("{}/{}", task.name(), spec.name);
            if let Some(owned) = task.owned() {
                tensors.push(StoredTensor {
                    name: format!("{name}.owned"),
                    dtype: Dtype::U8,
                    shape: spec.shape.clone(),
                    bytes: owned[position].clone(),
                });
            }
            tensors.push(StoredTensor {
                name,
                dtype: Dtype::F32,
                shape: spec.shape.clone(),
                bytes: value
                    .data()
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect(),
            });
        }
    }
    tensors
}

#[derive(Serialize)]
struct ModelMetrics<'a> {
    name: &'a str,
    kind: super::ModelKind,
    epochs: usize,
    restored_epoch: usize,
    stopped_early: bool,
    warnings: &'a [crate::train::Warning],
    tasks: &'a [super::TaskOutcome],
    history: &'a [crate::train::EpochRecord],
}

/// Every number of the reports, the settings and the circumstances. Everything outside `times` and
/// `threads` is the same for a seed on an instruction set.
fn metrics(
    experiment: &Experiment,
    settings: &RunSettings,
    outcomes: &[ModelOutcome],
) -> serde_json::Value {
    let models: Vec<ModelMetrics<'_>> = outcomes
        .iter()
        .map(|outcome| ModelMetrics {
            name: &outcome.name,
            kind: outcome.kind,
            epochs: outcome.fit.history.len(),
            restored_epoch: outcome.fit.restored_epoch,
            stopped_early: outcome.fit.stopped_early,
            warnings: &outcome.warnings,
            tasks: &outcome.tasks,
            history: &outcome.fit.history,
        })
        .collect();
    let times: serde_json::Map<String, serde_json::Value> = outcomes
        .iter()
        .map(|outcome| {
            let epochs: Vec<f64> = outcome
                .fit
                .history
                .iter()
                .map(|epoch| epoch.seconds)
                .collect();
            let seconds =
                json!({ "training_seconds": outcome.fit.seconds, "epoch_seconds": epochs });
            (outcome.name.clone(), seconds)
        })
        .collect();
    json!({
        "format_version": FORMAT_VERSION,
        "experiment": experiment.name,
        "protocol_name": settings.protocol,
        "protocol": experiment.protocol(settings.protocol),
        "epochs_limit": settings.epochs.unwrap_or(experiment.protocol(settings.protocol).training.epochs),
        "net": experiment.net,
        "pixel_divisor": experiment.pixel_divisor,
        "seed": settings.seed,
        "instruction_set": dispatch::active().name(),
        "version": env!("CARGO_PKG_VERSION"),
        "models": models,
        "answer": Answer::new(outcomes),
        "threads": rayon::current_num_threads(),
        "times": times,
    })
}

fn history(outcomes: &[ModelOutcome]) -> String {
    let mut csv = String::from(
        "model,task,epoch,loss,accuracy,val_loss,val_accuracy,restored,epoch_seconds\n",
    );
    for outcome in outcomes {
        for epoch in &outcome.fit.history {
            for (task, record) in outcome.tasks.iter().zip(&epoch.tasks) {
                let Some(record) = record else { continue };
                let restored = u8::from(epoch.epoch == outcome.fit.restored_epoch);
                // Writing to a string cannot fail.
                let _ = writeln!(
                    csv,
                    "{},{},{},{},{},{},{},{restored},{:.3}",
                    outcome.name,
                    task.name,
                    epoch.epoch,
                    record.loss,
                    record.accuracy,
                    record.val_loss,
                    record.val_accuracy,
                    epoch.seconds
                );
            }
        }
    }
    csv
}
