//! Batch normalisation.

use taskweave_kernels::batch_norm::{
    self, BatchNormShape, Gradients, Normalization, Recorded, Statistics,
};
use taskweave_kernels::dispatch::active;

use super::operands;
use crate::autograd::{Backward, Forward, Mode, Op};
use crate::tensor::{Layout, Tensor, TensorError, TensorSpec};

/// `y = (x - mean) / √(variance + ε) · gamma + beta`, channel by channel (S. Ioffe, C. Szegedy,
/// "Batch Normalization", 2015).
///
/// Inputs: x in lanes, `[N, C]` or `[N, C, H, W]`, then gamma, beta, moving mean and moving
/// variance, row-major `[C]` each; the output has the shape of x. In training, mean and variance
/// are those of the batch over images and pixels, the variance divided by their number, as in
/// Keras. In inference they are the moving ones.
///
/// What the operation saves begins with the mean `[C]` and the variance `[C]` that it used. So
/// after a forward pass in training, a model moves its averages by
/// [`Tape::saved`](crate::autograd::Tape::saved): `moving · momentum + saved · (1 - momentum)`.
///
/// With x̂ = (x - mean) / √(variance + ε), n values per channel and sums over them: ∂L/∂beta = Σ
/// ∂L/∂y, ∂L/∂gamma = Σ ∂L/∂y · x̂, and ∂L/∂x = gamma / √(variance + ε) · g, where g is ∂L/∂y in
/// inference and ∂L/∂y - (∂L/∂beta + x̂ · ∂L/∂gamma) / n in training, zero in empty lanes.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 5.0], [2, 1])?.to_lanes()?);
/// let [gamma, beta, mean, variance] = [0.5, 1.0, 0.0, 1.0]
///     .map(|value| Tensor::from_vec(vec![value], [1]).map(|tensor| tape.parameter(tensor)));
/// let norm = ops::BatchNorm { epsilon: 1e-6 };
/// let y = tape.apply(norm, &[x, gamma?, beta?, mean?, variance?])?;
/// let rows = tape.value(y).to_row_major();
/// assert!((rows.data()[0] - 0.5).abs() < 1e-6 && (rows.data()[1] - 1.5).abs() < 1e-6);
/// assert_eq!(tape.saved(y)[..2], [3.0, 4.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm {
    /// Added to the variance, above zero: Keras takes 0.001.
    pub epsilon: f32,
}

/// Of `[channels]` each, in the order in which they are saved.
struct Saved<'a> {
    mean: &'a mut [f32],
    variance: &'a mut [f32],
    inverse_deviation: &'a mut [f32],
    /// Room for gradients that are computed but not asked for.
    grad_gamma: &'a mut [f32],
    grad_beta: &'a mut [f32],
}

const SAVED: usize = 5;

impl<'a> Saved<'a> {
    fn of(saved: &'a mut [f32], channels: usize) -> Self {
        let (mean, rest) = saved.split_at_mut(channels);
        let (variance, rest) = rest.split_at_mut(channels);
        let (inverse_deviation, rest) = rest.split_at_mut(channels);
        let (grad_gamma, grad_beta) = rest.split_at_mut(channels);
        Self {
            mean,
            variance,
            inverse_deviation,
            grad_gamma,
            grad_beta,
        }
    }
}

fn shape_of(x: &TensorSpec, channels: usize) -> BatchNormShape {
    BatchNormShape {
        images: x.images(),
        channels,
        pixels: x.shape.dims().iter().skip(2).product(),
    }
}

