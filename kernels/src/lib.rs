//! CPU kernels of taskweave: slices and shape structs in, slices out.
//!
//! Activations are stored in *lanes*: sixteen images ride in one vector, `[N/16][features][16]`
//! (see [`lanes`]). Every kernel takes an [`InstructionSet`](dispatch::InstructionSet), runs the
//! same generic code on it, and has a plain reference in [`naive`] that the property tests hold it to.
#![allow(unsafe_code)]

pub mod allocations;
pub mod batch_norm;
pub mod buffer;
pub mod check;
mod chunks;
pub mod conv2d;
pub mod dense;
pub mod dispatch;
pub mod elementwise;
pub mod gemm;
pub mod in_place;
pub mod isa;
pub mod lanes;
pub mod naive;
pub mod peak;
pub mod pool;
mod shared;
pub mod single;
pub mod softmax;
pub mod sparse;
pub mod update;
pub mod window;
