//! Machine code for AVX-512: the weights of one mask in a row, without lists or loops.
//!
//! A kernel that walks through lists spends as much on them as on the products: ends of lists that the
//! processor does not foresee, and sums that leave their registers between one list and the next. A mask
//! is fixed for thousands of steps, so for AVX-512 its products are compiled: instructions name the
//! register of each sum and the place of each operand, and the values, which change, are read one behind
//! the other. Sums run in the same order as by lists, so the results are the same to the last bit, and
//! where the system refuses memory that may be executed, lists compute them.

mod assembler;
mod endings;
mod memory;
mod packing;
mod pairs;
mod pooled;
mod product;
mod program;
mod rows;
mod segment;

#[cfg(test)]
pub(super) use memory::Code;
pub(super) use product::Product;
pub(super) use program::Program;
