//! Plain-loop references: what every kernel must compute, written so that it can be read.
//!
//! Everything here is row-major, allocates what it returns, and is generic over [`Float`]: in f64 it
//! is the reference of the property tests, in f32 it shows what the plain loop itself would round to.
//! A sum runs in index order in the type itself.
//!
//! # Panics
//! Every function panics if a slice is shorter than its shape says, like any indexing.

use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

mod batch_norm;
mod conv2d;
mod dense;
mod gemm;
mod pool;
mod softmax;
mod update;

pub use batch_norm::{
    BatchNormGradients, BatchNormShape, Normalization, batch_norm, batch_norm_backward,
    batch_statistics, inverse_deviation,
};
pub use conv2d::{Conv2dShape, conv2d, conv2d_grad_bias, conv2d_grad_input, conv2d_grad_weights};
pub use dense::{
    DenseShape, dense, dense_grad_bias, dense_grad_input, dense_grad_weights, relu, relu_backward,
};
pub use gemm::{Gemm, Matrix, gemm};
pub use pool::{PoolShape, average_pool, average_pool_backward, max_pool, max_pool_backward};
pub use softmax::{argmax, softmax, softmax_cross_entropy};
pub use update::{adam, momentum, sgd};

/// The two floating-point types that a reference runs in.
pub trait Float:
    Copy
    + Debug
    + Display
    + Default
    + PartialOrd
    + Add<Output = Self>
    + AddAssign
    + Sub<Output = Self>
    + SubAssign
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + Send
    + Sync
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// −∞, the maximum of nothing.
    const NEG_INFINITY: Self;
    /// The distance from 1 to the next larger number.
    const EPSILON: Self;

    /// The nearest value of this type.
    fn from_f64(value: f64) -> Self;
    /// The same value in f64, always exact.
    fn to_f64(self) -> f64;
    /// eˣ.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// |x|.
    fn abs(self) -> Self;
}

impl Float for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;
    const EPSILON: Self = f32::EPSILON;

    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn ln(self) -> Self {
        self.ln()
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    fn abs(self) -> Self {
        self.abs()
    }
}

impl Float for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;
    const EPSILON: Self = f64::EPSILON;

    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn ln(self) -> Self {
        self.ln()
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    fn abs(self) -> Self {
        self.abs()
    }
}

/// `values` in another float type: exact from f32 to f64, rounded to nearest from f64 to f32.
pub fn convert<From: Float, To: Float>(values: &[From]) -> Vec<To> {
    values
        .iter()
        .map(|value| To::from_f64(value.to_f64()))
        .collect()
}
