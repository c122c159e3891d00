use proptest::prelude::*;

use super::parts::PART_VECTORS;
use super::*;
use crate::check::{Tolerance, assert_close, assert_close_each, noise};
use crate::dispatch;
use crate::lanes::blocks;
use crate::naive;

/// What empty lanes of activations hold in these tests: finite, as promised, and large.
const EMPTY: f32 = 1e6;

const EPSILON: f32 = 1e-3;

/// The unit roundoff of f32.
const ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

fn exact(values: &[f32]) -> Vec<f64> {
    naive::convert(values)
}

fn lanes(shape: BatchNormShape, rows: &[f32], empty: f32) -> Vec<f32> {
    let features = shape.features();
    let mut lanes = vec![empty; lanes_len(shape.images, features)];
    for (element, value) in rows.iter().enumerate() {
        lanes[position(shape, element)] = *value;
    }
    lanes
}

fn rows(shape: BatchNormShape, lanes: &[f32]) -> Vec<f32> {
    let elements = 0..shape.images * shape.features();
    elements
        .map(|element| lanes[position(shape, element)])
        .collect()
}

fn position(shape: BatchNormShape, element: usize) -> usize {
    let (image, feature) = (element / shape.features(), element % shape.features());
    (image / LANES * shape.features() + feature) * LANES + image % LANES
}

/// The values of empty lanes.
fn empty(shape: BatchNormShape, lanes: &[f32]) -> Vec<f32> {
    let first = (shape.images / LANES) * shape.features() * LANES;
    let places = first..lanes.len();
    places
        .filter(|place| place % LANES >= shape.images % LANES)
        .map(|place| lanes[place])
        .collect()
}

/// Vectors that one lane of a part sums, and the fifteen other lanes: the length of its chain of
/// sums.
fn chain(shape: BatchNormShape) -> f64 {
    let part = Parts::new(shape).blocks.min(blocks(shape.images)) * shape.pixels;
    (part + LANES) as f64
}

/// The statistics of both in f32, checked, with values of about `offset` ± 1.
fn check_statistics(set: InstructionSet, shape: BatchNormShape, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let largest = x.iter().fold(0.0, |largest, x| x.abs().max(largest));
    let (mut mean, mut variance) = (
        vec![f32::NAN; shape.channels],
        vec![f32::NAN; shape.channels],
    );
    let input = lanes(shape, x, f32::NAN);
    statistics(set, shape, &input, &mut mean, &mut variance);
    let (expected_mean, expected_variance) = naive::batch_statistics(shape, &exact(x));
    // The sum is off by chain · largest / 2^24 before it is corrected by sums of small distances,
    // and every number is rounded twice more.
    let off = chain(shape) * ROUNDOFF * f64::from(largest);
    let reach = 2.0 * f64::from(largest).min(1.0) + off;
    let mean_bound = chain(shape) * ROUNDOFF * reach + 2.0 * ROUNDOFF * f64::from(largest);
    assert_close(&mean, &expected_mean, Tolerance::absolute(mean_bound));
    // A sum of squares of distances from a mean that is off: relative to itself, and to that
    // square.
    let share = (chain(shape) + 8.0) * ROUNDOFF;
    let bound = Tolerance::relative(share).plus(Tolerance::absolute(4.0 * share * off * off));
    assert_close(&variance, &expected_variance, bound.plus(TINY));
    (mean, variance)
}

/// Below what the squares of the tests' values can tell.
const TINY: Tolerance = Tolerance::absolute(1e-13);

