use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::check::{Tolerance, assert_close_each, noise};
use crate::dispatch;
use crate::naive;
use crate::window::{Padding, Window};

/// What empty lanes of activations hold in these tests: finite, as promised, and large.
const EMPTY: f32 = 1e6;

fn exact(values: &[f32]) -> Vec<f64> {
    naive::convert(values)
}

/// The place in lanes of an element of row-major `[images][features]`.
fn position(element: usize, features: usize) -> usize {
    let (image, feature) = (element / features, element % features);
    (image / LANES * features + feature) * LANES + image % LANES
}

/// Row-major to lanes, empty ones filled.
fn lanes(images: usize, rows: &[f32], empty: f32) -> Vec<f32> {
    let features = rows.len().checked_div(images).unwrap_or(0);
    let mut lanes = vec![empty; lanes_len(images, features)];
    for (element, value) in rows.iter().enumerate() {
        lanes[position(element, features)] = *value;
    }
    lanes
}

/// The images of lanes, row-major.
fn rows<T: Copy>(images: usize, lanes: &[T]) -> Vec<T> {
    let features = lanes.len() / LANES / blocks(images).max(1);
    let element = |element| lanes[position(element, features)];
    (0..images * features).map(element).collect()
}

/// Holds the values of empty lanes to a condition.
fn check_empty(images: usize, lanes: &[f32], holds: impl Fn(f32) -> bool) {
    if !images.is_multiple_of(LANES) {
        let block = lanes.len() / blocks(images);
        for (place, &value) in lanes.iter().enumerate().skip(lanes.len() - block) {
            let is_empty = place % LANES >= images % LANES;
            assert!(!is_empty || holds(value), "empty lane holds {value}");
        }
    }
}

fn check_max(set: InstructionSet, shape: &PoolShape, x: &[f32]) {
    let images = shape.images;
    let (expected, expected_argmax) = naive::max_pool(shape, &exact(x));
    let input = lanes(images, x, EMPTY);
    let output_len = lanes_len(images, shape.output_features());
    let mut y = vec![f32::NAN; output_len];
    let mut argmax = vec![0xff; output_len];
    max_forward(set, shape, &input, &mut y, Some(&mut argmax));
    let tolerance = Tolerance::EXACT.nan_equals_nan();
    assert_close_each(&rows(images, &y), &expected, |_| tolerance);
    assert_eq!(rows(images, &argmax), expected_argmax, "{set:?} {shape:?}");
    check_empty(images, &y, |value| value == EMPTY);

    let mut alone = vec![0.0; output_len];
    max_forward(set, shape, &input, &mut alone, None);
    let same = alone
        .iter()
        .zip(&y)
        .all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same, "maxima depend on whether their places are wanted");

    let grad = noise(7, images * shape.output_features());
    let mut grad_input = vec![f32::NAN; input.len()];
    let grad_output = lanes(images, &grad, 0.0);
    max_backward(set, shape, &argmax, &grad_output, &mut grad_input);
    hold_gradient(
        shape,
        &grad_input,
        &naive::max_pool_backward(shape, &expected_argmax, &exact(&grad)),
        &naive::max_pool_backward(shape, &expected_argmax, &magnitudes(&grad)),
    );
}

fn magnitudes(values: &[f32]) -> Vec<f64> {
    exact(values).into_iter().map(f64::abs).collect()
}

/// Holds a gradient by the input to the exact one, and to zero in empty lanes. As many windows as
/// have places lie over a pixel at most.
fn hold_gradient(shape: &PoolShape, actual: &[f32], expected: &[f64], magnitude: &[f64]) {
    let terms = shape.window.kernel.iter().product();
    assert_close_each(&rows(shape.images, actual), expected, |at| {
        Tolerance::dot(terms, magnitude[at])
    });
    check_empty(shape.images, actual, |value| value == 0.0);
}

fn check_average(set: InstructionSet, shape: &PoolShape, x: &[f32]) {
    let images = shape.images;
    let input = lanes(images, x, EMPTY);
    let mut y = vec![f32::NAN; lanes_len(images, shape.output_features())];
    average_forward(set, shape, &input, &mut y);
    let magnitude = naive::average_pool(shape, &magnitudes(x));
    let terms = shape.window.kernel.iter().product();
    let expected = naive::average_pool(shape, &exact(x));
    assert_close_each(&rows(images, &y), &expected, |at| {
        Tolerance::dot(terms, magnitude[at])
    });
    check_empty(images, &y, f32::is_finite);

    let grad = noise(8, images * shape.output_features());
    let mut grad_input = vec![f32::NAN; input.len()];
    average_backward(set, shape, &lanes(images, &grad, 0.0), &mut grad_input);
    hold_gradient(
        shape,
        &grad_input,
        &naive::average_pool_backward(shape, &exact(&grad)),
        &naive::average_pool_backward(shape, &magnitudes(&grad)),
    );
}

