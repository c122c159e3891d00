//! Model files: the weights of a net in safetensors, as Keras orders them.
//!
//! `Digit/dense_0/kernel` and so on, kernels `[inputs, outputs]` or `[height, width, inputs,
//! outputs]`, the inputs of a dense kernel behind an image by row, column and channel. Beside a shared
//! tensor stands `Digit/dense_0/kernel.owned`, 1 where the task owns a position. Moving averages are
//! stored like parameters.

use std::borrow::Cow;
use std::collections::HashMap;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, View};
use serde_json::json;
use taskweave_kernels::buffer::bytes_of;

use super::plan::PlannedModel;
use super::{Experiment, ExperimentError, RunSettings};
use crate::nn::ParameterSpec;
use crate::train::Model;

/// Version of the layout of the model files and of `metrics.json`.
pub(super) const FORMAT_VERSION: u32 = 2;

/// The one key of a file's metadata: the order of several is not fixed, and the file must be.
const METADATA_KEY: &str = "taskweave";

/// A named tensor on its way into a file; its bytes are made when their turn has come.
pub(super) struct StoredTensor<'a> {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Values<'a>,
}

/// The values of a stored tensor.
pub(super) enum Values<'a> {
    Floats(Cow<'a, [f32]>),
    Bytes(Cow<'a, [u8]>),
}

impl View for &StoredTensor<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::Floats(_) => Dtype::F32,
            Values::Bytes(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.values {
            // The file's order is this machine's: no copy of the largest tensors is made.
            Values::Floats(values) if cfg!(target_endian = "little") => {
                Cow::Borrowed(bytes_of(values))
            }
            Values::Floats(values) => {
                let mut bytes = vec![0; self.data_len()];
                let (targets, _) = bytes.as_chunks_mut::<4>();
                for (target, value) in targets.iter_mut().zip(&values[..]) {
                    *target = value.to_le_bytes();
                }
                bytes.into()
            }
            Values::Bytes(bytes) => Cow::Borrowed(bytes),
        }
    }

    fn data_len(&self) -> usize {
        match &self.values {
            Values::Floats(values) => size_of_val(&values[..]),
            Values::Bytes(bytes) => bytes.len(),
        }
    }
}

impl<'a> StoredTensor<'a> {
    /// A tensor of floats.
    pub(super) fn floats(name: String, shape: &[usize], values: impl Into<Cow<'a, [f32]>>) -> Self {
        Self {
            name,
            shape: shape.to_vec(),
            values: Values::Floats(values.into()),
        }
    }

    /// A tensor of bytes.
    pub(super) fn bytes(name: String, shape: &[usize], values: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            name,
            shape: shape.to_vec(),
            values: Values::Bytes(values.into()),
        }
    }
}

/// The metadata of a file that holds this text.
pub(super) fn metadata(text: String) -> HashMap<String, String> {
    HashMap::from([(METADATA_KEY.to_owned(), text)])
}

/// A file's tensors and the text of its metadata.
pub(super) fn parse(bytes: &[u8]) -> Result<(SafeTensors<'_>, String), String> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
    let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
    let text = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(METADATA_KEY));
    match text {
        Some(text) => Ok((tensors, text.clone())),
        None => Err("it is no file of this program".to_owned()),
    }
}

/// A tensor of a file, if it has this type and shape.
fn tensor<'a>(
    file: &SafeTensors<'a>,
    name: &str,
    dtype: Dtype,
    shape: &[usize],
) -> Result<TensorView<'a>, String> {
    let tensor = file.tensor(name).map_err(|error| error.to_string())?;
    if (tensor.dtype(), tensor.shape()) != (dtype, shape) {
        return Err(format!(
            "{name} is {:?} of shape {:?}, and {dtype:?} of shape {shape:?} is wanted",
            tensor.dtype(),
            tensor.shape()
        ));
    }
    Ok(tensor)
}

