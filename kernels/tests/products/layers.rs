//! Dense layers in lanes.

use proptest::prelude::*;
use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::lanes::{blocks, lanes_len, pack, unpack};
use taskweave_kernels::naive;

use crate::{exact, magnitudes, shapes};

/// Images, inputs and outputs.
fn any_dense() -> impl Strategy<Value = [usize; 3]> {
    let features = || prop_oneof![0_usize..70, 100_usize..140, 500_usize..530];
    let images = prop_oneof![0_usize..70, 120_usize..140];
    (images, features(), features()).prop_map(Into::into)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn dense_matches_naive(size in any_dense()) {
        for &set in dispatch::all() {
            check_dense(set, size);
        }
    }
}

/// Lanes of row-major values; what the empty lanes hold is `empty`.
fn in_lanes(set: InstructionSet, images: usize, rows: &[f32], empty: f32) -> Vec<f32> {
    let features = rows.len().checked_div(images).unwrap_or(0);
    let mut lanes = vec![f32::NAN; lanes_len(images, features)];
    pack(set, images, features, rows, &mut lanes);
    let last = lanes.len().saturating_sub(features * 16);
    for vector in lanes[last..].chunks_mut(16) {
        vector[images - (blocks(images) - 1) * 16..].fill(empty);
    }
    lanes
}

fn out_of_lanes(set: InstructionSet, images: usize, features: usize, lanes: &[f32]) -> Vec<f32> {
    let mut rows = vec![f32::NAN; images * features];
    unpack(set, images, features, lanes, &mut rows);
    rows
}

fn check_dense(set: InstructionSet, [images, inputs, outputs]: [usize; 3]) {
    let shape = DenseShape {
        images,
        inputs,
        outputs,
    };
    let x = noise(1, images * inputs);
    let weights = noise(2, inputs * outputs);
    let bias = noise(3, outputs);
    let grad = noise(4, images * outputs);
    // Empty lanes: anything finite in the input, zeros in the gradient.
    let x_lanes = in_lanes(set, images, &x, 7.0);
    let grad_lanes = in_lanes(set, images, &grad, 0.0);
    let (x64, weights64, bias64, grad64) = (exact(&x), exact(&weights), exact(&bias), exact(&grad));
    let (x_size, weights_size, bias_size, grad_size) = (
        magnitudes(&x),
        magnitudes(&weights),
        magnitudes(&bias),
        magnitudes(&grad),
    );

    let magnitude = naive::dense(shape, &x_size, &weights_size, &bias_size);
    let zeros = vec![0.0; outputs];
    for bias in [Some((&bias, &bias64)), None] {
        for activation in [Activation::Linear, Activation::Relu] {
            let layer = Affine {
                weights: &weights,
                bias: bias.map(|(bias, _)| bias.as_slice()),
                activation,
            };
            let mut y = vec![f32::NAN; grad_lanes.len()];
            dense::forward(set, shape, layer, &x_lanes, &mut y);
            let bias64 = bias.map_or(&zeros, |(_, bias)| bias);
            let mut expected = naive::dense(shape, &x64, &weights64, bias64);
            if activation == Activation::Relu {
                expected = naive::relu(&expected);
            }
            let y = out_of_lanes(set, images, outputs, &y);
            assert_close_each(&y, &expected, |index| {
                Tolerance::dot(inputs, magnitude[index])
            });
        }
    }

    let mut grad_x = vec![f32::NAN; x_lanes.len()];
    dense::grad_input(set, shape, &grad_lanes, &weights, &mut grad_x);
    let magnitude = naive::dense_grad_input(shape, &grad_size, &weights_size);
    assert_close_each(
        &out_of_lanes(set, images, inputs, &grad_x),
        &naive::dense_grad_input(shape, &grad64, &weights64),
        |index| Tolerance::dot(outputs, magnitude[index]),
    );

    let mut grad_weights = vec![f32::NAN; weights.len()];
    dense::grad_weights(set, shape, &x_lanes, &grad_lanes, &mut grad_weights);
    let magnitude = naive::dense_grad_weights(shape, &x_size, &grad_size);
    assert_close_each(
        &grad_weights,
        &naive::dense_grad_weights(shape, &x64, &grad64),
        |index| Tolerance::dot(images, magnitude[index]),
    );

    let mut grad_bias = vec![f32::NAN; outputs];
    dense::grad_bias(set, shape, &grad_lanes, &mut grad_bias);
    let magnitude = naive::dense_grad_bias(shape, &grad_size);
    assert_close_each(
        &grad_bias,
        &naive::dense_grad_bias(shape, &grad64),
        |index| Tolerance::dot(images, magnitude[index]),
    );
}

#[test]
fn dense_matches_naive_around_every_edge() {
    for &set in dispatch::all() {
        for size in shapes() {
            check_dense(set, size);
        }
    }
}

#[test]
fn dense_matches_naive_where_long_sums_are_cut_into_parts() {
    // The steps of the last part are fewer, or the rows more than those of a task, or the parts many.
    for size in [[17, 4_096, 3], [33, 6_150, 300], [1, 40_000, 10]] {
        for &set in dispatch::all() {
            check_dense(set, size);
        }
    }
}

#[test]
fn few_images_give_the_bits_of_many() {
    let [inputs, outputs] = [1_030, 600];
    let shape = |images| DenseShape {
        images,
        inputs,
        outputs,
    };
    let x = noise(1, lanes_len(144, inputs));
    let grad = noise(2, lanes_len(144, outputs));
    let (weights, bias) = (noise(3, inputs * outputs), noise(4, outputs));
    let layer = Affine {
        weights: &weights,
        bias: Some(&bias),
        activation: Activation::Relu,
    };
    for &set in dispatch::all() {
        let run = |images| {
            let mut y = vec![f32::NAN; lanes_len(images, outputs)];
            let x = &x[..lanes_len(images, inputs)];
            dense::forward(set, shape(images), layer, x, &mut y);
            let mut grad_x = vec![f32::NAN; x.len()];
            dense::grad_input(set, shape(images), &grad[..y.len()], &weights, &mut grad_x);
            [y, grad_x].map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        };
        let [y, grad_x] = run(144);
        for images in [16, 32, 48, 128] {
            let [few_y, few_grad_x] = run(images);
            assert!(y.starts_with(&few_y), "{set:?}, {images} images");
            assert!(grad_x.starts_with(&few_grad_x), "{set:?}, {images} images");
        }
    }
}

#[test]
fn relu_and_sums_keep_nan() {
    let shape = DenseShape {
        images: 1,
        inputs: 1,
        outputs: 1,
    };
    for &set in dispatch::all() {
        let layer = Affine {
            weights: &[f32::NAN],
            bias: None,
            activation: Activation::Relu,
        };
        let mut y = [0.0; 16];
        dense::forward(set, shape, layer, &[1.0; 16], &mut y);
        assert!(y[0].is_nan(), "{set:?}: {}", y[0]);
    }
}

#[test]
#[should_panic(expected = "weights holds 11 values where the shape demands 12")]
fn dense_refuses_a_wrong_length() {
    let shape = DenseShape {
        images: 1,
        inputs: 3,
        outputs: 4,
    };
    dense::grad_input(
        dispatch::active(),
        shape,
        &[0.0; 64],
        &[0.0; 11],
        &mut [0.0; 48],
    );
}
