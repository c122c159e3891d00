//! Batch normalisation and its gradients.

use super::Float;

/// Sizes of a batch normalisation: input and output `[images, channels, pixels]`, each of the
/// parameters and statistics `[channels]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchNormShape {
    /// Images.
    pub images: usize,
    /// Channels, each normalised by itself.
    pub channels: usize,
    /// Pixels of a channel, height · width; 1 where a feature is a channel.
    pub pixels: usize,
}

impl BatchNormShape {
    /// Values of one image.
    pub fn features(&self) -> usize {
        self.channels * self.pixels
    }

    /// Values of one channel in the whole batch.
    pub fn count(&self) -> usize {
        self.images * self.pixels
    }

    /// The places of a channel's values.
    fn places(self, channel: usize) -> impl Iterator<Item = usize> {
        (0..self.images).flat_map(move |image| {
            let plane = (image * self.channels + channel) * self.pixels;
            plane..plane + self.pixels
        })
    }

    fn channel(&self, place: usize) -> usize {
        place / self.pixels % self.channels
    }
}

/// The mean and the biased variance of every channel; zero where there are no images.
pub fn batch_statistics<T: Float>(shape: BatchNormShape, input: &[T]) -> (Vec<T>, Vec<T>) {
    let count = T::from_f64(shape.count().max(1) as f64);
    let (mut means, mut variances) = (Vec::new(), Vec::new());
    for channel in 0..shape.channels {
        let mut sum = T::ZERO;
        for place in shape.places(channel) {
            sum += input[place];
        }
        let mean = sum / count;
        let mut squares = T::ZERO;
        for place in shape.places(channel) {
            squares += (input[place] - mean) * (input[place] - mean);
        }
        means.push(mean);
        variances.push(squares / count);
    }
    (means, variances)
}

/// What a channel is normalised with, each `[channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Normalization<'a, T> {
    /// Subtracted.
    pub mean: &'a [T],
    /// Divided by: 1 / √(variance + ε).
    pub inverse_deviation: &'a [T],
    /// Then multiplied by.
    pub gamma: &'a [T],
    /// Then added.
    pub beta: &'a [T],
}

/// 1 / √(variance + ε) of every channel.
pub fn inverse_deviation<T: Float>(variance: &[T], epsilon: T) -> Vec<T> {
    let inverse = |&variance: &T| T::ONE / (variance + epsilon).sqrt();
    variance.iter().map(inverse).collect()
}

/// `(input - mean) · inverse deviation · gamma + beta`.
pub fn batch_norm<T: Float>(
    shape: BatchNormShape,
    normalization: Normalization<'_, T>,
    input: &[T],
) -> Vec<T> {
    let Normalization {
        mean,
        inverse_deviation,
        gamma,
        beta,
    } = normalization;
    let element = |(place, &x): (usize, &T)| {
        let channel = shape.channel(place);
        (x - mean[channel]) * inverse_deviation[channel] * gamma[channel] + beta[channel]
    };
    input.iter().enumerate().map(element).collect()
}

/// Gradients of a batch normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormGradients<T> {
    /// Of the input where mean and variance are those of the batch.
    pub input_by_batch: Vec<T>,
    /// Of the input where mean and variance are constants.
    pub input_by_constants: Vec<T>,
    /// Of gamma, `[channels]`.
    pub gamma: Vec<T>,
    /// Of beta, `[channels]`.
    pub beta: Vec<T>,
}

