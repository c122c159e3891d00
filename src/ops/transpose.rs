//! Axes in another order.

use super::operands;
use super::strided::{self, Walk, row_major_strides};
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{Tensor, TensorError, TensorSpec};

/// The input with its axes in another order, row-major: axis `i` of the output is axis `axes[i]` of
/// the input.
///
/// ∂L/∂x is ∂L/∂y with the axes put back.
///
/// ```
/// use taskweave::{autograd::Tape, ops::Transpose, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?);
/// let y = tape.apply(Transpose::axes([1, 0]), &[x])?;
/// assert_eq!(tape.value(y).data(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Transpose {
    axes: Vec<usize>,
}

impl Transpose {
    /// A permutation of all axes, counted from 0.
    pub fn axes(axes: impl Into<Vec<usize>>) -> Self {
        Self { axes: axes.into() }
    }

    /// Strides of the input along the axes of the output.
    fn input_strides(&self, input: &Tensor) -> Vec<usize> {
        let strides = row_major_strides(input.shape().dims());
        self.axes.iter().map(|&axis| strides[axis]).collect()
    }
}

impl Op for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let [input] = operands::row_major(self.name(), inputs)?;
        let mut sorted = self.axes.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..input.shape.rank()) {
            return Err(TensorError::Value {
                op: self.name(),
                message: format!(
                    "axes {:?} are no permutation of the {} axes of shape {}",
                    self.axes,
                    input.shape.rank(),
                    input.shape
                ),
            });
        }
        let dims = self.axes.iter().map(|&axis| input.shape.dims()[axis]);
        Ok(TensorSpec::row_major(dims.collect::<Vec<_>>()))
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let (input, dims) = (pass.inputs[0], pass.output.shape().dims());
        let walk = Walk::new(dims, [&self.input_strides(input), &row_major_strides(dims)]);
        strided::copy(&walk, input.data(), pass.output.data_mut());
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        if let Some(grad_input) = &mut pass.grad_inputs[0] {
            let dims = pass.grad_output.shape().dims();
            let to_input = self.input_strides(grad_input);
            let walk = Walk::new(dims, [&row_major_strides(dims), &to_input]);
            strided::copy(&walk, pass.grad_output.data(), grad_input.data_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_permutation_is_refused() {
        let input = TensorSpec::row_major([2, 3]);
        for axes in [vec![0, 0], vec![0], vec![0, 2], vec![0, 1, 2]] {
            assert!(Transpose::axes(axes).output_spec(&[&input]).is_err());
        }
        assert_eq!(
            Transpose::axes([1, 1])
                .output_spec(&[&input])
                .unwrap_err()
                .to_string(),
            "Transpose: axes [1, 1] are no permutation of the 2 axes of shape [2, 3]"
        );
    }

    #[test]
    fn three_axes_rotate() {
        let spec = Transpose::axes([2, 0, 1]).output_spec(&[&TensorSpec::row_major([2, 3, 4])]);
        assert_eq!(spec.unwrap().shape.dims(), [4, 2, 3]);
    }
}
