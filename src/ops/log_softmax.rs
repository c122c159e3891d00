//! The logarithm of the softmax function.

use super::rows;
use super::strided::sum_f64;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `yᵢ = xᵢ - ln Σ eˣʲ` along the last axis, row-major: the logarithm of
/// [`Softmax`](super::Softmax), finite where that rounds to zero.
///
/// ∂L/∂xᵢ = ∂L/∂yᵢ - eʸⁱ · Σ ∂L/∂yⱼ.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![0.0, 1_000.0], [1, 2])?);
/// let y = tape.apply(ops::LogSoftmax, &[x])?;
/// assert_eq!(tape.value(y).data(), [-1_000.0, 0.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LogSoftmax;

impl Op for LogSoftmax {
    fn name(&self) -> &'static str {
        "LogSoftmax"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        rows::output_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        rows::forward(pass, |input, output| {
            let max = rows::max(input);
            let sum: f64 = input.iter().map(|&x| f64::from((x - max).exp())).sum();
            let log_sum = sum.ln();
            for (y, &x) in output.iter_mut().zip(input) {
                *y = (f64::from(x) - f64::from(max) - log_sum) as f32;
            }
        });
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        rows::backward(pass, |output, grad_output, grad_input| {
            let sum = sum_f64(grad_output);
            for ((target, &y), &g) in grad_input.iter_mut().zip(output).zip(grad_output) {
                *target = (f64::from(g) - f64::from(y.exp()) * sum) as f32;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::tensor::Tensor;

    #[test]
    fn equal_logits_share_equally() {
        let mut tape = Tape::new();
        let x = tape.parameter(Tensor::from_vec(vec![5.0; 4], [1, 4]).unwrap());
        let y = tape.apply(LogSoftmax, &[x]).unwrap();
        assert!(
            tape.value(y)
                .data()
                .iter()
                .all(|y| *y == -2.0 * std::f32::consts::LN_2)
        );
        let first = tape.apply(crate::ops::Slice::along(1, 0..1), &[y]).unwrap();
        tape.backward(&[(first, 1.0)]).unwrap();
        assert_eq!(tape.grad(x).unwrap().data(), [0.75, -0.25, -0.25, -0.25]);
    }
}
