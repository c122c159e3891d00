//! Winograd's minimal filtering for windows of three by three places that move by one.
//!
//! The result is cut into tiles of `m` by `m` pixels. Each depends on a square of the source with
//! sides of `m + 2` pixels. Transformed squares times transformed weights, point by point, are
//! transformed outputs; so a tile takes `(m + 2)²` products for each pair of channels in place of
//! `9 m²`: 4 times fewer for [`F4`], 2.25 times fewer for [`F2`] (Winograd, *Arithmetic Complexity
//! of Computations*, 1980; Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*,
//! 2016).
//!
//! The sums over channels are `(m + 2)²` small matrix products on the micro-kernel of all products:
//! weights are broadcast, and the vectors are sixteen images of one tile. A group of tiles is
//! transformed, multiplied and transformed back while it lies in the second-level cache. The
//! weights are transformed once per call. The input gradient is the same sum with the taps in
//! reverse order and the channels swapped.
//!
//! Terms of the transforms cancel, so results are less exact than those of plain sums: over 64
//! input channels the root mean square error, relative to that of the results, is about 1.1e-6 for
//! [`F4`] and 2.6e-7 for [`F2`]. An infinite or NaN pixel spoils all the tiles that it reaches.
//!
//! The gradient of the weights sums the outer products of transformed inputs and transformed
//! output gradients over all tiles and images, and is transformed back once, at the end.
//!
//! ```
//! use taskweave_kernels::conv2d::Conv2dShape;
//! use taskweave_kernels::conv2d::winograd::{self, F4};
//! use taskweave_kernels::dense::{Activation, Affine};
//! use taskweave_kernels::window::{Padding, Window};
//! use taskweave_kernels::{dispatch, lanes};
//!
//! let set = dispatch::active();
//! let window = Window { kernel: [3, 3], stride: [1, 1], padding: Padding::Same };
//! let shape = Conv2dShape { images: 1, inputs: 1, outputs: 1, height: 1, width: 2, window };
//! let mut x = vec![0.0; lanes::lanes_len(1, 2)];
//! lanes::pack(set, 1, 2, &[10.0, 20.0], &mut x);
//! let weights = [0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0];
//! let layer = Affine { weights: &weights, bias: None, activation: Activation::Linear };
//! let mut y = vec![0.0; lanes::lanes_len(1, 2)];
//! winograd::forward::<F4>(set, &shape, layer, &x, &mut y);
//! assert!((y[0] - 80.0).abs() < 1e-3 && (y[16] - 50.0).abs() < 1e-3);
//! ```

use super::backward::backward_by;
use super::{Conv2dShape, Gradients, Method, Recorded, forward_by};
use crate::dense::{Activation, Affine};
use crate::dispatch::InstructionSet;

mod correlate;
mod grad_weights;
mod tiles;
mod transform;
mod weights;

pub(super) use correlate::{Band, Plan, PlaneTarget, correlate};
pub(super) use grad_weights::{GradBlock, GradPlan, add_grad_weights, sum_parts};
pub use transform::{F2, F4, Line, MOST_POINTS, ONE, Transform};
pub(super) use weights::transform_weights;

/// Whether the window of a shape is one that these kernels compute: three by three places, by one.
pub fn computes(shape: &Conv2dShape) -> bool {
    shape.window.kernel == [3, 3] && shape.window.stride == [1, 1]
}

/// Refuses a window that these kernels do not compute.
fn check_window(shape: &Conv2dShape) {
    assert!(
        computes(shape),
        "Winograd's tiles are for windows of 3×3 that move by one, not {:?}",
        shape.window
    );
}

/// `y = activation(x ⋆ weights + bias)`, from lanes `[inputs, height, width]` to lanes of the
/// output.
///
/// # Panics
/// If a slice has another length than the shape demands, or the window is not [one for
/// this](computes).
pub fn forward<T: Transform>(
    set: InstructionSet,
    shape: &Conv2dShape,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    check_window(shape);
    forward_by::<T>(set, (shape, Method::Winograd), layer, x, y);
}

/// The gradient with respect to the input, from lanes of the output to lanes of the input.
///
/// # Panics
/// If a slice has another length than the shape demands, or the window is not [one for
/// this](computes).
pub fn grad_input<T: Transform>(
    set: InstructionSet,
    shape: &Conv2dShape,
    grad_output: &[f32],
    weights: &[f32],
    grad_input: &mut [f32],
) {
    let gradients = Gradients {
        input: Some(grad_input),
        ..Gradients::default()
    };
    let recorded = sums(&[], weights);
    check_window(shape);
    let by = (shape, Method::Winograd);
    backward_by::<T>(set, by, recorded, grad_output, gradients, None);
}

/// A forward pass that neither activation nor pooling followed.
fn sums<'a>(x: &'a [f32], weights: &'a [f32]) -> Recorded<'a> {
    Recorded {
        x,
        weights,
        y: &[],
        activation: Activation::Linear,
        max_pool: None,
    }
}

/// The gradients with respect to the weights, row-major `[3, 3, inputs, outputs]`, and to the bias, if
/// that is wanted. Empty lanes of `grad_output` must be zero and of `x` finite.
///
/// # Panics
/// If a slice has another length than the shape demands, or the window is not [one for
/// this](computes).
pub fn grad_weights<T: Transform>(
    set: InstructionSet,
    shape: &Conv2dShape,
    x: &[f32],
    grad_output: &[f32],
    grad_weights: &mut [f32],
    grad_bias: Option<&mut [f32]>,
) {
    let gradients = Gradients {
        weights: Some(grad_weights),
        bias: grad_bias,
        ..Gradients::default()
    };
    check_window(shape);
    let by = (shape, Method::Winograd);
    backward_by::<T>(set, by, sums(x, &[]), grad_output, gradients, None);
}
