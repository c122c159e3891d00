//! Sparse kernels against the masked dense references, at every density, on every instruction set.

use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::conv2d::{self, Conv2dShape};
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::in_place::InPlace;
use taskweave_kernels::lanes::{LANES, lanes_len, pack};
use taskweave_kernels::naive::{self, DenseShape};
use taskweave_kernels::sparse::{self, Pattern};
use taskweave_kernels::window::{Padding, Window};

#[path = "../masks/mod.rs"]
mod masks;
mod pooled;

use masks::{magnitudes, masked};

/// Shares of the positions that are owned; the second stands for a single one.
const DENSITIES: [f64; 7] = [0.0, -1.0, 0.01, 0.1, 0.2, 0.5, 1.0];

/// A mask of so many positions, the same every time.
fn mask(len: usize, density: f64) -> Vec<u8> {
    if density < 0.0 {
        let mut owned = vec![0; len];
        if let Some(owned) = owned.get_mut(len / 2) {
            *owned = 1;
        }
        return owned;
    }
    let chance = |value: f32| u8::from(f64::from(value).abs() < density);
    noise(77, len).into_iter().map(chance).collect()
}

/// Rows in lanes, empty lanes filled with what an input may hold there: anything finite.
fn packed(set: InstructionSet, images: usize, rows: &[f32], empty: f32) -> Vec<f32> {
    let features = rows.len().checked_div(images).unwrap_or(0);
    let mut lanes = vec![f32::NAN; lanes_len(images, features)];
    pack(set, images, features, rows, &mut lanes);
    let used = images % LANES;
    if used > 0 {
        let last = lanes.len() - features * LANES;
        for vector in lanes[last..].chunks_exact_mut(LANES) {
            vector[used..].fill(empty);
        }
    }
    lanes
}

/// Holds every value to a sum of at most so many products.
fn hold(actual: &[f32], expected: &[f64], magnitude: &[f64], terms: usize) {
    assert_close_each(actual, expected, |at| Tolerance::dot(terms, magnitude[at]));
}

fn check_dense(set: InstructionSet, shape: DenseShape, density: f64) {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    let owned = mask(inputs * outputs, density);
    let pattern = Pattern::dense(set, [inputs, outputs], &owned);
    let count = owned.iter().filter(|&&owned| owned == 1).count();
    assert_eq!(pattern.len(), count);
    let weights = masked(&noise(1, inputs * outputs), &owned);
    let mut values = vec![f32::NAN; pattern.len()];
    pattern.gather(&weights, &mut values);
    let (x, bias) = (noise(2, images * inputs), noise(3, outputs));
    let grad = noise(4, images * outputs);

    let expected = naive::dense(
        shape,
        &naive::convert(&x),
        &naive::convert(&weights),
        &naive::convert(&bias),
    );
    let magnitude = naive::dense(
        shape,
        &magnitudes(&x),
        &magnitudes(&weights),
        &magnitudes(&bias),
    );
    for activation in [Activation::Linear, Activation::Relu] {
        let layer = Affine {
            weights: &values,
            bias: Some(&bias),
            activation,
        };
        let mut y = vec![f32::NAN; images * outputs];
        sparse::dense::forward_rows(set, &pattern, images, layer, &x, &mut y);
        let expected: Vec<f64> = match activation {
            Activation::Linear => expected.clone(),
            Activation::Relu => naive::relu(&expected),
        };
        hold(&y, &expected, &magnitude, inputs + 1);
    }

    let mut grad_x = vec![f32::NAN; images * inputs];
    sparse::dense::grad_input_rows(set, &pattern, images, &grad, &values, &mut grad_x);
    let of = |grad: &[f64], weights: &[f64]| naive::dense_grad_input(shape, grad, weights);
    let expected = of(&naive::convert(&grad), &naive::convert(&weights));
    let magnitude = of(&magnitudes(&grad), &magnitudes(&weights));
    hold(&grad_x, &expected, &magnitude, outputs);

    let mut grad_values = vec![f32::NAN; pattern.len()];
    let x_lanes = packed(set, images, &x, 1e6);
    let grad_lanes = packed(set, images, &grad, 0.0);
    sparse::dense::grad_values(
        set,
        &pattern,
        images,
        &x_lanes,
        &grad_lanes,
        &mut grad_values,
    );
    let mut by_rows = vec![f32::NAN; pattern.len()];
    sparse::dense::grad_values_rows(set, &pattern, images, &x, &grad, &mut by_rows);
    assert_eq!(by_rows, grad_values);
    let of = |x: &[f64], grad: &[f64]| naive::dense_grad_weights(shape, x, grad);
    let expected = of(&naive::convert(&x), &naive::convert(&grad));
    let magnitude = of(&magnitudes(&x), &magnitudes(&grad));
    let at_positions = |whole: &[f64]| -> Vec<f64> {
        let positions = pattern.positions().iter();
        positions.map(|&at| whole[at as usize]).collect()
    };
    hold(
        &grad_values,
        &at_positions(&expected),
        &at_positions(&magnitude),
        images,
    );
}

