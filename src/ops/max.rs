//! The maximum over axes.

use super::reduce::{Axes, reduction_constructors};
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{TensorError, TensorSpec};

/// `y = max x` over all or some axes, row-major. NaN if one of the elements is. An axis of size 0 is
/// an error.
///
/// ∂L/∂x = ∂L/∂y at the first maximum in row-major order (or the first NaN), else zero.
///
/// ```
/// use taskweave::{autograd::Tape, ops::Max, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0, 5.0, 9.0], [2, 3])?);
/// let y = tape.apply(Max::all(), &[x])?;
/// assert_eq!(tape.value(y).data(), [9.0]);
/// let y = tape.apply(Max::over([0]), &[x])?;
/// assert_eq!(tape.value(y).data(), [4.0, 5.0, 9.0]);
/// let y = tape.apply(Max::over([1]).keep_dims(), &[x])?;
/// assert_eq!(tape.value(y).data(), [3.0, 9.0]);
/// assert_eq!(tape.value(y).shape().dims(), [2, 1]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Max(Axes);

reduction_constructors!(Max);

impl Op for Max {
    fn name(&self) -> &'static str {
        "Max"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        self.0.nonempty_output_spec(self.name(), inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let (input, output) = (pass.inputs[0].data(), pass.output.data_mut());
        output.fill(f32::NEG_INFINITY);
        self.0.walk(pass.inputs[0]).for_each_run(|run| {
            for [from, to] in run.places() {
                if input[from] > output[to] || input[from].is_nan() {
                    output[to] = input[from];
                }
            }
        });
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        let (input, output) = (pass.inputs[0].data(), pass.output.data());
        let (grad_output, grad_input) = (pass.grad_output.data(), grad_input.data_mut());
        let mut found = vec![false; output.len()];
        self.0.walk(pass.inputs[0]).for_each_run(|run| {
            for [at, to] in run.places() {
                let first = !found[to] && (input[at] == output[to] || input[at].is_nan());
                found[to] |= first;
                grad_input[at] = if first { grad_output[to] } else { 0.0 };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};
    use crate::tensor::Tensor;

    #[test]
    fn the_gradient_goes_to_the_first_of_equals() {
        let (max, [grad]) = value_and_gradients(Max::all(), [vector(&[1.0, 3.0, 3.0, 2.0, 3.0])]);
        assert_eq!(max, [3.0]);
        assert_eq!(grad, [0.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn nan_and_infinities_are_not_hidden() {
        let (max, [grad]) = value_and_gradients(Max::all(), [vector(&[1.0, f32::NAN, 5.0])]);
        assert!(max[0].is_nan());
        assert_eq!(grad, [0.0, 1.0, 0.0]);
        let (max, [grad]) = value_and_gradients(Max::all(), [vector(&[f32::NEG_INFINITY; 2])]);
        assert_eq!(max, [f32::NEG_INFINITY]);
        assert_eq!(grad, [1.0, 0.0]);
    }

    #[test]
    fn each_output_has_a_maximum_of_its_own() {
        let x = Tensor::from_vec(vec![1.0, 5.0, 2.0, 4.0, 5.0, 3.0], [2, 3]).unwrap();
        let (max, [grad]) = value_and_gradients(Max::over([0]), [x]);
        assert_eq!(max, [4.0, 5.0, 3.0]);
        assert_eq!(grad, [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]);
    }
}
