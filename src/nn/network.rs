//! A network recorded on a tape.

use taskweave_kernels::dispatch;
use taskweave_kernels::softmax::{self, SoftmaxShape};

use super::{LayerSpec, NetSpec, ParameterSpec};
use crate::autograd::{Tape, Var};
use crate::ops::{self, Precision};
use crate::tensor::{Tensor, TensorError, TensorSpec};

/// A network on a tape: where its inputs go in and its logits and loss come out.
#[derive(Clone, Debug)]
pub struct Network {
    /// The images, in lanes `[N, channels, height, width]`; set before a forward pass.
    pub images: Var,
    /// The class index of every image, `[N]`; set before the loss is computed.
    pub labels: Var,
    /// The outputs of the relu layers, in lanes, from input to output; pooled where that happens in
    /// the same operation.
    pub hidden: Vec<Var>,
    /// The class scores before softmax, in lanes `[N, classes]`.
    pub logits: Var,
    /// The mean cross-entropy of the batch.
    pub loss: Var,
    /// The parameters in the order of [`NetSpec::parameters`].
    pub parameters: Vec<Var>,
    /// The moving averages in the order of [`NetSpec::states`].
    pub states: Vec<Var>,
    /// The operations that take a kernel, from input to output.
    pub weighted: Vec<Weighted>,
    normalized: Vec<Normalized>,
    classes: usize,
}

/// An operation that takes a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Weighted {
    /// What it gives.
    pub output: Var,
    /// The place of its kernel among the parameters.
    pub kernel: usize,
    /// What it does.
    pub op: WeightedOp,
}

/// A kind of operation that takes a kernel.
#[derive(Clone, Copy, Debug)]
pub enum WeightedOp {
    /// A dense layer.
    Dense(ops::Dense),
    /// A convolution, pooled where that happens in the same operation.
    Conv2d(ops::Conv2d),
}

/// A batch normalisation on the tape.
#[derive(Clone, Copy, Debug)]
struct Normalized {
    output: Var,
    momentum: f32,
}

/// How a net is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Recording {
    /// Batches have up to so many images; a larger one later takes more memory, nothing else.
    pub batch: usize,
    /// The seed of what layers draw at random.
    pub seed: u64,
    /// Tells the net from the others of a run, for those draws.
    pub index: u16,
    /// Of the products of dense layers and of convolutions of single pixels.
    pub precision: Precision,
}

impl Recording {
    /// The key of a layer's draws: no other layer of the run has it.
    fn layer(&self, layer: usize) -> u64 {
        u64::from(self.index) << 16 | layer as u64
    }
}

