//! Differentiable operations, one file each.
//!
//! The row-major operations are an engine for any model: arithmetic with broadcasting ([`Add`],
//! [`Sub`], [`Mul`], [`Div`], [`Neg`], [`MatMul`]), reductions ([`Sum`], [`Mean`], [`Max`]), shapes
//! ([`Reshape`], [`Transpose`], [`Slice`], [`Concat`]) and functions ([`Exp`], [`Log`], [`Sqrt`],
//! [`Tanh`], [`Sigmoid`], [`Relu`], [`Softmax`], [`LogSoftmax`]). A function of single elements is an
//! operation once it implements [`Elementwise`].
//!
//! In lanes, the layout of the network kernels, work [`Dense`], [`Conv2d`], their sparse counterparts
//! [`SparseDense`] and [`SparseConv2d`], [`MaxPool`],
//! [`AveragePool`], [`BatchNorm`], [`Dropout`], [`SoftmaxCrossEntropy`] and [`Relu`]; [`Pack`] and
//! [`Unpack`] stand at the seams.
//!
//! Every operation is held to a plain f64 version of itself by
//! [`gradient_check`](crate::autograd::gradient_check); one that is not fails a test.

mod add;
mod average_pool;
mod batch_norm;
mod broadcast;
mod concat;
mod conv2d;
mod dense;
mod div;
mod dropout;
mod elementwise;
mod exp;
mod log;
mod log_softmax;
mod matmul;
mod max;
mod max_pool;
mod mean;
mod mul;
mod neg;
mod operands;
mod pack;
mod pooling;
mod precision;
mod reduce;
mod relu;
mod reshape;
mod rows;
mod sigmoid;
mod slice;
mod softmax;
mod softmax_cross_entropy;
mod sparse_conv2d;
mod sparse_dense;
mod sqrt;
mod strided;
mod sub;
mod sum;
mod tanh;
#[cfg(test)]
mod test_support;
mod transpose;
mod unpack;

pub use add::Add;
pub use average_pool::AveragePool;
pub use batch_norm::BatchNorm;
pub use concat::Concat;
pub use conv2d::Conv2d;
pub use dense::{Activation, Dense};
pub use div::Div;
pub use dropout::Dropout;
pub use elementwise::Elementwise;
pub use exp::Exp;
pub use log::Log;
pub use log_softmax::LogSoftmax;
pub use matmul::MatMul;
pub use max::Max;
pub use max_pool::MaxPool;
pub use mean::Mean;
pub use mul::Mul;
pub use neg::Neg;
pub use pack::Pack;
pub use precision::Precision;
pub use relu::Relu;
pub use reshape::Reshape;
pub use sigmoid::Sigmoid;
pub use slice::Slice;
pub use softmax::Softmax;
pub(crate) use softmax::softmax_row;
pub use softmax_cross_entropy::SoftmaxCrossEntropy;
pub use sparse_conv2d::SparseConv2d;
pub use sparse_dense::SparseDense;
pub use sqrt::Sqrt;
pub use sub::Sub;
pub use sum::Sum;
pub use tanh::Tanh;
pub use transpose::Transpose;
pub use unpack::Unpack;