fn check_normalization_of(
    set: InstructionSet,
    shape: BatchNormShape,
    x: &[f32],
    (mean, variance): (&[f32], &[f32]),
) {
    let mut inverse = vec![f32::NAN; shape.channels];
    inverse_deviation(variance, EPSILON, &mut inverse);
    let expected = naive::inverse_deviation(&exact(variance), f64::from(EPSILON));
    assert_close(&inverse, &expected, Tolerance::roundings(1));

    let (gamma, beta) = (noise(11, shape.channels), noise(12, shape.channels));
    let normalization = Normalization {
        mean,
        inverse_deviation: &inverse,
        gamma: &gamma,
        beta: &beta,
    };
    let wide = [mean, &inverse, &gamma, &beta].map(exact);
    let naive_normalization = Normalization {
        mean: &wide[0],
        inverse_deviation: &wide[1],
        gamma: &wide[2],
        beta: &wide[3],
    };
    let input = lanes(shape, x, EMPTY);
    let mut y = vec![f32::NAN; input.len()];
    forward(set, shape, normalization, &input, &mut y);
    let channel = |at: usize| at / shape.pixels % shape.channels;
    let scale = |at: usize| wide[1][channel(at)] * wide[2][channel(at)].abs();
    let distance = |at: usize| (f64::from(x[at]) - wide[0][channel(at)]).abs();
    let expected = naive::batch_norm(shape, naive_normalization, &exact(x));
    // Rounded: the distance, the scale, their product and the sum.
    assert_close_each(&rows(shape, &y), &expected, |at| {
        Tolerance::dot(2, distance(at) * scale(at) + wide[3][channel(at)].abs())
    });
    assert!(empty(shape, &y).iter().all(|value| value.is_finite()));

    let grad = noise(13, x.len());
    let grad_output = lanes(shape, &grad, 0.0);
    let expected = naive::batch_norm_backward(shape, naive_normalization, &exact(x), &exact(&grad));
    let count = shape.count().max(1) as f64;
    // What sums of so many products may be off, and how large their terms are, by channel.
    let terms = shape
        .count()
        .min(Parts::new(shape).blocks * shape.pixels * LANES)
        + 4;
    let mut sizes = vec![[0.0; 2]; shape.channels];
    for (at, grad) in grad.iter().enumerate() {
        let [gamma, beta] = &mut sizes[channel(at)];
        *gamma += distance(at) * wide[1][channel(at)] * f64::from(grad.abs());
        *beta += f64::from(grad.abs());
    }
    for statistics in [Statistics::Batch, Statistics::Given] {
        let recorded = Recorded {
            x: &input,
            normalization,
            statistics,
        };
        let mut grad_x = vec![f32::NAN; input.len()];
        let (mut grad_gamma, mut grad_beta) = (
            vec![f32::NAN; shape.channels],
            vec![f32::NAN; shape.channels],
        );
        let gradients = Gradients {
            input: Some(&mut grad_x),
            gamma: &mut grad_gamma,
            beta: &mut grad_beta,
        };
        backward(set, shape, recorded, &grad_output, gradients);
        assert_close_each(&grad_gamma, &expected.gamma, |channel| {
            Tolerance::dot(terms, sizes[channel][0])
        });
        assert_close_each(&grad_beta, &expected.beta, |channel| {
            Tolerance::dot(terms, sizes[channel][1])
        });
        let exact_grad = match statistics {
            Statistics::Batch => &expected.input_by_batch,
            Statistics::Given => &expected.input_by_constants,
        };
        assert_close_each(&rows(shape, &grad_x), exact_grad, |at| {
            let [gamma, beta] = sizes[channel(at)];
            let normalized = distance(at) * wide[1][channel(at)];
            let explained = (beta + normalized * gamma) / count;
            let size = scale(at) * (f64::from(grad[at].abs()) + explained);
            Tolerance::dot(terms + 4, size)
        });
        assert!(empty(shape, &grad_x).iter().all(|&value| value == 0.0));
        let (mut gamma_alone, mut beta_alone) = (grad_gamma.clone(), grad_beta.clone());
        gamma_alone.fill(f32::NAN);
        beta_alone.fill(f32::NAN);
        let gradients = Gradients {
            input: None,
            gamma: &mut gamma_alone,
            beta: &mut beta_alone,
        };
        backward(set, shape, recorded, &grad_output, gradients);
        assert_eq!((gamma_alone, beta_alone), (grad_gamma, grad_beta));
    }
}

fn check_all(set: InstructionSet, shape: BatchNormShape, offset: f32) {
    let mut x = noise(10, shape.images * shape.features());
    x.iter_mut().for_each(|value| *value += offset);
    let (mean, variance) = check_statistics(set, shape, &x);
    check_normalization_of(set, shape, &x, (&mean, &variance));
    let mut variance = noise(15, shape.channels);
    variance.iter_mut().for_each(|value| *value = value.abs());
    let mean = noise(14, shape.channels);
    check_normalization_of(set, shape, &x, (&mean, &variance));
}

