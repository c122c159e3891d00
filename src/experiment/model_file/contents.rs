//! The tensors of a model file: a dedicated net's whole, those of a multitask net woven.

use std::borrow::Cow;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::description::TaskDescription;
use super::{
    Description, StoredTensor, metadata, parse, read_bytes, read_floats, read_list, tensor,
};
use crate::experiment::plan::PlannedModel;
use crate::experiment::{Experiment, ExperimentError, ModelKind, RunSettings};
use crate::multitask::{
    Owned, SharedLayer, count_owned, owner_bytes, shared_layers, unweave, weave,
};
use crate::nn::{NetSpec, ParameterSpec};
use crate::tensor::Tensor;
use crate::train::{Model, TaskNet};

/// Values of one layer's outputs in a batch, at most: 8 GB.
const MOST_ACTIVATIONS: usize = 1 << 31;

/// The name of a woven tensor: who shares it, and which it is.
fn woven_name(tasks: &[&str], layer: &SharedLayer, spec: &ParameterSpec) -> String {
    let sharers: Vec<&str> = layer.sharers.iter().map(|s| tasks[s.task]).collect();
    format!("{}/{}", sharers.join("+"), spec.name)
}

/// For each parameter of a layer how many positions every sharer owns, and its bytes. The tensors are
/// held to their sizes.
pub(in crate::experiment) fn owned_counts(
    file: &SafeTensors<'_>,
    description: &Description,
    layer: &SharedLayer,
) -> Result<Vec<(Vec<usize>, usize)>, String> {
    let names = description.names();
    let sharers = layer.sharers.len();
    let count = |spec: &ParameterSpec| {
        if description.model == ModelKind::Dedicated {
            for sharer in &layer.sharers {
                let name = format!("{}/{}", names[sharer.task], spec.name);
                tensor(file, &name, Dtype::F32, &spec.shape)?;
            }
            let values = spec.elements();
            return Ok((vec![values; sharers], 4 * values * sharers));
        }
        let name = woven_name(&names, layer, spec);
        let owners = read_owners(file, &name, spec.elements(), sharers)?;
        let counts = count_owned(owners, spec.elements(), sharers)
            .map_err(|error| format!("{name}: {error}"))?;
        let owned = counts.iter().sum();
        tensor(file, &name, Dtype::F32, &[owned])?;
        Ok((counts, 4 * owned + owners.len()))
    };
    layer.parameters.iter().map(count).collect()
}

/// The packed owners of a woven tensor.
fn read_owners<'a>(
    file: &SafeTensors<'a>,
    name: &str,
    positions: usize,
    sharers: usize,
) -> Result<&'a [u8], String> {
    let len = owner_bytes(positions, sharers);
    read_bytes(file, &format!("{name}.owners"), len)
}

/// The file of a trained model.
pub(in crate::experiment) fn serialize(
    experiment: &Experiment,
    settings: &RunSettings,
    planned: &PlannedModel,
    model: &Model,
) -> Result<Vec<u8>, ExperimentError> {
    let description = Description::new(experiment, settings, planned, model);
    to_bytes(&description, model).map_err(|reason| ExperimentError::Store {
        model: planned.name.clone(),
        reason,
    })
}

/// The file of a model that this describes.
pub(in crate::experiment) fn to_bytes(
    description: &Description,
    model: &Model,
) -> Result<Vec<u8>, String> {
    let tensors = stored_tensors(model, description.model == ModelKind::Multitask)?;
    let views = tensors.iter().map(|tensor| (&tensor.name[..], tensor));
    let text = serde_json::to_string(description).map_err(|error| error.to_string())?;
    safetensors::serialize(views, Some(metadata(text))).map_err(|error| error.to_string())
}

fn stored_tensors(model: &Model, is_shared: bool) -> Result<Vec<StoredTensor<'_>>, String> {
    let mut tensors = Vec::new();
    if is_shared {
        weave_parameters(model, &mut tensors)?;
    } else {
        for (index, task) in model.tasks().iter().enumerate() {
            for (spec, value) in task.spec().parameters().iter().zip(model.parameters(index)) {
                let name = format!("{}/{}", task.name(), spec.name);
                let values = match value {
                    Cow::Borrowed(values) => in_keras_order(spec, values),
                    Cow::Owned(values) => in_keras_order(spec, &values).into_owned().into(),
                };
                tensors.push(StoredTensor::floats(name, &spec.shape, values));
            }
        }
    }
    for (index, task) in model.tasks().iter().enumerate() {
        for (spec, value) in task.spec().states().iter().zip(model.states(index)) {
            let name = format!("{}/{}", task.name(), spec.name);
            tensors.push(StoredTensor::floats(name, &[spec.elements], value.data()));
        }
    }
    Ok(tensors)
}

