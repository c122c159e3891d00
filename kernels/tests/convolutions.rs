//! Every convolution against the naive reference in f64, on every instruction set of the machine.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};
use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::conv2d::{self, Conv2dShape, Gradients, MaxPooled, Recorded};
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::in_place::InPlace;
use taskweave_kernels::lanes::{LANES, lanes_len};
use taskweave_kernels::naive::{self, PoolShape};
use taskweave_kernels::window::{Padding, Window};

mod common;
use common::{exact, packed, unpacked};

fn magnitudes(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value).abs()).collect()
}

/// Holds `actual` to `expected`, each value within the bound of a sum of so many products.
fn hold(actual: &[f32], expected: &[f64], magnitude: &[f64], terms: usize) {
    assert_close_each(actual, expected, |at| Tolerance::dot(terms, magnitude[at]));
}

/// Fills the empty lanes of an input with what they may hold: anything finite.
fn fill_empty_lanes(lanes: &mut [f32], images: usize) {
    let used = images % LANES;
    if used > 0 {
        let last_block = lanes.len() - lanes.len() / images.div_ceil(LANES);
        for vector in lanes[last_block..].chunks_exact_mut(LANES) {
            vector[used..].fill(1e6);
        }
    }
}

fn check(set: InstructionSet, shape: &Conv2dShape, relu: bool) {
    let images = shape.images;
    let x = noise(1, images * shape.input_features());
    let weights = noise(2, shape.weights());
    let bias = noise(3, shape.outputs);
    let activation = if relu {
        Activation::Relu
    } else {
        Activation::Linear
    };
    let mut x_lanes = packed(set, images, &x);
    fill_empty_lanes(&mut x_lanes, images);
    let output_len = lanes_len(images, shape.output_features());

    let mut y_lanes = vec![f32::NAN; output_len];
    let layer = Affine {
        weights: &weights,
        bias: Some(&bias),
        activation,
    };
    conv2d::forward(set, shape, layer, &x_lanes, &mut y_lanes);
    let terms = shape.window.kernel.iter().product::<usize>() * shape.inputs;
    let mut expected = naive::conv2d(shape, &exact(&x), &exact(&weights), &exact(&bias));
    let magnitude = naive::conv2d(
        shape,
        &magnitudes(&x),
        &magnitudes(&weights),
        &magnitudes(&bias),
    );
    if relu {
        expected = naive::relu(&expected);
    }
    let y = unpacked(set, images, &y_lanes, shape.output_features());
    hold(&y, &expected, &magnitude, terms);
    assert!(y_lanes.iter().all(|value| value.is_finite()));

    let grad_output = noise(4, images * shape.output_features());
    let grad = if relu {
        naive::relu_backward(&y, &grad_output)
    } else {
        grad_output.clone()
    };
    let mut grad_x = vec![f32::NAN; x_lanes.len()];
    let mut grad_weights = vec![f32::NAN; weights.len()];
    let mut grad_bias = vec![f32::NAN; bias.len()];
    let recorded = Recorded {
        x: &x_lanes,
        weights: &weights,
        y: &y_lanes,
        activation,
        max_pool: None,
    };
    let grad_lanes = packed(set, images, &grad_output);
    let gradients = Gradients {
        input: Some(&mut grad_x),
        weights: Some(&mut grad_weights),
        bias: Some(&mut grad_bias),
    };
    conv2d::backward(set, shape, recorded, &grad_lanes, gradients);

    let terms = shape.window.kernel.iter().product::<usize>() * shape.outputs;
    hold(
        &unpacked(set, images, &grad_x, shape.input_features()),
        &naive::conv2d_grad_input(shape, &exact(&grad), &exact(&weights)),
        &naive::conv2d_grad_input(shape, &magnitudes(&grad), &magnitudes(&weights)),
        terms,
    );
    let pixels = images * shape.output().iter().product::<usize>();
    hold(
        &grad_weights,
        &naive::conv2d_grad_weights(shape, &exact(&x), &exact(&grad)),
        &naive::conv2d_grad_weights(shape, &magnitudes(&x), &magnitudes(&grad)),
        pixels,
    );
    hold(
        &grad_bias,
        &naive::conv2d_grad_bias(shape, &exact(&grad)),
        &naive::conv2d_grad_bias(shape, &magnitudes(&grad)),
        pixels,
    );

    let mut alone = vec![f32::NAN; weights.len()];
    let gradients = Gradients {
        weights: Some(&mut alone),
        ..Gradients::default()
    };
    conv2d::backward(set, shape, recorded, &grad_lanes, gradients);
    assert_eq!(
        alone, grad_weights,
        "a gradient depends on which others are wanted"
    );

    for rectified in [false, true] {
        let mut in_place = x_lanes.clone();
        let input = InPlace {
            x: &mut in_place,
            rectified,
        };
        let gradients = Gradients {
            weights: Some(&mut alone),
            ..Gradients::default()
        };
        let recorded = Recorded { x: &[], ..recorded };
        conv2d::backward_in_place(set, shape, recorded, input, &grad_lanes, gradients);
        let expected = if rectified {
            naive::relu_backward(&x_lanes, &grad_x)
        } else {
            grad_x.clone()
        };
        assert_eq!(in_place, expected);
        assert_eq!(alone, grad_weights);
    }
}

