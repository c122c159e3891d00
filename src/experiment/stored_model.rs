//! A trained model out of its file.

use std::ops::ControlFlow;
use std::path::Path;

use taskweave_kernels::{dispatch, lanes};

use super::ExperimentError;
use super::model_file::{self, Description};
use super::onnx;
use crate::nn::ImageSize;
use crate::ops::softmax_row;
use crate::train::{Model, TaskImages};

/// A trained model with what its file says of it.
pub struct StoredModel {
    pub(super) description: Description,
    pub(super) model: Model,
}

/// What a net makes of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictions {
    /// The most likely class of every image; of equals the first.
    pub labels: Vec<u32>,
    /// Softmax of the logits: `[images, classes]`, row-major.
    pub probabilities: Vec<f32>,
    /// Number of classes.
    pub classes: usize,
}

impl StoredModel {
    /// Reads a model file, for up to `batch` images at once. The file is mapped into memory.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is no model file of this version.
    pub fn open(path: &Path, batch: usize) -> Result<Self, ExperimentError> {
        let (description, model) = model_file::read(path, |bytes| model_file::load(bytes, batch))?;
        Ok(Self { description, model })
    }

    /// The names of the tasks, in order.
    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.description.tasks.iter().map(|task| &task.name[..])
    }

    /// The images that a task's net takes.
    pub fn input(&self, task: usize) -> ImageSize {
        self.description.tasks[task].net.input
    }

    /// What a task's classes are called; empty where the file does not say.
    pub fn class_names(&self, task: usize) -> &[String] {
        &self.description.tasks[task].class_names
    }

    /// The model itself.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// A task's net as the bytes of an ONNX model (opset 13): `pixels`, unsigned bytes `[images, channels,
    /// height, width]`, become `logits` and `probabilities`, f32 `[images, classes]`.
    ///
    /// # Errors
    /// When the net is larger than such a file may be, 2 GB.
    pub fn to_onnx(&self, task: usize) -> Result<Vec<u8>, ExperimentError> {
        let description = &self.description.tasks[task];
        onnx::serialize(&self.model, task, description).map_err(|reason| ExperimentError::Store {
            model: description.name.clone(),
            reason,
        })
    }

    /// Classifies images of raw pixels, `[count, channels, height, width]`.
    ///
    /// # Errors
    /// When they are not a whole number of images of the net's size.
    pub fn predict(&mut self, task: usize, pixels: &[u8]) -> Result<Predictions, ExperimentError> {
        let features = self.input(task).features();
        let labels = vec![0; pixels.len() / features];
        let failed = |source| ExperimentError::Train {
            model: "prediction".to_owned(),
            source,
        };
        let images = TaskImages::new(pixels, &labels, features, 1).map_err(failed)?;
        let classes = self.model.tasks()[task].classes();
        let mut predictions = Predictions {
            labels: Vec::with_capacity(images.len()),
            probabilities: vec![0.0; images.len() * classes],
            classes,
        };
        let mut rows = &mut predictions.probabilities[..];
        let labels = &mut predictions.labels;
        let take = |model: &mut Model| {
            labels.extend_from_slice(model.predictions(task));
            let lanes = model.logits(task);
            let count = lanes.spec().images();
            let mut logits = vec![0.0; count * classes];
            lanes::unpack(
                dispatch::active(),
                count,
                classes,
                lanes.data(),
                &mut logits,
            );
            let (batch, rest) = std::mem::take(&mut rows).split_at_mut(logits.len());
            rows = rest;
            let pairs = logits
                .chunks_exact(classes)
                .zip(batch.chunks_exact_mut(classes));
            pairs.for_each(|(logits, probabilities)| softmax_row(logits, probabilities));
            ControlFlow::Continue(())
        };
        self.model.infer(task, &images, take).map_err(failed)?;
        Ok(predictions)
    }
}
