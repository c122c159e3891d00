//! The logistic function.

use super::elementwise::Elementwise;

/// `y = 1 / (1 + e⁻ˣ)`, row-major or in lanes.
///
/// ∂L/∂x = ∂L/∂y · e⁻|ˣ| / (1 + e⁻|ˣ|)², which equals y · (1 - y) but keeps its digits where y is
/// nearly one.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![0.0, 200.0, -200.0], [3])?);
/// let y = tape.apply(ops::Sigmoid, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.5, 1.0, 0.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid;

impl Elementwise for Sigmoid {
    const NAME: &'static str = "Sigmoid";
    const IN_LANES: bool = true;

    fn value(x: f32) -> f32 {
        1.0 / (1.0 + (-x).exp())
    }

    fn gradient(grad_output: f32, x: f32, _: f32) -> f32 {
        let decay = (-x.abs()).exp();
        grad_output * (decay / ((1.0 + decay) * (1.0 + decay)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};

    #[test]
    fn it_saturates_without_overflow() {
        let (y, [grad]) =
            value_and_gradients(Sigmoid, [vector(&[0.0, 200.0, -200.0, f32::INFINITY])]);
        assert_eq!(y, [0.5, 1.0, 0.0, 1.0]);
        assert_eq!(grad, [0.25, 0.0, 0.0, 0.0]);
    }

    /// y(1 - y) is zero from x = 17 on.
    #[test]
    fn the_gradient_keeps_its_digits_near_one() {
        let (_, [grad]) = value_and_gradients(Sigmoid, [vector(&[20.0, -20.0])]);
        let expected = (-20.0f32).exp();
        assert!((grad[0] / expected - 1.0).abs() < 1e-6);
        assert_eq!(grad[0], grad[1]);
    }
}
