//! A network as data.

use serde::{Deserialize, Serialize};
use taskweave_kernels::window::{Padding, Window};

/// One layer of a network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerSpec {
    /// A two-dimensional convolution.
    Conv2d {
        /// Output channels.
        filters: usize,
        /// Rows and columns of the window, and how it moves.
        #[serde(flatten, with = "window_form")]
        window: Window,
        /// Whether every filter has an offset.
        bias: bool,
        /// Whether relu follows.
        relu: bool,
    },
    /// The largest value in each window.
    MaxPool {
        /// Rows and columns of the window, and how it moves.
        #[serde(flatten, with = "window_form")]
        window: Window,
    },
    /// The mean of the values in each window; padding does not count.
    AveragePool {
        /// Rows and columns of the window, and how it moves.
        #[serde(flatten, with = "window_form")]
        window: Window,
    },
    /// Brings every channel to mean 0 and variance 1, then to a learnt scale and offset (S. Ioffe,
    /// C. Szegedy, 2015).
    BatchNorm {
        /// Share of the moving averages that a step keeps.
        momentum: f32,
        /// Added to the variance.
        epsilon: f32,
    },
    /// `max(x, 0)`.
    Relu,
    /// Sets a share of the values to zero in training and scales the others up (N. Srivastava et
    /// al., 2014).
    Dropout {
        /// The share, from 0 to below 1.
        rate: f32,
    },
    /// Makes one row of features of an image. In lanes it already is one, channel by channel.
    Flatten,
    /// A fully connected layer over all features of what comes before.
    Dense {
        /// Output features.
        units: usize,
        /// Whether relu follows.
        relu: bool,
    },
}

/// A window among the fields of its layer.
mod window_form {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use taskweave_kernels::window::{Padding, Window};

    #[derive(Serialize, Deserialize)]
    struct Form {
        window: [usize; 2],
        stride: [usize; 2],
        padding: PaddingForm,
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum PaddingForm {
        Same,
        Valid,
    }

    pub(super) fn serialize<S: Serializer>(
        window: &Window,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let form = Form {
            window: window.kernel,
            stride: window.stride,
            padding: match window.padding {
                Padding::Same => PaddingForm::Same,
                Padding::Valid => PaddingForm::Valid,
            },
        };
        form.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Window, D::Error> {
        let form = Form::deserialize(deserializer)?;
        Ok(Window {
            kernel: form.window,
            stride: form.stride,
            padding: match form.padding {
                PaddingForm::Same => Padding::Same,
                PaddingForm::Valid => Padding::Valid,
            },
        })
    }
}

impl LayerSpec {
    /// Keras's name for this kind of layer: "conv2d".
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Conv2d { .. } => "conv2d",
            Self::MaxPool { .. } => "max_pooling2d",
            Self::AveragePool { .. } => "average_pooling2d",
            Self::BatchNorm { .. } => "batch_normalization",
            Self::Relu => "relu",
            Self::Dropout { .. } => "dropout",
            Self::Flatten => "flatten",
            Self::Dense { .. } => "dense",
        }
    }

    /// A convolution with stride 1, as many outputs as inputs, a bias and relu.
    pub fn conv2d(filters: usize, kernel: [usize; 2]) -> Self {
        Self::Conv2d {
            filters,
            window: Window {
                kernel,
                stride: [1, 1],
                padding: Padding::Same,
            },
            bias: true,
            relu: true,
        }
    }

    /// A max pooling of windows that do not reach past the edges.
    pub fn max_pool(kernel: [usize; 2], stride: [usize; 2]) -> Self {
        Self::MaxPool {
            window: Window {
                kernel,
                stride,
                padding: Padding::Valid,
            },
        }
    }

    /// Batch normalisation with Keras's defaults.
    pub fn batch_norm() -> Self {
        Self::BatchNorm {
            momentum: 0.99,
            epsilon: 1e-3,
        }
    }
}

