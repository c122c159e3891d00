//! Model files: the weights of a net in safetensors, as Keras orders them.
//!
//! Of a dedicated net `Digit/dense_0/kernel` and so on, kernels `[inputs, outputs]` or `[height, width,
//! inputs, outputs]`, the inputs of a dense kernel behind an image by row, column and channel. Of a
//! multitask net `Digit+Fashion/dense_0/kernel`: the tasks that share it, [woven](crate::multitask::weave) into one list
//! of values, and beside it `Digit+Fashion/dense_0/kernel.owners`, the packed owners of all positions.
//! Moving averages are stored like the parameters of a dedicated net. The metadata says the rest:
//! [`Description`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, View};
use taskweave_kernels::buffer::bytes_of;

mod contents;
mod description;

pub(super) use contents::{load, owned_counts, restore, serialize, to_bytes};
pub(super) use description::{Addition, Description, TaskDescription};

use super::ExperimentError;
use crate::data::MappedBytes;

/// Version of the layout of the model files and of `metrics.json`.
pub(super) const FORMAT_VERSION: u32 = 4;

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
    let damaged = |error| format!("it is no model file, or a damaged one ({error})");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let tensors = SafeTensors::deserialize(bytes).map_err(damaged)?;
    let text = header
        .metadata()
        .as_ref()
        .and_then(|metadata| metadata.get(METADATA_KEY));
    match text {
        Some(text) => Ok((tensors, text.clone())),
        None => Err("it is a safetensors file of another program".to_owned()),
    }
}

/// What `read` makes of a model file, which is mapped into memory for it.
pub(super) fn read<T>(
    path: &Path,
    read: impl FnOnce(&[u8]) -> Result<T, String>,
) -> Result<T, ExperimentError> {
    let mapped = match path.is_dir() {
        true => Err("it is a folder, and a model file is needed".to_owned()),
        false => MappedBytes::open(path).map_err(|error| error.to_string()),
    };
    let result = mapped.and_then(|bytes| read(bytes.as_slice()));
    result.map_err(|reason| ExperimentError::ModelFile {
        path: path.to_owned(),
        reason,
    })
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

/// The bytes of a tensor of a file, if it has this many.
fn read_bytes<'a>(file: &SafeTensors<'a>, name: &str, len: usize) -> Result<&'a [u8], String> {
    Ok(tensor(file, name, Dtype::U8, &[len])?.data())
}

/// A list of floats of a file, whatever its length.
fn read_list(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, String> {
    let found = file.tensor(name).map_err(|error| error.to_string())?;
    let len: usize = found.shape().iter().product();
    read_floats(file, name, &[len])
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