/// A tensor of floats of a file, if it has this shape.
pub(super) fn read_floats(
    file: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, String> {
    let tensor = tensor(file, name, Dtype::F32, shape)?;
    let (values, _) = tensor.data().as_chunks::<4>();
    Ok(values
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect())
}

/// A mask of a file, if it has this shape and holds nothing but 0 and 1.
pub(super) fn read_mask(
    file: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
) -> Result<Vec<u8>, String> {
    let mask = tensor(file, name, Dtype::U8, shape)?.data();
    match mask.iter().find(|&&owned| owned > 1) {
        Some(other) => Err(format!("{name} holds {other}, and a mask holds 0 and 1")),
        None => Ok(mask.to_vec()),
    }
}

/// What the metadata of a model file says.
fn description(
    experiment: &Experiment,
    settings: &RunSettings,
    planned: &PlannedModel,
) -> serde_json::Value {
    let tasks: Vec<&str> = planned
        .tasks
        .iter()
        .map(|&task| experiment.tasks[task].name)
        .collect();
    let nets: Vec<_> = planned
        .tasks
        .iter()
        .map(|&task| &experiment.nets[task])
        .collect();
    json!({
        "format_version": FORMAT_VERSION,
        "experiment": experiment.name,
        "model": planned.kind,
        "tasks": tasks,
        "nets": nets,
        "pixel_divisor": experiment.pixel_divisor,
        "seed": settings.seed,
        "protocol": settings.protocol,
        "precision": settings.precision,
    })
}

/// The file of a trained model.
pub(super) fn serialize(
    experiment: &Experiment,
    settings: &RunSettings,
    planned: &PlannedModel,
    model: &Model,
) -> Result<Vec<u8>, ExperimentError> {
    let tensors = stored_tensors(model);
    let views = tensors.iter().map(|tensor| (&tensor.name[..], tensor));
    let text = description(experiment, settings, planned).to_string();
    safetensors::serialize(views, Some(metadata(text))).map_err(|error| ExperimentError::Store {
        model: planned.name.clone(),
        reason: error.to_string(),
    })
}

fn stored_tensors(model: &Model) -> Vec<StoredTensor<'_>> {
    let mut tensors = Vec::new();
    for (index, task) in model.tasks().iter().enumerate() {
        let specs = task.spec().parameters();
        for (position, (spec, value)) in specs.iter().zip(model.parameters(index)).enumerate() {
            let name = format!("{}/{}", task.name(), spec.name);
            if let Some(owned) = task.owned() {
                let owned = in_keras_order(spec, &owned[position]);
                tensors.push(StoredTensor::bytes(
                    format!("{name}.owned"),
                    &spec.shape,
                    owned,
                ));
            }
            let values = match value {
                Cow::Borrowed(values) => in_keras_order(spec, values),
                Cow::Owned(values) => in_keras_order(spec, &values).into_owned().into(),
            };
            tensors.push(StoredTensor::floats(name, &spec.shape, values));
        }
        for (spec, value) in task.spec().states().iter().zip(model.states(index)) {
            let name = format!("{}/{}", task.name(), spec.name);
            tensors.push(StoredTensor::floats(name, &[spec.elements], value.data()));
        }
    }
    tensors
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
pub(super) fn restore(
    bytes: &[u8],
    experiment: &Experiment,
    settings: &RunSettings,
    planned: &PlannedModel,
    model: &mut Model,
) -> Result<(), String> {
    let (file, text) = parse(bytes)?;
    let expected = description(experiment, settings, planned).to_string();
    if text != expected {
        return Err(format!(
            "it is of another run: it says {text}, and {expected} is wanted"
        ));
    }
    for (index, &task) in planned.tasks.iter().enumerate() {
        let (task, net) = (experiment.tasks[task].name, &experiment.nets[task]);
        let specs = net.parameters();
        if planned.is_shared() {
            let mut owned = Vec::with_capacity(specs.len());
            for spec in &specs {
                let mask = read_mask(&file, &format!("{task}/{}.owned", spec.name), &spec.shape)?;
                owned.push(in_our_order(spec, mask));
            }
            model.set_owned(index, owned);
        }
        for (parameter, spec) in specs.iter().enumerate() {
            let values = read_floats(&file, &format!("{task}/{}", spec.name), &spec.shape)?;
            let values = in_our_order(spec, values);
            model.edit_parameter(index, parameter, |target| target.copy_from_slice(&values));
        }
        for (state, spec) in net.states().iter().enumerate() {
            let name = format!("{task}/{}", spec.name);
            let values = read_floats(&file, &name, &[spec.elements])?;
            model.edit_state(index, state, |target| target.copy_from_slice(&values));
        }
    }
    Ok(())
}
