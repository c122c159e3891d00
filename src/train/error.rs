//! What can end training early.

use thiserror::Error;

use crate::multitask::OwnerError;
use crate::tensor::TensorError;

/// Why a net could not be trained.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The loss became infinite or not a number; training on would only spread it.
    #[error(
        "the loss of {task} became {loss} in epoch {epoch}, {phase} step {step}: training diverged; \
         a lower learning rate or another seed may help"
    )]
    NotFinite {
        /// The task's name.
        task: String,
        /// The loss found.
        loss: f32,
        /// The epoch, from 1.
        epoch: usize,
        /// "training" or "validation".
        phase: &'static str,
        /// The step within that part of the epoch, from 1.
        step: usize,
    },
    /// Images, labels or settings do not go together.
    #[error("{0}")]
    Data(String),
    /// The person at the terminal asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// An operation refused its operands.
    #[error(transparent)]
    Tensor(#[from] TensorError),
    /// No owners could be chosen.
    #[error("choosing owners for {parameter}: {source}")]
    Owners {
        /// The parameter tensor.
        parameter: String,
        /// The reason.
        source: OwnerError,
    },
}