/// Values with many ties.
fn coarse(seed: u64, len: usize) -> Vec<f32> {
    let mut values = noise(seed, len);
    for value in &mut values {
        *value = (*value * 3.0).round();
    }
    values
}

fn check_both(set: InstructionSet, shape: &PoolShape) {
    let len = shape.images * shape.input_features();
    check_max(set, shape, &coarse(1, len));
    check_max(set, shape, &noise(2, len));
    check_average(set, shape, &noise(3, len));
}

fn shape(images: usize, channels: usize, size: [usize; 2], window: Window) -> PoolShape {
    PoolShape {
        images,
        channels,
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

#[test]
fn matches_naive_at_every_edge() {
    for &set in dispatch::all() {
        let overlapping = window([2, 2], [1, 1], Padding::Valid);
        for images in [0, 1, 15, 16, 17, 33] {
            check_both(set, &shape(images, 3, [5, 4], overlapping));
        }
        check_both(set, &shape(2, 0, [5, 4], overlapping));
        for kernel in [[1, 1], [2, 2], [3, 3], [2, 3], [3, 1], [5, 4]] {
            for stride in [[1, 1], [2, 2], [3, 1], [4, 5]] {
                for padding in [Padding::Same, Padding::Valid] {
                    for size in [[1, 1], [2, 2], [3, 5], [6, 7]] {
                        check_both(set, &shape(2, 2, size, window(kernel, stride, padding)));
                    }
                }
            }
        }
    }
}

/// Tasks of one plane and of many, and the largest window that there is.
#[test]
fn matches_naive_where_tasks_meet() {
    for &set in dispatch::all() {
        let overlapping = window([2, 2], [1, 1], Padding::Valid);
        check_both(set, &shape(3, 5, [40, 33], overlapping));
        check_both(set, &shape(17, 70, [3, 3], overlapping));
        let largest = window([16, 16], [3, 5], Padding::Same);
        check_both(set, &shape(1, 1, [17, 19], largest));
        let column = window([256, 1], [1, 1], Padding::Same);
        check_both(set, &shape(1, 1, [9, 2], column));
        let column = window([1, 256], [1, 1], Padding::Valid);
        check_both(set, &shape(1, 1, [1, 257], column));
    }
}

#[test]
fn nothing_under_a_window_gives_no_gradient() {
    for &set in dispatch::all() {
        let too_large = shape(2, 1, [2, 2], window([3, 3], [1, 1], Padding::Valid));
        max_forward(set, &too_large, &[1.0; 64], &mut [], Some(&mut []));
        for backward in [
            |set, shape: &PoolShape, grad: &mut [f32]| max_backward(set, shape, &[], &[], grad),
            |set, shape: &PoolShape, grad: &mut [f32]| average_backward(set, shape, &[], grad),
        ] {
            let mut grad = [f32::NAN; 64];
            backward(set, &too_large, &mut grad);
            assert_eq!(grad, [0.0; 64]);
        }
    }
}

/// NaN and infinities at every place of a window, alone and with others.
#[test]
fn nan_is_never_hidden() {
    let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
    for &set in dispatch::all() {
        for kernel in [[2, 2], [3, 3], [2, 3]] {
            for padding in [Padding::Valid, Padding::Same] {
                let shape = shape(1, 1, [4, 4], window(kernel, [1, 1], padding));
                for first in 0..16 {
                    for second in 0..16 {
                        let mut x = coarse(4, 16);
                        x[second] = f32::INFINITY;
                        x[first] = nan;
                        check_max(set, &shape, &x);
                        x[second] = nan;
                        check_max(set, &shape, &x);
                    }
                }
                check_max(set, &shape, &[low; 16]);
                check_max(set, &shape, &[nan; 16]);
            }
        }
    }
}

/// Some rows of a block's gradient, into memory that holds no others.
struct Unpool<'a> {
    shape: &'a PoolShape,
    gradient: MaxGradient<'a>,
    rows: Range<usize>,
    grad_input: &'a mut [[f32; LANES]],
}

impl Kernel for Unpool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let target = (self.rows.clone(), self.grad_input);
        unpool_block(isa, self.shape, self.gradient, self.rows, target);
    }
}

