//! Exported graphs, interpreted by plain loops as the ONNX specification defines the operators.

use std::collections::HashMap;

use super::*;
use crate::autograd::Mode;
use crate::nn::{ImageSize, Initializer, NetSpec};
use crate::random::{Purpose, Stream};
use crate::train::TaskImages;
use taskweave_kernels::dispatch;
use taskweave_kernels::lanes::{self, PixelScale};
use taskweave_kernels::window::Padding;

/// A value of the graph, row-major.
#[derive(Clone)]
struct Array {
    dims: Vec<usize>,
    values: Vec<f64>,
}

impl Array {
    fn at(&self, place: &[usize]) -> f64 {
        let flat = place.iter().zip(&self.dims);
        self.values[flat.fold(0, |at, (&place, &dim)| at * dim + place)]
    }
}

fn ints(node: &Node, name: &str) -> Vec<usize> {
    let attribute = node
        .attributes
        .iter()
        .find(|attribute| attribute.name == name);
    let ints = &attribute.unwrap().ints;
    ints.iter().map(|&value| value as usize).collect()
}

/// Calls `visit` with every place of a window's output and the places of the input that it covers there.
fn windows(
    node: &Node,
    x: &Array,
    mut visit: impl FnMut([usize; 2], &[([usize; 2], [usize; 2])]),
) -> [usize; 2] {
    let (kernel, stride) = (ints(node, "kernel_shape"), ints(node, "strides"));
    let pads = ints(node, "pads");
    let size = [x.dims[2], x.dims[3]];
    let output =
        [0, 1].map(|at| (size[at] + pads[at] + pads[at + 2] - kernel[at]) / stride[at] + 1);
    for row in 0..output[0] {
        for column in 0..output[1] {
            let mut covered = Vec::new();
            for i in 0..kernel[0] {
                for j in 0..kernel[1] {
                    let place = [row * stride[0] + i, column * stride[1] + j];
                    let inside = |at: usize| {
                        place[at]
                            .checked_sub(pads[at])
                            .filter(|&place| place < size[at])
                    };
                    if let (Some(y), Some(x)) = (inside(0), inside(1)) {
                        covered.push(([i, j], [y, x]));
                    }
                }
            }
            visit([row, column], &covered);
        }
    }
    output
}

fn interpret(node: &Node, inputs: &[&Array]) -> Array {
    let x = inputs[0];
    let map = |f: &dyn Fn(f64) -> f64| Array {
        dims: x.dims.clone(),
        values: x.values.iter().map(|&value| f(value)).collect(),
    };
    // By channel, of the factor `[1, channels, 1, 1]` or one for all.
    let by_channel = |f: &dyn Fn(f64, f64) -> f64| {
        let plane: usize = x.dims[2..].iter().product();
        let channels = inputs[1].values.len();
        assert!(channels == 1 || channels == x.dims[1]);
        let values = x.values.iter().enumerate();
        Array {
            dims: x.dims.clone(),
            values: values
                .map(|(at, &value)| f(value, inputs[1].values[at / plane % x.dims[1] % channels]))
                .collect(),
        }
    };
    let images = x.dims[0];
    match &node.op_type[..] {
        "Cast" => x.clone(),
        "Sub" => by_channel(&|value, mean| value - mean),
        "Div" => by_channel(&|value, divisor| value / divisor),
        "Relu" => map(&|value| value.max(0.0)),
        "Flatten" => Array {
            dims: vec![images, x.values.len() / images],
            values: x.values.clone(),
        },
        "Conv" | "MaxPool" | "AveragePool" => {
            let channels = match inputs.get(1) {
                Some(weights) => weights.dims[0],
                None => x.dims[1],
            };
            let mut values = Vec::new();
            let mut output = [0; 2];
            for image in 0..images {
                for channel in 0..channels {
                    output = windows(node, x, |_, covered| {
                        let of = |channel: usize| {
                            let places = covered.iter();
                            places.map(move |(tap, [r, c])| (*tap, x.at(&[image, channel, *r, *c])))
                        };
                        let own = of(channel).map(|(_, value)| value);
                        values.push(match &node.op_type[..] {
                            "MaxPool" => own.fold(f64::NEG_INFINITY, f64::max),
                            "AveragePool" => own.sum::<f64>() / covered.len() as f64,
                            _ => {
                                let sum: f64 = (0..x.dims[1])
                                    .flat_map(|input| {
                                        of(input).map(move |(tap, value)| (input, tap, value))
                                    })
                                    .map(|(input, [i, j], value)| {
                                        value * inputs[1].at(&[channel, input, i, j])
                                    })
                                    .sum();
                                sum + inputs.get(2).map_or(0.0, |bias| bias.values[channel])
                            }
                        });
                    });
                }
            }
            Array {
                dims: vec![images, channels, output[0], output[1]],
                values,
            }
        }
        "BatchNormalization" => {
            let epsilon = f64::from(node.attributes[0].float);
            let plane: usize = x.dims[2..].iter().product();
            let values = x.values.iter().enumerate().map(|(at, &value)| {
                let channel = at / plane % x.dims[1];
                let [scale, offset, mean, variance] =
                    [1, 2, 3, 4].map(|input| inputs[input].values[channel]);
                (value - mean) / (variance + epsilon).sqrt() * scale + offset
            });
            Array {
                dims: x.dims.clone(),
                values: values.collect(),
            }
        }
        "Gemm" => {
            let [features, units] = inputs[1].dims[..] else {
                panic!()
            };
            assert_eq!(x.dims, [images, features]);
            let mut values = Vec::new();
            for image in 0..images {
                for unit in 0..units {
                    let products =
                        (0..features).map(|f| x.at(&[image, f]) * inputs[1].at(&[f, unit]));
                    values.push(products.sum::<f64>() + inputs[2].values[unit]);
                }
            }
            Array {
                dims: vec![images, units],
                values,
            }
        }
        "Softmax" => {
            let rows = x.values.chunks(x.dims[1]).flat_map(|row| {
                let most = row.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                let powers: Vec<f64> = row.iter().map(|value| (value - most).exp()).collect();
                let sum: f64 = powers.iter().sum();
                powers.into_iter().map(move |power| power / sum)
            });
            Array {
                dims: x.dims.clone(),
                values: rows.collect(),
            }
        }
        other => panic!("no operator {other}"),
    }
}

