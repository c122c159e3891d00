//! What comes out of every layer, or why a net does not fit together.

use taskweave_kernels::window::{Padding, Window};

use super::{LayerSpec, NetSpec};

/// The most values that one tensor of a net may have, per image: more is a slip of the keyboard.
const MOST_VALUES: usize = 1 << 31;

/// Why a net does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The images have no pixels.
    #[error(
        "images of {height}x{width} with {channels} channels have no pixels; every size is at least 1"
    )]
    NoPixels {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// Values per pixel.
        channels: usize,
    },
    /// A layer does not go with its settings or with what comes before it.
    #[error("layer {layer}, {kind}, after {before:?}: {reason}")]
    Layer {
        /// Which layer, from 0 at the input.
        layer: usize,
        /// What it is.
        kind: &'static str,
        /// The shape of one image's values before it.
        before: Vec<usize>,
        /// Why it does not fit.
        reason: String,
    },
    /// The last layer gives no logits.
    #[error(
        "the last layer of a net is dense without relu, for the logits; this net ends with {0}"
    )]
    NoLogits(&'static str),
}

impl NetSpec {
    /// The shape of one image's values after every layer: `[channels, height, width]`, or
    /// `[features]` behind a flatten or dense layer.
    ///
    /// # Errors
    /// When a layer does not fit.
    pub fn shapes(&self) -> Result<Vec<Vec<usize>>, NetError> {
        Ok(self
            .try_stages()?
            .into_iter()
            .map(|stage| stage.after)
            .collect())
    }

