//! Two-dimensional convolution over lanes, forward and backward.
//!
//! Activations lie in lanes, `[blocks][channels][height][width][16]` (see [`lanes`](crate::lanes)),
//! weights row-major `[kernel height, kernel width, inputs, outputs]` as in Keras. Whole blocks are
//! computed, empty lanes included: the input may hold any finite values in empty lanes, while an
//! output gradient must hold zeros there, since the weight gradient sums over all sixteen lanes.
//!
//! No window is ever written out (there is no `im2col` in memory). Windows of 3×3 that move by one go
//! by [`winograd`] where there are channels enough, all others by every product of the definition:
//! see [`Method`]. Work goes block by block of sixteen images; the gradient of the sums before an
//! activation exists for one block at a time only.
//!
//! No result depends on the number of threads: each sum over images runs in a fixed number of parts,
//! which are added in order.
//!
//! ```
//! use taskweave_kernels::conv2d::{self, Conv2dShape};
//! use taskweave_kernels::dense::{Activation, Affine};
//! use taskweave_kernels::window::{Padding, Window};
//! use taskweave_kernels::{dispatch, lanes};
//!
//! let set = dispatch::active();
//! let window = Window { kernel: [1, 2], stride: [1, 1], padding: Padding::Valid };
//! let shape = Conv2dShape { images: 1, inputs: 1, outputs: 1, height: 1, width: 3, window };
//! let mut x = vec![0.0; lanes::lanes_len(1, 3)];
//! lanes::pack(set, 1, 3, &[1.0, 2.0, 4.0], &mut x);
//! let layer = Affine { weights: &[-1.0, 1.0], bias: None, activation: Activation::Linear };
//! let mut y = vec![0.0; lanes::lanes_len(1, 2)];
//! conv2d::forward(set, &shape, layer, &x, &mut y);
//! assert_eq!([y[0], y[16]], [1.0, 2.0]);
//! ```

use rayon::prelude::*;

use crate::dense::{Activation, Affine};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::{blocks, check, lanes_len};
pub use crate::naive::Conv2dShape;
use crate::pool;
use crate::shared::{Shared, is_streamed};
use crate::window::Window;

mod backward;
mod correlation;
mod direct;
mod grad_weights;
mod max_pool;
mod taps;
mod weight_gradient;
pub mod winograd;

pub(crate) use backward::add_parts;
pub use backward::{Gradients, MaxPooled, Recorded, backward, backward_in_place, grad_bias};

pub use correlation::{ENV, Method, UnknownMethod, method_from_env};

use correlation::{Correlation, with_correlation};
pub(crate) use max_pool::{Pooled, Pooling, Ring};
use taps::Direction;
use winograd::{F4, PlaneTarget, Transform};

/// Tasks to aim at: enough for many cores, and for the last one not to keep the others waiting.
const TASKS: usize = 32;

/// Parts at most of a sum over images.
const MOST_PARTS: usize = 32;

/// Floats at most of all parts of a weight gradient: 64 MB.
const MOST_PART_FLOATS: usize = 16 << 20;

/// Blocks of images that are summed into one part of `part_len` floats: a number that depends on the
/// shape alone.
pub(crate) fn part_blocks(blocks: usize, part_len: usize) -> usize {
    let parts = (MOST_PART_FLOATS / part_len.max(1)).clamp(1, MOST_PARTS);
    blocks.div_ceil(parts).max(1)
}

/// What happens to the sums of a tile before they are written.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<'a> {
    /// One value per channel.
    bias: Option<&'a [f32]>,
    relu: bool,
    /// The result replaces what lies there, and is zero where that is not positive.
    rectified: bool,
}

impl<'a> Epilogue<'a> {
    /// Nothing.
    const NONE: Self = Self {
        bias: None,
        relu: false,
        rectified: false,
    };

    fn of(layer: &Affine<'a>) -> Self {
        Self {
            bias: layer.bias,
            relu: layer.activation == Activation::Relu,
            rectified: false,
        }
    }
}

/// Holds the operands of a forward pass to the lengths that the shape demands.
#[track_caller]
fn check_forward(shape: &Conv2dShape, layer: &Affine<'_>, x: &[f32]) {
    check(
        "x",
        x.len(),
        lanes_len(shape.images, shape.input_features()),
    );
    check("weights", layer.weights.len(), shape.weights());
    if let Some(bias) = layer.bias {
        check("bias", bias.len(), shape.outputs);
    }
}

/// `y = activation(x ⋆ weights + bias)`, from lanes `[inputs, height, width]` to lanes of the output.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn forward(
    set: InstructionSet,
    shape: &Conv2dShape,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    forward_by::<F4>(set, (shape, Method::of(shape)), layer, x, y);
}

/// [`forward`] by a method and a transform.
fn forward_by<T: Transform>(
    set: InstructionSet,
    by: (&Conv2dShape, Method),
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    let (shape, _) = by;
    check_forward(shape, &layer, x);
    check(
        "y",
        y.len(),
        lanes_len(shape.images, shape.output_features()),
    );
    with_correlation::<T, _>(set, by, Direction::Forward, layer.weights, |correlation| {
        correlate(set, correlation, x, Epilogue::of(&layer), y);
    });
}

