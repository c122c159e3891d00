//! Matrix multiplication.

pub mod tile;
