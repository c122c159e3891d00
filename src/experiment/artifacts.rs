//! What `--out` keeps: the models, the reports, every number, and the history of the training.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use taskweave_kernels::dispatch;

use super::model_file::{FORMAT_VERSION, StoredTensor};
use super::{Answer, Experiment, ExperimentError, ModelOutcome, RunSettings};
use crate::files::{temporary_in, write_whole};

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

    /// Writes `report.txt`, `metrics.json` and `history.csv`, beside the models.
    pub(super) fn write_results(
        &self,
        experiment: &Experiment,
        settings: &RunSettings,
        outcomes: &[ModelOutcome],
        report: &str,
    ) -> Result<(), ExperimentError> {
        self.write_file("report.txt", report.as_bytes())?;
        let mut metrics = serde_json::to_vec_pretty(&metrics(experiment, settings, outcomes))
            .map_err(|error| self.error(&self.path.join("metrics.json"), error.into()))?;
        metrics.push(b'\n');
        self.write_file("metrics.json", &metrics)?;
        self.write_file("history.csv", history(outcomes).as_bytes())
    }

    /// The place of a file.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn write_file(&self, name: &str, contents: &[u8]) -> Result<(), ExperimentError> {
        let path = self.file(name);
        write_whole(&path, |file| file.write_all(contents))
            .map_err(|source| self.error(&path, source))
    }

    /// Writes a file of tensors, one after the other, so that no second copy of all is made.
    pub(super) fn write_tensors(
        &self,
        name: &str,
        tensors: &[StoredTensor<'_>],
        metadata: HashMap<String, String>,
    ) -> Result<(), ExperimentError> {
        let path = self.file(name);
        let views = tensors.iter().map(|tensor| (&tensor.name[..], tensor));
        let write = || {
            let file = temporary_in(&self.path)?.into_temp_path();
            safetensors::serialize_to_file(views, Some(metadata), &file)
                .map_err(io::Error::other)?;
            OpenOptions::new().write(true).open(&file)?.sync_all()?;
            file.persist(&path).map_err(|error| error.error)
        };
        write().map_err(|source| self.error(&path, source))
    }

    fn error(&self, path: &Path, source: io::Error) -> ExperimentError {
        ExperimentError::Write {
            path: path.to_owned(),
            source,
        }
    }
}

#[derive(Serialize)]
struct ModelMetrics<'a> {
    name: &'a str,
    kind: super::ModelKind,
    phases: &'a [crate::train::FitOutcome],
    warnings: &'a [crate::train::Warning],
    tasks: &'a [super::TaskOutcome],
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
            phases: &outcome.phases,
            warnings: &outcome.warnings,
            tasks: &outcome.tasks,
        })
        .collect();
    let times: serde_json::Map<String, serde_json::Value> = outcomes
        .iter()
        .map(|outcome| {
            let phases = outcome.phases.iter().map(|phase| {
                let epochs = phase.history.iter().map(|epoch| epoch.seconds);
                epochs.collect()
            });
            let epochs: Vec<Vec<f64>> = phases.collect();
            let seconds = json!({ "training_seconds": outcome.seconds(), "epoch_seconds": epochs });
            (outcome.name.clone(), seconds)
        })
        .collect();
    json!({
        "format_version": FORMAT_VERSION,
        "experiment": experiment.name,
        "protocol_name": settings.protocol,
        "protocol": experiment.protocol_of(settings),
        "epochs_limit": settings.epochs.unwrap_or(experiment.protocol(settings.protocol).training.epochs),
        "nets": experiment.nets,
        "pixel_divisor": experiment.pixel_divisor,
        "seed": settings.seed,
        "precision": settings.precision,
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
        "model,task,phase,epoch,loss,accuracy,val_loss,val_accuracy,restored,epoch_seconds\n",
    );
    for outcome in outcomes {
        for (phase, fit) in (1..).zip(&outcome.phases) {
            for epoch in &fit.history {
                for (task, record) in outcome.tasks.iter().zip(&epoch.tasks) {
                    let Some(record) = record else { continue };
                    let restored = u8::from(epoch.epoch == fit.restored_epoch);
                    // Writing to a string cannot fail.
                    let _ = writeln!(
                        csv,
                        "{},{},{phase},{},{},{},{},{},{restored},{:.3}",
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
    }
    csv
}
