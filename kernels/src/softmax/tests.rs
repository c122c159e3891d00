use proptest::prelude::*;

use super::*;
use crate::check::{Tolerance, assert_close, noise};
use crate::dispatch;
use crate::naive;

/// What empty lanes hold in these tests: finite, as promised, and large enough to be noticed.
const EMPTY: f32 = 1e6;

/// Row-major `[images][classes]` into lanes, empty ones filled with [`EMPTY`].
fn lanes(shape: SoftmaxShape, rows: &[f32]) -> Vec<f32> {
    let mut logits = vec![EMPTY; shape.len()];
    for image in 0..shape.images {
        for class in 0..shape.classes {
            logits[position(shape, image, class)] = rows[image * shape.classes + class];
        }
    }
    logits
}

/// The images of lanes, row-major.
fn rows(shape: SoftmaxShape, lanes: &[f32]) -> Vec<f32> {
    let class = |index| lanes[position(shape, index / shape.classes, index % shape.classes)];
    (0..shape.images * shape.classes).map(class).collect()
}

fn position(shape: SoftmaxShape, image: usize, class: usize) -> usize {
    (image / LANES * shape.classes + class) * LANES + image % LANES
}

/// The bound of a probability: rounding x = logit - max moves eˣ by |x|·eˣ·ε/2 < ε/4, exp itself
/// errs by at most 2ε, and the sum and the quotient by (classes + 2)·ε/2 of a value of at most 1.
fn probability_bound(classes: usize) -> Tolerance {
    Tolerance::absolute((classes + 8) as f64 * f64::from(f32::EPSILON) / 2.0)
}

fn scaled(bound: Tolerance, images: usize) -> Tolerance {
    bound.times(1.0 / images.max(1) as f64)
}

fn check_against_naive(shape: SoftmaxShape, logits: &[f32], labels: &[u32]) {
    let exact: Vec<f64> = naive::convert(logits);
    let (loss, grad) = naive::softmax_cross_entropy(shape.classes, &exact, labels);
    let input = lanes(shape, logits);
    let bound = probability_bound(shape.classes);
    // ln of a sum that is relatively wrong by the bound; the difference of logits is in f64.
    let loss_bound = bound.plus(Tolerance::relative(1e-12));
    for &set in dispatch::all() {
        let mut grad_logits = vec![f32::NAN; shape.len()];
        let mean = cross_entropy(set, shape, &input, labels, Some(&mut grad_logits)).unwrap();
        assert_close(&[mean], &[loss], loss_bound);
        assert_close(
            &rows(shape, &grad_logits),
            &grad,
            scaled(bound, shape.images),
        );
        let blank = lanes(shape, &vec![0.0; logits.len()]);
        for (index, grad) in grad_logits.iter().enumerate() {
            assert!(
                blank[index] != EMPTY || *grad == 0.0,
                "empty lane holds {grad}"
            );
        }
        let evaluated = cross_entropy(set, shape, &input, labels, None).unwrap();
        assert_eq!(evaluated.to_bits(), mean.to_bits());

        let mut outputs = vec![f32::NAN; shape.len()];
        probabilities(set, shape, &input, &mut outputs);
        let expected = naive::softmax(shape.classes, &exact);
        assert_close(&rows(shape, &outputs), &expected, bound);

        let mut classes = vec![u32::MAX; shape.images];
        argmax(set, shape, &input, &mut classes);
        assert_eq!(classes, naive::argmax(shape.classes, logits));
    }
}

fn labels_of(shape: SoftmaxShape) -> Vec<u32> {
    (0..shape.images)
        .map(|image| (image * 7 % shape.classes) as u32)
        .collect()
}

#[test]
fn matches_naive_at_every_edge() {
    for images in [0, 1, 15, 16, 17, 31, 32, 33, 512] {
        for classes in [1, 2, 10, 17] {
            let shape = SoftmaxShape { images, classes };
            let mut logits = noise(classes as u64, images * classes);
            logits.iter_mut().for_each(|logit| *logit *= 10.0);
            check_against_naive(shape, &logits, &labels_of(shape));
        }
    }
}