/// Adds all tasks' parameters, woven layer by layer.
fn weave_parameters(model: &Model, tensors: &mut Vec<StoredTensor<'_>>) -> Result<(), String> {
    let tasks = model.tasks();
    let names: Vec<&str> = tasks.iter().map(TaskNet::name).collect();
    let nets: Vec<&NetSpec> = tasks.iter().map(TaskNet::spec).collect();
    for layer in shared_layers(&nets) {
        for (place, spec) in layer.parameters.iter().enumerate() {
            let mut parts: Vec<(Owned, Vec<f32>)> = Vec::with_capacity(layer.sharers.len());
            for sharer in &layer.sharers {
                let parameter = sharer.first_parameter + place;
                let values = model.parameter(sharer.task, parameter);
                let owned = match tasks[sharer.task].owned() {
                    Some(owned) => in_keras_order(spec, &owned[parameter]).into_owned(),
                    None => vec![1; spec.elements()],
                };
                parts.push((owned, in_keras_order(spec, &values).into_owned()));
            }
            let parts: Vec<_> = parts.iter().map(|(o, v)| (&o[..], &v[..])).collect();
            let name = woven_name(&names, &layer, spec);
            let woven = weave(&parts).map_err(|error| format!("{name}: {error}"))?;
            let (values, owners) = (woven.values, woven.owners);
            let owners_name = format!("{name}.owners");
            tensors.push(StoredTensor::bytes(owners_name, &[owners.len()], owners));
            tensors.push(StoredTensor::floats(name, &[values.len()], values));
        }
    }
    Ok(())
}

fn in_keras_order<'a, T: Copy>(spec: &ParameterSpec, values: &'a [T]) -> Cow<'a, [T]> {
    match spec.rows {
        Some(order) => order.to_keras(values).into(),
        None => values.into(),
    }
}

fn in_our_order<T: Copy>(spec: &ParameterSpec, values: Vec<T>) -> Vec<T> {
    match spec.rows {
        Some(order) => order.from_keras(&values),
        None => values,
    }
}

/// Gives a model of the planned kind the weights of its file, which must be one of this very run.
pub(in crate::experiment) fn restore(
    bytes: &[u8],
    experiment: &Experiment,
    settings: &RunSettings,
    planned: &PlannedModel,
    model: &mut Model,
) -> Result<(), String> {
    let (file, text) = parse(bytes)?;
    let found = Description::parse(&text)?;
    if found != Description::new(experiment, settings, planned, model) {
        return Err("it is of another run, or was made by another version".to_owned());
    }
    fill(model, contents(&file, &found)?);
    Ok(())
}

/// The model of a file, for batches of up to `batch` images.
pub(in crate::experiment) fn load(
    bytes: &[u8],
    batch: usize,
) -> Result<(Description, Model), String> {
    let (file, text) = parse(bytes)?;
    let description = Description::parse(&text)?;
    // First of all: what the description says of sizes is trusted with memory only if the file has it.
    let contents = contents(&file, &description)?;
    let mut model = Model::new(batch, 1.0).with_precision(description.precision);
    for (index, task) in description.tasks.iter().enumerate() {
        let failed = |error: String| format!("the net of {}: {error}", task.name);
        let largest = task.net.activations().into_iter().max().unwrap_or(0);
        if largest.saturating_mul(batch) > MOST_ACTIVATIONS {
            return Err(failed(format!(
                "{batch} images at once take {largest} values each, more than fit; give fewer"
            )));
        }
        let specs = task.net.parameters();
        let zeros = specs
            .iter()
            .map(|spec| Tensor::zeros_row_major(spec.shape.clone()));
        model
            .add_task(&task.name, task.net.clone(), zeros.collect())
            .map_err(|error| failed(error.to_string()))?;
        let scales = task.pixel_scales.iter().map(|&scale| scale.into());
        model
            .set_scales(index, scales.collect())
            .map_err(|error| failed(error.to_string()))?;
    }
    fill(&mut model, contents);
    Ok((description, model))
}

/// One task's tensors out of a file, in our own order.
struct TaskContents {
    /// What it owns, where the file is woven.
    owned: Option<Vec<Owned>>,
    parameters: Vec<Vec<f32>>,
    states: Vec<Vec<f32>>,
}

