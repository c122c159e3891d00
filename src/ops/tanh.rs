//! The hyperbolic tangent.

use super::elementwise::Elementwise;

/// `y = tanh x`, row-major or in lanes.
///
/// ∂L/∂x = ∂L/∂y · (1 - y²).
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![0.0, 100.0, -100.0], [3])?);
/// let y = tape.apply(ops::Tanh, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.0, 1.0, -1.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tanh;

impl Elementwise for Tanh {
    const NAME: &'static str = "Tanh";
    const IN_LANES: bool = true;

    fn value(x: f32) -> f32 {
        x.tanh()
    }

    fn gradient(grad_output: f32, _: f32, y: f32) -> f32 {
        grad_output * (1.0 - y) * (1.0 + y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};

    #[test]
    fn it_saturates_without_a_gradient() {
        let (y, [grad]) = value_and_gradients(Tanh, [vector(&[0.0, 100.0, f32::NEG_INFINITY])]);
        assert_eq!(y, [0.0, 1.0, -1.0]);
        assert_eq!(grad, [1.0, 0.0, 0.0]);
    }
}
