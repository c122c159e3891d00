//! A task's net as an ONNX model: from raw pixels to logits and probabilities.
//!
//! The graph takes `pixels`, unsigned bytes `[images, channels, height, width]`, scales them as the net
//! was trained, and gives `logits` and `probabilities`, `[images, classes]`. What a task does not own is
//! zero there: ONNX has no sparse kernels for it. Operators are those of opset 13.

mod messages;

use std::borrow::Cow;

use prost::Message;
use taskweave_kernels::window::Window;

use super::model_file::TaskDescription;
use crate::nn::{LayerSpec, ParameterKind, ParameterSpec};
use crate::train::{Model, TaskNet};
use messages::{
    Attribute, DataType, Entry, Graph, IR_VERSION, Node, OPSET_VERSION, OperatorSet, Tensor,
    ValueInfo,
};

/// Bytes that a protocol buffer holds at most.
const LARGEST_FILE: usize = i32::MAX as usize;

/// The ONNX file of one task of a model.
///
/// # Errors
/// When the net is larger than such a file may be.
pub(super) fn serialize(
    model: &Model,
    task: usize,
    description: &TaskDescription,
) -> Result<Vec<u8>, String> {
    let net = &model.tasks()[task];
    let bytes = net.spec().parameter_count().saturating_mul(4);
    if bytes > LARGEST_FILE {
        return Err(format!(
            "its net has {bytes} bytes of weights, and an ONNX file holds {LARGEST_FILE}"
        ));
    }
    let message = messages::Model {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph(model, task)),
        opset_import: vec![OperatorSet {
            domain: String::new(),
            version: OPSET_VERSION,
        }],
        metadata: metadata(description),
    };
    Ok(message.encode_to_vec())
}

/// What a reader of the file may want to know of the task.
fn metadata(task: &TaskDescription) -> Vec<Entry> {
    let class_names = serde_json::Value::from(task.class_names.clone());
    let entries = [
        ("task", task.name.clone()),
        ("dataset", task.dataset.clone()),
        ("class_names", class_names.to_string()),
    ];
    entries
        .map(|(key, value)| Entry {
            key: key.to_owned(),
            value,
        })
        .into()
}

fn graph(model: &Model, task: usize) -> Graph {
    let net = &model.tasks()[task];
    let spec = net.spec();
    let mut builder = Builder {
        model,
        task,
        graph: Graph {
            name: net.name().to_owned(),
            inputs: vec![ValueInfo::per_image(
                "pixels",
                DataType::Uint8,
                &spec.input.dims(),
            )],
            outputs: ["logits", "probabilities"]
                .map(|name| ValueInfo::per_image(name, DataType::Float, &[net.classes()]))
                .into(),
            ..Graph::default()
        },
        value: "pixels".to_owned(),
        parameters: 0,
        states: 0,
    };
    builder.scale_pixels(net);
    let shapes = spec.shapes().unwrap_or_default();
    let input = spec.input.dims().to_vec();
    let before = std::iter::once(&input).chain(&shapes);
    let parameters = spec.parameters_by_layer();
    let names = spec.layer_names();
    for (((layer, name), parameters), before) in
        spec.layers.iter().zip(&names).zip(&parameters).zip(before)
    {
        builder.layer(layer, name, parameters, before);
    }
    builder.rename_last("logits");
    let axis = Attribute::int("axis", 1);
    builder.node("Softmax", "probabilities", &[], vec![axis]);
    builder.graph
}

/// A graph that grows node by node.
struct Builder<'a> {
    model: &'a Model,
    task: usize,
    graph: Graph,
    /// The value that the next node takes.
    value: String,
    /// Parameters and moving averages of the layers before.
    parameters: usize,
    states: usize,
}

