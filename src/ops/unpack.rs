//! From lanes into row-major.

use super::operands;
use super::pack::{pack, unpack};
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{Layout, TensorError, TensorSpec};

/// The same values in row-major order: lanes `[N, features...]` to row-major `[N, features...]`.
///
/// ∂L/∂x is ∂L/∂y packed, empty lanes zero.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let rows = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?;
/// let x = tape.leaf(rows.to_lanes()?);
/// let y = tape.apply(ops::Unpack, &[x])?;
/// assert_eq!(tape.value(y).data(), rows.data());
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Unpack;

impl Op for Unpack {
    fn name(&self) -> &'static str {
        "Unpack"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let [input] = operands::exactly(self.name(), inputs)?;
        operands::layout(self.name(), 0, input, Layout::Lanes)?;
        Ok(TensorSpec::row_major(input.shape.clone()))
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        unpack(pass.inputs[0], pass.output);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        if let Some(grad_input) = &mut pass.grad_inputs[0] {
            pack(pass.grad_output, grad_input);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_row_major_already_is_refused() {
        let error = Unpack.output_spec(&[&TensorSpec::row_major([2, 3])]);
        let message = "Unpack works on lanes tensors, but input 0 is row-major";
        assert_eq!(error.unwrap_err().to_string(), message);
    }
}