    fn try_stages(&self) -> Result<Vec<Stage>, NetError> {
        let [channels, height, width] = self.input.dims();
        if [channels, height, width].contains(&0) {
            return Err(NetError::NoPixels {
                height,
                width,
                channels,
            });
        }
        let mut before = self.input.dims().to_vec();
        let mut image = Some(self.input.dims());
        let mut stages = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let stage = |reason| NetError::Layer {
                layer: index,
                kind: layer.kind(),
                before: before.clone(),
                reason,
            };
            let after = after(layer, &before, image).map_err(stage)?;
            let image_after = match (layer, &after[..]) {
                (LayerSpec::Dense { .. }, _) => None,
                (_, &[channels, height, width]) => Some([channels, height, width]),
                _ => image,
            };
            stages.push(Stage {
                before: std::mem::replace(&mut before, after.clone()),
                after,
                image: std::mem::replace(&mut image, image_after),
            });
        }
        Ok(stages)
    }

    /// Whether the layers fit together and end in logits.
    ///
    /// # Errors
    /// When they do not.
    pub fn check(&self) -> Result<(), NetError> {
        self.shapes()?;
        match self.layers.last() {
            Some(LayerSpec::Dense { relu: false, .. }) => Ok(()),
            Some(LayerSpec::Dense { .. }) => Err(NetError::NoLogits("a relu layer")),
            Some(other) => Err(NetError::NoLogits(other.kind())),
            None => Err(NetError::NoLogits("nothing")),
        }
    }

    /// What every layer is given and gives.
    ///
    /// # Panics
    /// If the net does not fit together.
    pub(super) fn stages(&self) -> Vec<Stage> {
        self.try_stages().unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The shapes of one image's values around a layer.
pub(super) struct Stage {
    pub(super) before: Vec<usize>,
    pub(super) after: Vec<usize>,
    /// The image whose pixels the layer is given, `[channels, height, width]`, flattened or not.
    pub(super) image: Option<[usize; 3]>,
}

/// The shape behind a layer, or why there is none.
fn after(
    layer: &LayerSpec,
    before: &[usize],
    image: Option<[usize; 3]>,
) -> Result<Vec<usize>, String> {
    let features = before.iter().product();
    let shape = match *layer {
        LayerSpec::Conv2d {
            filters, window, ..
        } => {
            let [height, width] = slide(window, before)?;
            let [channels, ..] = *before else {
                return Err("it takes images".to_owned());
            };
            limited(&[window.kernel[0], window.kernel[1], channels, filters])?;
            vec![at_least_one("filters", filters)?, height, width]
        }
        LayerSpec::MaxPool { window } | LayerSpec::AveragePool { window } => {
            let [height, width] = slide(window, before)?;
            vec![before[0], height, width]
        }
        LayerSpec::BatchNorm { momentum, epsilon } => {
            if !((0.0..1.0).contains(&momentum) && epsilon > 0.0 && epsilon.is_finite()) {
                return Err(format!(
                    "a momentum from 0 to below 1 and an epsilon above 0 are wanted, but {momentum} \
                     and {epsilon} were given"
                ));
            }
            if before.len() == 1 && image.is_some() {
                return Err("it takes channels, which a flatten layer leaves none of".to_owned());
            }
            before.to_vec()
        }
        LayerSpec::Dropout { rate } => {
            if !(0.0..1.0).contains(&rate) {
                return Err(format!(
                    "a rate from 0 to below 1 is wanted, but {rate} was given"
                ));
            }
            before.to_vec()
        }
        LayerSpec::Relu => before.to_vec(),
        LayerSpec::Flatten => vec![features],
        LayerSpec::Dense { units, .. } => {
            limited(&[features, units])?;
            vec![at_least_one("units", units)?]
        }
    };
    limited(&shape)?;
    Ok(shape)
}

/// Rows and columns that a window finds room on.
fn slide(window: Window, before: &[usize]) -> Result<[usize; 2], String> {
    let &[_, height, width] = before else {
        return Err("it takes images, which a flatten or dense layer leaves none of".to_owned());
    };
    for (what, sizes) in [("window", window.kernel), ("stride", window.stride)] {
        if sizes.contains(&0) {
            return Err(format!(
                "its {what} is {}x{}; both sizes are at least 1",
                sizes[0], sizes[1]
            ));
        }
    }
    // Padding is counted in places of the window, so that sizes cannot run over.
    limited(&window.kernel)?;
    limited(&window.stride)?;
    let output = window.output([height, width]);
    if window.padding == Padding::Valid && output.contains(&0) {
        return Err(format!(
            "its window of {}x{} is larger than the image of {height}x{width}",
            window.kernel[0], window.kernel[1]
        ));
    }
    Ok(output)
}

fn at_least_one(what: &str, count: usize) -> Result<usize, String> {
    match count {
        0 => Err(format!("it has no {what}; at least one is wanted")),
        count => Ok(count),
    }
}

fn limited(sizes: &[usize]) -> Result<(), String> {
    let product = sizes
        .iter()
        .try_fold(1_usize, |product, &size| product.checked_mul(size));
    match product {
        Some(0..=MOST_VALUES) => Ok(()),
        _ => Err(format!(
            "a tensor of {sizes:?} has more than {MOST_VALUES} values"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::ImageSize;

    #[test]
    fn the_convnet_has_the_published_shapes() {
        let shapes = NetSpec::convnet(3).shapes().unwrap();
        let expected: [&[usize]; 10] = [
            &[32, 28, 28],
            &[32, 28, 28],
            &[32, 27, 27],
            &[64, 27, 27],
            &[64, 27, 27],
            &[64, 26, 26],
            &[43_264],
            &[256],
            &[256],
            &[10],
        ];
        assert_eq!(shapes, expected);
        NetSpec::convnet(1).check().unwrap();
    }

    fn message(layers: &[LayerSpec]) -> String {
        let net = NetSpec {
            input: ImageSize {
                height: 6,
                width: 5,
                channels: 2,
            },
            layers: layers.to_vec(),
        };
        net.check().unwrap_err().to_string()
    }

    #[test]
    fn a_net_that_does_not_fit_gets_a_sentence() {
        let logits = LayerSpec::Dense {
            units: 3,
            relu: false,
        };
        let window = |kernel, stride| LayerSpec::max_pool(kernel, stride);
        for (layers, expected) in [
            (
                vec![window([2, 6], [1, 1])],
                "layer 0, max_pooling2d, after [2, 6, 5]: its window of 2x6 is larger than the image \
                 of 6x5",
            ),
            (
                vec![window([2, 2], [0, 1])],
                "layer 0, max_pooling2d, after [2, 6, 5]: its stride is 0x1; both sizes are at least 1",
            ),
            (
                vec![LayerSpec::Flatten, LayerSpec::conv2d(4, [3, 3])],
                "layer 1, conv2d, after [60]: it takes images, which a flatten or dense layer leaves \
                 none of",
            ),
            (
                vec![LayerSpec::Flatten, LayerSpec::Relu, LayerSpec::batch_norm()],
                "layer 2, batch_normalization, after [60]: it takes channels, which a flatten layer \
                 leaves none of",
            ),
            (
                vec![LayerSpec::conv2d(0, [3, 3])],
                "layer 0, conv2d, after [2, 6, 5]: it has no filters; at least one is wanted",
            ),
            (
                vec![LayerSpec::Dropout { rate: 1.0 }, logits],
                "layer 0, dropout, after [2, 6, 5]: a rate from 0 to below 1 is wanted, but 1 was given",
            ),
            (
                vec![LayerSpec::Relu],
                "the last layer of a net is dense without relu, for the logits; this net ends with relu",
            ),
            (
                vec![],
                "the last layer of a net is dense without relu, for the logits; this net ends with \
                 nothing",
            ),
            (
                vec![LayerSpec::Dense {
                    units: usize::MAX,
                    relu: false,
                }],
                "layer 0, dense, after [2, 6, 5]: a tensor of [60, 18446744073709551615] has more than \
                 2147483648 values",
            ),
        ] {
            assert_eq!(message(&layers), expected);
        }
        let empty = NetSpec::mlp(0, &[], 3).check().unwrap_err().to_string();
        assert!(empty.contains("have no pixels"), "{empty}");
    }
}
