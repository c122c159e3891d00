//! One image at a time: the net's layers one after the other by the kernels for a single image, without
//! the tape's lanes, of which one image would fill a sixteenth. A few images go one after the other: lanes
//! would be a quarter full at most.

use taskweave_kernels::batch_norm::{self, BatchNormShape, Normalization};
use taskweave_kernels::conv2d::Conv2dShape;
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch;
use taskweave_kernels::lanes::LANES;
use taskweave_kernels::pool::PoolShape;
use taskweave_kernels::single::{self, SparseConv2d, SparseDense};
use taskweave_kernels::window::Window;

use super::{Model, TaskNet};
use crate::nn::LayerSpec;
use crate::ops::Precision;
use crate::tensor::TensorSpec;

/// Images of a batch that are computed one by one: lanes take as long as six of the nets of the experiments,
/// dense or sparse, or longer.
const FEW_IMAGES: usize = 4;

/// What is kept from image to image.
#[derive(Default)]
pub(super) struct Single {
    /// Of a normalisation.
    inverse_deviation: Vec<f32>,
    /// Of every task.
    prepared: Vec<Prepared>,
}

/// What stays from image to image of a task.
#[derive(Default)]
struct Prepared {
    /// The model's `weights_version` when the weights were taken.
    version: u64,
    /// By parameter the weights in the order of these kernels, where that is another than the tape's.
    weights: Vec<Option<Ordered>>,
    image: Vec<f32>,
    layers: Vec<Layer>,
}

struct Layer {
    /// The shape of the values behind it.
    dims: Vec<usize>,
    /// How many parameters it has.
    parameters: usize,
    /// The values behind it, in memory of their own: the same threads write the same places of it again,
    /// which processors without a common cache would have to fetch from each other.
    values: Vec<f32>,
}

/// A layer with few weights.
enum Ordered {
    Dense(SparseDense),
    Conv2d(SparseConv2d),
}

impl Prepared {
    fn of(net: &TaskNet, version: u64) -> Self {
        let TaskNet { spec, tape, .. } = net;
        let shapes = spec.shapes().unwrap_or_default();
        let counts = spec.parameters_by_layer().into_iter();
        let layers: Vec<_> = shapes
            .into_iter()
            .zip(counts)
            .map(|(dims, parameters)| Layer {
                values: vec![0.0; dims.iter().product()],
                dims,
                parameters: parameters.len(),
            })
            .collect();
        let ordered = |parameter: usize, layer: &LayerSpec, before: &[usize]| {
            let pattern = &net.compact(parameter)?.pattern;
            let values = tape.value(net.network.parameters[parameter]).data();
            match *layer {
                LayerSpec::Conv2d {
                    filters, window, ..
                } => {
                    let shape = conv2d_shape(filters, window, before);
                    let mut layer = SparseConv2d::new(pattern, &shape);
                    layer.set_values(values);
                    Some(Ordered::Conv2d(layer))
                }
                _ => {
                    let mut layer = SparseDense::new(pattern);
                    layer.set_values(values);
                    Some(Ordered::Dense(layer))
                }
            }
        };
        let mut weights = Vec::with_capacity(net.network.parameters.len());
        let input = spec.input.dims();
        let mut before = &input[..];
        for (spec, layer) in spec.layers.iter().zip(&layers) {
            let first = weights.len();
            weights.extend((first..first + layer.parameters).map(|at| ordered(at, spec, before)));
            before = &layer.dims;
        }
        Self {
            version,
            weights,
            image: vec![0.0; spec.input.features()],
            layers,
        }
    }
}

impl Model {
    /// Whether logits are computed image by image.
    pub(super) fn is_single(&self) -> bool {
        self.batch <= FEW_IMAGES && self.precision == Precision::F32
    }

    /// Computes the logits of a task's batch of a few images, and nothing else. They differ in the last bits
    /// from those of a [`forward`](Self::forward) pass.
    pub(super) fn forward_single(&mut self, task: usize) {
        let count = self.tasks.len();
        let net = &mut self.tasks[task];
        let images = net.tape.value(net.network.images).spec().images();
        debug_assert!(images <= FEW_IMAGES);
        let Single {
            inverse_deviation,
            prepared,
        } = &mut self.single;
        prepared.resize_with(count, Prepared::default);
        let prepared = &mut prepared[task];
        if prepared.version != self.weights_version {
            *prepared = Prepared::of(net, self.weights_version);
        }
        single::stay_awake();
        for image in 0..images {
            prepared.compute(net, inverse_deviation, image, images);
        }
    }
}

