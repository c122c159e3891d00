//! Tensors joined along an axis.

use super::operands;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{Tensor, TensorError, TensorSpec};

/// One or more row-major tensors joined along an existing axis; their other axes must agree.
///
/// ∂L/∂xᵢ is the part of ∂L/∂y that came from xᵢ.
///
/// ```
/// use taskweave::{autograd::Tape, ops::Concat, tensor::Tensor};
/// let mut tape = Tape::new();
/// let a = tape.leaf(Tensor::from_vec(vec![1.0, 2.0], [2, 1])?);
/// let b = tape.leaf(Tensor::from_vec(vec![3.0, 4.0, 5.0, 6.0], [2, 2])?);
/// let y = tape.apply(Concat { axis: 1 }, &[a, b])?;
/// assert_eq!(tape.value(y).data(), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Concat {
    /// The axis to join along, counted from 0.
    pub axis: usize,
}

impl Concat {
    /// Contiguous elements that one index of the axes before `axis` spans.
    fn stretch(&self, tensor: &Tensor) -> usize {
        tensor.shape().dims()[self.axis..].iter().product()
    }
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let Some((first, rest)) = inputs.split_first() else {
            return Err(TensorError::Arity {
                op: self.name(),
                expected: 1,
                found: 0,
            });
        };
        for (input, spec) in inputs.iter().enumerate() {
            operands::layout(self.name(), input, spec, crate::tensor::Layout::RowMajor)?;
        }
        operands::axis(self.name(), self.axis, first)?;
        let mut dims = first.shape.dims().to_vec();
        for spec in rest {
            let other = spec.shape.dims();
            let agree = other.len() == dims.len()
                && (0..dims.len()).all(|axis| axis == self.axis || other[axis] == dims[axis]);
            if !agree {
                let expected = format!("all axes but axis {} must agree", self.axis);
                return Err(operands::misfit(self.name(), inputs, expected));
            }
            dims[self.axis] += other[self.axis];
        }
        Ok(TensorSpec::row_major(dims))
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let row = self.stretch(pass.output);
        let mut start = 0;
        for input in pass.inputs {
            let part = self.stretch(input);
            if part > 0 {
                let rows = pass.output.data_mut().chunks_exact_mut(row);
                for (row, part) in rows.zip(input.data().chunks_exact(part)) {
                    row[start..start + part.len()].copy_from_slice(part);
                }
            }
            start += part;
        }
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let row = self.stretch(pass.grad_output);
        let mut start = 0;
        for (input, grad_input) in pass.inputs.iter().zip(pass.grad_inputs) {
            let part = self.stretch(input);
            if let (Some(grad_input), true) = (grad_input, part > 0) {
                let rows = pass.grad_output.data().chunks_exact(row);
                for (row, part) in rows.zip(grad_input.data_mut().chunks_exact_mut(part)) {
                    part.copy_from_slice(&row[start..start + part.len()]);
                }
            }
            start += part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let specs = [[2, 3], [3, 3]].map(TensorSpec::row_major);
        let specs: Vec<&TensorSpec> = specs.iter().collect();
        assert_eq!(
            Concat { axis: 1 }
                .output_spec(&specs)
                .unwrap_err()
                .to_string(),
            "Concat: shapes [2, 3] and [3, 3] do not fit; all axes but axis 1 must agree"
        );
        let joined = Concat { axis: 0 }.output_spec(&specs).unwrap();
        assert_eq!(joined.shape.dims(), [5, 3]);
        assert!(Concat { axis: 2 }.output_spec(&specs).is_err());
        assert!(Concat { axis: 0 }.output_spec(&[]).is_err());
    }
}