#[test]
fn rows_alone_are_those_of_the_whole() {
    for &set in dispatch::all() {
        for (kernel, stride) in [([2, 2], [1, 1]), ([3, 3], [2, 1]), ([2, 3], [3, 2])] {
            let shape = shape(16, 3, [7, 6], window(kernel, stride, Padding::Same));
            let x = lanes(16, &coarse(8, 16 * shape.input_features()), 0.0);
            let output_len = lanes_len(16, shape.output_features());
            let (mut y, mut argmax) = (vec![0.0; output_len], vec![0; output_len]);
            max_forward(set, &shape, &x, &mut y, Some(&mut argmax));
            let mut whole = vec![f32::NAN; x.len()];
            max_backward(set, &shape, &argmax, &y, &mut whole);
            for rows in [0..2, 2..3, 3..7] {
                let len = rows.len() * shape.width * LANES;
                let mut actual = vec![f32::NAN; shape.channels * len];
                set.run(Unpool {
                    shape: &shape,
                    gradient: MaxGradient {
                        grad_output: y.as_chunks().0,
                        argmax: argmax.as_chunks().0,
                        rectified: None,
                    },
                    rows: rows.clone(),
                    grad_input: actual.as_chunks_mut().0,
                });
                let planes = whole.chunks_exact(shape.height * shape.width * LANES);
                let start = rows.start * shape.width * LANES;
                let expected = planes.flat_map(|plane| &plane[start..start + len]);
                assert!(actual.iter().eq(expected), "{set:?} {shape:?} {rows:?}");
            }
        }
    }
}

#[test]
fn relu_before_the_pooling_stops_the_gradient() {
    for &set in dispatch::all() {
        let shape = shape(16, 3, [5, 4], window([2, 2], [1, 1], Padding::Valid));
        let x = naive::relu(&coarse(5, 16 * shape.input_features()));
        let (maxima, argmax) = naive::max_pool(&shape, &x);
        let stopped = maxima.iter().filter(|&&y| y == 0.0).count();
        assert!(stopped > 10, "only {stopped} maxima are zero");
        let grad = noise(6, maxima.len());
        let passed = naive::relu_backward(&maxima, &grad);

        let mut y = vec![0.0; maxima.len()];
        let mut places = vec![0; maxima.len()];
        max_forward(
            set,
            &shape,
            &lanes(16, &x, EMPTY),
            &mut y,
            Some(&mut places),
        );
        let mut actual = vec![f32::NAN; x.len()];
        set.run(Unpool {
            shape: &shape,
            gradient: MaxGradient {
                grad_output: lanes(16, &grad, 0.0).as_chunks().0,
                argmax: places.as_chunks().0,
                rectified: Some(y.as_chunks().0),
            },
            rows: 0..shape.height,
            grad_input: actual.as_chunks_mut().0,
        });
        hold_gradient(
            &shape,
            &actual,
            &naive::max_pool_backward(&shape, &argmax, &exact(&passed)),
            &naive::max_pool_backward(&shape, &argmax, &magnitudes(&passed)),
        );
    }
}

#[test]
fn same_bits_at_any_thread_count() {
    let set = dispatch::active();
    let shape = shape(40, 9, [12, 12], window([3, 3], [1, 1], Padding::Same));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let x = lanes(40, &noise(1, 40 * shape.input_features()), 0.0);
            let (mut y, mut mean) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            let mut argmax = vec![0; x.len()];
            max_forward(set, &shape, &x, &mut y, Some(&mut argmax));
            average_forward(set, &shape, &x, &mut mean);
            let (mut grad, mut spread) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            max_backward(set, &shape, &argmax, &y, &mut grad);
            average_backward(set, &shape, &mean, &mut spread);
            (y, argmax, mean, grad, spread)
        })
    };
    let alone = run(1);
    for threads in [2, 5] {
        assert!(run(threads) == alone, "{threads} threads");
    }
}

#[test]
#[should_panic(expected = "a window of 17 × 16 places, where a maximum is taken of at most 256")]
fn a_place_is_a_byte() {
    let shape = shape(1, 1, [20, 20], window([17, 16], [1, 1], Padding::Same));
    let (x, mut y) = ([0.0; 6400], [0.0; 6400]);
    max_forward(dispatch::active(), &shape, &x, &mut y, None);
}

proptest! {
    #[test]
    fn matches_naive(
        (images, channels) in (0..20_usize, 1..4_usize),
        size in [1..9_usize, 1..9_usize],
        kernel in [1..6_usize, 1..6_usize],
        stride in [1..5_usize, 1..5_usize],
        same in any::<bool>(),
    ) {
        let padding = if same { Padding::Same } else { Padding::Valid };
        let shape = shape(images, channels, size, window(kernel, stride, padding));
        for &set in dispatch::all() {
            check_both(set, &shape);
        }
    }
}