/// Batches of several chunks, at their edges, and one whose chunks are at their largest number.
#[test]
fn matches_naive_where_chunks_meet() {
    for (blocks, classes) in [(15, 64), (16, 64), (17, 64), (MAX_CHUNKS + 1, 1024)] {
        for images in [blocks * LANES - 1, blocks * LANES, blocks * LANES + 1] {
            let shape = SoftmaxShape { images, classes };
            let logits = noise(3, images * classes);
            check_against_naive(shape, &logits, &labels_of(shape));
        }
    }
}

#[test]
fn chunks_never_outnumber_their_sums() {
    for images in [1, 16, 17, 1_000, 100_000, 10_000_000] {
        for classes in [0, 1, 10, 1_000, 100_000] {
            let shape = SoftmaxShape { images, classes };
            assert!(shape.blocks().div_ceil(shape.chunk_blocks()) <= MAX_CHUNKS);
        }
    }
}

#[test]
fn extremes_are_exact() {
    let shape = SoftmaxShape {
        images: 4,
        classes: 3,
    };
    #[rustfmt::skip]
    let logits = [
        1e4, -1e4, 0.0,
        1e4, -1e4, 0.0,
        5.0, 5.0, 5.0,
        -1e4, -1e4, -1e4,
    ];
    check_against_naive(shape, &logits, &[0, 1, 2, 0]);
    for &set in dispatch::all() {
        let mean = cross_entropy(set, shape, &lanes(shape, &logits), &[0, 1, 0, 0], None).unwrap();
        assert_close(
            &[mean],
            &[(2e4 + 2.0 * 3f64.ln()) / 4.0],
            Tolerance::relative(1e-7),
        );
    }
}

/// Subnormal numbers slow down all that is computed of them.
#[test]
fn gradients_are_zero_or_of_a_usual_size() {
    let shape = SoftmaxShape {
        images: 2,
        classes: 6,
    };
    #[rustfmt::skip]
    let logits = [
        0.0, -50.0, -54.0, -58.0, -88.0, -102.0,
        -1.0, 0.0, -200.0, -54.0, -56.0, 1.0,
    ];
    let labels = [0, 3];
    check_against_naive(shape, &logits, &labels);
    for &set in dispatch::all() {
        let mut grad = vec![f32::NAN; shape.len()];
        let lanes = lanes(shape, &logits);
        cross_entropy(set, shape, &lanes, &labels, Some(&mut grad)).unwrap();
        assert!(grad.iter().all(|&grad| grad == 0.0 || grad.abs() >= LEAST));
        let of_first = |class: usize| grad[class * LANES];
        assert!(of_first(2) > 0.0 && of_first(3) == 0.0, "{set:?}");
    }
}

#[test]
fn a_logit_that_is_not_finite_is_never_a_plausible_loss() {
    let shape = SoftmaxShape {
        images: 2,
        classes: 3,
    };
    for &set in dispatch::all() {
        for bad in [f32::NAN, f32::INFINITY] {
            for class in 0..3 {
                let mut logits = [0.5; 6];
                logits[class] = bad;
                let mut grad = vec![0.0; shape.len()];
                let input = lanes(shape, &logits);
                let loss = cross_entropy(set, shape, &input, &[1, 1], Some(&mut grad)).unwrap();
                assert!(
                    loss.is_nan(),
                    "{set:?}: {bad} of class {class} gave a loss of {loss}"
                );
                let grad = rows(shape, &grad);
                assert!(
                    grad[..3].iter().any(|value| value.is_nan()),
                    "{set:?} {bad}: {grad:?}"
                );
                assert!(grad[3..].iter().all(|value| value.is_finite()));
            }
        }
    }
}

