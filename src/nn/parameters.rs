//! The parameters of a net: names, shapes, roles and counts.

use super::shapes::Stage;
use super::{LayerSpec, NetSpec, PixelOrder};

/// What a parameter is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Weights: `[inputs, outputs]`, or `[kernel height, kernel width, inputs, outputs]`.
    Kernel,
    /// One offset per output.
    Bias,
    /// One factor per channel, 1 at the beginning.
    Scale,
}

/// Name, shape and role of one parameter tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// `conv2d_0/kernel`, `dense_0/bias`, ...
    pub name: String,
    /// The shape of the tensor.
    pub shape: Vec<usize>,
    /// Kernel, bias or scale.
    pub kind: ParameterKind,
    /// Inputs that feed one output.
    pub fan_in: usize,
    /// Outputs that one input feeds.
    pub fan_out: usize,
    /// Of the kernel of a dense layer over images: the order that its rows stand in.
    pub rows: Option<PixelOrder>,
}

impl ParameterSpec {
    /// Elements of the tensor.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The name of the layer: "conv2d_0".
    pub fn layer(&self) -> &str {
        self.name.split('/').next().unwrap_or(&self.name)
    }
}

/// A tensor that a net keeps beside its parameters: training moves it, though not by gradients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSpec {
    /// `batch_normalization_0/moving_mean`, ...
    pub name: String,
    /// Elements: one per channel.
    pub elements: usize,
    /// The value of all elements at the beginning.
    pub initial: u8,
}

impl NetSpec {
    /// The parameters in order, layer by layer: kernel and bias, or gamma and beta.
    ///
    /// # Panics
    /// If the net does not [fit together](Self::check).
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        self.parameters_by_layer().into_iter().flatten().collect()
    }

    /// The parameters of every layer.
    ///
    /// # Panics
    /// If the net does not [fit together](Self::check).
    pub fn parameters_by_layer(&self) -> Vec<Vec<ParameterSpec>> {
        let layers = self.layers.iter().zip(self.layer_names());
        layers
            .zip(self.stages())
            .map(|((layer, name), stage)| of_layer(layer, &name, &stage))
            .collect()
    }

    /// The moving averages, in order.
    ///
    /// # Panics
    /// If the net does not [fit together](Self::check).
    pub fn states(&self) -> Vec<StateSpec> {
        let layers = self.layers.iter().zip(self.layer_names());
        let mut states = Vec::new();
        for ((layer, name), stage) in layers.zip(self.stages()) {
            if !matches!(layer, LayerSpec::BatchNorm { .. }) {
                continue;
            }
            for (part, initial) in [("moving_mean", 0), ("moving_variance", 1)] {
                states.push(StateSpec {
                    name: format!("{name}/{part}"),
                    elements: stage.before[0],
                    initial,
                });
            }
        }
        states
    }

    /// Number of weights and biases.
    ///
    /// # Panics
    /// If the net does not [fit together](Self::check).
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(ParameterSpec::elements).sum()
    }
}

fn of_layer(layer: &LayerSpec, layer_name: &str, stage: &Stage) -> Vec<ParameterSpec> {
    let Stage { before, after, .. } = stage;
    let (fan_in, fan_out) = fans(layer, before, after);
    let parameter = |part: &str, kind, shape: Vec<usize>| ParameterSpec {
        name: format!("{layer_name}/{part}"),
        shape,
        kind,
        fan_in,
        fan_out,
        rows: None,
    };
    let outputs = after[0];
    let bias = || parameter("bias", ParameterKind::Bias, vec![outputs]);
    match *layer {
        LayerSpec::Conv2d {
            window,
            bias: with_bias,
            ..
        } => {
            let [height, width] = window.kernel;
            let shape = vec![height, width, before[0], outputs];
            let mut parameters = vec![parameter("kernel", ParameterKind::Kernel, shape)];
            parameters.extend(with_bias.then(bias));
            parameters
        }
        LayerSpec::Dense { .. } => {
            let kernel = ParameterSpec {
                rows: stage.image.and_then(PixelOrder::of),
                ..parameter("kernel", ParameterKind::Kernel, vec![fan_in, outputs])
            };
            vec![kernel, bias()]
        }
        LayerSpec::BatchNorm { .. } => vec![
            parameter("gamma", ParameterKind::Scale, vec![before[0]]),
            parameter("beta", ParameterKind::Bias, vec![before[0]]),
        ],
        LayerSpec::MaxPool { .. }
        | LayerSpec::AveragePool { .. }
        | LayerSpec::Relu
        | LayerSpec::Dropout { .. }
        | LayerSpec::Flatten => Vec::new(),
    }
}

/// Fans as Keras counts them: those of a convolution times the places of its window.
fn fans(layer: &LayerSpec, before: &[usize], after: &[usize]) -> (usize, usize) {
    match layer {
        LayerSpec::Conv2d { window, .. } => {
            let places: usize = window.kernel.iter().product();
            (places * before[0], places * after[0])
        }
        LayerSpec::Dense { .. } => (before.iter().product(), after[0]),
        _ => (before[0], after[0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ImageSize;

    fn names(net: &NetSpec) -> Vec<String> {
        net.parameters().into_iter().map(|p| p.name).collect()
    }

    #[test]
    fn an_mlp_has_kernels_and_biases() {
        let net = NetSpec::mlp(784, &[1_000; 6], 10);
        assert_eq!(net.parameter_count(), 5_800_010);
        assert_eq!(
            names(&net)[..3],
            ["dense_0/kernel", "dense_0/bias", "dense_1/kernel"]
        );
        assert_eq!(net.parameters().len(), 14);
        assert!(net.parameters().iter().all(|p| p.rows.is_none()));
    }

    #[test]
    fn a_convnet_counts_its_fans_as_keras_does() {
        let parameters = NetSpec::convnet(3).parameters();
        let first = &parameters[0];
        assert_eq!(first.name, "conv2d_0/kernel");
        assert_eq!(first.shape, [3, 3, 3, 32]);
        assert_eq!((first.fan_in, first.fan_out), (27, 288));
        assert_eq!(parameters[8].name, "dense_0/kernel");
        assert_eq!(parameters[8].shape, [43_264, 256]);
        assert_eq!(parameters[8].layer(), "dense_0");
        assert_eq!(parameters[8].rows, PixelOrder::of([64, 26, 26]));
        assert!(parameters[10].rows.is_none());
    }

    #[test]
    fn batch_norm_has_parameters_and_states() {
        let net = NetSpec {
            input: ImageSize {
                height: 4,
                width: 4,
                channels: 3,
            },
            layers: vec![
                LayerSpec::batch_norm(),
                LayerSpec::Dense {
                    units: 2,
                    relu: false,
                },
            ],
        };
        assert_eq!(
            names(&net)[..2],
            ["batch_normalization_0/gamma", "batch_normalization_0/beta"]
        );
        let states = net.states();
        assert_eq!(states[0].name, "batch_normalization_0/moving_mean");
        assert_eq!(
            (states[0].elements, states[0].initial, states[1].initial),
            (3, 0, 1)
        );
    }
}
