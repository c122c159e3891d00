//! The kernels for one image against the plain references, on every instruction set.

use proptest::prelude::*;
use taskweave_kernels::batch_norm::{self, BatchNormShape, Normalization};
use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::conv2d::Conv2dShape;
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::lanes::{self, LANES, lanes_len};
use taskweave_kernels::naive::{self, DenseShape, PoolShape};
use taskweave_kernels::single;
use taskweave_kernels::sparse::Pattern;
use taskweave_kernels::window::{Padding, Window};

mod masks;
use masks::{magnitudes, masked};

/// A mask that owns about one position in `one_in`.
fn mask(len: usize, one_in: usize) -> Vec<u8> {
    let values = noise(77, len).into_iter().enumerate();
    let owned = |(at, value): (usize, f32)| {
        u8::from((value.to_bits() as usize / 8 + at).is_multiple_of(one_in))
    };
    values.map(owned).collect()
}

/// Inputs as behind a relu: half of them zero.
fn rectified(seed: u64, len: usize) -> Vec<f32> {
    noise(seed, len)
        .into_iter()
        .map(|value| value.max(0.0))
        .collect()
}

fn hold(found: &[f32], expected: Vec<f64>, magnitude: &[f64], terms: usize, relu: bool) {
    let expected: Vec<f64> = match relu {
        true => expected.into_iter().map(|value| value.max(0.0)).collect(),
        false => expected,
    };
    assert_close_each(found, &expected, |at| Tolerance::dot(terms, magnitude[at]));
}

fn activation(relu: bool) -> Activation {
    match relu {
        true => Activation::Relu,
        false => Activation::Linear,
    }
}

fn check_dense(set: InstructionSet, inputs: usize, outputs: usize, one_in: usize, relu: bool) {
    let shape = DenseShape {
        images: 1,
        inputs,
        outputs,
    };
    let owned = mask(inputs * outputs, one_in);
    let weights = masked(&noise(1, inputs * outputs), &owned);
    let (x, bias) = (rectified(2, inputs), noise(3, outputs));
    let expected = || {
        naive::dense(
            shape,
            &naive::convert(&x),
            &naive::convert(&weights),
            &naive::convert(&bias),
        )
    };
    let sizes = [&x, &weights, &bias].map(|values| magnitudes(values));
    let magnitude = naive::dense(shape, &sizes[0], &sizes[1], &sizes[2]);
    let affine = |weights| Affine {
        weights,
        bias: Some(&bias),
        activation: activation(relu),
    };
    let mut y = vec![f32::NAN; outputs];
    single::dense(set, [inputs, outputs], affine(&weights), &x, &mut y);
    hold(&y, expected(), &magnitude, inputs + 1, relu);
    let pattern = Pattern::dense(set, [inputs, outputs], &owned);
    let mut values = vec![f32::NAN; pattern.len()];
    pattern.gather(&weights, &mut values);
    y.fill(f32::NAN);
    let mut layer = single::SparseDense::new(&pattern);
    layer.set_values(&values);
    layer.forward(Some(&bias), activation(relu), &x, &mut y);
    hold(&y, expected(), &magnitude, inputs + 1, relu);
}

fn check_conv2d(set: InstructionSet, shape: Conv2dShape, one_in: usize, relu: bool) {
    let owned = mask(shape.weights(), one_in);
    let weights = masked(&noise(1, shape.weights()), &owned);
    let (x, bias) = (noise(2, shape.input_features()), noise(3, shape.outputs));
    let expected = || {
        naive::conv2d(
            &shape,
            &naive::convert(&x),
            &naive::convert(&weights),
            &naive::convert(&bias),
        )
    };
    let sizes = [&x, &weights, &bias].map(|values| magnitudes(values));
    let magnitude = naive::conv2d(&shape, &sizes[0], &sizes[1], &sizes[2]);
    let terms = shape.weights() / shape.outputs + 1;
    let affine = |weights| Affine {
        weights,
        bias: Some(&bias),
        activation: activation(relu),
    };
    let mut y = vec![f32::NAN; shape.output_features()];
    single::conv2d(set, &shape, affine(&weights), &x, &mut y);
    hold(&y, expected(), &magnitude, terms, relu);
    let pattern = Pattern::conv2d(set, shape.window, [shape.inputs, shape.outputs], &owned);
    let mut values = vec![f32::NAN; pattern.len()];
    pattern.gather(&weights, &mut values);
    y.fill(f32::NAN);
    let mut layer = single::SparseConv2d::new(&pattern, &shape);
    layer.set_values(&values);
    layer.forward(set, Some(&bias), activation(relu), &x, &mut y);
    hold(&y, expected(), &magnitude, terms, relu);
}