#[test]
fn empty_lanes_do_not_count_even_if_they_are_not_finite() {
    let shape = SoftmaxShape {
        images: 3,
        classes: 2,
    };
    let logits = noise(9, 6);
    let clean = lanes(shape, &logits);
    let spoilt: Vec<f32> = clean
        .iter()
        .map(|&logit| if logit == EMPTY { f32::NAN } else { logit })
        .collect();
    for &set in dispatch::all() {
        let (mut grad, mut grad_spoilt) = (vec![1.0; shape.len()], vec![2.0; shape.len()]);
        let loss = cross_entropy(set, shape, &clean, &[0, 1, 1], Some(&mut grad)).unwrap();
        let spoilt = cross_entropy(set, shape, &spoilt, &[0, 1, 1], Some(&mut grad_spoilt));
        assert_eq!(spoilt, Ok(loss));
        assert_eq!(grad, grad_spoilt);
    }
}

#[test]
fn argmax_takes_the_first_maximum_and_no_nan() {
    let shape = SoftmaxShape {
        images: 4,
        classes: 3,
    };
    let nan = f32::NAN;
    let low = f32::NEG_INFINITY;
    #[rustfmt::skip]
    let logits = [
        1.0, 3.0, 3.0,
        nan, 2.0, 1.0,
        nan, nan, nan,
        low, low, low,
    ];
    for &set in dispatch::all() {
        let mut classes = [9; 4];
        argmax(set, shape, &lanes(shape, &logits), &mut classes);
        assert_eq!(classes, [1, 1, 0, 0]);
    }
}

#[test]
fn a_label_out_of_range_is_an_error_before_anything_is_written() {
    let shape = SoftmaxShape {
        images: 18,
        classes: 10,
    };
    let logits = lanes(shape, &noise(1, 180));
    let mut labels = labels_of(shape);
    labels[17] = 10;
    for &set in dispatch::all() {
        let mut grad = vec![7.0; shape.len()];
        let error = cross_entropy(set, shape, &logits, &labels, Some(&mut grad)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "label 10 of image 17 is out of range: with 10 classes, labels are below 10"
        );
        assert!(grad.iter().all(|&value| value == 7.0));
        let error = cross_entropy(set, shape, &logits, &labels[..17], None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "17 labels were given for 18 images, where each needs one"
        );
    }
}

#[test]
fn no_classes_have_no_labels() {
    let shape = SoftmaxShape {
        images: 1,
        classes: 0,
    };
    for &set in dispatch::all() {
        assert!(cross_entropy(set, shape, &[], &[0], None).is_err());
        probabilities(set, shape, &[], &mut []);
        let mut classes = [9];
        argmax(set, shape, &[], &mut classes);
        assert_eq!(classes, [0]);
    }
}

#[test]
fn same_bits_at_any_thread_count() {
    let shape = SoftmaxShape {
        images: 5_000,
        classes: 33,
    };
    let logits = lanes(shape, &noise(4, shape.images * shape.classes));
    let labels = labels_of(shape);
    for &set in dispatch::all() {
        let results: Vec<(f64, Vec<f32>)> = [1, 2, 5]
            .into_iter()
            .map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let mut grad = vec![0.0; shape.len()];
                let loss = pool
                    .install(|| cross_entropy(set, shape, &logits, &labels, Some(&mut grad)))
                    .unwrap();
                (loss, grad)
            })
            .collect();
        assert_eq!(results[0], results[1]);
        assert_eq!(results[0], results[2]);
    }
}

/// A shape, logits of some magnitude, and labels.
fn batches() -> impl Strategy<Value = (SoftmaxShape, Vec<f32>, Vec<u32>)> {
    let scale = prop_oneof![Just(1.0_f32), Just(30.0), Just(1e4)];
    (0..70_usize, 1..40_usize, scale).prop_flat_map(|(images, classes, scale)| {
        (
            Just(SoftmaxShape { images, classes }),
            prop::collection::vec(-scale..scale, images * classes),
            prop::collection::vec(0..classes as u32, images),
        )
    })
}

proptest! {
    #[test]
    fn matches_naive((shape, logits, labels) in batches()) {
        check_against_naive(shape, &logits, &labels);
    }
}
