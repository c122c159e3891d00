//! The traced nets, and Keras's names for their layers.

use taskweave::nn::{ImageSize, LayerSpec, NetSpec};
use taskweave_kernels::window::{Padding, Window};

use crate::trace::Place;

fn image(height: usize, width: usize, channels: usize) -> ImageSize {
    ImageSize {
        height,
        width,
        channels,
    }
}

fn dense(units: usize, relu: bool) -> LayerSpec {
    LayerSpec::Dense { units, relu }
}

fn conv2d(filters: usize, window: Window, bias: bool, relu: bool) -> LayerSpec {
    LayerSpec::Conv2d {
        filters,
        window,
        bias,
        relu,
    }
}

fn window(kernel: [usize; 2], stride: [usize; 2], padding: Padding) -> Window {
    Window {
        kernel,
        stride,
        padding,
    }
}

/// 12 inputs, two relu layers, 5 classes.
pub(crate) fn mlp() -> NetSpec {
    NetSpec::mlp(12, &[16, 16], 5)
}

/// The published convolutional net on a small scale.
pub(crate) fn small_convnet(channels: usize) -> NetSpec {
    let mut layers = Vec::new();
    for filters in [8, 16] {
        layers.extend([LayerSpec::conv2d(filters, [3, 3]); 2]);
        layers.push(LayerSpec::max_pool([2, 2], [1, 1]));
    }
    layers.extend([LayerSpec::Flatten, dense(12, true), dense(5, false)]);
    NetSpec {
        input: image(10, 10, channels),
        layers,
    }
}

/// Two convolutions and a pooling.
pub(crate) fn smaller_convnet(channels: usize) -> NetSpec {
    let mut layers = vec![LayerSpec::conv2d(8, [3, 3]); 2];
    layers.push(LayerSpec::max_pool([2, 2], [1, 1]));
    layers.extend([LayerSpec::Flatten, dense(12, true), dense(5, false)]);
    NetSpec {
        input: image(10, 10, channels),
        layers,
    }
}

pub(crate) fn strided_batch_norm() -> NetSpec {
    NetSpec {
        input: image(11, 9, 3),
        layers: vec![
            conv2d(6, window([3, 2], [2, 1], Padding::Valid), true, true),
            conv2d(7, window([5, 5], [2, 2], Padding::Same), false, false),
            LayerSpec::batch_norm(),
            LayerSpec::Relu,
            LayerSpec::AveragePool {
                window: window([2, 2], [2, 2], Padding::Valid),
            },
            LayerSpec::Flatten,
            dense(5, false),
        ],
    }
}

pub(crate) fn pooling() -> NetSpec {
    NetSpec {
        input: image(9, 8, 2),
        layers: vec![
            conv2d(4, window([1, 1], [1, 1], Padding::Same), true, false),
            LayerSpec::MaxPool {
                window: window([3, 3], [2, 2], Padding::Same),
            },
            LayerSpec::max_pool([2, 3], [1, 1]),
            LayerSpec::Flatten,
            dense(5, false),
        ],
    }
}

/// Keras numbers the layers of a kind through all the nets of a session, and the first has no number.
fn numbered(kind: &str, number: usize) -> String {
    match number {
        0 => kind.to_owned(),
        number => format!("{kind}_{number}"),
    }
}

/// The places of a dedicated net's parameters, whose convolutions and dense layers have numbers from
/// these on.
pub(crate) fn dedicated(net: &NetSpec, [mut conv2d, mut dense]: [usize; 2]) -> Vec<Place> {
    let mut places = Vec::new();
    for (layer, parameters) in net.layers.iter().zip(net.parameters_by_layer()) {
        let number = match layer {
            LayerSpec::Conv2d { .. } => &mut conv2d,
            LayerSpec::Dense { .. } => &mut dense,
            _ => &mut 0,
        };
        for parameter in parameters {
            let part = ["kernel", "bias", "gamma", "beta"]
                .into_iter()
                .find(|part| parameter.name.ends_with(part));
            places.push(Place {
                layer: numbered(layer.kind(), *number),
                part: part.unwrap(),
                slot: 0,
                of: 1,
            });
        }
        *number += 1;
    }
    places
}

/// The places of one of several tasks' parameters in a masked net, likewise.
pub(crate) fn masked(
    net: &NetSpec,
    numbers: [usize; 2],
    (task, tasks): (usize, usize),
) -> Vec<Place> {
    let mut places = dedicated(net, numbers);
    for place in &mut places {
        place.layer = format!("multi_masked_{}", place.layer);
        place.part = if place.part == "kernel" {
            "weights"
        } else {
            place.part
        };
        (place.slot, place.of) = (task, tasks);
    }
    places
}