/// As bits, all NaN alike.
fn bits(values: &[f32]) -> Vec<u32> {
    let bits = |value: &f32| match value.is_nan() {
        true => f32::NAN.to_bits(),
        false => value.to_bits(),
    };
    values.iter().map(bits).collect()
}

/// One image in lanes.
fn packed(set: InstructionSet, x: &[f32]) -> Vec<f32> {
    let mut lanes = vec![0.0; lanes_len(1, x.len())];
    lanes::pack(set, 1, x.len(), x, &mut lanes);
    lanes
}

fn window() -> impl Strategy<Value = Window> {
    let padding = prop_oneof![Just(Padding::Same), Just(Padding::Valid)];
    (1..5_usize, 1..5_usize, 1..4_usize, 1..4_usize, padding).prop_map(
        |(rows, columns, down, across, padding)| Window {
            kernel: [rows, columns],
            stride: [down, across],
            padding,
        },
    )
}

#[test]
fn the_layers_of_the_experiments() {
    let window = Window {
        kernel: [3, 3],
        stride: [1, 1],
        padding: Padding::Same,
    };
    let conv = |inputs, outputs, size| Conv2dShape {
        images: 1,
        inputs,
        outputs,
        height: size,
        width: size,
        window,
    };
    for &set in dispatch::all() {
        check_dense(set, 1_000, 1_000, 10, true);
        check_dense(set, 1_000, 10, 1, false);
        // Two parts of inputs and a bit.
        check_dense(set, 8_200, 6, 3, true);
        check_conv2d(set, conv(1, 32, 28), 5, true);
        check_conv2d(set, conv(64, 64, 27), 10, true);
        // No weight at all.
        check_dense(set, 20, 30, usize::MAX, true);
        check_conv2d(set, conv(3, 5, 6), usize::MAX, true);
    }
}

#[test]
fn rows_of_zeros_are_not_read_and_nan_is_kept() {
    for &set in dispatch::all() {
        let weights = [f32::NAN, f32::NAN, 1.0, 2.0];
        let layer = |activation| Affine {
            weights: &weights,
            bias: None,
            activation,
        };
        let mut y = [0.0; 2];
        single::dense(set, [2, 2], layer(Activation::Relu), &[0.0, 3.0], &mut y);
        assert_eq!(y, [3.0, 6.0]);
        single::dense(set, [2, 2], layer(Activation::Relu), &[1.0, 3.0], &mut y);
        assert!(y.iter().all(|value| value.is_nan()));
    }
}

