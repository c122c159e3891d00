//! Choosing who owns which weight of a model, from gradients or magnitudes at its initial weights.

use serde::Serialize;

use super::{Model, Observer, TaskImages, TrainError};
use crate::multitask::{MeanGradient, Owned, choose_owners};
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
            .map(|task| {
                model
                    .parameters(task)
                    .map(|value| value.data().to_vec())
                    .collect()
            })
            .collect(),
    };
    owners_by_importance(model, &values, percentile, seed)
}

/// The mean gradient of the summed losses over the images, per task and parameter.
fn mean_gradients(
    model: &mut Model,
    data: &[TaskImages<'_>],
    observer: &dyn Observer,
) -> Result<Vec<Vec<Vec<f32>>>, TrainError> {
    let tasks: Vec<usize> = (0..model.tasks().len()).collect();
    let weights: Vec<(usize, f32)> = tasks.iter().map(|&task| (task, 1.0)).collect();
    let mut means: Vec<MeanGradient> = tasks
        .iter()
        .map(|&task| MeanGradient::new(model.parameters(task).map(|value| value.data().len())))
        .collect();
    let images = data.iter().map(TaskImages::len).min().unwrap_or(0);
    let order: Vec<usize> = (0..images).collect();
    for batch in order.chunks(model.batch()) {
        if observer.interrupted() {
            return Err(TrainError::Interrupted);
        }
        for &task in &tasks {
            model.set_batch(task, &data[task], batch);
        }
        model.forward(&tasks)?;
        model.backward(&weights)?;
        for (mean, &task) in means.iter_mut().zip(&tasks) {
            mean.add(batch.len(), model.gradients(task));
        }
    }
    Ok(means.into_iter().map(MeanGradient::mean).collect())
}

/// Chooses the owners from values that say how important each position is, by magnitude:
/// `importance[task][parameter]`.
///
/// # Errors
/// When the percentile is outside 0 to 100, a value is not finite, or a task has another number of them
/// than the parameter has positions.
///
/// # Panics
/// If a task has fewer parameters than the first one.
pub fn owners_by_importance(
    model: &Model,
    importance: &[Vec<Vec<f32>>],
    percentile: f64,
    seed: u64,
) -> Result<Vec<Vec<Owned>>, TrainError> {
    let tasks = model.tasks().len();
    let Some(first) = model.tasks().first() else {
        return Ok(Vec::new());
    };
    let specs = first.spec().parameters();
    let mut owners = vec![Vec::with_capacity(specs.len()); tasks];
    for (index, spec) in specs.iter().enumerate() {
        let importance: Vec<&[f32]> = importance.iter().map(|task| &task[index][..]).collect();
        let ties = |task: usize| {
            let stream = (task * specs.len() + index) as u64;
            Stream::new(seed, Purpose::OwnerTies, 0, stream)
        };
        let chosen =
            choose_owners(percentile, spec.elements(), &importance, ties).map_err(|source| {
                TrainError::Owners {
                    parameter: spec.name.clone(),
                    source,
                }
            })?;
        for (owners, owned) in owners.iter_mut().zip(chosen) {
            owners.push(owned);
        }
    }
    Ok(owners)
}
