//! The sum over axes.

use super::reduce::{Axes, reduction_constructors};
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = Σ x` over all or some axes, row-major, summed in f64; the sum of nothing is zero.
///
/// ∂L/∂x = ∂L/∂y, repeated along the reduced axes.
///
/// ```
/// use taskweave::{autograd::Tape, ops::Sum, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 9.0], [2, 3])?);
/// let y = tape.apply(Sum::all(), &[x])?;
/// assert_eq!(tape.value(y).data(), [24.0]);
/// let y = tape.apply(Sum::over([0]), &[x])?;
/// assert_eq!(tape.value(y).data(), [5.0, 7.0, 12.0]);
/// let y = tape.apply(Sum::over([1]).keep_dims(), &[x])?;
/// assert_eq!(tape.value(y).data(), [6.0, 18.0]);
/// assert_eq!(tape.value(y).shape().dims(), [2, 1]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sum(Axes);

reduction_constructors!(Sum);

impl Op for Sum {
    fn name(&self) -> &'static str {
        "Sum"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        self.0.output_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        self.0.sum(pass.inputs[0], 1.0, pass.output);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        self.0.spread(pass.grad_output, 1.0, grad_input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::tensor::Tensor;

    /// 2^24 + 1 is no f32: summed in f32, the ones would be lost.
    #[test]
    fn large_sums_stay_accurate() {
        let mut values = vec![1.0; 202];
        values[..2].fill(16_777_216.0);
        let mut tape = Tape::new();
        let x = tape.leaf(Tensor::from_vec(values, [101, 2]).unwrap());
        let columns = tape.apply(Sum::over([0]), &[x]).unwrap();
        assert_eq!(tape.value(columns).data(), [16_777_316.0; 2]);
        let all = tape.apply(Sum::all(), &[x]).unwrap();
        assert_eq!(tape.value(all).data(), [33_554_632.0]);
    }

    #[test]
    fn the_sum_of_nothing_is_zero() {
        let mut tape = Tape::new();
        let x = tape.leaf(Tensor::zeros_row_major([0, 3]));
        let y = tape.apply(Sum::over([0]), &[x]).unwrap();
        assert_eq!(tape.value(y).data(), [0.0; 3]);
    }
}