#[test]
fn convolutions_are_the_same_on_any_number_of_threads_and_keep_nan() {
    let window = Window {
        kernel: [3, 3],
        stride: [1, 1],
        padding: Padding::Same,
    };
    let shape = Conv2dShape {
        images: 1,
        inputs: 20,
        outputs: 44,
        height: 19,
        width: 21,
        window,
    };
    let weights = noise(1, shape.weights());
    let mut x = noise(2, shape.input_features());
    x[5 * 19 * 21 + 3 * 21 + 7] = f32::NAN;
    let layer = Affine {
        weights: &weights,
        bias: None,
        activation: Activation::Relu,
    };
    for &set in dispatch::all() {
        let owned = vec![1; shape.weights()];
        let pattern = Pattern::conv2d(set, window, [shape.inputs, shape.outputs], &owned);
        let mut values = vec![f32::NAN; pattern.len()];
        pattern.gather(&weights, &mut values);
        let mut sparse = single::SparseConv2d::new(&pattern, &shape);
        sparse.set_values(&values);
        let convolutions = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.unwrap().install(|| {
                let mut found = [(); 2].map(|_| vec![0.5; shape.output_features()]);
                single::conv2d(set, &shape, layer, &x, &mut found[0]);
                sparse.forward(set, None, Activation::Relu, &x, &mut found[1]);
                found.map(|y| bits(&y))
            })
        };
        let expected = convolutions(1);
        for y in &expected {
            let nan = y.iter().filter(|&&bits| bits == f32::NAN.to_bits());
            assert_eq!(nan.count(), 9 * shape.outputs, "{set:?}");
        }
        for threads in [2, 3, 7] {
            assert_eq!(
                convolutions(threads),
                expected,
                "{set:?}, {threads} threads"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn dense_layers(
        inputs in 0..90_usize,
        outputs in 0..70_usize,
        one_in in 1..12_usize,
        relu in any::<bool>(),
    ) {
        for &set in dispatch::all() {
            check_dense(set, inputs, outputs, one_in, relu);
        }
    }

    #[test]
    fn convolutions(
        window in window(),
        (inputs, outputs) in (1..9_usize, 1..20_usize),
        (height, width) in (1..15_usize, 1..40_usize),
        one_in in 1..12_usize,
        relu in any::<bool>(),
    ) {
        let shape = Conv2dShape { images: 1, inputs, outputs, height, width, window };
        for &set in dispatch::all() {
            check_conv2d(set, shape, one_in, relu);
        }
    }

    #[test]
    fn normalizations(
        channels in 0..5_usize,
        pixels in prop_oneof![0..40_usize, 250..260_usize],
        nan in any::<prop::sample::Index>(),
    ) {
        let shape = BatchNormShape { images: 1, channels, pixels };
        let mut x = noise(5, shape.features());
        if !x.is_empty() {
            x[nan.index(shape.features())] = f32::NAN;
        }
        let [mean, inverse_deviation, gamma, beta] = [6, 7, 8, 9].map(|seed| noise(seed, channels));
        let normalization = Normalization {
            mean: &mean,
            inverse_deviation: &inverse_deviation,
            gamma: &gamma,
            beta: &beta,
        };
        for &set in dispatch::all() {
            let mut lanes = vec![f32::NAN; lanes_len(1, shape.features())];
            batch_norm::forward(set, shape, normalization, &packed(set, &x), &mut lanes);
            let expected: Vec<f32> = lanes.iter().copied().step_by(LANES).collect();
            let mut y = vec![0.5; shape.features()];
            single::batch_norm(set, shape, normalization, &x, &mut y);
            prop_assert_eq!(bits(&y), bits(&expected));
        }
    }

    #[test]
    fn poolings(
        window in window(),
        channels in 1..5_usize,
        (height, width) in (1..15_usize, 1..60_usize),
        nan in any::<prop::sample::Index>(),
    ) {
        let shape = PoolShape { images: 1, channels, height, width, window };
        let mut x = noise(4, shape.input_features());
        let nan = nan.index(x.len());
        for with_nan in [false, true] {
            if with_nan {
                x[nan] = f32::NAN;
            }
            let (largest, _) = naive::max_pool(&shape, &x);
            let means = naive::average_pool(&shape, &x);
            for &set in dispatch::all() {
                let mut y = vec![0.5; shape.output_features()];
                single::max_pool(set, &shape, &x, &mut y);
                prop_assert_eq!(bits(&y), bits(&largest));
                y.fill(0.5);
                single::average_pool(set, &shape, &x, &mut y);
                prop_assert_eq!(bits(&y), bits(&means));
            }
        }
    }
}