impl Builder<'_> {
    /// Adds a node that takes the latest value and these tensors; its output, which has its name, is the
    /// latest value from then on.
    fn node(&mut self, op_type: &str, name: &str, tensors: &[String], attributes: Vec<Attribute>) {
        let value = std::mem::replace(&mut self.value, name.to_owned());
        self.graph.nodes.push(Node {
            inputs: [&[value][..], tensors].concat(),
            outputs: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            attributes,
        });
    }

    /// Adds a tensor.
    fn tensor(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        let tensor = Tensor::floats(name, dims, values);
        self.graph.initializers.push(tensor);
        name.to_owned()
    }

    /// Gives the latest value another name.
    fn rename_last(&mut self, name: &str) {
        if let Some(node) = self.graph.nodes.last_mut() {
            node.outputs = vec![name.to_owned()];
            self.value = name.to_owned();
        }
    }

    /// `(pixel - mean) / divisor`, channel by channel.
    fn scale_pixels(&mut self, net: &TaskNet) {
        let to = Attribute::int("to", DataType::Float as i64);
        self.node("Cast", "pixels_float", &[], vec![to]);
        let scales = net.scales();
        let dims = [1, scales.len(), 1, 1];
        let means: Vec<f32> = scales.iter().map(|scale| scale.mean).collect();
        let divisors: Vec<f32> = scales.iter().map(|scale| scale.divisor).collect();
        if means.iter().any(|&mean| mean != 0.0) {
            let mean = self.tensor("pixel_mean", &dims, &means);
            self.node("Sub", "pixels_centred", &[mean], Vec::new());
        }
        if divisors.iter().any(|&divisor| divisor != 1.0) {
            let divisor = self.tensor("pixel_divisor", &dims, &divisors);
            self.node("Div", "pixels_scaled", &[divisor], Vec::new());
        }
    }

    /// Adds a layer, whose values before it have this shape for one image.
    fn layer(
        &mut self,
        layer: &LayerSpec,
        name: &str,
        parameters: &[ParameterSpec],
        before: &[usize],
    ) {
        let tensors: Vec<String> = parameters.iter().map(|spec| self.parameter(spec)).collect();
        let relu_follows = match *layer {
            LayerSpec::Conv2d { window, relu, .. } => {
                self.node("Conv", name, &tensors, window_attributes(window, before));
                relu
            }
            LayerSpec::MaxPool { window } => {
                self.node("MaxPool", name, &[], window_attributes(window, before));
                false
            }
            LayerSpec::AveragePool { window } => {
                self.node("AveragePool", name, &[], window_attributes(window, before));
                false
            }
            LayerSpec::BatchNorm { epsilon, .. } => {
                let states = ["moving_mean", "moving_variance"].map(|part| self.state(name, part));
                let tensors = [tensors, states.into()].concat();
                let epsilon = Attribute::float("epsilon", epsilon);
                self.node("BatchNormalization", name, &tensors, vec![epsilon]);
                false
            }
            LayerSpec::Relu => {
                self.node("Relu", name, &[], Vec::new());
                false
            }
            // In inference it does nothing.
            LayerSpec::Dropout { .. } => false,
            LayerSpec::Flatten => {
                self.flatten(name);
                false
            }
            LayerSpec::Dense { relu, .. } => {
                if before.len() > 1 {
                    self.flatten(&format!("{name}/flatten"));
                }
                self.node("Gemm", name, &tensors, Vec::new());
                relu
            }
        };
        if relu_follows {
            self.node("Relu", &format!("{name}/relu"), &[], Vec::new());
        }
    }

    fn flatten(&mut self, name: &str) {
        let axis = Attribute::int("axis", 1);
        self.node("Flatten", name, &[], vec![axis]);
    }

    /// Adds the next parameter of the net.
    fn parameter(&mut self, spec: &ParameterSpec) -> String {
        let model = self.model;
        let values = model.parameter(self.task, self.parameters);
        self.parameters += 1;
        match (spec.kind, &spec.shape[..]) {
            (ParameterKind::Kernel, &[height, width, inputs, outputs]) => {
                let values = outputs_first(&values, [height * width, inputs, outputs]);
                self.tensor(&spec.name, &[outputs, inputs, height, width], &values)
            }
            (_, shape) => self.tensor(&spec.name, shape, &values),
        }
    }

    /// Adds the next moving average of the net.
    fn state(&mut self, layer: &str, part: &str) -> String {
        let model = self.model;
        let values = model.states(self.task).nth(self.states);
        let values = values.map_or(Cow::default(), |state| state.data().into());
        self.states += 1;
        self.tensor(&format!("{layer}/{part}"), &[values.len()], &values)
    }
}

/// The attributes of a node whose window moves over images of this shape, `[channels, height, width]`.
fn window_attributes(window: Window, before: &[usize]) -> Vec<Attribute> {
    let [_, height, width] = before[..] else {
        unreachable!("a net that fits together has images before its windows")
    };
    let axes = window.axes([height, width]);
    let starts = axes.map(|axis| axis.before);
    let ends = axes.map(|axis| {
        let covered = (axis.output - 1) * axis.stride + axis.kernel;
        covered.saturating_sub(axis.input + axis.before)
    });
    vec![
        Attribute::ints("kernel_shape", window.kernel),
        Attribute::ints("strides", window.stride),
        Attribute::ints("pads", starts.into_iter().chain(ends)),
    ]
}

/// Weights `[taps, inputs, outputs]` brought to `[outputs, inputs, taps]`.
fn outputs_first(values: &[f32], [taps, inputs, outputs]: [usize; 3]) -> Vec<f32> {
    let mut brought = Vec::with_capacity(values.len());
    for output in 0..outputs {
        for input in 0..inputs {
            brought.extend((0..taps).map(|tap| values[(tap * inputs + input) * outputs + output]));
        }
    }
    brought
}

#[cfg(test)]
mod tests;