static ONE_THREAD: LazyLock<ThreadPool> = LazyLock::new(|| pool_of(1));
static MANY_THREADS: LazyLock<ThreadPool> = LazyLock::new(|| pool_of(3));

fn pool_of(threads: usize) -> ThreadPool {
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    pool.expect("a few threads")
}

/// A convolution with pooling is the convolution, then pooling of what it gave.
fn check_pooled(set: InstructionSet, shape: &Conv2dShape, pool: Window, relu: bool) {
    let size = shape.output();
    let pooled_plane: usize = pool.output(size).iter().product();
    if pooled_plane == 0 {
        return;
    }
    let images = shape.images;
    let x = packed(set, images, &noise(1, images * shape.input_features()));
    let (weights, bias) = (noise(2, shape.weights()), noise(3, shape.outputs));
    let activation = if relu {
        Activation::Relu
    } else {
        Activation::Linear
    };
    let layer = Affine {
        weights: &weights,
        bias: Some(&bias),
        activation,
    };
    let features = shape.outputs * pooled_plane;
    let mut y = vec![f32::NAN; lanes_len(images, features)];
    let mut argmax = vec![0; y.len()];
    conv2d::forward_max_pool(set, shape, layer, pool, &x, &mut y, None);
    // Whole blocks, and the two apart where threads outnumber them.
    let [one, many] = [&ONE_THREAD, &MANY_THREADS].map(|threads| {
        let (mut y, mut argmax) = (vec![f32::NAN; y.len()], vec![0; y.len()]);
        let places = Some(&mut argmax[..]);
        threads.install(|| conv2d::forward_max_pool(set, shape, layer, pool, &x, &mut y, places));
        (y, argmax)
    });
    assert_eq!(one, many, "by one thread, and by many");
    assert_eq!(y, one.0, "with the places");
    argmax.copy_from_slice(&one.1);
    let mut before = vec![f32::NAN; lanes_len(images, shape.output_features())];
    conv2d::forward(set, shape, layer, &x, &mut before);
    let rows = unpacked(set, images, &before, shape.output_features());
    let pool_shape = PoolShape {
        images,
        channels: shape.outputs,
        height: size[0],
        width: size[1],
        window: pool,
    };
    let (maxima, places) = naive::max_pool(&pool_shape, &exact(&rows));
    assert_close_each(&unpacked(set, images, &y, features), &maxima, |_| {
        Tolerance::EXACT
    });

    // The gradient of the unpooled output, by hand, then through the convolution alone.
    let grad_output = noise(4, images * features);
    let passes = |(&maximum, &grad): (&f64, &f32)| if relu && maximum <= 0.0 { 0.0 } else { grad };
    let gated: Vec<f32> = maxima.iter().zip(&grad_output).map(passes).collect();
    let grad = naive::max_pool_backward(&pool_shape, &places, &gated);
    let run = |max_pool, y: &[f32], grad_output: &[f32]| {
        let recorded = Recorded {
            x: &x,
            weights: &weights,
            y,
            activation: if max_pool {
                activation
            } else {
                Activation::Linear
            },
            max_pool: max_pool.then_some(MaxPooled {
                window: pool,
                argmax: &argmax,
            }),
        };
        let mut grads = (
            vec![0.0; x.len()],
            vec![0.0; weights.len()],
            vec![0.0; shape.outputs],
        );
        let gradients = Gradients {
            input: Some(&mut grads.0),
            weights: Some(&mut grads.1),
            bias: Some(&mut grads.2),
        };
        let grad_lanes = packed(set, images, grad_output);
        conv2d::backward(set, shape, recorded, &grad_lanes, gradients);
        grads
    };
    let fused = run(true, &y, &grad_output);
    let apart = run(false, &before, &grad);
    // Overlapping windows may add up in another order.
    let tolerance = |values: &[f32]| {
        let largest = values.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
        Tolerance::absolute(1e-5 * f64::from(largest))
    };
    for (fused, apart) in [
        (&fused.0, &apart.0),
        (&fused.1, &apart.1),
        (&fused.2, &apart.2),
    ] {
        assert_close_each(fused, apart, |_| tolerance(apart));
    }
}

#[test]
fn pooling_behind_a_convolution_is_pooling_of_what_it_gives() {
    let same = window([3, 3], [1, 1], Padding::Same);
    for &set in dispatch::all() {
        for (kernel, stride) in [
            ([2, 2], [1, 1]),
            ([2, 2], [2, 2]),
            ([3, 2], [2, 3]),
            ([1, 1], [3, 2]),
            ([5, 5], [1, 1]),
        ] {
            for padding in [Padding::Same, Padding::Valid] {
                let pool = window(kernel, stride, padding);
                for (images, channels, size) in [
                    (1, [1, 9], [5, 6]),
                    (17, [3, 2], [7, 4]),
                    (2, [16, 17], [10, 6]),
                    (0, [16, 16], [4, 4]),
                    (0, [1, 1], [3, 3]),
                ] {
                    check_pooled(set, &shape(images, channels, size, same), pool, images != 1);
                }
            }
        }
    }
}

