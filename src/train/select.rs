//! Choosing who owns which weight of a model, at its initial weights.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Model, Observer, TaskImages, TaskNet, TrainError};
use crate::autograd::Mode;
use crate::multitask::{
    Budget, MeanGradient, Owned, SharedLayer, Sharer, choose_owners, shared_layers, shares,
};
use crate::nn::{NetSpec, ParameterSpec};
use crate::random::{Purpose, Stream};

/// What makes a position important to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// The magnitude of the mean gradient of the summed losses over the selection images (RSN2 of
    /// BeyondML).
    Gradient,
    /// The magnitude of the weight (S. Han et al., *Learning both Weights and Connections for Efficient
    /// Neural Networks*, 2015, here before training).
    Magnitude,
    /// Nothing: positions are drawn by lot.
    Random,
    /// The magnitude of weight times mean gradient: what the loss would change by without the weight,
    /// to first order (N. Lee et al., *SNIP: Single-shot Network Pruning based on Connection
    /// Sensitivity*, 2019).
    Snip,
    /// The magnitude of the weight while the net is trained, round by round: see
    /// [`prune_iteratively`](super::prune_iteratively).
    Iterative,
    /// The magnitude of the weight while the tasks are trained together, epoch by epoch: see
    /// [`FitSettings::sparsify`](super::FitSettings::sparsify).
    Active,
}

impl Importance {
    /// Whether images are needed to tell it.
    fn needs_gradients(self) -> bool {
        matches!(self, Self::Gradient | Self::Snip)
    }
}

/// How the owners of the weights are chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OwnerRule {
    /// What makes a position important.
    pub importance: Importance,
    /// Percentile of importance, 0 to 100, below which a task owns nothing: one for all tasks, or one for
    /// each.
    pub percentiles: Vec<f64>,
    /// How a task's positions are spread over the tensors.
    pub budget: Budget,
}

impl OwnerRule {
    /// Uniform shares by one percentile.
    pub fn new(importance: Importance, percentile: f64) -> Self {
        Self {
            importance,
            percentiles: vec![percentile],
            budget: Budget::Uniform,
        }
    }

    /// The percentile of a task.
    ///
    /// # Panics
    /// If there are several percentiles and none for this task.
    pub fn percentile(&self, task: usize) -> f64 {
        match self.percentiles[..] {
            [percentile] => percentile,
            _ => self.percentiles[task],
        }
    }

    /// Positions of every parameter that the task of each of these nets is to own:
    /// `shares[task][parameter]`.
    ///
    /// # Errors
    /// When there is not one percentile for all tasks or one for each, or one is outside 0 to 100.
    pub fn shares(&self, nets: &[&NetSpec]) -> Result<Vec<Vec<usize>>, TrainError> {
        if ![1, nets.len()].contains(&self.percentiles.len()) {
            return Err(TrainError::Data(format!(
                "{} tasks want one percentile for all or one for each, but there are {}",
                nets.len(),
                self.percentiles.len()
            )));
        }
        let parameters: Vec<Vec<ParameterSpec>> = nets.iter().map(|net| net.parameters()).collect();
        let mut sharers: Vec<Vec<usize>> = parameters
            .iter()
            .map(|specs| vec![0; specs.len()])
            .collect();
        for layer in shared_layers(nets) {
            for sharer in &layer.sharers {
                let first = sharer.first_parameter;
                sharers[sharer.task][first..first + layer.parameters.len()]
                    .fill(layer.sharers.len());
            }
        }
        let tasks = parameters.iter().zip(&sharers).enumerate();
        tasks
            .map(|(task, (specs, sharers))| {
                let percentile = self.percentile(task);
                shares(self.budget, specs, sharers, percentile).map_err(|source| {
                    TrainError::Owners {
                        parameter: format!("all tensors of task {task}"),
                        source,
                    }
                })
            })
            .collect()
    }
}

