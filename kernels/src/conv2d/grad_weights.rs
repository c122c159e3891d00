//! The weight gradient: for each weight the sum of input times output gradient over all pixels and
//! images.
//!
//! It needs no transposition: the sixteen images of a vector are summed only at the very end. A tile
//! of registers is a few taps by a few output channels, each a vector of sixteen partial sums; at
//! every pixel it reads a vector of each and multiplies each with each. The input channel at hand is
//! copied between zeros first, so that all taps of all pixels are equal.

use super::Conv2dShape;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::window::Axis;

/// Taps of a chunk at most, whatever the tile.
const MOST_TAPS: usize = 16;

/// Floats of one channel of one block between its zeros.
pub(super) fn padded_len(shape: &Conv2dShape) -> usize {
    let [rows, columns] = shape.window.axes([shape.height, shape.width]);
    covered(&rows) * covered(&columns) * LANES
}

/// Places of an axis, padding included, that windows cover.
fn covered(axis: &Axis) -> usize {
    match axis.output {
        0 => 0,
        output => (output - 1) * axis.stride + axis.kernel,
    }
}

/// Adds the gradient of one block of images to `grad_weights`, `[kh, kw, inputs, outputs]`.
///
/// `x` and `grad_output` are one block each; `padded` holds [`padded_len`] floats of any content.
#[inline(always)]
pub(super) fn add_block<I: Isa>(
    isa: I,
    shape: &Conv2dShape,
    x: &[f32],
    grad_output: &[f32],
    padded: &mut [f32],
    grad_weights: &mut [f32],
) {
    assert_eq!(x.len(), shape.input_features() * LANES);
    assert_eq!(grad_output.len(), shape.output_features() * LANES);
    assert_eq!(padded.len(), padded_len(shape));
    assert_eq!(grad_weights.len(), shape.weights());
    if padded.is_empty() || x.is_empty() || grad_output.is_empty() {
        return;
    }
    padded.fill(0.0);
    let plane = shape.height * shape.width * LANES;
    for (input, x) in x.chunks_exact(plane).enumerate() {
        let axes = shape.window.axes([shape.height, shape.width]);
        copy_between_zeros(axes, x, padded);
        isa.outer_product_tile(Channel {
            shape,
            axes,
            input,
            padded,
            grad_output,
            grad_weights: &mut *grad_weights,
        });
    }
}

/// Copies a channel to its place among zeros, as far as windows reach.
#[inline(always)]
fn copy_between_zeros([rows, columns]: [Axis; 2], x: &[f32], padded: &mut [f32]) {
    let width = covered(&columns);
    let height = covered(&rows);
    let used = columns.input.min(width - columns.before);
    for (y, row) in x.chunks_exact(columns.input * LANES).enumerate() {
        if y + rows.before < height {
            let start = ((y + rows.before) * width + columns.before) * LANES;
            padded[start..start + used * LANES].copy_from_slice(&row[..used * LANES]);
        }
    }
}

/// One input channel of a block, between zeros.
struct Channel<'a> {
    shape: &'a Conv2dShape,
    axes: [Axis; 2],
    input: usize,
    padded: &'a [f32],
    grad_output: &'a [f32],
    grad_weights: &'a mut [f32],
}

impl TileKernel for Channel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const TAPS: usize, const OUTPUTS: usize>(self, isa: I) {
        const { assert!(TAPS <= MOST_TAPS) };
        let [rows, columns] = self.axes;
        let width = covered(&columns);
        let taps = rows.kernel * columns.kernel;
        let plane = rows.output * columns.output * LANES;
        let outputs = self.shape.outputs;
        let mut first_tap = 0;
        while first_tap < taps {
            let used_taps = TAPS.min(taps - first_tap);
            let mut offsets = [0; TAPS];
            for (index, offset) in offsets.iter_mut().enumerate().take(used_taps) {
                let tap = first_tap + index;
                *offset = (tap / columns.kernel * width + tap % columns.kernel) * LANES;
            }
            let mut first_output = 0;
            while first_output < outputs {
                let used_outputs = OUTPUTS.min(outputs - first_output);
                let tile = Tile {
                    padded: self.padded.as_ptr(),
                    row_stride: rows.stride * width * LANES,
                    pixel_stride: columns.stride * LANES,
                    grad_output: self.grad_output[first_output * plane..].as_ptr(),
                    plane,
                    rows: rows.output,
                    columns: columns.output,
                };
                let mut add = |tap: usize, output: usize, sum: I::F32| {
                    let row = (first_tap + tap) * self.shape.inputs + self.input;
                    self.grad_weights[row * outputs + first_output + output] += isa.sum(sum);
                };
                // SAFETY: every tap of every pixel lies within the padded plane, as `covered`
                // counts, and there are planes of so many outputs.
                unsafe {
                    match used_outputs {
                        1 => pass::<I, TAPS, 1>(isa, &tile, &offsets, used_taps, &mut add),
                        2 => pass::<I, TAPS, 2>(isa, &tile, &offsets, used_taps, &mut add),
                        _ => pass::<I, TAPS, OUTPUTS>(isa, &tile, &offsets, used_taps, &mut add),
                    }
                }
                first_output += used_outputs;
            }
            first_tap += used_taps;
        }
    }
}

/// Where the vectors of a tile lie; strides in floats.
struct Tile {
    padded: *const f32,
    row_stride: usize,
    pixel_stride: usize,
    /// The plane of the first output channel; the others follow, `plane` apart.
    grad_output: *const f32,
    plane: usize,
    rows: usize,
    columns: usize,
}

/// Goes over all pixels with one tile and hands on its sums.
///
/// # Safety
/// All taps of all pixels, and `OUTPUTS` planes of the output gradient, are valid for reading.
#[inline(always)]
unsafe fn pass<I: Isa, const TAPS: usize, const OUTPUTS: usize>(
    isa: I,
    tile: &Tile,
    offsets: &[usize; TAPS],
    used_taps: usize,
    add: &mut impl FnMut(usize, usize, I::F32),
) {
    let mut sums = [[isa.zero(); OUTPUTS]; TAPS];
    let mut grad = tile.grad_output;
    for y in 0..tile.rows {
        let mut x = tile.padded.wrapping_add(y * tile.row_stride);
        for _ in 0..tile.columns {
            let mut grads = [isa.zero(); OUTPUTS];
            for (o, value) in grads.iter_mut().enumerate() {
                // SAFETY: the caller vouches for the planes.
                *value = unsafe { isa.load_ptr(grad.add(o * tile.plane)) };
            }
            for (row, offset) in sums.iter_mut().zip(offsets) {
                // SAFETY: the caller vouches for the taps; a tap that is not used reads the first.
                let value = unsafe { isa.load_ptr(x.add(*offset)) };
                for (sum, grad) in row.iter_mut().zip(grads) {
                    *sum = isa.mul_add(value, grad, *sum);
                }
            }
            x = x.wrapping_add(tile.pixel_stride);
            grad = grad.wrapping_add(LANES);
        }
    }
    // A copy: sums that are indexed by what is known only at run time would lie in memory all along.
    let sums = sums;
    for (tap, row) in sums.iter().enumerate().take(used_taps) {
        for (output, &sum) in row.iter().enumerate() {
            add(tap, output, sum);
        }
    }
}
