//! Why an experiment cannot be run.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::metrics::MetricsError;
use crate::train::TrainError;

/// Why an experiment cannot be run, or its results not be kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExperimentError {
    /// No experiment has this name.
    #[error("there is no experiment {name:?}{suggestion}; the experiments are: {available}", suggestion = suggest(.suggestion))]
    Unknown {
        /// The name asked for.
        name: String,
        /// The most similar name.
        suggestion: Option<String>,
        /// All names.
        available: String,
    },
    /// Training failed.
    #[error("{model}: {source}")]
    Train {
        /// Which net.
        model: String,
        /// The reason.
        source: TrainError,
    },
    /// The observer wants no more.
    #[error("interrupted")]
    Interrupted,
    /// Predictions could not be compared with the labels.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Results could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A run cannot go on from what was kept of it.
    #[error("cannot go on from {}: {reason}", path.display())]
    Checkpoint {
        /// The checkpoint, or the file of a trained model.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A model file cannot be used.
    #[error("cannot read {}: {reason}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A task cannot join a model.
    #[error("cannot add {task}: {reason}")]
    Addition {
        /// The task.
        task: String,
        /// The reason.
        reason: String,
    },
    /// Tasks cannot become one model.
    #[error("cannot weave: {reason}")]
    Weave {
        /// The reason.
        reason: String,
    },
    /// A model could not be put into a file's form.
    #[error("cannot store {model}: {reason}")]
    Store {
        /// Which net.
        model: String,
        /// The reason.
        reason: String,
    },
}

fn suggest(suggestion: &Option<String>) -> String {
    match suggestion {
        Some(name) => format!(" (did you mean {name:?}?)"),
        None => String::new(),
    }
}
