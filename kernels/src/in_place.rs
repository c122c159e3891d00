//! Backward passes whose input gradient takes the place of the input.
//!
//! Where nobody else reads the input of a layer, its memory is the best place for its gradient: it was
//! read just before, so it is in the caches, and there is no second tensor of its size. A relu in front
//! of the layer only ever asks its output for its sign, so its own backward pass is done on the way.

/// The input of a layer, which its gradient replaces.
#[derive(Debug)]
pub struct InPlace<'a> {
    /// The input, in lanes.
    pub x: &'a mut [f32],
    /// The input came out of a relu, and what replaces it is the gradient of that relu's own input:
    /// zero wherever `x` is not positive.
    pub rectified: bool,
}
