//! From row-major into lanes.

use taskweave_kernels::{dispatch::active, lanes};

use super::operands;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

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
        let spec = pass.output.spec();
        let (images, features) = (spec.images(), spec.features());
        let (rows, packed) = (pass.inputs[0].data(), pass.output.data_mut());
        lanes::pack(active(), images, features, rows, packed);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        let spec = pass.output.spec();
        let (images, features) = (spec.images(), spec.features());
        let (packed, rows) = (pass.grad_output.data(), grad_input.data_mut());
        lanes::unpack(active(), images, features, packed, rows);
    }
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