#[test]
fn dense_layers_match_naive() {
    let sizes = [
        [0, 3, 4],
        [3, 0, 4],
        [3, 4, 0],
        [1, 1, 1],
        [15, 7, 9],
        [16, 130, 3],
        [17, 3, 130],
        [100, 61, 67],
        [130, 33, 20],
        // A sum that is cut into parts.
        [20, 5_000, 3],
        // Whole tiles of blocks, several of them, in several chunks of inputs.
        [530, 130, 90],
    ];
    for &set in dispatch::all() {
        for [images, inputs, outputs] in sizes {
            let shape = DenseShape {
                images,
                inputs,
                outputs,
            };
            for density in DENSITIES {
                check_dense(set, shape, density);
            }
        }
    }
}

#[test]
fn layers_that_no_cache_holds_match_naive() {
    let cases = [
        // The gradient of the input is written past the caches.
        ([16, 530_000, 2], 0.01),
        // Over 8 MB of features, in a whole tile of eight blocks of images and one more.
        ([140, 15_000, 7], 0.05),
    ];
    for &set in dispatch::all() {
        for ([images, inputs, outputs], density) in cases {
            let shape = DenseShape {
                images,
                inputs,
                outputs,
            };
            check_dense(set, shape, density);
        }
    }
}

fn check_conv2d(set: InstructionSet, shape: &Conv2dShape, density: f64) {
    let images = shape.images;
    let owned = mask(shape.weights(), density);
    let channels = [shape.inputs, shape.outputs];
    let pattern = Pattern::conv2d(set, shape.window, channels, &owned);
    let weights = masked(&noise(1, shape.weights()), &owned);
    let mut values = vec![f32::NAN; pattern.len()];
    pattern.gather(&weights, &mut values);
    let x = noise(2, images * shape.input_features());
    let bias = noise(3, shape.outputs);
    let grad = noise(4, images * shape.output_features());
    let [height, width] = shape.window.kernel;

    let of = |x: &[f64], weights: &[f64], bias: &[f64]| naive::conv2d(shape, x, weights, bias);
    let expected = of(
        &naive::convert(&x),
        &naive::convert(&weights),
        &naive::convert(&bias),
    );
    let magnitude = of(&magnitudes(&x), &magnitudes(&weights), &magnitudes(&bias));
    let layer = Affine {
        weights: &values,
        bias: Some(&bias),
        activation: Activation::Relu,
    };
    let mut y = vec![f32::NAN; images * shape.output_features()];
    sparse::conv2d::forward_rows(set, &pattern, shape, layer, &x, &mut y);
    let terms = height * width * shape.inputs;
    hold(&y, &naive::relu(&expected), &magnitude, terms + 1);

    let mut grad_x = vec![f32::NAN; images * shape.input_features()];
    sparse::conv2d::grad_input_rows(set, &pattern, shape, &grad, &values, &mut grad_x);
    let of = |grad: &[f64], weights: &[f64]| naive::conv2d_grad_input(shape, grad, weights);
    let expected = of(&naive::convert(&grad), &naive::convert(&weights));
    let magnitude = of(&magnitudes(&grad), &magnitudes(&weights));
    hold(
        &grad_x,
        &expected,
        &magnitude,
        height * width * shape.outputs,
    );

    let x_lanes = packed(set, images, &x, 1e6);
    let grad_lanes = packed(set, images, &grad, 0.0);
    let mut grad_values = vec![f32::NAN; pattern.len()];
    sparse::conv2d::grad_values(
        set,
        &pattern,
        shape,
        &x_lanes,
        &grad_lanes,
        &mut grad_values,
    );
    let mut by_rows = vec![f32::NAN; pattern.len()];
    sparse::conv2d::grad_values_rows(set, &pattern, shape, &x, &grad, &mut by_rows);
    assert_eq!(by_rows, grad_values);
    let of = |x: &[f64], grad: &[f64]| naive::conv2d_grad_weights(shape, x, grad);
    let expected = of(&naive::convert(&x), &naive::convert(&grad));
    let magnitude = of(&magnitudes(&x), &magnitudes(&grad));
    let at_positions = |whole: &[f64]| -> Vec<f64> {
        let positions = pattern.positions().iter();
        positions.map(|&at| whole[at as usize]).collect()
    };
    let [rows, columns] = shape.output();
    hold(
        &grad_values,
        &at_positions(&expected),
        &at_positions(&magnitude),
        images * rows * columns,
    );
    check_backward(
        set,
        (&pattern, shape),
        &values,
        [&x_lanes, &grad_lanes],
        &grad_values,
    );
}