/// Chooses for every parameter of the model, biases included, which positions each task owns:
/// `owners[task][parameter]`. The model is not changed.
///
/// # Errors
/// When a percentile is outside 0 to 100, a gradient or weight is not finite, images do not fit their
/// net, or the observer asks to stop.
///
/// # Panics
/// If gradients are wanted and there are fewer sets of images than tasks.
pub fn select_owners(
    model: &mut Model,
    data: &[TaskImages<'_>],
    rule: &OwnerRule,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Vec<Vec<Owned>>, TrainError> {
    let values = importances(model, data, rule.importance, observer)?;
    owners_by_importance(model, &values, rule, seed)
}

/// A value for every position of every parameter, whose magnitude says how important it is to the task:
/// `importance[task][parameter]`. The model is not changed.
///
/// # Errors
/// When images do not fit their net, the observer asks to stop, or the importance is told only while
/// training.
///
/// # Panics
/// If gradients are wanted and there are fewer sets of images than tasks.
pub fn importances(
    model: &mut Model,
    data: &[TaskImages<'_>],
    importance: Importance,
    observer: &dyn Observer,
) -> Result<Vec<Vec<Vec<f32>>>, TrainError> {
    let mut values = match importance.needs_gradients() {
        true => mean_gradients(model, data, observer)?,
        false => Vec::new(),
    };
    let tasks = 0..model.tasks().len();
    match importance {
        Importance::Gradient => {}
        Importance::Iterative | Importance::Active => {
            return Err(TrainError::Data(
                "owners by iteration and active ones are chosen while training, not at the initial \
                 weights"
                    .to_owned(),
            ));
        }
        Importance::Magnitude => {
            let weights = tasks.map(|task| model.parameters(task).map(Cow::into_owned).collect());
            values = weights.collect();
        }
        // Where all are alike, the lot decides.
        Importance::Random => {
            let zeros = |task| model.parameters(task).map(|values| vec![0.0; values.len()]);
            values = tasks.map(|task| zeros(task).collect()).collect();
        }
        Importance::Snip => {
            for (task, values) in values.iter_mut().enumerate() {
                for (values, weights) in values.iter_mut().zip(model.parameters(task)) {
                    let pairs = values.iter_mut().zip(&weights[..]);
                    pairs.for_each(|(value, weight)| *value *= weight);
                }
            }
        }
    }
    Ok(values)
}

/// The mean gradient of the summed losses over the images, per task and parameter. Tasks share no
/// parameter, so each goes through alone.
fn mean_gradients(
    model: &mut Model,
    data: &[TaskImages<'_>],
    observer: &dyn Observer,
) -> Result<Vec<Vec<Vec<f32>>>, TrainError> {
    let tasks = model.tasks().len();
    let images = data.iter().map(TaskImages::len).min().unwrap_or(0);
    let order: Vec<usize> = (0..images).collect();
    let mut means = Vec::with_capacity(tasks);
    model.set_mode(Mode::Training { step: 0 });
    for (task, images) in data.iter().enumerate().take(tasks) {
        model.check_images(task, images)?;
        let mut mean = MeanGradient::new(model.parameters(task).map(|value| value.len()));
        for batch in order.chunks(model.batch()) {
            if observer.interrupted() {
                return Err(TrainError::Interrupted);
            }
            model.set_batch(task, images, batch);
            model.forward(&[task])?;
            model.backward(&[(task, 1.0)])?;
            mean.add(batch.len(), model.gradients(task));
            model.release(task);
        }
        means.push(mean.mean());
    }
    Ok(means)
}

/// Chooses the owners from values that say how important each position is, by magnitude:
/// `importance[task][parameter]`.
///
/// Tasks share a layer that has the same name and the same shapes in their nets; one that has another
/// shape in a task's net, such as the first convolution over images of other channels, belongs to
/// that task, which owns its share of it all the same.
///
/// # Errors
/// When a percentile is outside 0 to 100, a value is not finite, or a task has another number of them
/// than the parameter has positions.
///
/// # Panics
/// If there are not importances for every parameter of every task.
pub fn owners_by_importance(
    model: &Model,
    importance: &[Vec<Vec<f32>>],
    rule: &OwnerRule,
    seed: u64,
) -> Result<Vec<Vec<Owned>>, TrainError> {
    let nets: Vec<&NetSpec> = model.tasks().iter().map(TaskNet::spec).collect();
    let shares = rule.shares(&nets)?;
    let mut owners: Vec<Vec<Owned>> = importance
        .iter()
        .map(|parameters| vec![Owned::new(); parameters.len()])
        .collect();
    let draw = Draw::new(&nets, seed);
    for layer in shared_layers(&nets) {
        for (place, spec) in layer.parameters.iter().enumerate() {
            let slot = |sharer: &Sharer| sharer.first_parameter + place;
            let of_sharers = layer.sharers.iter().map(|s| (s.task, slot(s)));
            let importance = of_sharers
                .clone()
                .map(|(task, at)| &importance[task][at][..]);
            let importance: Vec<&[f32]> = importance.collect();
            let shares = of_sharers.clone().map(|(task, at)| shares[task][at]);
            let shares: Vec<usize> = shares.collect();
            let free = vec![false; spec.elements()];
            let ties = |at: usize| draw.ties(layer.sharers[at].task, slot(&layer.sharers[at]));
            let chosen = choose_owners(&shares, free, &importance, ties)
                .map_err(|source| in_parameter(spec, source))?;
            for ((task, at), owned) in of_sharers.zip(chosen) {
                owners[task][at] = owned;
            }
        }
    }
    Ok(owners)
}

/// Chooses what the last of some tasks owns where the others have theirs already: `owners[parameter]`,
/// from its importances. `taken` tells for a layer that it shares, and one of the layer's parameters, the
/// positions that others own.
///
/// # Errors
/// As [`owners_by_importance`].
///
/// # Panics
/// If there are no nets, or not importances for every parameter of the last.
pub fn owners_of_newcomer(
    nets: &[&NetSpec],
    importance: &[Vec<f32>],
    rule: &OwnerRule,
    seed: u64,
    taken: impl Fn(&SharedLayer, usize) -> Vec<bool>,
) -> Result<Vec<Owned>, TrainError> {
    let newcomer = nets.len() - 1;
    let shares = rule.shares(nets)?;
    let draw = Draw::new(nets, seed);
    let mut owners = vec![Owned::new(); importance.len()];
    for layer in shared_layers(nets) {
        let Some(sharer) = layer.sharers.last().filter(|last| last.task == newcomer) else {
            continue;
        };
        for (place, spec) in layer.parameters.iter().enumerate() {
            let at = sharer.first_parameter + place;
            let taken = taken(&layer, place);
            let ties = |_| draw.ties(newcomer, at);
            let chosen = choose_owners(&[shares[newcomer][at]], taken, &[&importance[at]], ties)
                .map_err(|source| in_parameter(spec, source))?;
            owners[at] = chosen.into_iter().next().unwrap_or_default();
        }
    }
    Ok(owners)
}

/// The positions of a layer's parameter that the model's tasks before the given one own; `before` is
/// their number where all count.
///
/// # Panics
/// If the layer is none of the model's nets.
pub fn taken_positions(
    model: &Model,
    layer: &SharedLayer,
    parameter: usize,
    before: usize,
) -> Vec<bool> {
    let mut taken = vec![false; layer.parameters[parameter].elements()];
    for sharer in layer.sharers.iter().filter(|sharer| sharer.task < before) {
        match model.tasks()[sharer.task].owned() {
            Some(owned) => {
                let owned = &owned[sharer.first_parameter + parameter];
                for (taken, &owned) in taken.iter_mut().zip(owned) {
                    *taken |= owned != 0;
                }
            }
            None => taken.fill(true),
        }
    }
    taken
}

/// The streams that order what ties.
pub(super) struct Draw {
    seed: u64,
    /// Parameters of the largest net.
    most: usize,
}

impl Draw {
    pub(super) fn new(nets: &[&NetSpec], seed: u64) -> Self {
        let most = nets.iter().map(|net| net.parameters().len()).max();
        Self {
            seed,
            most: most.unwrap_or(0),
        }
    }

    pub(super) fn ties(&self, task: usize, parameter: usize) -> Stream {
        let stream = (task * self.most + parameter) as u64;
        Stream::new(self.seed, Purpose::OwnerTies, 0, stream)
    }
}

pub(super) fn in_parameter(
    spec: &ParameterSpec,
    source: crate::multitask::OwnerError,
) -> TrainError {
    TrainError::Owners {
        parameter: spec.name.clone(),
        source,
    }
}
