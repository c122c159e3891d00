//! The next batch of a task, out of pixels or values.

use taskweave_kernels::dispatch;
use taskweave_kernels::lanes::{self, PixelGather};

use super::{Model, TaskNet};
use crate::data::augment::{Augmentation, Batch};
use crate::tensor::TensorSpec;
use crate::train::TaskImages;

impl Model {
    /// Sets a task's next batch: the images at `indices`, of pixels.
    ///
    /// # Panics
    /// If an index lies outside the images, or they are not of the net's size.
    pub fn set_batch(&mut self, task: usize, images: &TaskImages<'_>, indices: &[usize]) {
        self.tasks[task].set_batch(images, indices);
    }

    /// Sets a task's next batch from values that need no scaling: row-major
    /// `[N, channels, height, width]`.
    ///
    /// # Panics
    /// If the values are not a whole number of labelled images.
    pub fn set_values(&mut self, task: usize, values: &[f32], labels: &[f32]) {
        let TaskNet {
            network,
            tape,
            spec,
            ..
        } = &mut self.tasks[task];
        let [channels, height, width] = spec.input.dims();
        let inputs = tape.value_mut(network.images);
        let spec = TensorSpec::lanes([labels.len(), channels, height, width]);
        inputs.respec(&spec);
        lanes::pack(
            dispatch::active(),
            labels.len(),
            spec.features(),
            values,
            inputs.data_mut(),
        );
        let target = tape.value_mut(network.labels);
        target.respec(&TensorSpec::row_major([labels.len()]));
        target.data_mut().copy_from_slice(labels);
    }
}

impl TaskNet {
    /// See [`Model::set_batch`].
    pub(in crate::train) fn set_batch(&mut self, images: &TaskImages<'_>, indices: &[usize]) {
        assert_eq!(images.features(), self.spec.input.features());
        self.pack(images.pixels(), indices);
        self.set_labels(images, indices);
    }

    /// Sets the next batch like [`set_batch`](Self::set_batch), its images changed as the seed
    /// and the epoch say.
    ///
    /// # Panics
    /// If an index lies outside the images, or they are not of the net's size, or the settings are
    /// not valid for it.
    pub(in crate::train) fn set_augmented_batch(
        &mut self,
        images: &TaskImages<'_>,
        indices: &[usize],
        augmentation: &Augmentation,
        [seed, epoch]: [u64; 2],
    ) {
        assert_eq!(images.features(), self.spec.input.features());
        let batch = Batch {
            pixels: images.pixels(),
            size: self.spec.input.dims(),
            indices,
            seed,
            epoch,
        };
        let mut augmented = std::mem::take(&mut self.augmented);
        augmentation.gather(&batch, &mut augmented);
        let all: Vec<usize> = (0..indices.len()).collect();
        self.pack(&augmented, &all);
        self.augmented = augmented;
        self.set_labels(images, indices);
    }

    /// Sets the images: those at `indices`, of pixels.
    fn pack(&mut self, pixels: &[u8], indices: &[usize]) {
        let [channels, height, width] = self.spec.input.dims();
        let spec = TensorSpec::lanes([indices.len(), channels, height, width]);
        let inputs = self.tape.value_mut(self.network.images);
        inputs.respec(&spec);
        let gather = PixelGather {
            pixels,
            features: spec.features(),
            indices,
            scales: &self.scales,
        };
        lanes::pack_u8(dispatch::active(), gather, inputs.data_mut());
    }

    fn set_labels(&mut self, images: &TaskImages<'_>, indices: &[usize]) {
        let labels = self.tape.value_mut(self.network.labels);
        labels.respec(&TensorSpec::row_major([indices.len()]));
        for (label, &index) in labels.data_mut().iter_mut().zip(indices) {
            *label = f32::from(images.labels()[index]);
        }
    }
}
