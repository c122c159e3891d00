//! Where sparse kernels are faster than masked dense ones.

use std::env;
use std::sync::OnceLock;

use crate::conv2d::{Conv2dShape, Method};
use crate::dispatch::InstructionSet;
use crate::window::Window;

/// The environment variable that forces sparse kernels, or dense ones.
pub const ENV: &str = "TASKWEAVE_SPARSE";

/// Weights of a dense layer, 16 MB of them, from which on it counts as large: its operands come from memory.
const LARGE: usize = 4 << 20;

/// Shares of the weights below which sparse kernels are faster than dense ones that compute every product,
/// on one instruction set, at a batch of 512. `cargo run --release -p taskweave-kernels --example
/// sparse_throughput` measures them again.
struct Crossovers {
    /// Of a step of a dense layer: all its products, since a kernel of many weights cannot be made whole for
    /// some of them in the time that this would save. First of 1,000 to 1,000 features, then of 43,264 to 256.
    dense: [f64; 2],
    /// Of each pass of a convolution that dense kernels compute by the definition.
    direct: [f64; 3],
    /// The same where they compute a quarter of the products, by Winograd's method, with 32 and 64 channels.
    winograd: [f64; 3],
    /// The same of a whole step where a max pooling follows, which dense kernels compute in one go with the
    /// convolution, there and back.
    winograd_pooled: f64,
}

const AVX512: Crossovers = Crossovers {
    dense: [0.52, 0.45],
    direct: [0.08, 0.6, 0.3],
    winograd: [0.3, 0.35, 0.33],
    winograd_pooled: 0.25,
};

const AVX2: Crossovers = Crossovers {
    dense: [0.5, 0.4],
    direct: [0.35, 0.6, 0.5],
    winograd: [0.17, 0.18, 0.19],
    winograd_pooled: 0.15,
};

const PORTABLE: Crossovers = Crossovers {
    dense: [0.6, 0.5],
    direct: [0.5, 0.5, 0.6],
    winograd: [0.25, 0.25, 0.22],
    winograd_pooled: 0.2,
};

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
    Dense {
        /// Input and output features.
        features: [usize; 2],
        /// Whether nobody wants the gradient of its input.
        is_first: bool,
    },
    /// A convolution.
    Conv2d {
        /// The window.
        window: Window,
        /// Input and output channels.
        channels: [usize; 2],
        /// Whether a max pooling follows.
        is_pooled: bool,
        /// Whether nobody wants the gradient of its input.
        is_first: bool,
    },
}

impl Layer {
    /// The passes of a step.
    pub fn passes(self) -> Passes {
        let (Self::Dense { is_first, .. } | Self::Conv2d { is_first, .. }) = self;
        Passes {
            grad_input: !is_first,
            ..Passes::ALL
        }
    }

    /// For each pass the density at which both kinds of kernels take the same time.
    fn crossovers(self, set: InstructionSet) -> [f64; 3] {
        let of_set = match set.of_f32().name() {
            "avx512" => AVX512,
            "avx2" => AVX2,
            _ => PORTABLE,
        };
        let (window, channels, is_pooled) = match self {
            Self::Dense { features, .. } => {
                let is_large = features[0] * features[1] >= LARGE;
                return [of_set.dense[usize::from(is_large)]; 3];
            }
            Self::Conv2d {
                window,
                channels,
                is_pooled,
                ..
            } => (window, channels, is_pooled),
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
            Method::Winograd if is_pooled => [of_set.winograd_pooled; 3],
            Method::Winograd => of_set.winograd,
            _ => of_set.direct,
        }
    }
}

/// Which passes of a layer sparse kernels compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// The outputs.
    pub forward: bool,
    /// The gradient of the input.
    pub grad_input: bool,
    /// The gradient of the weights.
    pub grad_weights: bool,
}

impl Passes {
    /// Every pass.
    pub const ALL: Self = Self {
        forward: true,
        grad_input: true,
        grad_weights: true,
    };

    /// No pass.
    pub const NONE: Self = Self {
        forward: false,
        grad_input: false,
        grad_weights: false,
    };

