//! A trained model out of its file.

use std::fs::File;
use std::path::Path;

use taskweave_kernels::{dispatch, lanes};

use super::ExperimentError;
use super::model_file::{self, Description};
use crate::autograd::Mode;
use crate::data::MappedBytes;
use crate::nn::ImageSize;
use crate::train::{Model, TaskImages};

/// A trained model with what its file says of it.
pub struct StoredModel {
    description: Description,
    model: Model,
    batch: usize,
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
        let failed = |reason: String| ExperimentError::ModelFile {
            path: path.to_owned(),
            reason,
        };
        let bytes = File::open(path)
            .and_then(|file| MappedBytes::map(&file))
            .map_err(|error| failed(error.to_string()))?;
        let (description, model) = model_file::load(bytes.as_slice(), batch).map_err(failed)?;
        Ok(Self {
            description,
            model,
            batch,
        })
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

    /// Number of classes of a task.
    pub fn classes(&self, task: usize) -> usize {
        let shapes = self.description.tasks[task].net.shapes();
        let logits = shapes.ok().and_then(|shapes| shapes.last().cloned());
        logits.map_or(0, |logits| logits.iter().product())
    }

    /// The model itself.
    pub fn model(&self) -> &Model {
        &self.model
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
        let indices: Vec<usize> = (0..images.len()).collect();
        let classes = self.classes(task);
        let mut predictions = Predictions {
            labels: Vec::with_capacity(images.len()),
            probabilities: Vec::with_capacity(images.len() * classes),
            classes,
        };
        self.model.set_mode(Mode::Inference);
        for batch in indices.chunks(self.batch.max(1)) {
            self.model.set_batch(task, &images, batch);
            self.model.forward(&[task]).map_err(failed)?;
            let mut logits = vec![0.0; batch.len() * classes];
            let lanes = self.model.logits(task).data();
            lanes::unpack(dispatch::active(), batch.len(), classes, lanes, &mut logits);
            for row in logits.chunks_exact(classes.max(1)) {
                predictions.probabilities.extend(softmax(row));
            }
            predictions
                .labels
                .extend_from_slice(self.model.predictions(task));
            self.model.release(task);
        }
        Ok(predictions)
    }
}

/// Softmax of one row, summed in f64.
fn softmax(logits: &[f32]) -> impl Iterator<Item = f32> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let power = move |&logit: &f32| f64::from(logit - largest).exp();
    let sum: f64 = logits.iter().map(power).sum();
    logits.iter().map(move |logit| (power(logit) / sum) as f32)
}
