//! One image at a time: the net's layers one after the other by the kernels for a single image, without
//! the tape's lanes, of which one image would fill a sixteenth.

use taskweave_kernels::conv2d::Conv2dShape;
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::lanes::LANES;
use taskweave_kernels::pool::PoolShape;
use taskweave_kernels::{dispatch, single};

use super::{Model, TaskNet};
use crate::nn::LayerSpec;
use crate::ops::Precision;
use crate::tensor::TensorSpec;

/// Values between layers, kept from image to image.
#[derive(Default)]
pub(super) struct Values {
    now: Vec<f32>,
    next: Vec<f32>,
}

impl Model {
    /// Whether the logits of a task are computed image by image: in batches of one, by nets whose layers
    /// all have kernels for that.
    pub(super) fn is_single(&self, task: usize) -> bool {
        let known = |layer: &LayerSpec| {
            !matches!(
                layer,
                LayerSpec::AveragePool { .. } | LayerSpec::BatchNorm { .. }
            )
        };
        self.batch == 1
            && self.precision == Precision::F32
            && self.tasks[task].spec.layers.iter().all(known)
    }

    /// Computes the logits of a task's batch of one image, and nothing else. They differ in the last bits
    /// from those of a [`forward`](Self::forward) pass.
    pub(super) fn forward_single(&mut self, task: usize) {
        let net = &self.tasks[task];
        let images = self.tape.value(net.network.images);
        debug_assert_eq!(images.spec().images(), 1);
        let values = &mut self.single;
        values.now.clear();
        values.now.extend(images.data().iter().step_by(LANES));
        let mut before = net.spec.input.dims().to_vec();
        let mut parameter = 0;
        let shapes = net.spec.shapes().unwrap_or_default();
        let parameters = net.spec.parameters_by_layer();
        for ((layer, after), parameters) in net.spec.layers.iter().zip(shapes).zip(parameters) {
            values.next.clear();
            values.next.resize(after.iter().product(), 0.0);
            let stored = |place: usize| {
                let var = net.network.parameters[parameter + place];
                (place < parameters.len()).then(|| self.tape.value(var).data())
            };
            if compute(net, parameter, layer, &before, stored, values) {
                std::mem::swap(&mut values.now, &mut values.next);
            }
            parameter += parameters.len();
            before = after;
        }
        let logits = self.tape.value_mut(net.network.logits);
        logits.respec(&TensorSpec::lanes([1, values.now.len()]));
        let (vectors, _) = logits.data_mut().as_chunks_mut::<LANES>();
        for (vector, &logit) in vectors.iter_mut().zip(&values.now) {
            *vector = [logit; LANES];
        }
    }
}

/// Computes a layer from `now` to `next`; whether it did, for some layers change nothing.
fn compute<'a>(
    net: &TaskNet,
    parameter: usize,
    layer: &LayerSpec,
    before: &[usize],
    stored: impl Fn(usize) -> Option<&'a [f32]>,
    values: &mut Values,
) -> bool {
    let set = dispatch::active();
    let Values { now, next } = values;
    let pattern = net.compact(parameter).map(|compact| &*compact.pattern);
    let affine = |relu: bool| Affine {
        weights: stored(0).unwrap_or_default(),
        bias: stored(1),
        activation: match relu {
            true => Activation::Relu,
            false => Activation::Linear,
        },
    };
    match *layer {
        LayerSpec::Dense { units, relu } => match pattern {
            Some(pattern) => single::sparse_dense(set, pattern, affine(relu), now, next),
            None => single::dense(set, [now.len(), units], affine(relu), now, next),
        },
        LayerSpec::Conv2d {
            filters,
            window,
            relu,
            ..
        } => {
            let shape = Conv2dShape {
                images: 1,
                inputs: before[0],
                outputs: filters,
                height: before[1],
                width: before[2],
                window,
            };
            match pattern {
                Some(pattern) => {
                    single::sparse_conv2d(set, pattern, &shape, affine(relu), now, next);
                }
                None => single::conv2d(set, &shape, affine(relu), now, next),
            }
        }
        LayerSpec::MaxPool { window } => {
            let shape = PoolShape {
                images: 1,
                channels: before[0],
                height: before[1],
                width: before[2],
                window,
            };
            single::max_pool(set, &shape, now, next);
        }
        LayerSpec::Relu => {
            for (next, &now) in next.iter_mut().zip(&*now) {
                // Written so that NaN stays NaN.
                *next = if now < 0.0 { 0.0 } else { now };
            }
        }
        // In inference a dropout does nothing, and an image is flat already.
        LayerSpec::Dropout { .. } | LayerSpec::Flatten => return false,
        LayerSpec::AveragePool { .. } | LayerSpec::BatchNorm { .. } => {
            unreachable!("nets with these layers go by lanes")
        }
    }
    true
}