/// [`forward`], then the maximum of every window over its output, which itself is never stored.
///
/// `pooled` is in lanes `[outputs, pooled height, pooled width]`; `argmax`, which the gradient needs, has a
/// byte for each of its floats: the place within the window, row by row, of the first of the largest
/// values. NaN is larger than every number.
///
/// # Panics
/// If a slice has another length than the shapes demand, or the window has more than 256 places.
pub fn forward_max_pool(
    set: InstructionSet,
    shape: &Conv2dShape,
    layer: Affine<'_>,
    window: Window,
    x: &[f32],
    pooled: &mut [f32],
    argmax: Option<&mut [u8]>,
) {
    let pooling = Pooling::new(shape, window);
    let output_len = pooling.output_len();
    check_forward(shape, &layer, x);
    check("pooled", pooled.len(), blocks(shape.images) * output_len);
    if let Some(argmax) = &argmax {
        check("argmax", argmax.len(), pooled.len());
    }
    if pooled.is_empty() {
        return;
    }
    if pooling.leaves_threads_idle() {
        with_scratch(lanes_len(shape.images, shape.output_features()), |y| {
            forward(set, shape, layer, x, y);
            pool::max_forward(set, pooling.shape(), y, pooled, argmax);
        });
        return;
    }
    let by = (shape, Method::of(shape));
    with_correlation::<F4, _>(set, by, Direction::Forward, layer.weights, |correlation| {
        let source_len = correlation.source_len();
        let ring_len = pooling.ring_len(correlation.band());
        pooling.for_each_block(pooled, argmax, |block, output, argmax| {
            with_scratch(ring_len + correlation.scratch_len(), |scratch| {
                let (ring, scratch) = scratch.split_at_mut(ring_len);
                set.run(PooledBlock {
                    correlation,
                    source: &x[block * source_len..][..source_len],
                    epilogue: Epilogue::of(&layer),
                    pooling: &pooling,
                    ring,
                    scratch,
                    output,
                    argmax,
                });
            });
        });
    });
}

/// One block of images, convolved and pooled.
struct PooledBlock<'a, T> {
    correlation: &'a Correlation<'a, T>,
    source: &'a [f32],
    epilogue: Epilogue<'a>,
    pooling: &'a Pooling,
    ring: &'a mut [f32],
    scratch: &'a mut [f32],
    /// And whether to write it past the caches.
    output: (&'a mut [f32], bool),
    argmax: Option<&'a mut [u8]>,
}

impl<T: Transform> Kernel for PooledBlock<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let band = self.correlation.band();
        let (ring_rows, row_len) = (self.pooling.ring_rows(band), self.pooling.row_len());
        for (y, bands) in self.pooling.rows(band) {
            for index in bands {
                let first = index * band;
                let place = self.ring[first % ring_rows * row_len..].as_mut_ptr();
                let target = PlaneTarget {
                    start: place.wrapping_sub(first * row_len),
                    channel_stride: ring_rows * row_len,
                    row_stride: row_len,
                    streamed: false,
                };
                // SAFETY: the ring is a whole number of bands high, so that it holds the rows of a
                // band one after the other, of every channel.
                unsafe {
                    self.correlation.rows(
                        isa,
                        self.source,
                        index..index + 1,
                        self.epilogue,
                        target,
                        self.scratch,
                    );
                }
            }
            let ring = Ring {
                values: self.ring,
                rows: ring_rows,
            };
            let output = (&mut *self.output.0, self.output.1);
            let argmax = self.argmax.as_deref_mut();
            self.pooling.pool_row(isa, ring, y, output, argmax);
        }
        if self.output.1 {
            isa.fence();
        }
    }
}

/// Every row of every block, in parallel.
fn correlate<T: Transform>(
    set: InstructionSet,
    correlation: &Correlation<'_, T>,
    source: &[f32],
    epilogue: Epilogue<'_>,
    result: &mut [f32],
) {
    let (source_len, result_len) = (correlation.source_len(), correlation.result_len());
    if result_len == 0 {
        return;
    }
    let blocks = result.len() / result_len;
    let bands = correlation.result_size()[0].div_ceil(correlation.band());
    let parts = TASKS.div_ceil(blocks.max(1)).min(bands);
    let part_bands = bands.div_ceil(parts);
    let shared = Shared::new(result.as_mut_ptr());
    let streamed = is_streamed(result.as_ptr(), result.len());
    (0..blocks * parts)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|task| {
            let (block, part) = (task / parts, task % parts);
            with_scratch(correlation.scratch_len(), |scratch| {
                set.run(Bands {
                    correlation,
                    source: &source[block * source_len..][..source_len],
                    epilogue,
                    bands: part * part_bands..bands.min((part + 1) * part_bands),
                    target: PlaneTarget::whole(
                        correlation.result_size(),
                        shared.start().wrapping_add(block * result_len),
                        streamed,
                    ),
                    scratch,
                });
            });
        });
}

/// Some rows of one block.
struct Bands<'a, T> {
    correlation: &'a Correlation<'a, T>,
    source: &'a [f32],
    epilogue: Epilogue<'a>,
    bands: std::ops::Range<usize>,
    /// The block of the result.
    target: PlaneTarget,
    scratch: &'a mut [f32],
}

impl<T: Transform> Kernel for Bands<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if self.bands.is_empty() {
            return;
        }
        // SAFETY: `correlate` gives every task bands of its own within the result.
        unsafe {
            self.correlation.rows(
                isa,
                self.source,
                self.bands,
                self.epilogue,
                self.target,
                self.scratch,
            );
        }
    }
}