fn shape(images: usize, channels: usize, pixels: usize) -> BatchNormShape {
    BatchNormShape {
        images,
        channels,
        pixels,
    }
}

#[test]
fn matches_naive_at_every_edge() {
    for &set in dispatch::all() {
        for images in [0, 1, 2, 15, 16, 17, 33, 63, 64, 65] {
            for pixels in [1, 3, 63, 64, 65] {
                check_all(set, shape(images, 3, pixels), 0.5);
            }
        }
        check_all(set, shape(PART_VECTORS * LANES + 1, 2, 1), 0.0);
        check_all(set, shape(2 * PART_VECTORS * LANES, 2, 1), 0.0);
        check_all(set, shape(5, 0, 4), 0.0);
        check_all(set, shape(33, 40, 81), -3.0);
    }
}

/// Where the mean square and the squared mean agree in every bit of an f32.
#[test]
fn a_large_mean_does_not_swallow_the_variance() {
    for &set in dispatch::all() {
        for offset in [1e3, -1e4, 1e6] {
            let shape = shape(64, 2, 49);
            let mut x = noise(16, shape.images * shape.features());
            x.iter_mut().for_each(|value| *value += offset);
            let (_, variance) = check_statistics(set, shape, &x);
            assert!((variance[0] - 1.0 / 3.0).abs() < 0.02, "{variance:?}");
        }
        // Sums of this lose a third in every step, so that the mean of a part is off by far more than
        // the distances that follow.
        let long = shape(64, 2, 49);
        check_statistics(set, long, &vec![333_333.34; long.images * long.features()]);

        let shape = shape(20, 2, 9);
        let constant = vec![0.1; shape.images * shape.features()];
        let (mean, variance) = check_statistics(set, shape, &constant);
        assert_eq!(mean, [0.1, 0.1]);
        assert!(variance.iter().all(|&variance| variance < 1e-14));
    }
}

#[test]
fn nan_spoils_its_channel_and_no_other() {
    for &set in dispatch::all() {
        let shape = shape(3, 2, 4);
        let mut x = noise(17, 24);
        x[5] = f32::NAN;
        let input = lanes(shape, &x, EMPTY);
        let (mut mean, mut variance) = ([0.0; 2], [0.0; 2]);
        statistics(set, shape, &input, &mut mean, &mut variance);
        assert!(mean[0].is_finite() && variance[0].is_finite());
        assert!(mean[1].is_nan() && variance[1].is_nan());
    }
}

#[test]
fn same_bits_at_any_thread_count() {
    let set = dispatch::active();
    let shape = shape(150, 11, 30);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let x = lanes(shape, &noise(1, 150 * shape.features()), 0.0);
            let (mut mean, mut variance) = (vec![0.0; 11], vec![0.0; 11]);
            statistics(set, shape, &x, &mut mean, &mut variance);
            let normalization = Normalization {
                mean: &mean,
                inverse_deviation: &variance,
                gamma: &variance,
                beta: &mean,
            };
            let mut y = vec![0.0; x.len()];
            forward(set, shape, normalization, &x, &mut y);
            let recorded = Recorded {
                x: &x,
                normalization,
                statistics: Statistics::Batch,
            };
            let mut grads = (vec![0.0; x.len()], vec![0.0; 11], vec![0.0; 11]);
            let gradients = Gradients {
                input: Some(&mut grads.0),
                gamma: &mut grads.1,
                beta: &mut grads.2,
            };
            backward(set, shape, recorded, &y, gradients);
            (mean, variance, y, grads)
        })
    };
    let alone = run(1);
    for threads in [2, 5] {
        assert!(run(threads) == alone, "{threads} threads");
    }
}

proptest! {
    #[test]
    fn matches_naive(
        (images, channels, pixels) in (0..40_usize, 1..5_usize, 1..30_usize),
        offset in -2.0..2.0_f32,
    ) {
        for &set in dispatch::all() {
            check_all(set, shape(images, channels, pixels), offset);
        }
    }
}
