//! A network recorded on a tape.

use taskweave_kernels::dispatch;
use taskweave_kernels::softmax::{self, SoftmaxShape};

use super::{LayerSpec, NetSpec};
use crate::autograd::{Tape, Var};
use crate::ops;
use crate::tensor::{Tensor, TensorError, TensorSpec};

/// A network on a tape: where its inputs go in and its logits and loss come out.
#[derive(Clone, Debug)]
pub struct Network {
    /// The images, in lanes `[N, inputs]`; set before a forward pass.
    pub images: Var,
    /// The class index of every image, `[N]`; set before the loss is computed.
    pub labels: Var,
    /// The outputs of the relu layers, in lanes, from input to output.
    pub hidden: Vec<Var>,
    /// The class scores before softmax, in lanes `[N, classes]`.
    pub logits: Var,
    /// The mean cross-entropy of the batch.
    pub loss: Var,
    /// The parameters in the order of [`NetSpec::parameters`].
    pub parameters: Vec<Var>,
    classes: usize,
}

impl Network {
    /// Records a net with these parameter values, in the order of [`NetSpec::parameters`], for
    /// batches of up to `batch` images (a larger one later takes more memory, nothing else).
    ///
    /// # Errors
    /// When a value does not have the shape of its parameter, or the batch holds no image.
    pub fn record(
        tape: &mut Tape,
        net: &NetSpec,
        batch: usize,
        values: Vec<Tensor>,
    ) -> Result<Self, TensorError> {
        let specs = net.parameters();
        if values.len() != specs.len() {
            return Err(TensorError::Arity {
                op: "network",
                expected: specs.len(),
                found: values.len(),
            });
        }
        for (spec, value) in specs.iter().zip(&values) {
            if value.shape().dims() != spec.shape {
                return Err(TensorError::Shapes {
                    op: "network",
                    shapes: vec![value.shape().clone()],
                    expected: format!("{} has shape {:?}", spec.name, spec.shape),
                });
            }
        }
        let images = tape.leaf(Tensor::zeros(TensorSpec::lanes([batch, net.inputs])));
        let labels = tape.leaf(Tensor::zeros_row_major([batch]));
        let parameters: Vec<Var> = values
            .into_iter()
            .map(|value| tape.parameter(value))
            .collect();
        let mut hidden = Vec::new();
        let mut signal = images;
        let mut classes = net.inputs;
        for (layer, parameters) in net.layers.iter().zip(parameters.chunks_exact(2)) {
            let LayerSpec::Dense { units, relu } = *layer;
            let op = ops::Dense {
                activation: if relu {
                    ops::Activation::Relu
                } else {
                    ops::Activation::Linear
                },
            };
            signal = tape.record(op, &[signal, parameters[0], parameters[1]])?;
            classes = units;
            if relu {
                hidden.push(signal);
            }
        }
        let loss = tape.record(ops::SoftmaxCrossEntropy, &[signal, labels])?;
        Ok(Self {
            images,
            labels,
            hidden,
            logits: signal,
            loss,
            parameters,
            classes,
        })
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The most likely class of every image of the last forward pass, in place of what
    /// `predictions` held; of equals the first.
    pub fn predict(&self, tape: &Tape, predictions: &mut Vec<u32>) {
        let logits = tape.value(self.logits);
        let shape = SoftmaxShape {
            images: logits.spec().images(),
            classes: self.classes,
        };
        predictions.resize(shape.images, 0);
        softmax::argmax(dispatch::active(), shape, logits.data(), predictions);
    }
}