/// The outputs of a file's graph for these pixels.
fn run(file: &[u8], pixels: Array) -> HashMap<String, Array> {
    let model = messages::Model::decode(file).unwrap();
    assert_eq!(model.opset_import[0].version, OPSET_VERSION);
    let graph = model.graph.unwrap();
    let mut values: HashMap<String, Array> =
        HashMap::from([(graph.inputs[0].name.clone(), pixels)]);
    for tensor in &graph.initializers {
        let (floats, rest) = tensor.raw.as_chunks::<4>();
        assert!(rest.is_empty());
        let array = Array {
            dims: tensor.dims.iter().map(|&dim| dim as usize).collect(),
            values: floats
                .iter()
                .map(|&b| f64::from(f32::from_le_bytes(b)))
                .collect(),
        };
        assert_eq!(
            array.dims.iter().product::<usize>(),
            array.values.len(),
            "{}",
            tensor.name
        );
        let before = values.insert(tensor.name.clone(), array);
        assert!(before.is_none(), "two tensors are called {}", tensor.name);
    }
    for node in &graph.nodes {
        let inputs: Vec<&Array> = node.inputs.iter().map(|name| &values[name]).collect();
        let output = interpret(node, &inputs);
        let before = values.insert(node.outputs[0].clone(), output);
        assert!(
            before.is_none(),
            "two values are called {}",
            node.outputs[0]
        );
    }
    for output in &graph.outputs {
        assert!(
            values.contains_key(&output.name),
            "{} is missing",
            output.name
        );
    }
    values
}

/// A net of every kind of layer, over images that its windows do not divide.
fn every_layer() -> NetSpec {
    let window = |kernel, stride, padding| Window {
        kernel,
        stride,
        padding,
    };
    NetSpec {
        input: ImageSize {
            height: 9,
            width: 8,
            channels: 3,
        },
        layers: vec![
            LayerSpec::Conv2d {
                filters: 5,
                window: window([3, 2], [2, 1], Padding::Same),
                bias: false,
                relu: false,
            },
            LayerSpec::batch_norm(),
            LayerSpec::Relu,
            LayerSpec::MaxPool {
                window: window([3, 3], [2, 2], Padding::Same),
            },
            LayerSpec::Dropout { rate: 0.5 },
            LayerSpec::conv2d(4, [3, 3]),
            LayerSpec::AveragePool {
                window: window([2, 2], [1, 2], Padding::Same),
            },
            LayerSpec::Flatten,
            LayerSpec::Dense {
                units: 7,
                relu: true,
            },
            LayerSpec::Dense {
                units: 4,
                relu: false,
            },
        ],
    }
}

