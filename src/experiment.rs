//! Experiments: which tasks, which net, which protocol, and how the results are printed. An
//! experiment is a value of [`Experiment`]; the runner knows nothing of any one of them.

mod addition;
mod answer;
mod artifacts;
mod built_in;
mod checkpoint;
mod error;
mod estimate;
mod inspection;
mod model_file;
mod onnx;
mod outcome;
mod plan;
mod runner;
mod stored_model;
mod summary;
#[cfg(test)]
mod test_models;
mod testing;
mod weaving;

pub use addition::{AddSettings, AddedTask, NewTask};
pub use answer::Answer;
pub use artifacts::OutputFolder;
pub use built_in::{built_in, find};
pub use checkpoint::Checkpoints;
pub use error::ExperimentError;
pub use estimate::Estimate;
pub use inspection::{Inspection, LayerInspection, TaskInspection};
pub use outcome::{ModelOutcome, TaskOutcome};
pub use runner::{OwnerChoices, PhaseStart, RunObserver, RunSettings, TaskData, run};
pub use stored_model::{Predictions, StoredModel};
pub use summary::{SparseKernels, Summary, SummaryRow};

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::data::augment::Augmentation;
use crate::nn::{Initializer, NetSpec};
use crate::optim::OptimizerSpec;
use crate::train::{EarlyStoppingSettings, OwnerRule};

/// One experiment: a dedicated net for every task, then one multitask net for all.
#[derive(Clone, Debug, Serialize)]
pub struct Experiment {
    /// The name on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Where the images come from.
    pub source: Source,
    /// The tasks, in order.
    pub tasks: &'static [Task],
    /// The net of every task, in their order.
    pub nets: Vec<NetSpec>,
    /// Pixels (0 to 255) are divided by this before they enter a net.
    pub pixel_divisor: f32,
    /// How the experiment is trained unless asked otherwise.
    pub default: Protocol,
    /// How the published experiment was trained.
    pub reference: Protocol,
    /// The reports, in the order they are printed.
    pub reports: &'static [ReportSection],
}

/// Where an experiment's images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The data folder; what is missing there is downloaded.
    DataFolder,
    /// The subset that the program carries.
    Embedded,
}

/// A task: a name and the dataset it classifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Task {
    /// The name in titles: "Digit".
    pub name: &'static str,
    /// The dataset's name in the registry.
    pub dataset: &'static str,
    /// Rows and columns that its images are brought to; `None` where they stay as they are.
    pub resized: Option<[usize; 2]>,
}

/// The two kinds of model that an experiment compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// A net of its own for one task.
    Dedicated,
    /// One net whose weights are shared out between all tasks.
    Multitask,
}

impl ModelKind {
    /// "Dedicated" or "Multitask".
    pub fn title(self) -> &'static str {
        match self {
            Self::Dedicated => "Dedicated",
            Self::Multitask => "Multitask",
        }
    }
}

/// One report on stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ReportSection {
    /// Of which model.
    pub model: ModelKind,
    /// Of which task, by its place in [`Experiment::tasks`].
    pub task: usize,
    /// Blank lines between this report and the next, besides the one that ends every report.
    pub blank_lines_after: usize,
}

/// Everything about how an experiment's nets are trained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Protocol {
    /// Initial weights of a dedicated net.
    pub dedicated_weights: Initializer,
    /// Initial weights of the multitask net.
    pub multitask_weights: Initializer,
    /// The optimiser of a dedicated net.
    pub dedicated_optimizer: OptimizerSpec,
    /// The optimiser of the multitask net.
    pub multitask_optimizer: OptimizerSpec,
    /// Who owns which weight of the multitask net.
    pub owners: OwnerSettings,
    /// How every net is trained.
    pub training: Training,
}

impl Protocol {
    /// The optimiser of a net.
    pub fn optimizer(&self, kind: ModelKind) -> OptimizerSpec {
        match kind {
            ModelKind::Dedicated => self.dedicated_optimizer,
            ModelKind::Multitask => self.multitask_optimizer,
        }
    }
}

/// How the owners of the weights are chosen.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OwnerSettings {
    /// What makes a position important, and how many a task owns.
    #[serde(flatten)]
    pub rule: OwnerRule,
    /// Images of every task, from the beginning of the training set, that gradients are taken over.
    pub selection_images: usize,
}

/// How a net is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Training {
    /// Images in a step.
    pub batch: usize,
    /// The most epochs.
    pub epochs: usize,
    /// The share at the end of the training set that is kept for validation.
    pub validation_split: f64,
    /// The learning rate is multiplied by this after every epoch; 1 keeps it.
    pub learning_rate_decay: f64,
    /// When to stop before the last epoch.
    pub early_stopping: EarlyStoppingSettings,
    /// How training images are changed from epoch to epoch.
    pub augmentation: Augmentation,
    /// Whether every channel is brought to mean 0 and deviation 1 over the training images, instead
    /// of the experiment's division.
    pub normalise: bool,
    /// The phases that the multitask net is trained in, one after the other, each with the weight of
    /// every task's loss, a fresh optimiser and early stopping of its own. A task of weight 0 is not
    /// computed.
    pub phases: &'static [&'static [f32]],
}

/// Which of an experiment's protocols to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolName {
    /// The dependable one.
    #[default]
    Default,
    /// The published one.
    Reference,
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::Reference => "reference",
        })
    }
}

impl Experiment {
    /// The protocol of this name.
    pub fn protocol(&self, name: ProtocolName) -> &Protocol {
        match name {
            ProtocolName::Default => &self.default,
            ProtocolName::Reference => &self.reference,
        }
    }

    /// The protocol that a run with these settings follows.
    pub fn protocol_of(&self, settings: &RunSettings) -> Protocol {
        let mut protocol = self.protocol(settings.protocol).clone();
        let (rule, chosen) = (&mut protocol.owners.rule, &settings.owners);
        rule.importance = chosen.importance.unwrap_or(rule.importance);
        rule.budget = chosen.budget.unwrap_or(rule.budget);
        if let Some(percentiles) = &chosen.percentiles {
            rule.percentiles.clone_from(percentiles);
        }
        protocol
    }

    /// Whether this task has a net of its own: where a report of one is printed.
    pub fn has_dedicated(&self, task: usize) -> bool {
        let mut reports = self.reports.iter();
        reports.any(|report| report.model == ModelKind::Dedicated && report.task == task)
    }

    /// "Dedicated Model Digit Performance:".
    pub fn report_title(&self, section: &ReportSection) -> String {
        let (model, task) = (section.model.title(), self.tasks[section.task].name);
        format!("{model} Model {task} Performance:")
    }
}
