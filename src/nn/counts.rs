//! What a net costs: multiply-adds and values kept.

use taskweave_kernels::conv2d::{Conv2dShape, Method};
use taskweave_kernels::pool::MAX_PLACES;

use super::{LayerSpec, NetSpec};

impl NetSpec {
    /// Multiply-adds of every layer's forward pass for one image: those of its kernel, everything else
    /// being small beside them.
    ///
    /// # Panics
    /// If the net does not [fit together](Self::check).
    pub fn multiply_adds_by_layer(&self) -> Vec<usize> {
        let count = |(layer, stage): (&LayerSpec, super::shapes::Stage)| match layer {
            LayerSpec::Conv2d { window, .. } => {
                let places: usize = window.kernel.iter().product();
                places * stage.before[0] * stage.after.iter().product::<usize>()
            }
            LayerSpec::Dense { units, .. } => stage.before.iter().product::<usize>() * units,
            _ => 0,
        };
        self.layers.iter().zip(self.stages()).map(count).collect()
    }

    /// Multiply-adds of one image: `(forward, training)`. Training counts forward and both
    /// gradients, without the gradient of the input images, which nobody needs.
    ///
    /// # Panics
    /// If the net does not [fit together](Self::check).
    pub fn multiply_adds(&self) -> (usize, usize) {
        let layers = self.multiply_adds_by_layer();
        let forward: usize = layers.iter().sum();
        let first = layers.iter().find(|&&count| count > 0);
        (forward, 3 * forward - first.copied().unwrap_or(0))
    }

    /// The part of the [multiply-adds](Self::multiply_adds) of one image, `(forward, training)`, that
    /// Winograd's method stands for: it takes fewer.
    ///
    /// # Panics
    /// If the net does not [fit together](Self::check).
    pub fn winograd_multiply_adds(&self) -> (usize, usize) {
        let stages = self.stages();
        let layers = self.layers.iter().zip(&stages);
        let counts = layers.zip(self.multiply_adds_by_layer());
        let forward = counts
            .filter(
                |((layer, stage), _)| match (layer, stage.before.as_slice()) {
                    (LayerSpec::Conv2d { window, .. }, &[inputs, height, width]) => {
                        let shape = Conv2dShape {
                            images: 1,
                            inputs,
                            outputs: stage.after[0],
                            height,
                            width,
                            window: *window,
                        };
                        Method::of(&shape) == Method::Winograd
                    }
                    _ => false,
                },
            )
            .map(|(_, count)| count)
            .sum::<usize>();
        // A first layer has too few channels for it, and so no input gradient to leave out.
        (forward, 3 * forward)
    }

    /// Values that training keeps per image: the input and the output of every layer that is
    /// computed by itself, which a convolution in front of its pooling is not.
    ///
    /// # Panics
    /// If the net does not [fit together](Self::check).
    pub fn activations(&self) -> Vec<usize> {
        let mut kept = vec![self.input.features()];
        for (index, stage) in self.stages().iter().enumerate() {
            if !self.is_fused(index) && self.layers[index] != LayerSpec::Flatten {
                kept.push(stage.after.iter().product());
            }
        }
        kept
    }

    /// Whether a layer is computed within the one behind it: a convolution that is pooled at once, by
    /// windows of at most [`MAX_PLACES`].
    pub(super) fn is_fused(&self, layer: usize) -> bool {
        match self.layers.get(layer..layer + 2) {
            Some([LayerSpec::Conv2d { .. }, LayerSpec::MaxPool { window }]) => {
                window.kernel[0].saturating_mul(window.kernel[1]) <= MAX_PLACES
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use taskweave_kernels::conv2d::method_from_env;

    use super::*;

    #[test]
    fn an_mlp_counts_as_published() {
        let net = NetSpec::mlp(784, &[1_000; 6], 10);
        assert_eq!(net.multiply_adds(), (5_794_000, 16_598_000));
        assert_eq!(net.activations().iter().sum::<usize>(), 784 + 6_000 + 10);
    }

    #[test]
    fn a_convnet_counts_every_place_of_the_window() {
        let net = NetSpec::convnet(1);
        let layers = net.multiply_adds_by_layer();
        assert_eq!(layers[0], 9 * 32 * 28 * 28);
        assert_eq!(layers[1], 9 * 32 * 32 * 28 * 28);
        assert_eq!(layers[4], 9 * 64 * 64 * 27 * 27);
        assert_eq!(layers[7], 43_264 * 256);
        assert_eq!(layers[2] + layers[5] + layers[6], 0);
        let (forward, training) = net.multiply_adds();
        assert_eq!(training, 3 * forward - layers[0]);
        let by_winograd = layers[1] + layers[3] + layers[4];
        if method_from_env() == Ok(None) {
            assert_eq!(net.winograd_multiply_adds(), (by_winograd, 3 * by_winograd));
        }
        let expected = [
            784,
            32 * 28 * 28,
            32 * 27 * 27,
            64 * 27 * 27,
            64 * 26 * 26,
            256,
            256,
            10,
        ];
        assert_eq!(net.activations(), expected);
    }
}
