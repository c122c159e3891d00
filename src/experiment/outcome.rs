//! What came of a model.

use serde::Serialize;

use super::ModelKind;
use crate::metrics::{Confusion, Report};
use crate::train::{FitOutcome, Model, Warning};

/// A trained model and how it did on the test sets.
pub struct ModelOutcome {
    /// Dedicated or multitask.
    pub kind: ModelKind,
    /// "dedicated-digit", "multitask": the name of its file.
    pub name: String,
    /// The model.
    pub model: Model,
    /// How training went, phase by phase.
    pub phases: Vec<FitOutcome>,
    /// The results, task by task.
    pub tasks: Vec<TaskOutcome>,
    /// What a reader must know.
    pub warnings: Vec<Warning>,
}

impl ModelOutcome {
    /// Wall time of the training in seconds.
    pub fn seconds(&self) -> f64 {
        self.phases.iter().map(|phase| phase.seconds).sum()
    }
}

/// How one task's net did on the test set.
#[derive(Clone, Debug, Serialize)]
pub struct TaskOutcome {
    /// The task's place in the experiment.
    pub task: usize,
    /// The task's name.
    pub name: String,
    /// Counts of true against predicted classes.
    pub confusion: Confusion,
    /// Precision, recall and the rest.
    pub report: Report,
    /// Share of test images classified rightly.
    pub accuracy: f64,
    /// Weights and biases that the task owns.
    pub parameters_owned: usize,
}

impl TaskOutcome {
    /// The confusion matrix and report as the reference prints them, with the blank line that ends
    /// them.
    pub fn text(&self) -> String {
        format!("{}\n{}\n", self.confusion, self.report)
    }
}