impl Network {
    /// Records a net with these parameter values, in the order of [`NetSpec::parameters`].
    ///
    /// # Errors
    /// When the net does not fit together, a value does not have the shape of its parameter, or the
    /// batch holds no image.
    pub fn record(
        tape: &mut Tape,
        net: &NetSpec,
        recording: Recording,
        values: Vec<Tensor>,
    ) -> Result<Self, TensorError> {
        net.check().map_err(|error| TensorError::Value {
            op: "network",
            message: error.to_string(),
        })?;
        check_values(&net.parameters(), &values)?;
        let [channels, height, width] = net.input.dims();
        let images = [recording.batch, channels, height, width];
        let images = tape.leaf(Tensor::zeros(TensorSpec::lanes(images)));
        let labels = tape.leaf(Tensor::zeros_row_major([recording.batch]));
        let parameters: Vec<Var> = values
            .into_iter()
            .map(|value| tape.parameter(value))
            .collect();
        let states = net.states().into_iter().map(|state| {
            let mut tensor = Tensor::zeros_row_major([state.elements]);
            tensor.data_mut().fill(f32::from(state.initial));
            tape.leaf(tensor)
        });
        let states: Vec<Var> = states.collect();
        let mut recorder = Recorder {
            tape,
            net,
            recording,
            parameter_count: parameters.len(),
            parameters: &parameters,
            states: &states,
            signal: images,
            hidden: Vec::new(),
            weighted: Vec::new(),
            normalized: Vec::new(),
        };
        for layer in 0..net.layers.len() {
            recorder.layer(layer)?;
        }
        let Recorder {
            signal: logits,
            hidden,
            weighted,
            normalized,
            ..
        } = recorder;
        let loss = tape.record(ops::SoftmaxCrossEntropy, &[logits, labels])?;
        Ok(Self {
            images,
            labels,
            hidden,
            logits,
            loss,
            classes: tape.value(logits).spec().features(),
            parameters,
            states,
            weighted,
            normalized,
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

    /// Moves the moving averages towards mean and variance of the last batch, which a forward pass
    /// for training computed: `average · momentum + batch · (1 - momentum)`, as in Keras.
    pub fn update_states(&self, tape: &mut Tape) {
        for (layer, averages) in self.normalized.iter().zip(self.states.chunks_exact(2)) {
            let kept = layer.momentum;
            let mut at = 0;
            for &average in averages {
                let (saved, average) = tape.saved_and_value_mut(layer.output, average);
                let average = average.data_mut();
                for (average, batch) in average.iter_mut().zip(&saved[at..]) {
                    *average = *average * kept + batch * (1.0 - kept);
                }
                at += average.len();
            }
        }
    }
}

fn check_values(specs: &[ParameterSpec], values: &[Tensor]) -> Result<(), TensorError> {
    if values.len() != specs.len() {
        return Err(TensorError::Arity {
            op: "network",
            expected: specs.len(),
            found: values.len(),
        });
    }
    for (spec, value) in specs.iter().zip(values) {
        if value.shape().dims() != spec.shape {
            return Err(TensorError::Shapes {
                op: "network",
                shapes: vec![value.shape().clone()],
                expected: format!("{} has shape {:?}", spec.name, spec.shape),
            });
        }
    }
    Ok(())
}

/// A net on its way onto a tape.
struct Recorder<'a> {
    tape: &'a mut Tape,
    net: &'a NetSpec,
    recording: Recording,
    /// How many parameters there are.
    parameter_count: usize,
    /// The parameters of the layers to come.
    parameters: &'a [Var],
    /// The moving averages of the layers to come.
    states: &'a [Var],
    /// What the last layer gives.
    signal: Var,
    hidden: Vec<Var>,
    weighted: Vec<Weighted>,
    normalized: Vec<Normalized>,
}

impl Recorder<'_> {
    fn layer(&mut self, layer: usize) -> Result<(), TensorError> {
        let fused_before = layer > 0 && self.net.is_fused(layer - 1);
        match self.net.layers[layer] {
            LayerSpec::Conv2d {
                window, bias, relu, ..
            } => {
                let max_pool = match self.net.layers.get(layer + 1) {
                    Some(LayerSpec::MaxPool { window }) if self.net.is_fused(layer) => {
                        Some(*window)
                    }
                    _ => None,
                };
                let conv2d = ops::Conv2d {
                    stride: window.stride,
                    padding: window.padding,
                    activation: activation(relu),
                    max_pool: None,
                    precision: self.recording.precision,
                };
                let parameters = if bias { 2 } else { 1 };
                // Products in bf16 have no pooling behind them.
                let apart =
                    conv2d.precision == Precision::Bf16 && conv2d.is_pointwise(window.kernel);
                if let (true, Some(window)) = (apart, max_pool) {
                    self.apply_weighted(WeightedOp::Conv2d(conv2d), parameters)?;
                    self.apply(ops::MaxPool { window }, 0)?;
                } else {
                    let pooled = ops::Conv2d { max_pool, ..conv2d };
                    self.apply_weighted(WeightedOp::Conv2d(pooled), parameters)?;
                }
                self.note_hidden(relu);
            }
            LayerSpec::MaxPool { .. } if fused_before => {}
            LayerSpec::MaxPool { window } => self.apply(ops::MaxPool { window }, 0)?,
            LayerSpec::AveragePool { window } => self.apply(ops::AveragePool { window }, 0)?,
            LayerSpec::BatchNorm { momentum, epsilon } => {
                let (parameters, rest) = self.parameters.split_at(2);
                let (states, states_left) = self.states.split_at(2);
                let inputs = [&[self.signal], parameters, states].concat();
                self.signal = self.tape.record(ops::BatchNorm { epsilon }, &inputs)?;
                (self.parameters, self.states) = (rest, states_left);
                self.normalized.push(Normalized {
                    output: self.signal,
                    momentum,
                });
            }
            LayerSpec::Relu => {
                self.apply(ops::Relu, 0)?;
                self.note_hidden(true);
            }
            LayerSpec::Dropout { rate } => {
                let dropout = ops::Dropout {
                    rate,
                    seed: self.recording.seed,
                    layer: self.recording.layer(layer),
                };
                self.apply(dropout, 0)?;
            }
            // Lanes hold the features of an image in a row already.
            LayerSpec::Flatten => {}
            LayerSpec::Dense { relu, .. } => {
                let dense = ops::Dense {
                    activation: activation(relu),
                    precision: self.recording.precision,
                };
                self.apply_weighted(WeightedOp::Dense(dense), 2)?;
                self.note_hidden(relu);
            }
        }
        Ok(())
    }

    /// Records an operation on the signal and the next so many parameters, a kernel first.
    fn apply_weighted(&mut self, op: WeightedOp, parameters: usize) -> Result<(), TensorError> {
        let kernel = self.parameter_count - self.parameters.len();
        match op {
            WeightedOp::Dense(op) => self.apply(op, parameters)?,
            WeightedOp::Conv2d(op) => self.apply(op, parameters)?,
        }
        self.weighted.push(Weighted {
            output: self.signal,
            kernel,
            op,
        });
        Ok(())
    }

    /// Records an operation on the signal and the next so many parameters.
    fn apply(
        &mut self,
        op: impl crate::autograd::Op + 'static,
        parameters: usize,
    ) -> Result<(), TensorError> {
        let (own, rest) = self.parameters.split_at(parameters);
        let inputs = [&[self.signal], own].concat();
        self.signal = self.tape.record(op, &inputs)?;
        self.parameters = rest;
        Ok(())
    }

    fn note_hidden(&mut self, relu: bool) {
        if relu {
            self.hidden.push(self.signal);
        }
    }
}

fn activation(relu: bool) -> ops::Activation {
    if relu {
        ops::Activation::Relu
    } else {
        ops::Activation::Linear
    }
}
