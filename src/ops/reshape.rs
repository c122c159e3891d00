//! The same elements under another shape.

use super::operands;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// The input's elements, in row-major order, under another shape of as many elements.
///
/// ∂L/∂x = ∂L/∂y under the input's shape.
///
/// ```
/// use taskweave::{autograd::Tape, ops::Reshape, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3])?);
/// let y = tape.apply(Reshape::to([3, 2]), &[x])?;
/// assert_eq!(tape.value(y).shape().dims(), [3, 2]);
/// let y = tape.apply(Reshape::inferring([None, Some(1), Some(2)])?, &[x])?;
/// assert_eq!(tape.value(y).shape().dims(), [3, 1, 2]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Reshape {
    dims: Vec<Option<usize>>,
}

impl Reshape {
    /// To exactly these dimensions.
    pub fn to(dims: impl Into<Vec<usize>>) -> Self {
        Self {
            dims: dims.into().into_iter().map(Some).collect(),
        }
    }

    /// To these dimensions; the one that is `None` follows from the number of elements, for
    /// instance the batch size.
    ///
    /// # Errors
    /// When more than one is `None`.
    pub fn inferring(dims: impl Into<Vec<Option<usize>>>) -> Result<Self, TensorError> {
        let dims = dims.into();
        match dims.iter().filter(|dim| dim.is_none()).count() {
            0 | 1 => Ok(Self { dims }),
            unknown => Err(TensorError::Value {
                op: "Reshape",
                message: format!("{unknown} dimensions are to be inferred; at most one can be"),
            }),
        }
    }
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let [input] = operands::row_major(self.name(), inputs)?;
        let elements = input.shape.elements();
        let known = self.dims.iter().flatten().product::<usize>();
        let inferred = elements.checked_div(known).unwrap_or(0);
        let dims = self.dims.iter().map(|dim| dim.unwrap_or(inferred));
        let spec = TensorSpec::row_major(dims.collect::<Vec<_>>());
        if spec.shape.elements() == elements {
            return Ok(spec);
        }
        let wanted = self.dims.iter().map(|dim| match dim {
            Some(dim) => dim.to_string(),
            None => "?".to_string(),
        });
        Err(TensorError::Value {
            op: self.name(),
            message: format!(
                "the {elements} elements of shape {} do not fit shape [{}]",
                input.shape,
                wanted.collect::<Vec<_>>().join(", ")
            ),
        })
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        pass.output
            .data_mut()
            .copy_from_slice(pass.inputs[0].data());
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        if let Some(grad_input) = &mut pass.grad_inputs[0] {
            grad_input
                .data_mut()
                .copy_from_slice(pass.grad_output.data());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reshaped(reshape: &Reshape, dims: &[usize]) -> Result<Vec<usize>, String> {
        let spec = reshape.output_spec(&[&TensorSpec::row_major(dims)]);
        spec.map(|spec| spec.shape.dims().to_vec())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn another_number_of_elements_is_refused() {
        assert_eq!(
            reshaped(&Reshape::to([4, 2]), &[2, 3]).unwrap_err(),
            "Reshape: the 6 elements of shape [2, 3] do not fit shape [4, 2]"
        );
        let halves = Reshape::inferring([None, Some(4)]).unwrap();
        assert_eq!(
            reshaped(&halves, &[2, 3]).unwrap_err(),
            "Reshape: the 6 elements of shape [2, 3] do not fit shape [?, 4]"
        );
    }

    #[test]
    fn the_inferred_dimension_follows_the_batch() {
        let flat = Reshape::inferring([None, Some(6)]).unwrap();
        assert_eq!(reshaped(&flat, &[5, 2, 3]), Ok(vec![5, 6]));
        assert_eq!(reshaped(&flat, &[0, 2, 3]), Ok(vec![0, 6]));
        assert_eq!(reshaped(&Reshape::to([]), &[1, 1]), Ok(vec![]));
        assert!(Reshape::inferring([None, None]).is_err());
    }
}
