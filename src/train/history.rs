//! The record of a training run.

use serde::{Deserialize, Serialize};

/// How one task did in one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Mean loss over the training images, each as it was when its batch was trained.
    pub loss: f64,
    /// Share of the training images classified rightly, likewise.
    pub accuracy: f64,
    /// Mean loss over the validation images.
    pub val_loss: f64,
    /// Share of the validation images classified rightly.
    pub val_accuracy: f64,
}

/// One epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Per task; `None` where the task's loss has weight zero.
    pub tasks: Vec<Option<TaskRecord>>,
    /// The monitored loss: the weighted sum of the tasks' validation losses.
    pub val_loss: f64,
    /// Images of every task that went through the net, for training and validation.
    #[serde(skip)]
    pub images: usize,
    /// Wall time of the epoch in seconds.
    #[serde(skip)]
    pub seconds: f64,
}

/// A finished training run, or a phase of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitOutcome {
    /// The epochs.
    pub history: Vec<EpochRecord>,
    /// The epoch, from 1, whose weights the model now has.
    pub restored_epoch: usize,
    /// Whether early stopping ended the run, not the limit of epochs.
    pub stopped_early: bool,
    /// Wall time in seconds, of a net that tasks share with the choice of its owners.
    #[serde(skip)]
    pub seconds: f64,
}