/// The size of the images that a net takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Values per pixel: 1 for grey, 3 for colour.
    pub channels: usize,
}

impl ImageSize {
    /// Values of one image.
    pub fn features(self) -> usize {
        self.height * self.width * self.channels
    }

    /// `[channels, height, width]`, the order of the pixels.
    pub fn dims(self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }
}

/// Features without a place: one row of them.
impl From<usize> for ImageSize {
    fn from(features: usize) -> Self {
        Self {
            height: 1,
            width: features,
            channels: 1,
        }
    }
}

/// A network: the size of its images, then its layers, of which the last gives the logits. One that
/// comes out of a file wants a [`check`](Self::check).
///
/// ```
/// use taskweave::nn::{ImageSize, LayerSpec, NetSpec};
/// let net = NetSpec {
///     input: ImageSize { height: 28, width: 28, channels: 1 },
///     layers: vec![
///         LayerSpec::conv2d(8, [3, 3]),
///         LayerSpec::max_pool([2, 2], [2, 2]),
///         LayerSpec::Flatten,
///         LayerSpec::Dense { units: 10, relu: false },
///     ],
/// };
/// net.check()?;
/// assert_eq!(net.shapes()?[1], [8, 14, 14]);
/// assert_eq!(net.parameter_count(), 9 * 8 + 8 + 8 * 14 * 14 * 10 + 10);
/// # Ok::<(), taskweave::nn::NetError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetSpec {
    /// The images.
    pub input: ImageSize,
    /// The layers, from input to logits.
    pub layers: Vec<LayerSpec>,
}

impl NetSpec {
    /// A multi-layer perceptron over all pixels: relu layers of the hidden sizes, then logits for the
    /// classes.
    pub fn mlp(input: impl Into<ImageSize>, hidden: &[usize], classes: usize) -> Self {
        let layer = |&units| LayerSpec::Dense { units, relu: true };
        let mut layers: Vec<LayerSpec> = hidden.iter().map(layer).collect();
        layers.push(LayerSpec::Dense {
            units: classes,
            relu: false,
        });
        Self {
            input: input.into(),
            layers,
        }
    }

    /// The published convolutional net, for 28×28 images of so many channels and ten classes: twice
    /// two convolutions of 3×3 and a max pooling of 2×2 that moves by 1, then two layers of 256.
    pub fn convnet(channels: usize) -> Self {
        let dense = |units, relu| LayerSpec::Dense { units, relu };
        let mut layers = Vec::new();
        for filters in [32, 64] {
            layers.extend([LayerSpec::conv2d(filters, [3, 3]); 2]);
            layers.push(LayerSpec::max_pool([2, 2], [1, 1]));
        }
        layers.push(LayerSpec::Flatten);
        layers.extend([dense(256, true), dense(256, true), dense(10, false)]);
        Self {
            input: ImageSize {
                height: 28,
                width: 28,
                channels,
            },
            layers,
        }
    }

    /// Layer by layer a name that no other layer has: "conv2d_0", "conv2d_1", "dense_0".
    pub fn layer_names(&self) -> Vec<String> {
        let name = |(index, layer): (usize, &LayerSpec)| {
            let before = &self.layers[..index];
            let same_kind = before.iter().filter(|other| other.kind() == layer.kind());
            format!("{}_{}", layer.kind(), same_kind.count())
        };
        self.layers.iter().enumerate().map(name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_net_comes_back_from_its_text() {
        let mut net = NetSpec::convnet(3);
        net.layers.insert(1, LayerSpec::batch_norm());
        net.layers.insert(2, LayerSpec::Dropout { rate: 0.25 });
        net.layers.insert(3, LayerSpec::Relu);
        let text = serde_json::to_string(&net).unwrap();
        assert!(
            text.contains(r#""window":[3,3],"stride":[1,1],"padding":"same""#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<NetSpec>(&text).unwrap(), net);
    }
}
