//! Placeholder.

pub mod npy;
