//! What an onlooker is told while a net trains.

use super::EpochRecord;

/// Where training stands after a step.
#[derive(Clone, Debug)]
pub struct StepReport<'a> {
    /// The epoch, from 1.
    pub epoch: usize,
    /// Images of every task seen in this epoch.
    pub images_done: usize,
    /// Images of every task in an epoch.
    pub images: usize,
    /// The weighted sum of the tasks' mean losses so far in this epoch.
    pub loss: f64,
    /// Per task: the share of this epoch's images that were classified rightly; `None` for a task
    /// that is not trained.
    pub accuracies: &'a [Option<f64>],
}

/// An onlooker of a training run.
pub trait Observer {
    /// A step was done.
    fn step(&mut self, _report: &StepReport<'_>) {}

    /// An epoch, validation included, was done.
    fn epoch(&mut self, _record: &EpochRecord) {}

    /// Whether training shall stop now with [`TrainError::Interrupted`](super::TrainError).
    fn interrupted(&self) -> bool {
        false
    }
}

/// An onlooker that says nothing.
pub struct Silent;

impl Observer for Silent {}
