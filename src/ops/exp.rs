//! The exponential function.

use super::elementwise::Elementwise;

/// `y = eˣ`, row-major. Infinite above x = 88.72.
///
/// ∂L/∂x = ∂L/∂y · y.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![0.0, 89.0, f32::NEG_INFINITY], [3])?);
/// let y = tape.apply(ops::Exp, &[x])?;
/// assert_eq!(tape.value(y).data(), [1.0, f32::INFINITY, 0.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Exp;

impl Elementwise for Exp {
    const NAME: &'static str = "Exp";
    const IN_LANES: bool = false;

    fn value(x: f32) -> f32 {
        x.exp()
    }

    fn gradient(grad_output: f32, _: f32, y: f32) -> f32 {
        grad_output * y
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};

    #[test]
    fn the_gradient_is_the_value() {
        let (y, [grad]) = value_and_gradients(Exp, [vector(&[-1.0, 0.0, 2.0])]);
        assert_eq!(y, grad);
        assert_eq!(y[1], 1.0);
    }
}