fn shape(images: usize, channels: [usize; 2], size: [usize; 2], window: Window) -> Conv2dShape {
    Conv2dShape {
        images,
        inputs: channels[0],
        outputs: channels[1],
        height: size[0],
        width: size[1],
        window,
    }
}

fn window(kernel: [usize; 2], stride: [usize; 2], padding: Padding) -> Window {
    Window {
        kernel,
        stride,
        padding,
    }
}

/// Images around a block, channels around the tiles, pixels around a strip of three, larger kernels.
fn shapes() -> Vec<Conv2dShape> {
    let same = window([3, 3], [1, 1], Padding::Same);
    let mut shapes = Vec::new();
    for images in [0, 1, 15, 16, 17, 33] {
        shapes.push(shape(images, [3, 5], [5, 6], same));
    }
    for channels in [1, 2, 6, 7, 8, 9, 16, 17] {
        shapes.push(shape(3, [channels, 4], [4, 4], same));
        shapes.push(shape(3, [3, channels], [4, 4], same));
    }
    for size in 1..=9 {
        shapes.push(shape(2, [2, 9], [size, 4], same));
        shapes.push(shape(2, [2, 9], [4, size], same));
    }
    // Few results, the tiles of which are more pixels wide: every remainder of a row.
    for width in 8..=18 {
        shapes.push(shape(2, [2, 3], [3, width], same));
    }
    for (kernel, stride) in [
        ([1, 1], [1, 1]),
        ([1, 1], [2, 3]),
        ([2, 2], [1, 1]),
        ([3, 2], [2, 1]),
        ([5, 5], [2, 2]),
        ([7, 6], [1, 1]),
        ([2, 3], [3, 4]),
    ] {
        for padding in [Padding::Same, Padding::Valid] {
            shapes.push(shape(17, [2, 3], [8, 9], window(kernel, stride, padding)));
            shapes.push(shape(2, [2, 3], [2, 2], window(kernel, stride, padding)));
        }
    }
    // Channels for Winograd's transforms on both sides, but other windows.
    for (kernel, stride) in [([5, 5], [1, 1]), ([3, 3], [2, 1]), ([1, 1], [1, 1])] {
        let window = window(kernel, stride, Padding::Same);
        shapes.push(shape(3, [16, 17], [6, 5], window));
    }
    // More blocks than parts of a sum: some part has several.
    for channels in [[1, 2], [16, 16]] {
        shapes.push(shape(530, channels, [3, 2], same));
    }
    shapes
}

#[test]
fn convolutions_match_naive_on_every_set() {
    let mut covered = BTreeSet::new();
    for &set in dispatch::all() {
        for (index, shape) in shapes().iter().enumerate() {
            check(set, shape, index % 2 == 0);
        }
        covered.insert(set.name());
    }
    let present: BTreeSet<&str> = dispatch::all().iter().map(|set| set.name()).collect();
    assert_eq!(covered, present, "a set of this machine was not run");
}

#[test]
fn the_same_numbers_at_any_number_of_threads() {
    let set = dispatch::active();
    let shape = shape(70, [3, 10], [7, 7], window([3, 3], [1, 1], Padding::Same));
    let run = |threads: usize| {
        pool_of(threads).install(|| {
            let x = packed(set, 70, &noise(1, 70 * shape.input_features()));
            let weights = noise(2, shape.weights());
            let layer = Affine {
                weights: &weights,
                bias: None,
                activation: Activation::Relu,
            };
            let mut y = vec![0.0; lanes_len(70, shape.output_features())];
            conv2d::forward(set, &shape, layer, &x, &mut y);
            let recorded = Recorded {
                x: &x,
                weights: &weights,
                y: &y,
                activation: Activation::Relu,
                max_pool: None,
            };
            let mut grads = (vec![0.0; x.len()], vec![0.0; weights.len()], vec![0.0; 10]);
            let gradients = Gradients {
                input: Some(&mut grads.0),
                weights: Some(&mut grads.1),
                bias: Some(&mut grads.2),
            };
            conv2d::backward(set, &shape, recorded, &y, gradients);
            (y.clone(), grads)
        })
    };
    let alone = run(1);
    for threads in [2, 3, 8] {
        assert!(run(threads) == alone, "{threads} threads");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_convolution_matches_naive(
        images in 1..20_usize,
        channels in [1..11_usize, 1..11_usize],
        size in [1..11_usize, 1..11_usize],
        kernel in [1..6_usize, 1..6_usize],
        stride in [1..4_usize, 1..4_usize],
        (same, relu) in any::<(bool, bool)>(),
    ) {
        let padding = if same { Padding::Same } else { Padding::Valid };
        let shape = shape(images, channels, size, window(kernel, stride, padding));
        for &set in dispatch::all() {
            check(set, &shape, relu);
        }
    }
}
