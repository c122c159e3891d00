//! How a trained net does on the test set of a task.

use super::ExperimentError;
use super::outcome::TaskOutcome;
use crate::metrics::{Confusion, Report, ReportOptions};
use crate::train::{Model, TaskImages, TrainError, Warning, dead_layers};

/// Images of every hidden layer that are looked at for signs of life.
const HEALTH_IMAGES: usize = 2_048;

/// A task and the images that it is tested with.
pub(super) struct Tested<'a> {
    /// Its place in the experiment.
    pub(super) task: usize,
    pub(super) name: &'a str,
    /// "Multitask Model Digit".
    pub(super) title: &'a str,
    pub(super) images: &'a TaskImages<'a>,
}

impl Tested<'_> {
    /// What becomes of the images in the net at `slot` of a model, and what a reader must know.
    pub(super) fn outcome(
        &self,
        model: &mut Model,
        slot: usize,
    ) -> Result<(TaskOutcome, Vec<Warning>), ExperimentError> {
        let failed = |source: TrainError| ExperimentError::Train {
            model: self.title.to_owned(),
            source,
        };
        let labels = self.images.labels();
        let predictions = model.predict(slot, self.images).map_err(failed)?;
        let mut warnings: Vec<Warning> = Vec::new();
        warnings.extend(Warning::of_predictions(self.title, labels, &predictions));
        let seen = self.images.slice(0..labels.len().min(HEALTH_IMAGES));
        let layers = dead_layers(model, slot, &seen).map_err(failed)?;
        if !layers.is_empty() {
            warnings.push(Warning::DeadLayers {
                model: self.title.to_owned(),
                layers,
            });
        }
        let confusion = Confusion::from_labels(labels, &predictions, None)?;
        let outcome = TaskOutcome {
            task: self.task,
            name: self.name.to_owned(),
            report: Report::new(&confusion, &ReportOptions::default())?,
            accuracy: confusion.accuracy(),
            confusion,
            parameters_owned: model.tasks()[slot].owned_count(),
        };
        Ok((outcome, warnings))
    }
}
