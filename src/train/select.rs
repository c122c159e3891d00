//! Choosing who owns which weight of a model, from gradients or magnitudes at its initial weights.

use std::borrow::Cow;

use serde::Serialize;

use super::{Model, Observer, TaskImages, TaskNet, TrainError};
use crate::autograd::Mode;
use crate::multitask::{MeanGradient, Owned, Sharer, choose_owners, shared_layers};
use crate::nn::NetSpec;
use crate::random::{Purpose, Stream};

/// What makes a position important to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// The magnitude of the mean gradient of the summed losses over the selection images.
    Gradient,
    /// The magnitude of the weight.
    Magnitude,
}

/// Chooses for every parameter of the model, biases included, which positions each task owns:
/// `owners[task][parameter]`. The model is not changed.
///
/// # Errors
/// When the percentile is outside 0 to 100, a gradient or weight is not finite, images do not fit their
/// net, or the observer asks to stop.
///
/// # Panics
/// If gradients are wanted and there are fewer sets of images than tasks.
pub fn select_owners(
    model: &mut Model,
    data: &[TaskImages<'_>],
    percentile: f64,
    importance: Importance,
    seed: u64,
    observer: &dyn Observer,
) -> Result<Vec<Vec<Owned>>, TrainError> {
    let tasks = model.tasks().len();
    let values: Vec<Vec<Vec<f32>>> = match importance {
        Importance::Gradient => mean_gradients(model, data, observer)?,
        Importance::Magnitude => (0..tasks)
            .map(|task| model.parameters(task).map(Cow::into_owned).collect())
            .collect(),
    };
    owners_by_importance(model, &values, percentile, seed)
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
/// When the percentile is outside 0 to 100, a value is not finite, or a task has another number of them
/// than the parameter has positions.
///
/// # Panics
/// If there are not importances for every parameter of every task.
pub fn owners_by_importance(
    model: &Model,
    importance: &[Vec<Vec<f32>>],
    percentile: f64,
    seed: u64,
) -> Result<Vec<Vec<Owned>>, TrainError> {
    let nets: Vec<&NetSpec> = model.tasks().iter().map(TaskNet::spec).collect();
    let most = nets.iter().map(|net| net.parameters().len()).max();
    let mut owners: Vec<Vec<Owned>> = vec![Vec::new(); nets.len()];
    for (task, owners) in owners.iter_mut().enumerate() {
        owners.resize(importance[task].len(), Owned::new());
    }
    for layer in shared_layers(&nets) {
        for (place, spec) in layer.parameters.iter().enumerate() {
            let slot = |sharer: &Sharer| sharer.first_parameter + place;
            let sharers = layer.sharers.iter();
            let importance: Vec<&[f32]> = sharers
                .clone()
                .map(|sharer| &importance[sharer.task][slot(sharer)][..])
                .collect();
            let ties = |at: usize| {
                let sharer = &layer.sharers[at];
                let stream = (sharer.task * most.unwrap_or(0) + slot(sharer)) as u64;
                Stream::new(seed, Purpose::OwnerTies, 0, stream)
            };
            let chosen = choose_owners(percentile, spec.elements(), &importance, ties).map_err(
                |source| TrainError::Owners {
                    parameter: spec.name.clone(),
                    source,
                },
            )?;
            for (sharer, owned) in sharers.zip(chosen) {
                owners[sharer.task][slot(sharer)] = owned;
            }
        }
    }
    Ok(owners)
}
