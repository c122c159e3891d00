//! A network as data.

use serde::Serialize;

/// One layer of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerSpec {
    /// A fully connected layer.
    Dense {
        /// Output features.
        units: usize,
        /// Whether relu follows.
        relu: bool,
    },
}

/// A network: the size of its input, then its layers, of which the last gives the logits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetSpec {
    /// Features of one input image.
    pub inputs: usize,
    /// The layers, from input to logits.
    pub layers: Vec<LayerSpec>,
}

/// What a parameter is to its layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParameterKind {
    /// Weights, `[inputs, outputs]`.
    Kernel,
    /// One offset per output.
    Bias,
}

/// Name, shape and role of one parameter tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterSpec {
    /// `dense_0/kernel`, `dense_0/bias`, ...
    pub name: String,
    /// The shape of the tensor.
    pub shape: Vec<usize>,
    /// Kernel or bias.
    pub kind: ParameterKind,
    /// Inputs that feed one output.
    pub fan_in: usize,
    /// Outputs that one input feeds.
    pub fan_out: usize,
}

impl ParameterSpec {
    /// Elements of the tensor.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl NetSpec {
    /// A multi-layer perceptron: relu layers of the hidden sizes, then logits for the classes.
    pub fn mlp(inputs: usize, hidden: &[usize], classes: usize) -> Self {
        let mut layers: Vec<LayerSpec> = hidden
            .iter()
            .map(|&units| LayerSpec::Dense { units, relu: true })
            .collect();
        layers.push(LayerSpec::Dense {
            units: classes,
            relu: false,
        });
        Self { inputs, layers }
    }

    /// The parameters in order: kernel then bias, layer by layer.
    pub fn parameters(&self) -> Vec<ParameterSpec> {
        let mut parameters = Vec::new();
        let mut fan_in = self.inputs;
        for (index, layer) in self.layers.iter().enumerate() {
            let LayerSpec::Dense { units, .. } = *layer;
            let parameter = |suffix: &str, shape: Vec<usize>, kind| ParameterSpec {
                name: format!("dense_{index}/{suffix}"),
                shape,
                kind,
                fan_in,
                fan_out: units,
            };
            parameters.push(parameter(
                "kernel",
                vec![fan_in, units],
                ParameterKind::Kernel,
            ));
            parameters.push(parameter("bias", vec![units], ParameterKind::Bias));
            fan_in = units;
        }
        parameters
    }

    /// Number of weights and biases.
    pub fn parameter_count(&self) -> usize {
        self.parameters().iter().map(ParameterSpec::elements).sum()
    }

    /// Multiply-adds of one image: `(forward, training)`. Training counts forward and both
    /// gradients, without the gradient of the input images, which nobody needs.
    pub fn multiply_adds(&self) -> (usize, usize) {
        let kernels: Vec<usize> = self
            .parameters()
            .iter()
            .filter(|parameter| parameter.kind == ParameterKind::Kernel)
            .map(ParameterSpec::elements)
            .collect();
        let forward: usize = kernels.iter().sum();
        (forward, 3 * forward - kernels.first().copied().unwrap_or(0))
    }

    /// Features of every activation, per image: the input and each layer's output.
    pub fn activation_features(&self) -> usize {
        let outputs = self
            .layers
            .iter()
            .map(|LayerSpec::Dense { units, .. }| units);
        self.inputs + outputs.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mlp_counts_as_published() {
        let net = NetSpec::mlp(784, &[1_000; 6], 10);
        assert_eq!(net.parameter_count(), 5_800_010);
        assert_eq!(net.multiply_adds(), (5_794_000, 16_598_000));
        let names: Vec<String> = net.parameters().into_iter().map(|p| p.name).collect();
        assert_eq!(
            names[..3],
            ["dense_0/kernel", "dense_0/bias", "dense_1/kernel"]
        );
        assert_eq!(names.len(), 14);
    }
}
