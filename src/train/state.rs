//! Where a training run stands between two epochs.

use taskweave_kernels::buffer::Buffer;

use super::{EarlyStopping, EpochRecord, Model};
use crate::optim::Optimizer;
use crate::tensor::Tensor;

/// Everything that training carries from epoch to epoch, besides the model itself.
pub struct FitState {
    /// The optimiser.
    pub optimizer: Optimizer,
    /// What early stopping has seen.
    pub stopping: EarlyStopping,
    /// The model at its best epoch.
    pub best: Snapshot,
    /// The epochs so far.
    pub history: Vec<EpochRecord>,
    /// Whether early stopping has ended the run.
    pub stopped_early: bool,
    /// Wall time so far.
    pub seconds: f64,
}

/// A copy of all weights, as a model [stores](Model::stored) them, and moving averages of some tasks.
#[derive(Default)]
pub struct Snapshot(Vec<Buffer>);

impl Snapshot {
    /// Copies the model's values, task by task: parameters, then moving averages.
    pub fn take(&mut self, model: &Model, tasks: &[usize]) {
        let values = tasks.iter().flat_map(|&task| model_values(model, task));
        for (slot, value) in values.enumerate() {
            match self.0.get_mut(slot) {
                Some(copy) => {
                    copy.resize(value.len());
                    copy.copy_from_slice(value);
                }
                None => self.0.push(Buffer::from_slice(value)),
            }
        }
    }

    /// A snapshot of these values, in the order of [`take`](Self::take).
    pub fn from_values(values: impl IntoIterator<Item = Vec<f32>>) -> Self {
        Self(
            values
                .into_iter()
                .map(|value| Buffer::from_slice(&value))
                .collect(),
        )
    }

    /// The values, in the order of [`take`](Self::take).
    pub fn values(&self) -> impl Iterator<Item = &[f32]> {
        self.0.iter().map(|buffer| &buffer[..])
    }

    /// Gives the model's tasks their values back.
    pub fn restore(&self, model: &mut Model, tasks: &[usize]) {
        let mut copies = self.0.iter();
        for &task in tasks {
            let parameters = model.stored(task).count();
            for (parameter, copy) in (0..parameters).zip(&mut copies) {
                model.edit_stored(task, parameter, |values| values.copy_from_slice(copy));
            }
            let states = model.states(task).count();
            for (state, copy) in (0..states).zip(&mut copies) {
                model.edit_state(task, state, |values| values.copy_from_slice(copy));
            }
        }
    }
}

fn model_values(model: &Model, task: usize) -> impl Iterator<Item = &[f32]> {
    let states = model.states(task).map(Tensor::data);
    model.stored(task).chain(states)
}