/// All gradients together are those that are computed one by one, also where that of the input takes its
/// place.
fn check_backward(
    set: InstructionSet,
    (pattern, shape): (&Pattern, &Conv2dShape),
    values: &[f32],
    [x, grad]: [&[f32]; 2],
    expected_values: &[f32],
) {
    let mut expected_x = vec![f32::NAN; x.len()];
    sparse::conv2d::grad_input(set, pattern, shape, grad, values, &mut expected_x);
    let mut expected_bias = vec![f32::NAN; shape.outputs];
    conv2d::grad_bias(set, shape, grad, &mut expected_bias);
    let check = |input: sparse::conv2d::Input<'_>| {
        let mut grad_values = vec![f32::NAN; values.len()];
        let mut grad_bias = vec![f32::NAN; shape.outputs];
        let gradients = sparse::conv2d::Gradients {
            values: Some(&mut grad_values),
            bias: Some(&mut grad_bias),
        };
        let layer = (pattern, shape);
        sparse::conv2d::backward(set, layer, (input, values), grad, gradients);
        assert_eq!(grad_values, expected_values);
        assert_eq!(grad_bias, expected_bias);
    };
    check(sparse::conv2d::Input::Kept { x, grad: None });
    let mut grad_x = vec![f32::NAN; x.len()];
    let target = Some(&mut grad_x[..]);
    check(sparse::conv2d::Input::Kept { x, grad: target });
    assert_eq!(grad_x, expected_x);
    for rectified in [false, true] {
        let mut replaced = x.to_vec();
        let input = InPlace {
            x: &mut replaced,
            rectified,
        };
        check(sparse::conv2d::Input::Replaced(input));
        assert_eq!(replaced, replacement(x, &expected_x, rectified));
    }
}

/// What takes the place of an input: its gradient, but zero where a rectified one is not positive.
fn replacement(x: &[f32], grad_x: &[f32], rectified: bool) -> Vec<f32> {
    let is_left = |x: f32| !rectified || x > 0.0;
    let expected = x.iter().zip(grad_x);
    expected
        .map(|(&x, &grad)| if is_left(x) { grad } else { 0.0 })
        .collect()
}

fn window(kernel: [usize; 2], stride: [usize; 2], padding: Padding) -> Window {
    Window {
        kernel,
        stride,
        padding,
    }
}

/// Images, channels, rows and columns, window.
fn shapes() -> Vec<Conv2dShape> {
    let same = window([3, 3], [1, 1], Padding::Same);
    [
        (1, [1, 1], [1, 1], same),
        (0, [2, 3], [4, 4], same),
        (17, [3, 2], [5, 8], same),
        (2, [21, 19], [7, 14], same),
        (16, [2, 5], [6, 15], window([3, 3], [1, 1], Padding::Valid)),
        (3, [2, 3], [7, 9], window([3, 2], [2, 1], Padding::Same)),
        (3, [3, 2], [9, 8], window([2, 3], [2, 3], Padding::Valid)),
        (4, [5, 6], [3, 4], window([1, 1], [1, 1], Padding::Valid)),
        (4, [2, 2], [5, 6], window([1, 1], [2, 2], Padding::Same)),
        (1, [2, 2], [3, 3], window([5, 5], [1, 1], Padding::Same)),
        // Windows that are larger than the image.
        (2, [2, 3], [2, 5], window([3, 3], [1, 1], Padding::Valid)),
        (2, [2, 3], [5, 2], window([3, 3], [1, 1], Padding::Valid)),
    ]
    .map(
        |(images, [inputs, outputs], [height, width], window)| Conv2dShape {
            images,
            inputs,
            outputs,
            height,
            width,
            window,
        },
    )
    .into()
}

#[test]
fn convolutions_match_naive() {
    for &set in dispatch::all() {
        for shape in shapes() {
            for density in DENSITIES {
                check_conv2d(set, &shape, density);
            }
        }
    }
}

#[test]
fn results_are_the_same_on_any_number_of_threads() {
    let set = dispatch::active();
    let shape = Conv2dShape {
        images: 50,
        inputs: 16,
        outputs: 24,
        height: 9,
        width: 9,
        window: window([3, 3], [1, 1], Padding::Same),
    };
    let owned = mask(shape.weights(), 0.2);
    let pattern = Pattern::conv2d(set, shape.window, [16, 24], &owned);
    let values = noise(1, pattern.len());
    let x = noise(2, lanes_len(50, shape.input_features()));
    let grad = noise(3, lanes_len(50, shape.output_features()));
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let layer = Affine {
                weights: &values,
                bias: None,
                activation: Activation::Linear,
            };
            let mut y = vec![f32::NAN; grad.len()];
            sparse::conv2d::forward(set, &pattern, &shape, layer, &x, &mut y);
            let mut grad_values = vec![f32::NAN; pattern.len()];
            sparse::conv2d::grad_values(set, &pattern, &shape, &x, &grad, &mut grad_values);
            (y, grad_values)
        })
    };
    let one = on(1);
    assert_eq!(on(2), one);
    assert_eq!(on(5), one);
}
