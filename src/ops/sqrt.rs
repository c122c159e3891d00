//! The square root.

use super::elementwise::Elementwise;

/// `y = √x`, row-major. NaN below zero, as in NumPy; the gradient is infinite at zero.
///
/// ∂L/∂x = ∂L/∂y / (2y).
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![0.0, 4.0, 2.25], [3])?);
/// let y = tape.apply(ops::Sqrt, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.0, 2.0, 1.5]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sqrt;

impl Elementwise for Sqrt {
    const NAME: &'static str = "Sqrt";
    const IN_LANES: bool = false;

    fn value(x: f32) -> f32 {
        x.sqrt()
    }

    fn gradient(grad_output: f32, _: f32, y: f32) -> f32 {
        0.5 * grad_output / y
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};

    #[test]
    fn the_gradient_is_half_the_reciprocal_root() {
        let (y, [grad]) = value_and_gradients(Sqrt, [vector(&[4.0, 0.0, -1.0])]);
        assert_eq!(y[..2], [2.0, 0.0]);
        assert!(y[2].is_nan());
        assert_eq!(grad[..2], [0.25, f32::INFINITY]);
    }
}
