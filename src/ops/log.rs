//! The natural logarithm.

use super::elementwise::Elementwise;

/// `y = ln x`, row-major. −∞ at zero and NaN below, as in NumPy.
///
/// ∂L/∂x = ∂L/∂y / x.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 0.0, f32::INFINITY], [3])?);
/// let y = tape.apply(ops::Log, &[x])?;
/// assert_eq!(tape.value(y).data(), [0.0, f32::NEG_INFINITY, f32::INFINITY]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Elementwise for Log {
    const NAME: &'static str = "Log";
    const IN_LANES: bool = false;

    fn value(x: f32) -> f32 {
        x.ln()
    }

    fn gradient(grad_output: f32, x: f32, _: f32) -> f32 {
        grad_output / x
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::test_support::{value_and_gradients, vector};

    #[test]
    fn outside_its_domain_it_is_not_finite() {
        let (y, [grad]) = value_and_gradients(Log, [vector(&[0.0, -1.0, 4.0])]);
        assert_eq!(y[0], f32::NEG_INFINITY);
        assert!(y[1].is_nan());
        assert_eq!(grad[2], 0.25);
    }
}
