//! A part of a tensor.

use std::ops::Range;

use super::operands;
use super::strided::{self, Walk, row_major_strides};
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{Tensor, TensorError, TensorSpec};

/// The part of the input within a range per axis, row-major.
///
/// ∂L/∂x is ∂L/∂y at its place, zero elsewhere.
///
/// ```
/// use taskweave::{autograd::Tape, ops::Slice, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?);
/// let y = tape.apply(Slice::new([0..1, 1..3]), &[x])?;
/// assert_eq!(tape.value(y).data(), [2.0, 3.0]);
/// let y = tape.apply(Slice::along(1, 0..1), &[x])?;
/// assert_eq!(tape.value(y).data(), [1.0, 4.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Slice {
    first_axis: usize,
    ranges: Vec<Range<usize>>,
}

impl Slice {
    /// A range for each of the leading axes; axes after them stay whole.
    pub fn new(ranges: impl Into<Vec<Range<usize>>>) -> Self {
        Self {
            first_axis: 0,
            ranges: ranges.into(),
        }
    }

    /// A range along one axis; the others stay whole.
    pub fn along(axis: usize, range: Range<usize>) -> Self {
        Self {
            first_axis: axis,
            ranges: vec![range],
        }
    }

    /// Each range with its axis.
    fn axes(&self) -> impl Iterator<Item = (usize, &Range<usize>)> {
        (self.first_axis..).zip(&self.ranges)
    }

    /// Strides of the whole tensor, and where in it the part begins.
    fn place(&self, whole: &Tensor) -> (Vec<usize>, usize) {
        let strides = row_major_strides(whole.shape().dims());
        let start = self
            .axes()
            .map(|(axis, range)| range.start * strides[axis])
            .sum();
        (strides, start)
    }
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let [input] = operands::row_major(self.name(), inputs)?;
        let mut dims = input.shape.dims().to_vec();
        for (axis, range) in self.axes() {
            operands::axis(self.name(), axis, input)?;
            if range.start > range.end || range.end > dims[axis] {
                return Err(TensorError::Value {
                    op: self.name(),
                    message: format!(
                        "range {range:?} lies outside 0..{} of axis {axis} of shape {}",
                        dims[axis], input.shape
                    ),
                });
            }
            dims[axis] = range.len();
        }
        Ok(TensorSpec::row_major(dims))
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let (strides, start) = self.place(pass.inputs[0]);
        let dims = pass.output.shape().dims();
        let walk = Walk::new(dims, [&strides, &row_major_strides(dims)]).starting_at([start, 0]);
        strided::copy(&walk, pass.inputs[0].data(), pass.output.data_mut());
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        let (strides, start) = self.place(grad_input);
        let dims = pass.grad_output.shape().dims();
        let walk = Walk::new(dims, [&row_major_strides(dims), &strides]).starting_at([0, start]);
        grad_input.data_mut().fill(0.0);
        strided::copy(&walk, pass.grad_output.data(), grad_input.data_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::ops::Sum;

    #[test]
    fn the_gradient_is_zero_outside_the_part() {
        let mut tape = Tape::new();
        let x = tape.parameter(Tensor::zeros_row_major([3, 3]));
        let part = tape.apply(Slice::new([1..3, 0..2]), &[x]).unwrap();
        let loss = tape.apply(Sum::all(), &[part]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        let expected = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0];
        assert_eq!(tape.grad(x).unwrap().data(), expected);
    }

    #[test]
    fn an_empty_part_has_an_all_zero_gradient() {
        let mut tape = Tape::new();
        let x = tape.parameter(Tensor::zeros_row_major([2, 2]));
        let part = tape.apply(Slice::along(1, 1..1), &[x]).unwrap();
        assert_eq!(tape.value(part).shape().dims(), [2, 0]);
        let loss = tape.apply(Sum::all(), &[part]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        assert_eq!(tape.grad(x).unwrap().data(), [0.0; 4]);
    }

    #[test]
    fn ranges_outside_the_tensor_are_named() {
        let input = TensorSpec::row_major([2, 3]);
        let message = |slice: Slice| slice.output_spec(&[&input]).unwrap_err().to_string();
        assert_eq!(
            message(Slice::along(1, 2..4)),
            "Slice: range 2..4 lies outside 0..3 of axis 1 of shape [2, 3]"
        );
        assert_eq!(
            message(Slice::along(2, 0..1)),
            "Slice: axis 2 does not exist in shape [2, 3]"
        );
    }
}
