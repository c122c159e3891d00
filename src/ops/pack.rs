//! From row-major into lanes.

use taskweave_kernels::{dispatch::active, lanes};

use super::operands;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{Tensor, TensorError, TensorSpec};

/// The same values in lanes: row-major `[N, features...]` to lanes `[N, features...]`, empty lanes
/// zero.
///
/// ∂L/∂x is ∂L/∂y unpacked.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?);
/// let y = tape.apply(ops::Pack, &[x])?;
/// assert_eq!(tape.value(y).spec().to_string(), "lanes [2, 3]");
/// assert_eq!(tape.value(y).data()[..3], [1.0, 4.0, 0.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Pack;

impl Op for Pack {
    fn name(&self) -> &'static str {
        "Pack"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let [input] = operands::row_major(self.name(), inputs)?;
        operands::axis(self.name(), 0, input)?;
        Ok(TensorSpec::lanes(input.shape.clone()))
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        pack(pass.inputs[0], pass.output);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        if let Some(grad_input) = &mut pass.grad_inputs[0] {
            unpack(pass.grad_output, grad_input);
        }
    }
}

/// Row-major to lanes of the same shape.
pub(super) fn pack(rows: &Tensor, packed: &mut Tensor) {
    let (images, features) = (rows.spec().images(), rows.spec().features());
    lanes::pack(active(), images, features, rows.data(), packed.data_mut());
}

/// Lanes to row-major of the same shape.
pub(super) fn unpack(packed: &Tensor, rows: &mut Tensor) {
    let (images, features) = (packed.spec().images(), packed.spec().features());
    lanes::unpack(active(), images, features, packed.data(), rows.data_mut());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_has_no_images() {
        let error = Pack.output_spec(&[&TensorSpec::row_major([])]).unwrap_err();
        let message = "Pack: axis 0 does not exist in shape []";
        assert_eq!(error.to_string(), message);
    }
}