impl Prepared {
    /// Computes the logits of one of so many images.
    fn compute(
        &mut self,
        net: &mut TaskNet,
        inverse_deviation: &mut Vec<f32>,
        image: usize,
        images: usize,
    ) {
        let pixels = net.tape.value(net.network.images).data();
        for (pixel, lanes) in self.image.iter_mut().zip(pixels.chunks_exact(LANES)) {
            *pixel = lanes[image];
        }
        let (mut now, input) = (&self.image[..], net.spec.input.dims());
        let mut before = &input[..];
        let (mut parameter, mut state) = (0, 0);
        for (spec, layer) in net.spec.layers.iter().zip(&mut self.layers) {
            let Layer {
                dims,
                parameters,
                values,
            } = layer;
            let stored = |place: usize| {
                (place < *parameters).then(|| {
                    let var = net.network.parameters[parameter + place];
                    net.tape.value(var).data()
                })
            };
            let mut averages: [&[f32]; 2] = [&[]; 2];
            if let LayerSpec::BatchNorm { .. } = spec {
                averages = [state, state + 1].map(|state| {
                    let var = net.network.states[state];
                    net.tape.value(var).data()
                });
                state += 2;
            }
            let weights = Weights {
                stored,
                averages,
                ordered: self.weights.get(parameter).and_then(Option::as_ref),
            };
            if compute(spec, before, &weights, inverse_deviation, now, values) {
                now = values;
            }
            parameter += *parameters;
            before = dims;
        }
        let logits = net.tape.value_mut(net.network.logits);
        logits.respec(&TensorSpec::lanes([images, now.len()]));
        let (vectors, _) = logits.data_mut().as_chunks_mut::<LANES>();
        for (vector, &logit) in vectors.iter_mut().zip(now) {
            // Lanes without an image are finite, too.
            vector[image..].fill(logit);
        }
    }
}

/// The parameters of a layer.
struct Weights<'a, F> {
    /// Kernel and bias as the tape has them, or scale and bias.
    stored: F,
    /// Moving mean and variance.
    averages: [&'a [f32]; 2],
    /// Those of a kernel that is not stored whole.
    ordered: Option<&'a Ordered>,
}

/// The sizes of a convolution of one image `[channels, height, width]`.
fn conv2d_shape(filters: usize, window: Window, before: &[usize]) -> Conv2dShape {
    Conv2dShape {
        images: 1,
        inputs: before[0],
        outputs: filters,
        height: before[1],
        width: before[2],
        window,
    }
}

