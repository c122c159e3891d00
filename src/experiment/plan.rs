//! Which nets an experiment trains, in their order.

use super::{Experiment, ModelKind};

/// A net that is to be trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedModel {
    pub(super) kind: ModelKind,
    /// The tasks, by their places in the experiment.
    pub(super) tasks: Vec<usize>,
    /// "dedicated-digit", "multitask": the name of its file.
    pub(super) name: String,
    /// "Dedicated Model Digit": what people read.
    pub(super) title: String,
    /// Tells the net from the others of the run, for random streams.
    pub(super) index: u8,
}

/// Every dedicated net that is reported on, then the multitask net.
pub(super) fn planned_models(experiment: &Experiment) -> Vec<PlannedModel> {
    let tasks = experiment.tasks.iter().enumerate();
    let mut models: Vec<PlannedModel> = tasks
        .filter(|&(task, _)| experiment.has_dedicated(task))
        .map(|(task, description)| PlannedModel {
            kind: ModelKind::Dedicated,
            tasks: vec![task],
            name: format!("dedicated-{}", description.name.to_lowercase()),
            title: format!("Dedicated Model {}", description.name),
            index: task as u8,
        })
        .collect();
    models.push(PlannedModel {
        kind: ModelKind::Multitask,
        tasks: (0..experiment.tasks.len()).collect(),
        name: "multitask".to_owned(),
        title: "Multitask Model".to_owned(),
        index: experiment.tasks.len() as u8,
    });
    models
}

impl PlannedModel {
    /// Whether its weights are shared out between tasks.
    pub(super) fn is_shared(&self) -> bool {
        self.kind == ModelKind::Multitask
    }

    /// The loss weights of every phase that the net is trained in.
    pub(super) fn phases(&self, phases: &[&[f32]]) -> Vec<Vec<f32>> {
        match self.kind {
            ModelKind::Dedicated => vec![vec![1.0]],
            ModelKind::Multitask => phases.iter().map(|weights| weights.to_vec()).collect(),
        }
    }
}
