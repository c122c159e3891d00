//! Kernels for one image: what latency asks for.
//!
//! In lanes one image would leave fifteen of sixteen lanes idle. Here values are row-major, `[features]` or
//! `[channels, height, width]`, and a vector is sixteen neighbours: outputs of a dense layer, pixels of a
//! plane.
//!
//! - **Dense layers** add up rows of weights, one for each input, and skip the rows whose input is zero, as
//!   behind a relu many are: what is not read need not come from memory. So a weight that is infinite or
//!   NaN has no effect behind a zero. Where few weights are there, sixteen outputs at a time pick what
//!   they are multiplied with from inputs in registers, or each output adds up its own
//!   ([`SparseDense`]).
//! - **Convolutions** see a padded plane as one long row. A tap is then the same distance from every place,
//!   and a tile of the result runs on from one row to the next; what lies between two rows is computed and
//!   dropped. A window that moves by more than one is computed everywhere, and taken where it stands. Of
//!   few weights each output channel has its own list ([`SparseConv2d`]).
//!
//! Results differ in the last bits from those in lanes, which are summed in another order. Sums are cut by
//! sizes alone, so they are the same on any number of threads.
//!
//! ```
//! use taskweave_kernels::dense::{Activation, Affine};
//! use taskweave_kernels::{dispatch, single};
//! let layer = Affine { weights: &[1.0, 2.0, 3.0, 4.0], bias: None, activation: Activation::Relu };
//! let mut y = [0.0; 2];
//! single::dense(dispatch::active(), [2, 2], layer, &[10.0, -1.0], &mut y);
//! assert_eq!(y, [7.0, 16.0]);
//! ```

mod awake;
mod batch_norm;
mod conv2d;
mod dense;
mod lists;
mod planes;
mod pool;

pub use awake::stay_awake;
pub use batch_norm::batch_norm;
pub use conv2d::{SparseConv2d, conv2d};
pub use dense::{SparseDense, dense};
pub use pool::{average_pool, max_pool};
