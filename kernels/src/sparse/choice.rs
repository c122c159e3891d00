//! Where sparse kernels are faster than masked dense ones.

use std::env;
use std::sync::OnceLock;

use crate::conv2d::{Conv2dShape, Method};
use crate::window::Window;

/// The environment variable that forces sparse kernels, or dense ones.
pub const ENV: &str = "TASKWEAVE_SPARSE";

/// Share of the weights below which a whole step of a layer, its three products and the optimiser, takes
/// less time with sparse kernels, where dense ones compute every product. Measured on AVX2 at a batch of
/// 512: from 1,000 to 1,000 features the crossover lies at 0.6 forward and 0.4 for the gradient of the
/// weights, behind 43,264 features at 0.6 and 0.2.
const DENSE_CROSSOVER: f64 = 0.3;

/// The same where dense kernels compute a quarter of the products, by Winograd's method: of 32 and 64
/// channels the crossover lies between 0.18 and 0.25 forward, at 0.2 for the gradients, and what follows
/// the sums is not fused there.
const WINOGRAD_CROSSOVER: f64 = 0.15;

/// A way to compute with masked weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// By dense kernels, whatever the mask.
    Never,
    /// By sparse kernels, whatever the mask.
    Always,
}

/// A request for a choice that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown choice '{name}' in {ENV}: never and always are known")]
pub struct UnknownChoice {
    /// What was asked for.
    pub name: String,
}

impl Choice {
    /// The name that [`ENV`] knows this choice by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Always => "always",
        }
    }
}

/// The choice that the environment forces, if it does; an empty value forces none.
///
/// # Errors
/// When the variable holds anything but `never` or `always`.
pub fn choice_from_env() -> Result<Option<Choice>, UnknownChoice> {
    let Some(name) = env::var_os(ENV).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let mut choices = [Choice::Never, Choice::Always].into_iter();
    match choices.find(|choice| name == choice.name()) {
        Some(choice) => Ok(Some(choice)),
        None => Err(UnknownChoice {
            name: name.to_string_lossy().into_owned(),
        }),
    }
}

/// What of a layer decides whether sparse kernels suit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A dense layer.
    Dense,
    /// A convolution.
    Conv2d {
        /// The window.
        window: Window,
        /// Input and output channels.
        channels: [usize; 2],
    },
}

impl Layer {
    /// The density at which both kinds of kernels take the same time.
    fn crossover(self) -> f64 {
        let Self::Conv2d { window, channels } = self else {
            return DENSE_CROSSOVER;
        };
        // How many images and pixels there are does not count.
        let shape = Conv2dShape {
            images: 1,
            inputs: channels[0],
            outputs: channels[1],
            height: 1,
            width: 1,
            window,
        };
        match Method::of(&shape) {
            Method::Winograd => WINOGRAD_CROSSOVER,
            _ => DENSE_CROSSOVER,
        }
    }
}

/// Whether sparse kernels suit a layer of which this share of the weights is there: what the environment
/// forces, read once, else what is faster.
pub fn pays(layer: Layer, density: f64) -> bool {
    static FORCED: OnceLock<Option<Choice>> = OnceLock::new();
    match *FORCED.get_or_init(|| choice_from_env().unwrap_or(None)) {
        Some(choice) => choice == Choice::Always,
        None => density <= layer.crossover(),
    }
}

/// How many times faster a step of the layer is expected to be with sparse kernels than with dense ones:
/// their time is in proportion to the density, and equal at the crossover.
pub fn expected_speedup(layer: Layer, density: f64) -> f64 {
    layer.crossover() / density
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Padding;

    #[test]
    fn layers_that_winograd_speeds_up_want_fewer_weights() {
        let layer = |channels| Layer::Conv2d {
            window: Window {
                kernel: [3, 3],
                stride: [1, 1],
                padding: Padding::Same,
            },
            channels: [channels; 2],
        };
        // Nothing is forced where the tests run, or everything is.
        if choice_from_env() == Ok(None) && crate::conv2d::method_from_env() == Ok(None) {
            assert!(pays(Layer::Dense, 0.2) && !pays(Layer::Dense, 0.5));
            assert!(pays(layer(3), 0.2) && !pays(layer(64), 0.2));
            assert!(pays(layer(64), 0.1));
            assert!((expected_speedup(layer(64), 0.05) - 3.0).abs() < 1e-9);
        }
    }
}