fn model_of(net: &NetSpec, scales: &[PixelScale]) -> Model {
    let mut model = Model::new(16, 255.0);
    let specs = net.parameters();
    let weights = specs.iter().enumerate().map(|(index, spec)| {
        let mut stream = Stream::new(3, Purpose::MultitaskWeights, 0, index as u64);
        Initializer::HeNormal.draw(spec, &mut stream)
    });
    model
        .add_task("Task", net.clone(), weights.collect())
        .unwrap();
    model.set_scales(0, scales.to_vec()).unwrap();
    for state in 0..net.states().len() {
        model.edit_state(0, state, |values| {
            for (at, value) in values.iter_mut().enumerate() {
                *value = 0.3 + (at + state) as f32 / 10.0;
            }
        });
    }
    // Half of the positions, so that zeros are exported too.
    let masks = specs.iter().map(|spec| {
        (0..spec.elements())
            .map(|at| u8::from(at % 2 == 0))
            .collect()
    });
    model.set_owned(0, masks.collect());
    model
}

fn description(net: &NetSpec) -> TaskDescription {
    TaskDescription {
        name: "Task".to_owned(),
        dataset: "made up".to_owned(),
        class_names: vec!["a \"b\"".to_owned()],
        net: net.clone(),
        pixel_scales: Vec::new(),
        added: None,
    }
}

fn check(net: &NetSpec, scales: &[PixelScale]) {
    let mut model = model_of(net, scales);
    let (images, features) = (3, net.input.features());
    let pixels: Vec<u8> = (0..images * features)
        .map(|at| (at * 37 % 256) as u8)
        .collect();
    let file = serialize(&model, 0, &description(net)).unwrap();
    let [channels, height, width] = net.input.dims();
    let array = Array {
        dims: vec![images, channels, height, width],
        values: pixels.iter().map(|&pixel| f64::from(pixel)).collect(),
    };
    let values = run(&file, array);
    let labels = vec![0; images];
    let set = TaskImages::new(&pixels, &labels, features, 1).unwrap();
    model.set_mode(Mode::Inference);
    model.set_batch(0, &set, &[0, 1, 2]);
    model.forward(&[0]).unwrap();
    let classes = model.tasks()[0].classes();
    let mut logits = vec![0.0; images * classes];
    lanes::unpack(
        dispatch::active(),
        images,
        classes,
        model.logits(0).data(),
        &mut logits,
    );
    assert_eq!(values["logits"].dims, [images, classes]);
    for (found, expected) in values["logits"].values.iter().zip(&logits) {
        let expected = f64::from(*expected);
        assert!(
            (found - expected).abs() < 1e-4 * expected.abs().max(1.0),
            "{found} {expected}"
        );
    }
    for row in values["probabilities"].values.chunks(classes) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9);
    }
}

#[test]
fn a_graph_of_every_layer_computes_what_the_net_does() {
    let scales = [(10.0, 50.0), (0.0, 60.0), (128.0, 255.0)]
        .map(|(mean, divisor)| PixelScale { mean, divisor });
    check(&every_layer(), &scales);
}

#[test]
fn pixels_of_a_dense_net_are_flattened() {
    let net = NetSpec::mlp(
        ImageSize {
            height: 4,
            width: 5,
            channels: 1,
        },
        &[6],
        3,
    );
    check(&net, &[PixelScale::divide_by(255.0)]);
    check(&net, &[PixelScale::divide_by(1.0)]);
}

#[test]
fn names_and_classes_are_kept() {
    let net = every_layer();
    let model = model_of(&net, &[PixelScale::divide_by(1.0)]);
    let file = serialize(&model, 0, &description(&net)).unwrap();
    let found = messages::Model::decode(&file[..]).unwrap();
    let value = |key: &str| {
        let entry = found.metadata.iter().find(|entry| entry.key == key);
        entry.unwrap().value.clone()
    };
    assert_eq!(value("task"), "Task");
    assert_eq!(value("class_names"), r#"["a \"b\""]"#);
}
