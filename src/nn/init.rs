//! Initial weights.

use serde::Serialize;

use super::{ParameterKind, ParameterSpec};
use crate::random::Stream;
use crate::tensor::{Tensor, TensorSpec};

/// How the kernels (weights) of a net are drawn; biases begin at zero, scales at one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Initializer {
    /// Uniform in ±√(6 / (inputs + outputs)) (X. Glorot, Y. Bengio, 2010): Keras's default.
    GlorotUniform,
    /// Normal with mean 0 and this standard deviation; Keras's `random_normal` has 0.05.
    Normal {
        /// The standard deviation.
        standard_deviation: f64,
    },
    /// Normal with mean 0 and variance 2 / inputs (K. He et al., 2015), which keeps the scale of the
    /// activations through relu layers.
    HeNormal,
    /// [`HeNormal`](Self::HeNormal) times a gain, by which the scale of the activations changes from
    /// layer to layer. √(1 / share) makes up for a net where an output owns a share of its inputs.
    /// Below 1 the logits begin at a smaller scale than the pixels have.
    HeNormalTimes {
        /// The factor of the standard deviation.
        gain: f64,
    },
}

impl Initializer {
    /// Draws one parameter: a kernel from the stream, a bias as zeros, a scale as ones.
    pub fn draw(self, parameter: &ParameterSpec, stream: &mut Stream) -> Tensor {
        let mut tensor = Tensor::zeros(TensorSpec::row_major(parameter.shape.clone()));
        match parameter.kind {
            ParameterKind::Kernel => {}
            ParameterKind::Bias => return tensor,
            ParameterKind::Scale => {
                tensor.data_mut().fill(1.0);
                return tensor;
            }
        }
        let (fan_in, fan_out) = (parameter.fan_in as f64, parameter.fan_out as f64);
        for value in tensor.data_mut() {
            *value = match self {
                Self::GlorotUniform => {
                    let limit = (6.0 / (fan_in + fan_out)).sqrt();
                    limit * (2.0 * stream.uniform() - 1.0)
                }
                Self::Normal { standard_deviation } => standard_deviation * stream.normal(),
                Self::HeNormal => (2.0 / fan_in).sqrt() * stream.normal(),
                Self::HeNormalTimes { gain } => gain * (2.0 / fan_in).sqrt() * stream.normal(),
            } as f32;
        }
        tensor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::NetSpec;
    use crate::random::Purpose;

    fn kernel_and_bias(initializer: Initializer) -> (Vec<f32>, Vec<f32>) {
        let net = NetSpec::mlp(200, &[], 300);
        let mut stream = Stream::new(0, Purpose::DedicatedWeights, 0, 0);
        let [kernel, bias] = &net.parameters()[..] else {
            panic!("one dense layer has two parameters")
        };
        (
            initializer.draw(kernel, &mut stream).data().to_vec(),
            initializer.draw(bias, &mut stream).data().to_vec(),
        )
    }

    fn standard_deviation(values: &[f32]) -> f64 {
        let square: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
        (square / values.len() as f64).sqrt()
    }

    #[test]
    fn glorot_uniform_fills_its_interval() {
        let (kernel, bias) = kernel_and_bias(Initializer::GlorotUniform);
        let limit = (6.0_f32 / 500.0).sqrt();
        assert!(kernel.iter().all(|v| v.abs() <= limit));
        assert!(kernel.iter().any(|v| *v > 0.99 * limit));
        assert!(kernel.iter().any(|v| *v < -0.99 * limit));
        assert!(bias.iter().all(|v| *v == 0.0));
    }

    #[test]
    fn normals_have_their_deviation() {
        for (initializer, expected) in [
            (
                Initializer::Normal {
                    standard_deviation: 0.05,
                },
                0.05,
            ),
            (Initializer::HeNormal, 0.1),
            (Initializer::HeNormalTimes { gain: 2.0 }, 0.2),
        ] {
            let (kernel, _) = kernel_and_bias(initializer);
            let found = standard_deviation(&kernel);
            assert!(
                (found / expected - 1.0).abs() < 0.01,
                "{initializer:?}: {found}"
            );
        }
    }
}
