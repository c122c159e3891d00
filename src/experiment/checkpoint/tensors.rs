//! The tensors of a checkpoint: what is stored under which name, and back.
//!
//! `Digit/dense_0/kernel` is the parameter as it is, in the program's own order, and beside it stand
//! `.owned`, its owner's mask, `.optimizer_0` and `.optimizer_1`, what the optimiser keeps for it, and
//! `.best`, its value at the best epoch. What a phase does not train has none of the last three.

use safetensors::SafeTensors;

use super::{CurrentModel, Progress};
use crate::experiment::model_file::{self, StoredTensor};
use crate::experiment::plan::PlannedModel;
use crate::optim::OptimizerSpec;
use crate::tensor::Tensor;
use crate::train::{EpochRecord, FitState, Model, Snapshot};

/// The names and shapes of a task's values in the order of a [`Snapshot`]: of a kernel whose owned
/// values alone are stored, their number.
fn value_names(model: &Model, task: usize) -> Vec<(String, Vec<usize>)> {
    let net = &model.tasks()[task];
    let name = |part: &str| format!("{}/{part}", net.name());
    let parameters = net.spec().parameters().into_iter().zip(model.stored(task));
    let parameters = parameters.map(|(spec, stored)| {
        let whole = stored.len() == spec.elements();
        let shape = if whole {
            spec.shape
        } else {
            vec![stored.len()]
        };
        (name(&spec.name), shape)
    });
    let states = net.spec().states();
    let states = states
        .into_iter()
        .map(|spec| (name(&spec.name), vec![spec.elements]));
    parameters.chain(states).collect()
}

/// The tasks that the phase under way trains: those that its last epoch tells of.
fn active_tasks(history: &[EpochRecord]) -> Vec<usize> {
    let tasks = history.last().map_or(&[][..], |epoch| &epoch.tasks);
    (0..tasks.len())
        .filter(|&task| tasks[task].is_some())
        .collect()
}

/// Everything that a checkpoint keeps of a model in training, as tensors.
pub(super) fn stored_tensors<'a>(progress: &Progress<'a>) -> Vec<StoredTensor<'a>> {
    let Progress { model, state, .. } = *progress;
    let mut tensors = Vec::new();
    let mut slot = 0;
    for (index, task) in model.tasks().iter().enumerate() {
        let names = value_names(model, index);
        let states = model.states(index).map(Tensor::data);
        let values = model.stored(index).chain(states);
        for ((name, shape), value) in names.iter().zip(values) {
            tensors.push(StoredTensor::floats(name.clone(), shape, value));
        }
        let specs = task.spec().parameters();
        for (position, ((name, shape), spec)) in names.iter().zip(&specs).enumerate() {
            if let Some(owned) = task.owned() {
                let (name, owned) = (format!("{name}.owned"), &owned[position][..]);
                tensors.push(StoredTensor::bytes(name, &spec.shape, owned));
            }
            for (kept, values) in state.optimizer.state(slot).into_iter().enumerate() {
                if !values.is_empty() {
                    let name = format!("{name}.optimizer_{kept}");
                    tensors.push(StoredTensor::floats(name, shape, values));
                }
            }
            slot += 1;
        }
    }
    let active = active_tasks(&state.history);
    let names = active.iter().flat_map(|&task| value_names(model, task));
    for ((name, shape), values) in names.zip(state.best.values()) {
        tensors.push(StoredTensor::floats(format!("{name}.best"), &shape, values));
    }
    tensors
}

/// Gives a model the weights, moving averages and owners that a checkpoint has.
pub(super) fn restore_model(
    file: &SafeTensors<'_>,
    planned: &PlannedModel,
    model: &mut Model,
) -> Result<(), String> {
    for task in 0..model.tasks().len() {
        let specs = model.tasks()[task].spec().parameters();
        if planned.is_shared() {
            let mut owned = Vec::with_capacity(specs.len());
            for spec in &specs {
                let name = format!("{}/{}.owned", model.tasks()[task].name(), spec.name);
                owned.push(model_file::read_mask(file, &name, &spec.shape)?);
            }
            model.set_owned(task, owned);
        }
        let (names, parameters) = (value_names(model, task), specs.len());
        for (at, (name, shape)) in names.iter().enumerate() {
            if at < parameters {
                let values = read_parameter(file, model, (task, at), name)?;
                model.edit_stored(task, at, |target| target.copy_from_slice(&values));
            } else {
                let values = model_file::read_floats(file, name, shape)?;
                model.edit_state(task, at - parameters, |target| {
                    target.copy_from_slice(&values)
                });
            }
        }
    }
    Ok(())
}

/// Something that a checkpoint has for each value of a parameter, or for each owned one, as the model
/// stores it: other kernels may have written it.
fn read_parameter(
    file: &SafeTensors<'_>,
    model: &Model,
    (task, parameter): (usize, usize),
    name: &str,
) -> Result<Vec<f32>, String> {
    let net = &model.tasks()[task];
    let shape = &net.spec().parameters()[parameter].shape;
    let values = model_file::read_floats(file, name, shape).or_else(|error| {
        let owned = net.owned().map(|owned| &owned[parameter]).ok_or(&error[..]);
        let count = owned?.iter().filter(|&&owned| owned != 0).count();
        model_file::read_floats(file, name, &[count]).map_err(|_| error)
    })?;
    let stored = model.to_stored(task, parameter, values);
    stored.ok_or_else(|| format!("{name} has another number of values than the task owns"))
}

/// What training carries on with besides the model.
pub(super) fn restore_state(
    file: &SafeTensors<'_>,
    current: &CurrentModel,
    spec: OptimizerSpec,
    model: &Model,
) -> Result<FitState, String> {
    let fit = current.fit.restored();
    let active = active_tasks(&fit.history);
    if active.iter().any(|&task| task >= model.tasks().len()) {
        return Err("it is damaged: its history has more tasks than the model".to_owned());
    }
    let mut optimizer = model.optimizer(spec);
    optimizer.set_step(current.optimizer_step);
    let mut best = Vec::new();
    let mut slot = 0;
    for task in 0..model.tasks().len() {
        let names = value_names(model, task);
        let is_active = active.contains(&task);
        let parameters = model.stored(task).count();
        for (at, (name, shape)) in names.iter().enumerate() {
            if at < parameters && is_active {
                let used = optimizer.spec().state_buffers();
                let mut state = [Vec::new(), Vec::new()];
                for (kept, values) in state.iter_mut().take(used).enumerate() {
                    let name = format!("{name}.optimizer_{kept}");
                    *values = read_parameter(file, model, (task, at), &name)?;
                }
                optimizer.set_state(slot + at, state.each_ref().map(|values| &values[..]));
            }
            let name = format!("{name}.best");
            if is_active {
                best.push(if at < parameters {
                    read_parameter(file, model, (task, at), &name)?
                } else {
                    model_file::read_floats(file, &name, shape)?
                });
            }
        }
        slot += parameters;
    }
    Ok(FitState {
        optimizer,
        stopping: current.stopping.clone(),
        best: Snapshot::from_values(best),
        history: fit.history,
        stopped_early: fit.stopped_early,
        seconds: fit.seconds,
    })
}
