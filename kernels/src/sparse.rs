//! Products with few weights: dense layers and convolutions of which a task owns some positions.
//!
//! In lanes a weight is a scalar that is broadcast, so a weight that is not there costs nothing, however
//! the others lie. A [`Pattern`] says which positions there are and in which order their values stand;
//! it is built once for a mask. For AVX-512 its products forward and those of the input gradient are
//! compiled into machine code (the module `code`, which says how); elsewhere, where the system lets nobody
//! execute what was written, and for the gradient of the values, kernels walk through lists, as follows.
//! Code and lists add up the same products in the same order, to the same bits.
//!
//! A dense layer is here a convolution of single pixels, whose pixels are the blocks of sixteen images.
//! A *tile* of the result is a few neighbouring pixels. For each, a *chunk* of source channels is packed,
//! with all the pixels that windows on the tile reach and zeros beyond the edges, so that it lies in the
//! first-level cache. Then every channel of the result goes through its list of weights in that chunk:
//! a weight is broadcast, multiplied with the vectors of all pixels of the tile, and added to sums in
//! registers. Packing costs little beside that, since all channels of the result use what was packed.
//!
//! - **Forward**: lists of the weights of each output, ordered by input and tap; those of a chunk by their
//!   length, sixty-four outputs after the other.
//! - **Input gradient**: the same over a second index of the same values, with inputs and outputs in each
//!   other's place and the taps reversed.
//! - **Gradient of the values**: at every position that is owned, and nowhere else, the products of
//!   input and output gradient are summed over pixels and images (a sampled dense-dense product).
//!
//! Sums run in an order that depends on sizes alone, so results are the same on any number of threads.
//! They differ in the last bits from those of the dense kernels, which sum in another order.
//!
//! ```
//! use taskweave_kernels::dense::{Activation, Affine};
//! use taskweave_kernels::sparse::{self, Pattern};
//! use taskweave_kernels::{dispatch, lanes};
//!
//! let set = dispatch::active();
//! // Of a layer from two inputs to two outputs, the weights (0, 0) and (1, 0).
//! let pattern = Pattern::dense(set, [2, 2], &[1, 0, 1, 0]);
//! let mut values = [0.0; 2];
//! pattern.gather(&[3.0, 0.0, 4.0, 0.0], &mut values);
//! let mut x = vec![0.0; lanes::lanes_len(1, 2)];
//! lanes::pack(set, 1, 2, &[10.0, 1.0], &mut x);
//! let layer = Affine { weights: &values, bias: Some(&[0.5, 0.25]), activation: Activation::Linear };
//! let mut y = vec![0.0; lanes::lanes_len(1, 2)];
//! sparse::dense::forward(set, &pattern, 1, layer, &x, &mut y);
//! assert_eq!((y[0], y[16]), (34.5, 0.25));
//! ```

mod choice;
mod code;
pub mod conv2d;
mod correlate;
pub mod dense;
mod index;
mod lists;
mod pattern;
mod products;
mod sample;
mod sheets;

pub use choice::{
    Choice, ENV, Layer, Passes, UnknownChoice, choice_from_env, choose, expected_speedup,
};
pub use pattern::Pattern;
