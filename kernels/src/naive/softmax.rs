//! Softmax, its cross-entropy with integer labels, and argmax, over rows `[images, classes]`.

use super::Float;

/// eˣ over the sum of eˣ of each row, with the row's maximum subtracted first.
pub fn softmax<T: Float>(classes: usize, logits: &[T]) -> Vec<T> {
    let mut probabilities = Vec::with_capacity(logits.len());
    for row in rows(classes, logits) {
        let log_sum = log_sum_exp(row);
        probabilities.extend(row.iter().map(|&logit| (logit - log_sum).exp()));
    }
    probabilities
}

/// The mean over the rows of `-ln softmax(logits)[label]`, and its gradient by the logits,
/// `(softmax - onehot) / images`. No rows: loss zero.
pub fn softmax_cross_entropy<T: Float>(
    classes: usize,
    logits: &[T],
    labels: &[u32],
) -> (T, Vec<T>) {
    let mut grad_logits = softmax(classes, logits);
    let images = T::from_f64(labels.len().max(1) as f64);
    let mut loss = T::ZERO;
    for (image, row) in rows(classes, logits).enumerate() {
        let label = labels[image] as usize;
        loss += log_sum_exp(row) - row[label];
        grad_logits[image * classes + label] -= T::ONE;
    }
    for grad in &mut grad_logits {
        *grad = *grad / images;
    }
    (loss / images, grad_logits)
}

/// The class of the largest logit of each row: the first of equals, never a NaN; 0 if no logit
/// exceeds −∞.
pub fn argmax<T: Float>(classes: usize, logits: &[T]) -> Vec<u32> {
    let largest = |row: &[T]| {
        let (mut best, mut class) = (T::NEG_INFINITY, 0);
        for (index, &logit) in row.iter().enumerate() {
            if logit > best {
                (best, class) = (logit, index as u32);
            }
        }
        class
    };
    rows(classes, logits).map(largest).collect()
}

fn rows<T>(classes: usize, logits: &[T]) -> std::slice::ChunksExact<'_, T> {
    let rows = logits.chunks_exact(classes);
    assert!(
        rows.remainder().is_empty(),
        "{} logits are not rows of {classes} classes",
        logits.len()
    );
    rows
}

/// ln Σ eˣ, shifted by the maximum so that nothing overflows.
fn log_sum_exp<T: Float>(row: &[T]) -> T {
    let mut max = T::NEG_INFINITY;
    for &logit in row {
        if logit > max {
            max = logit;
        }
    }
    let mut sum = T::ZERO;
    for &logit in row {
        sum += (logit - max).exp();
    }
    max + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close};

    #[test]
    fn probabilities_by_hand() {
        let third = 1.0 / 3.0;
        let logits = [0.0, 2.0_f64.ln(), 5.0, 5.0];
        assert_close(
            &softmax(2, &logits),
            &[third, 2.0 * third, 0.5, 0.5],
            Tolerance::absolute(1e-15),
        );
    }

    #[test]
    fn extremes_neither_overflow_nor_vanish() {
        let (loss, grad) = softmax_cross_entropy(2, &[1e4, -1e4], &[1]);
        assert_eq!(loss, 2e4);
        assert_eq!(grad, [1.0, -1.0]);
    }

    #[test]
    fn gradient_matches_finite_differences() {
        let logits = [0.1, -0.4, 1.3, 2.0, 0.0, -1.0];
        let labels = [2, 1];
        let at = |index: usize, step: f64| {
            let mut moved = logits;
            moved[index] += step;
            softmax_cross_entropy(3, &moved, &labels).0
        };
        let slopes: Vec<f64> = (0..logits.len())
            .map(|index| (at(index, 1e-5) - at(index, -1e-5)) / 2e-5)
            .collect();
        let (_, grad) = softmax_cross_entropy(3, &logits, &labels);
        assert_close(&grad, &slopes, Tolerance::absolute(1e-9));
    }

    #[test]
    fn first_maximum_wins_and_nan_never() {
        let nan = f64::NAN;
        let logits = [1.0, 3.0, 3.0, nan, 2.0, 1.0, nan, nan, nan];
        assert_eq!(argmax(3, &logits), [1, 1, 0]);
    }

    #[test]
    fn no_images() {
        assert_eq!(softmax_cross_entropy::<f64>(3, &[], &[]), (0.0, vec![]));
        assert!(argmax::<f32>(3, &[]).is_empty());
    }
}
