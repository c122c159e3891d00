//! The softmax function.

use super::rows;
use super::strided::sum_f64;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `yᵢ = eˣⁱ / Σ eˣʲ` along the last axis, row-major. The maximum is subtracted first, so that
/// nothing overflows.
///
/// ∂L/∂xᵢ = yᵢ · (∂L/∂yᵢ - Σ ∂L/∂yⱼ · yⱼ).
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![7.0, 7.0, 0.0, 1_000.0], [2, 2])?);
/// let y = tape.apply(ops::Softmax, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.5, 0.5, 0.0, 1.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Softmax;

/// The softmax of one row.
pub(crate) fn softmax_row(input: &[f32], output: &mut [f32]) {
    let max = rows::max(input);
    for (y, &x) in output.iter_mut().zip(input) {
        *y = (x - max).exp();
    }
    let sum = sum_f64(output);
    for y in output {
        *y = (f64::from(*y) / sum) as f32;
    }
}

impl Op for Softmax {
    fn name(&self) -> &'static str {
        "Softmax"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        rows::output_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        rows::forward(pass, softmax_row);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        rows::backward(pass, |output, grad_output, grad_input| {
            let products = output.iter().zip(grad_output);
            let mean: f64 = products.map(|(&y, &g)| f64::from(y) * f64::from(g)).sum();
            for ((target, &y), &g) in grad_input.iter_mut().zip(output).zip(grad_output) {
                *target = y * (f64::from(g) - mean) as f32;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::tensor::Tensor;

    fn softmax(values: &[f32]) -> Vec<f32> {
        let mut tape = Tape::new();
        let x = tape.leaf(Tensor::from_vec(values.to_vec(), [1, values.len()]).unwrap());
        let y = tape.apply(Softmax, &[x]).unwrap();
        tape.value(y).data().to_vec()
    }

    #[test]
    fn infinities_and_nan_give_nan_and_not_a_wrong_number() {
        assert_eq!(softmax(&[f32::NEG_INFINITY, 1.0]), [0.0, 1.0]);
        assert!(softmax(&[f32::INFINITY, 1.0])[0].is_nan());
        assert!(softmax(&[f32::NAN, 1.0]).iter().all(|y| y.is_nan()));
    }

    #[test]
    fn a_scalar_has_no_rows() {
        let scalar = TensorSpec::row_major([]);
        assert_eq!(
            Softmax.output_spec(&[&scalar]).unwrap_err().to_string(),
            "Softmax: axis 0 does not exist in shape []"
        );
    }
}
