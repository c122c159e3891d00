//! What a trained model makes of images.

use std::ops::ControlFlow;

use super::{Model, TaskNet};
use crate::autograd::Mode;
use crate::train::{TaskImages, TrainError};

impl Model {
    /// Whether images are of the size that a task's net takes.
    pub(crate) fn check_images(
        &self,
        task: usize,
        images: &TaskImages<'_>,
    ) -> Result<(), TrainError> {
        let TaskNet { name, spec, .. } = &self.tasks[task];
        if images.features() == spec.input.features() {
            return Ok(());
        }
        Err(TrainError::Data(format!(
            "the net of {name} takes {} pixels per image, but its images have {}",
            spec.input.features(),
            images.features()
        )))
    }

    /// The class predicted for each of a task's images.
    ///
    /// # Errors
    /// When the images are not of the net's size, or a label is no class of the net.
    pub fn predict(
        &mut self,
        task: usize,
        images: &TaskImages<'_>,
    ) -> Result<Vec<u32>, TrainError> {
        let mut predictions = Vec::with_capacity(images.len());
        self.infer(task, images, |model| {
            predictions.extend_from_slice(model.predictions(task));
            ControlFlow::Continue(())
        })?;
        Ok(predictions)
    }

    /// Goes through a task's images batch by batch, and has `each` take logits or predictions of every one
    /// until it breaks off. Batches of a few images go by kernels of their own where the net allows it.
    pub(crate) fn infer(
        &mut self,
        task: usize,
        images: &TaskImages<'_>,
        each: impl FnMut(&mut Self) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        self.go_through(task, images, true, each)
    }

    /// As [`infer`](Self::infer), where all values between input and logits are wanted, too.
    pub(crate) fn infer_all(
        &mut self,
        task: usize,
        images: &TaskImages<'_>,
        each: impl FnMut(&mut Self) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        self.go_through(task, images, false, each)
    }

    fn go_through(
        &mut self,
        task: usize,
        images: &TaskImages<'_>,
        only_logits: bool,
        mut each: impl FnMut(&mut Self) -> ControlFlow<()>,
    ) -> Result<(), TrainError> {
        self.check_images(task, images)?;
        self.set_mode(Mode::Inference);
        let indices: Vec<usize> = (0..images.len()).collect();
        for batch in indices.chunks(self.batch) {
            self.set_batch(task, images, batch);
            if !only_logits {
                self.forward(&[task])?;
            } else if self.is_single() {
                self.forward_single(task);
            } else {
                self.evaluate(task)?;
            }
            let flow = each(self);
            self.release(task);
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }
}
