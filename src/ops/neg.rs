//! Negation.

use super::elementwise::Elementwise;

/// `y = -x`, row-major or in lanes.
///
/// ∂L/∂x = -∂L/∂y.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, -2.0, 0.5], [3])?);
/// let y = tape.apply(ops::Neg, &[x])?;
/// assert_eq!(tape.value(y).data(), [-1.0, 2.0, -0.5]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Neg;

impl Elementwise for Neg {
    const NAME: &'static str = "Neg";
    const IN_LANES: bool = true;

    fn value(x: f32) -> f32 {
        -x
    }

    fn gradient(grad_output: f32, _: f32, _: f32) -> f32 {
        -grad_output
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};

    #[test]
    fn the_gradient_is_minus_one() {
        let (y, [grad]) = value_and_gradients(Neg, [vector(&[3.0, f32::INFINITY])]);
        assert_eq!(y, [-3.0, f32::NEG_INFINITY]);
        assert_eq!(grad, [-1.0, -1.0]);
    }
}
