//! The next batch of a task, out of pixels or values.

use taskweave_kernels::dispatch;
use taskweave_kernels::lanes::{self, PixelGather};

use super::{Model, TaskNet};
use crate::autograd::Tape;
use crate::data::augment::{Augmentation, Batch};
use crate::tensor::TensorSpec;
use crate::train::TaskImages;

impl Model {
    /// Sets a task's next batch: the images at `indices`, of pixels.
    ///
    /// # Panics
    /// If an index lies outside the images, or they are not of the net's size.
    pub fn set_batch(&mut self, task: usize, images: &TaskImages<'_>, indices: &[usize]) {
        let net = &self.tasks[task];
        assert_eq!(images.features(), net.spec.input.features());
        pack(&mut self.tape, net, images.pixels(), indices);
        set_labels(&mut self.tape, net, images, indices);
    }

    /// Sets a task's next batch like [`set_batch`](Self::set_batch), its images changed as the seed
    /// and the epoch say.
    ///
    /// # Panics
    /// If an index lies outside the images, or they are not of the net's size, or the settings are
    /// not valid for it.
    pub fn set_augmented_batch(
        &mut self,
        task: usize,
        images: &TaskImages<'_>,
        indices: &[usize],
        augmentation: &Augmentation,
        [seed, epoch]: [u64; 2],
    ) {
        let net = &self.tasks[task];
        assert_eq!(images.features(), net.spec.input.features());
        let batch = Batch {
            pixels: images.pixels(),
            size: net.spec.input.dims(),
            indices,
            seed,
            epoch,
        };
        augmentation.gather(&batch, &mut self.augmented);
        let all: Vec<usize> = (0..indices.len()).collect();
        pack(&mut self.tape, net, &self.augmented, &all);
        set_labels(&mut self.tape, net, images, indices);
    }

    /// Sets a task's next batch from values that need no scaling: row-major
    /// `[N, channels, height, width]`.
    ///
    /// # Panics
    /// If the values are not a whole number of labelled images.
    pub fn set_values(&mut self, task: usize, values: &[f32], labels: &[f32]) {
        let network = &self.tasks[task].network;
        let [channels, height, width] = self.tasks[task].spec.input.dims();
        let inputs = self.tape.value_mut(network.images);
        let spec = TensorSpec::lanes([labels.len(), channels, height, width]);
        inputs.respec(&spec);
        lanes::pack(
            dispatch::active(),
            labels.len(),
            spec.features(),
            values,
            inputs.data_mut(),
        );
        let target = self.tape.value_mut(network.labels);
        target.respec(&TensorSpec::row_major([labels.len()]));
        target.data_mut().copy_from_slice(labels);
    }
}

/// Sets a task's images: those at `indices`, of pixels.
fn pack(tape: &mut Tape, net: &TaskNet, pixels: &[u8], indices: &[usize]) {
    let [channels, height, width] = net.spec.input.dims();
    let spec = TensorSpec::lanes([indices.len(), channels, height, width]);
    let inputs = tape.value_mut(net.network.images);
    inputs.respec(&spec);
    let gather = PixelGather {
        pixels,
        features: spec.features(),
        indices,
        scales: &net.scales,
    };
    lanes::pack_u8(dispatch::active(), gather, inputs.data_mut());
}

fn set_labels(tape: &mut Tape, net: &TaskNet, images: &TaskImages<'_>, indices: &[usize]) {
    let labels = tape.value_mut(net.network.labels);
    labels.respec(&TensorSpec::row_major([indices.len()]));
    for (label, &index) in labels.data_mut().iter_mut().zip(indices) {
        *label = f32::from(images.labels()[index]);
    }
}