/// All tensors of a file, held to the sizes that its description asks for.
fn contents(
    file: &SafeTensors<'_>,
    description: &Description,
) -> Result<Vec<TaskContents>, String> {
    let mut contents: Vec<TaskContents> = match description.model {
        ModelKind::Multitask => unwoven(file, description)?,
        ModelKind::Dedicated => description
            .tasks
            .iter()
            .map(|task| whole(file, task))
            .collect::<Result<_, _>>()?,
    };
    for (task, contents) in description.tasks.iter().zip(&mut contents) {
        for spec in task.net.states() {
            let name = format!("{}/{}", task.name, spec.name);
            contents
                .states
                .push(read_floats(file, &name, &[spec.elements])?);
        }
    }
    Ok(contents)
}

/// The parameters of a task that has tensors of its own.
fn whole(file: &SafeTensors<'_>, task: &TaskDescription) -> Result<TaskContents, String> {
    let parameter = |spec: &ParameterSpec| {
        let name = format!("{}/{}", task.name, spec.name);
        Ok(in_our_order(spec, read_floats(file, &name, &spec.shape)?))
    };
    let parameters = task.net.parameters();
    let parameters = parameters.iter().map(parameter);
    Ok(TaskContents {
        owned: None,
        parameters: parameters.collect::<Result<_, String>>()?,
        states: Vec::new(),
    })
}

/// Every task's owners and parameters out of the woven tensors.
fn unwoven(file: &SafeTensors<'_>, description: &Description) -> Result<Vec<TaskContents>, String> {
    let tasks = description.tasks.iter();
    let mut parts: Vec<Vec<(Owned, Vec<f32>)>> = tasks
        .map(|task| vec![Default::default(); task.net.parameters().len()])
        .collect();
    for layer in description.layers() {
        for (place, spec) in layer.parameters.iter().enumerate() {
            let name = woven_name(&description.names(), &layer, spec);
            let owners = read_owners(file, &name, spec.elements(), layer.sharers.len())?;
            let values = read_list(file, &name)?;
            let unwoven = unweave(&values, owners, spec.elements(), layer.sharers.len())
                .map_err(|error| format!("{name}: {error}"))?;
            for (sharer, (owned, values)) in layer.sharers.iter().zip(unwoven) {
                let part = (in_our_order(spec, owned), in_our_order(spec, values));
                parts[sharer.task][sharer.first_parameter + place] = part;
            }
        }
    }
    let of_task = |parts: Vec<(Owned, Vec<f32>)>| {
        let (owned, parameters) = parts.into_iter().unzip();
        TaskContents {
            owned: Some(owned),
            parameters,
            states: Vec::new(),
        }
    };
    Ok(parts.into_iter().map(of_task).collect())
}

/// Gives a model's tasks their owners, weights and moving averages.
fn fill(model: &mut Model, contents: Vec<TaskContents>) {
    for (task, contents) in contents.into_iter().enumerate() {
        if let Some(owned) = contents.owned {
            model.set_owned(task, owned);
        }
        for (parameter, values) in contents.parameters.iter().enumerate() {
            model.edit_parameter(task, parameter, |target| target.copy_from_slice(values));
        }
        for (state, values) in contents.states.iter().enumerate() {
            model.edit_state(task, state, |target| target.copy_from_slice(values));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::plan::planned_models;
    use crate::experiment::test_models::{bits, two_tasks};
    use crate::experiment::{StoredModel, find};

    #[test]
    fn a_woven_model_comes_back_bit_for_bit() {
        let experiment = find("quickstart-conv").unwrap();
        let planned = planned_models(&experiment).pop().unwrap();
        let settings = RunSettings::default();
        let mut model = two_tasks(&experiment);
        let bytes = serialize(&experiment, &settings, &planned, &model).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("multitask.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        let mut stored = StoredModel::open(&path, 16).unwrap();
        let pixels: Vec<u8> = (0..20 * 784).map(|at| (at * 31 % 251) as u8).collect();
        let zeros = [0; 20];
        let images = crate::train::TaskImages::new(&pixels, &zeros, 784, 10).unwrap();
        for task in 0..2 {
            assert_eq!(bits(&model, task), bits(stored.model(), task));
            let owned = stored.model().tasks()[task].owned();
            assert_eq!(model.tasks()[task].owned(), owned);
            let expected = model.predict(task, &images).unwrap();
            let found = stored.predict(task, &pixels).unwrap();
            assert_eq!(expected, found.labels);
            for row in found.probabilities.chunks(10) {
                assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn two_owners_of_a_position_are_refused() {
        let experiment = find("quickstart-conv").unwrap();
        let planned = planned_models(&experiment).pop().unwrap();
        let mut model = two_tasks(&experiment);
        let specs = experiment.nets[1].parameters();
        let all = specs.iter().map(|spec| vec![1; spec.elements()]);
        model.set_owned(1, all.collect());
        let error = serialize(&experiment, &RunSettings::default(), &planned, &model);
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("owned by both task 0 and task 1"),
            "{message}"
        );
    }
}