impl BatchNorm {
    fn value_error(&self, message: String) -> TensorError {
        TensorError::Value {
            op: self.name(),
            message,
        }
    }
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "BatchNorm"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(self.value_error(format!(
                "epsilon is {}; it must be a number above zero",
                self.epsilon
            )));
        }
        let specs: [&TensorSpec; 5] = operands::exactly(self.name(), inputs)?;
        let [x, parameters @ ..] = specs;
        operands::layout(self.name(), 0, x, Layout::Lanes)?;
        for (input, spec) in (1..).zip(parameters) {
            operands::layout(self.name(), input, spec, Layout::RowMajor)?;
        }
        match *x.shape.dims() {
            [_, channels] | [_, channels, _, _]
                if parameters
                    .iter()
                    .all(|spec| spec.shape.dims() == [channels]) =>
            {
                Ok(x.clone())
            }
            _ => Err(operands::misfit(
                self.name(),
                inputs,
                "x is [N, C] or [N, C, H, W], and gamma, beta, moving mean and moving variance are \
                 [C]",
            )),
        }
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let [x, gamma, beta, moving_mean, moving_variance]: [&Tensor; 5] =
            std::array::from_fn(|input| pass.inputs[input]);
        let channels = gamma.data().len();
        let shape = shape_of(x.spec(), channels);
        pass.saved.resize(SAVED * channels);
        let saved = Saved::of(pass.saved, channels);
        match pass.mode {
            Mode::Training { .. } => {
                batch_norm::statistics(active(), shape, x.data(), saved.mean, saved.variance);
            }
            Mode::Inference => {
                let negative = moving_variance.data().iter().position(|&value| value < 0.0);
                if let Some(channel) = negative {
                    return Err(self.value_error(format!(
                        "the moving variance of channel {channel} is {}; variances are not negative",
                        moving_variance.data()[channel]
                    )));
                }
                saved.mean.copy_from_slice(moving_mean.data());
                saved.variance.copy_from_slice(moving_variance.data());
            }
        }
        batch_norm::inverse_deviation(saved.variance, self.epsilon, saved.inverse_deviation);
        let normalization = Normalization {
            mean: saved.mean,
            inverse_deviation: saved.inverse_deviation,
            gamma: gamma.data(),
            beta: beta.data(),
        };
        let y = pass.output.data_mut();
        batch_norm::forward(active(), shape, normalization, x.data(), y);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let [x, gamma, beta] = [pass.inputs[0], pass.inputs[1], pass.inputs[2]];
        let channels = gamma.data().len();
        let saved = Saved::of(pass.saved, channels);
        let normalization = Normalization {
            mean: saved.mean,
            inverse_deviation: saved.inverse_deviation,
            gamma: gamma.data(),
            beta: beta.data(),
        };
        let statistics = match pass.mode {
            Mode::Training { .. } => Statistics::Batch,
            Mode::Inference => Statistics::Given,
        };
        let recorded = Recorded {
            x: x.data(),
            normalization,
            statistics,
        };
        let [grad_x, grad_gamma, grad_beta, grad_mean, grad_variance] = pass.grad_inputs else {
            return;
        };
        let gradients = Gradients {
            input: grad_x.as_mut().map(Tensor::data_mut),
            gamma: saved.grad_gamma,
            beta: saved.grad_beta,
        };
        let shape = shape_of(x.spec(), channels);
        batch_norm::backward(
            active(),
            shape,
            recorded,
            pass.grad_output.data(),
            gradients,
        );
        if let Some(grad) = grad_gamma {
            grad.data_mut().copy_from_slice(saved.grad_gamma);
        }
        if let Some(grad) = grad_beta {
            grad.data_mut().copy_from_slice(saved.grad_beta);
        }
        // By constants: y moves against the mean as against x, and by the variance through 1/√.
        let given = statistics == Statistics::Given;
        for channel in 0..channels {
            let inverse = saved.inverse_deviation[channel];
            let scale = if given {
                inverse * gamma.data()[channel]
            } else {
                0.0
            };
            if let Some(grad) = grad_mean {
                grad.data_mut()[channel] = -scale * saved.grad_beta[channel];
            }
            if let Some(grad) = grad_variance {
                grad.data_mut()[channel] = -0.5 * scale * inverse * saved.grad_gamma[channel];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;

    #[test]
    fn what_does_not_fit_is_named() {
        let message = |epsilon, x: TensorSpec, last: usize| {
            let parameters = [3, 3, 3, last].map(|len| TensorSpec::row_major([len]));
            let [a, b, c, d] = &parameters;
            let error = BatchNorm { epsilon }.output_spec(&[&x, a, b, c, d]);
            error.unwrap_err().to_string()
        };
        assert_eq!(
            message(1e-3, TensorSpec::lanes([2, 3, 5, 5]), 4),
            "BatchNorm: shapes [2, 3, 5, 5] and [3] and [3] and [3] and [4] do not fit; x is [N, C] \
             or [N, C, H, W], and gamma, beta, moving mean and moving variance are [C]"
        );
        assert!(message(1e-3, TensorSpec::lanes([2, 3, 5]), 3).contains("do not fit"));
        for epsilon in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(
                message(epsilon, TensorSpec::lanes([2, 3]), 3),
                format!("BatchNorm: epsilon is {epsilon}; it must be a number above zero")
            );
        }
    }

    #[test]
    fn a_negative_variance_is_refused_where_it_is_used() {
        let mut tape = Tape::new();
        let x = tape.leaf(Tensor::zeros(TensorSpec::lanes([2, 2])));
        let vector = |values| Tensor::from_vec(values, [2]).unwrap();
        let mut inputs = vec![x];
        for values in [vec![1.0; 2], vec![0.0; 2], vec![0.0; 2], vec![0.5, -0.5]] {
            inputs.push(tape.leaf(vector(values)));
        }
        let y = tape.apply(BatchNorm { epsilon: 1e-3 }, &inputs).unwrap();
        tape.set_mode(Mode::Inference);
        assert_eq!(
            tape.forward(&[y]).unwrap_err().to_string(),
            "BatchNorm: the moving variance of channel 1 is -0.5; variances are not negative"
        );
    }
}