/// Computes a layer from `now` to `next`; whether it did, for some layers change nothing.
fn compute<'a>(
    layer: &LayerSpec,
    before: &[usize],
    weights: &Weights<'_, impl Fn(usize) -> Option<&'a [f32]>>,
    inverse_deviation: &mut Vec<f32>,
    now: &[f32],
    next: &mut [f32],
) -> bool {
    let set = dispatch::active();
    let activation = |relu: bool| match relu {
        true => Activation::Relu,
        false => Activation::Linear,
    };
    let affine = |relu: bool| Affine {
        weights: (weights.stored)(0).unwrap_or_default(),
        bias: (weights.stored)(1),
        activation: activation(relu),
    };
    let pool_shape = |window| PoolShape {
        images: 1,
        channels: before[0],
        height: before[1],
        width: before[2],
        window,
    };
    match *layer {
        LayerSpec::Dense { relu, .. } | LayerSpec::Conv2d { relu, .. }
            if let Some(ordered) = weights.ordered =>
        {
            let (bias, activation) = ((weights.stored)(1), activation(relu));
            match ordered {
                Ordered::Dense(layer) => layer.forward(bias, activation, now, next),
                Ordered::Conv2d(layer) => layer.forward(set, bias, activation, now, next),
            }
        }
        LayerSpec::Dense { units, relu } => {
            single::dense(set, [now.len(), units], affine(relu), now, next);
        }
        LayerSpec::Conv2d {
            filters,
            window,
            relu,
            ..
        } => {
            let shape = conv2d_shape(filters, window, before);
            single::conv2d(set, &shape, affine(relu), now, next);
        }
        LayerSpec::MaxPool { window } => single::max_pool(set, &pool_shape(window), now, next),
        LayerSpec::AveragePool { window } => {
            single::average_pool(set, &pool_shape(window), now, next);
        }
        LayerSpec::BatchNorm { epsilon, .. } => {
            let shape = BatchNormShape {
                images: 1,
                channels: before[0],
                pixels: before[1..].iter().product(),
            };
            let [mean, variance] = weights.averages;
            inverse_deviation.resize(variance.len(), 0.0);
            batch_norm::inverse_deviation(variance, epsilon, inverse_deviation);
            let normalization = Normalization {
                mean,
                inverse_deviation,
                gamma: (weights.stored)(0).unwrap_or_default(),
                beta: (weights.stored)(1).unwrap_or_default(),
            };
            single::batch_norm(set, shape, normalization, now, next);
        }
        LayerSpec::Relu => {
            for (next, &now) in next.iter_mut().zip(now) {
                *next = Activation::Relu.apply(now);
            }
        }
        // In inference a dropout does nothing, and an image is flat already.
        LayerSpec::Dropout { .. } | LayerSpec::Flatten => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use taskweave_kernels::window::Padding;

    use super::*;
    use crate::nn::{ImageSize, Initializer, NetSpec};
    use crate::random::{Purpose, Stream};
    use crate::train::TaskImages;

    /// Every kind of layer.
    fn net() -> NetSpec {
        let window = |kernel, stride, padding| Window {
            kernel,
            stride,
            padding,
        };
        NetSpec {
            input: ImageSize {
                height: 11,
                width: 21,
                channels: 2,
            },
            layers: vec![
                LayerSpec::conv2d(20, [3, 3]),
                LayerSpec::batch_norm(),
                LayerSpec::max_pool([2, 2], [1, 1]),
                LayerSpec::Conv2d {
                    filters: 7,
                    window: window([3, 2], [2, 1], Padding::Valid),
                    bias: false,
                    relu: false,
                },
                LayerSpec::Relu,
                LayerSpec::AveragePool {
                    window: window([2, 2], [1, 1], Padding::Same),
                },
                LayerSpec::MaxPool {
                    window: window([3, 3], [2, 2], Padding::Same),
                },
                LayerSpec::Dropout { rate: 0.5 },
                LayerSpec::Flatten,
                LayerSpec::Dense {
                    units: 40,
                    relu: true,
                },
                LayerSpec::Dense {
                    units: 5,
                    relu: false,
                },
            ],
        }
    }

    fn model(net: &NetSpec, batch: usize, one_in: usize) -> Model {
        let mut model = Model::new(batch, 255.0);
        let specs = net.parameters();
        let weights = specs.iter().enumerate().map(|(index, spec)| {
            let mut stream = Stream::new(3, Purpose::DedicatedWeights, 0, index as u64);
            let mut weights = Initializer::HeNormal.draw(spec, &mut stream);
            // Biases that are not all zero.
            weights
                .data_mut()
                .iter_mut()
                .for_each(|weight| *weight += 0.01);
            weights
        });
        model
            .add_task("Task", net.clone(), weights.collect())
            .unwrap();
        for state in 0..net.states().len() {
            let move_on = |value: &mut f32| *value = 0.5 * *value + 0.1;
            model.edit_state(0, state, |values| values.iter_mut().for_each(move_on));
        }
        if one_in > 1 {
            let owned = |len: usize| (0..len).map(|at| u8::from(at % one_in == 0)).collect();
            let owned = specs.iter().map(|spec| owned(spec.elements()));
            model.set_owned(0, owned.collect());
        }
        model
    }

    fn logits(model: &mut Model, images: &TaskImages<'_>) -> Vec<f32> {
        let mut found = Vec::new();
        let infer = model.infer(0, images, |model| {
            let logits = model.logits(0);
            let (images, classes) = (logits.spec().images(), logits.spec().features());
            for image in 0..images {
                found.extend((0..classes).map(|class| logits.data()[class * LANES + image]));
            }
            assert_eq!(model.predictions(0).len(), images);
            ControlFlow::Continue(())
        });
        infer.unwrap();
        found
    }

    #[test]
    fn one_image_at_a_time_gives_the_logits_of_a_batch() {
        let net = net();
        let features = net.input.features();
        let count = 7;
        let pixels: Vec<u8> = (0..count * features)
            .map(|at| (at * 37 % 256) as u8)
            .collect();
        let labels = vec![0; count];
        let images = TaskImages::new(&pixels, &labels, features, 5).unwrap();
        // Dense kernels, then sparse ones.
        for one_in in [1, 10] {
            let mut single = model(&net, 1, one_in);
            assert!(single.is_single());
            let found = logits(&mut single, &images);
            // Batches of four and three.
            let mut few = model(&net, FEW_IMAGES, one_in);
            assert!(few.is_single());
            assert_eq!(logits(&mut few, &images), found);
            let mut together = model(&net, count, one_in);
            assert!(!together.is_single());
            let expected = logits(&mut together, &images);
            assert_eq!(found.len(), 5 * count);
            for (found, expected) in found.iter().zip(&expected) {
                let bound = 1e-5 * expected.abs().max(1.0);
                assert!((found - expected).abs() <= bound, "{found} {expected}");
            }
            assert!(expected.iter().any(|logit| logit.abs() > 0.01));
        }
    }

    #[test]
    fn weights_that_change_are_taken_anew() {
        let net = net();
        let features = net.input.features();
        let pixels: Vec<u8> = (0..features).map(|at| (at * 37 % 256) as u8).collect();
        let images = TaskImages::new(&pixels, &[0], features, 5).unwrap();
        let mut model = model(&net, 1, 10);
        let before = logits(&mut model, &images);
        assert_eq!(before, logits(&mut model, &images));
        // The last dense kernel.
        let last = net.parameters().len() - 2;
        model.edit_parameter(0, last, |values| {
            values.iter_mut().for_each(|value| *value *= 2.0)
        });
        let after = logits(&mut model, &images);
        model.edit_stored(0, last, |values| {
            values.iter_mut().for_each(|value| *value /= 2.0)
        });
        assert_ne!(before, after);
        assert_eq!(before, logits(&mut model, &images));
    }
}