/// The gradients of [`batch_norm`].
pub fn batch_norm_backward<T: Float>(
    shape: BatchNormShape,
    normalization: Normalization<'_, T>,
    input: &[T],
    grad_output: &[T],
) -> BatchNormGradients<T> {
    let count = T::from_f64(shape.count() as f64);
    let mut gradients = BatchNormGradients {
        input_by_batch: vec![T::ZERO; input.len()],
        input_by_constants: vec![T::ZERO; input.len()],
        gamma: vec![T::ZERO; shape.channels],
        beta: vec![T::ZERO; shape.channels],
    };
    for channel in 0..shape.channels {
        let inverse = normalization.inverse_deviation[channel];
        let normalized = |place: usize| (input[place] - normalization.mean[channel]) * inverse;
        let (mut gamma, mut beta) = (T::ZERO, T::ZERO);
        for place in shape.places(channel) {
            gamma += grad_output[place] * normalized(place);
            beta += grad_output[place];
        }
        let scale = normalization.gamma[channel] * inverse;
        for place in shape.places(channel) {
            let explained = (beta + normalized(place) * gamma) / count;
            gradients.input_by_batch[place] = scale * (grad_output[place] - explained);
            gradients.input_by_constants[place] = scale * grad_output[place];
        }
        gradients.gamma[channel] = gamma;
        gradients.beta[channel] = beta;
    }
    gradients
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close};

    const SHAPE: BatchNormShape = BatchNormShape {
        images: 2,
        channels: 2,
        pixels: 3,
    };

    #[test]
    fn statistics_by_hand() {
        let input = [
            1.0, 2.0, 3.0, 5.0, 5.0, 5.0, //
            4.0, 5.0, 3.0, 5.0, 5.0, 5.0,
        ];
        let (mean, variance) = batch_statistics::<f64>(SHAPE, &input);
        assert_close(&mean, &[3.0, 5.0], Tolerance::absolute(1e-15));
        assert_close(&variance, &[10.0 / 6.0, 0.0], Tolerance::absolute(1e-15));
        let normalization = Normalization {
            mean: &[3.0, 5.0],
            inverse_deviation: &inverse_deviation(&[3.99, 0.24], 0.01),
            gamma: &[1.0, -3.0],
            beta: &[0.0, 0.5],
        };
        let output = batch_norm(SHAPE, normalization, &input);
        let expected = [-1.0, -0.5, 0.0, 0.5, 0.5, 0.5, 0.5, 1.0, 0.0, 0.5, 0.5, 0.5];
        assert_close(&output, &expected, Tolerance::absolute(1e-12));
    }

    #[test]
    fn gradients_match_finite_differences() {
        let wave = |len: usize, step: f64| -> Vec<f64> {
            (0..len).map(|at| (at as f64 * step).sin()).collect()
        };
        let (input, grad_output) = (wave(12, 0.7), wave(12, 2.3));
        let (gamma, beta) = ([1.5, -0.5], [0.1, 0.2]);
        let objective = |input: &[f64], gamma: &[f64], beta: &[f64], by: &[f64]| -> f64 {
            let (mean, variance) = batch_statistics(SHAPE, by);
            let normalization = Normalization {
                mean: &mean,
                inverse_deviation: &inverse_deviation(&variance, 1e-3),
                gamma,
                beta,
            };
            let output = batch_norm(SHAPE, normalization, input);
            let terms = output.iter().zip(&grad_output);
            terms.map(|(y, grad)| y * grad).sum()
        };
        let difference = |values: &[f64], objective: &dyn Fn(&[f64]) -> f64| -> Vec<f64> {
            let at = |index: usize, step: f64| {
                let mut moved = values.to_vec();
                moved[index] += step;
                objective(&moved)
            };
            (0..values.len())
                .map(|index| (at(index, 1e-4) - at(index, -1e-4)) / 2e-4)
                .collect()
        };
        let (mean, variance) = batch_statistics(SHAPE, &input);
        let normalization = Normalization {
            mean: &mean,
            inverse_deviation: &inverse_deviation(&variance, 1e-3),
            gamma: &gamma,
            beta: &beta,
        };
        let gradients = batch_norm_backward(SHAPE, normalization, &input, &grad_output);
        for (gradient, differences) in [
            (
                &gradients.input_by_batch,
                difference(&input, &|x| objective(x, &gamma, &beta, x)),
            ),
            (
                &gradients.input_by_constants,
                difference(&input, &|x| objective(x, &gamma, &beta, &input)),
            ),
            (
                &gradients.gamma,
                difference(&gamma, &|gamma| objective(&input, gamma, &beta, &input)),
            ),
            (
                &gradients.beta,
                difference(&beta, &|beta| objective(&input, &gamma, beta, &input)),
            ),
        ] {
            assert_close(gradient, &differences, Tolerance::absolute(1e-6));
        }
    }
}