    /// Whether there is one.
    pub fn any(self) -> bool {
        self != Self::NONE
    }

    fn each(self) -> [bool; 3] {
        [self.forward, self.grad_input, self.grad_weights]
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let names = ["forward", "grad_input", "grad_weights"];
        let pairs = names.into_iter().zip(self.each());
        pairs.filter_map(|(name, is_there)| is_there.then_some(name))
    }
}

/// The passes of a layer, of which this share of the weights is there, that sparse kernels compute: what the
/// environment forces, read once, else those in which they are faster.
pub fn choose(set: InstructionSet, layer: Layer, density: f64) -> Passes {
    static FORCED: OnceLock<Option<Choice>> = OnceLock::new();
    match *FORCED.get_or_init(|| choice_from_env().unwrap_or(None)) {
        Some(Choice::Always) => layer.passes(),
        Some(Choice::Never) => Passes::NONE,
        None => {
            let [forward, grad_input, grad_weights] =
                layer.crossovers(set).map(|crossover| density <= crossover);
            Passes {
                forward,
                grad_input: grad_input && layer.passes().grad_input,
                grad_weights,
            }
        }
    }
}

/// How many times faster a step of the layer is expected to be by these passes than by dense kernels: all
/// take as long there, and the time of a sparse one is in proportion to the density, and equal at the
/// crossover.
pub fn expected_speedup(set: InstructionSet, layer: Layer, passes: Passes, density: f64) -> f64 {
    let [of_step, sparse] = [layer.passes(), passes].map(Passes::each);
    let crossovers = layer.crossovers(set);
    let time = |pass: usize| match sparse[pass] {
        true => density / crossovers[pass],
        false => 1.0,
    };
    let computed = (0..3).filter(|&pass| of_step[pass]);
    computed.clone().count() as f64 / computed.map(time).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch;
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
            is_pooled: false,
            is_first: false,
        };
        let dense = Layer::Dense {
            features: [1_000; 2],
            is_first: false,
        };
        // Nothing is forced where the tests run, or everything is.
        if choice_from_env() != Ok(None) || crate::conv2d::method_from_env() != Ok(None) {
            return;
        }
        for &set in dispatch::all() {
            assert_eq!(choose(set, dense, 0.1), Passes::ALL);
            assert_eq!(choose(set, dense, 0.7), Passes::NONE);
            assert_eq!(choose(set, layer(3), 0.05), Passes::ALL);
            let but_forward = Passes {
                forward: set.of_f32().name() != "avx512",
                ..Passes::ALL
            };
            assert_eq!(choose(set, layer(3), 0.2), but_forward);
            assert_eq!(choose(set, layer(64), 0.4), Passes::NONE);
            assert_eq!(choose(set, layer(64), 0.05), Passes::ALL);
            // All passes of a dense layer have one crossover.
            let third = dense.crossovers(set)[0] / 3.0;
            let speedup = |passes| expected_speedup(set, dense, passes, third);
            assert!((speedup(Passes::ALL) - 3.0).abs() < 1e-9);
            assert!((speedup(Passes::NONE) - 1.0).abs() < 1e-9);
            let some = Passes {
                forward: false,
                ..Passes::ALL
            };
            assert!((speedup(some) - 1.8).abs() < 1e-9);
        }
    }
    #[test]
    fn a_first_layer_has_no_gradient_of_its_input() {
        if choice_from_env() != Ok(None) {
            return;
        }
        let layer = |is_first| Layer::Dense {
            features: [1_000; 2],
            is_first,
        };
        for &set in dispatch::all() {
            let passes = choose(set, layer(true), 0.1);
            assert_eq!(
                passes.names().collect::<Vec<_>>(),
                ["forward", "grad_weights"]
            );
            let third = layer(true).crossovers(set)[0] / 3.0;
            assert!((expected_speedup(set, layer(true), passes, third) - 3.0).abs() < 1e-9);
            let whole = expected_speedup(set, layer(false), Passes::NONE, third);
            assert!((whole - 1.0).abs() < 1e-9);
        }
    }
}
