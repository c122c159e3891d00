//! Maximum and average pooling over lanes, forward and backward.
//!
//! Activations lie in lanes, `[blocks][channels][height][width][16]` (see [`lanes`](crate::lanes)).
//! Every channel of every block is a plane of its own, so a task takes some planes, and empty lanes
//! are computed like the others: finite values stay finite, and gradients of zero stay zero.
//!
//! A maximum remembers its place in the window, row · kernel width + column, as one byte per output
//! and lane. The backward pass then gathers: a pixel asks each window over it, row by row, whether
//! its maximum came from here. So every gradient is written once, in a fixed order, and neither the
//! input nor the output is read again. All passes are bound by memory.
//!
//! `max_row` and `unpool_block` are the same passes in pieces that a kernel can call on what it
//! has just computed.

use std::ops::Range;

use rayon::prelude::*;

use crate::chunks::CHUNK;
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check, lanes_len};
pub use crate::naive::PoolShape;
use crate::window::Axis;

mod average;
mod backward;
mod max;

use average::{average_plane, spread_plane};
pub(crate) use backward::{MaxGradient, unpool_block};
pub(crate) use max::{WindowRows, max_row};

/// Places of a window at most whose maximum is taken, so that a place is a byte.
pub const MAX_PLACES: usize = 256;

/// The planes of a batch and how a task divides them.
struct Planes {
    axes: [Axis; 2],
    count: usize,
    input_len: usize,
    output_len: usize,
    /// Planes that a task takes, a function of the shape alone.
    per_task: usize,
}

impl Planes {
    fn new(shape: &PoolShape) -> Self {
        let axes = shape.axes();
        let input_len = shape.height * shape.width * LANES;
        Self {
            axes,
            count: blocks(shape.images) * shape.channels,
            input_len,
            output_len: axes[0].output * axes[1].output * LANES,
            per_task: (CHUNK / input_len.max(1)).max(1),
        }
    }
}

fn check_lengths(shape: &PoolShape, names: [&str; 2], input: usize, output: usize) {
    let [input_name, output_name] = names;
    let expected = lanes_len(shape.images, shape.input_features());
    check(input_name, input, expected);
    let expected = lanes_len(shape.images, shape.output_features());
    check(output_name, output, expected);
}

fn check_places(shape: &PoolShape) {
    let [height, width] = shape.window.kernel;
    assert!(
        height * width <= MAX_PLACES,
        "a window of {height} × {width} places, where a maximum is taken of at most {MAX_PLACES}"
    );
}

/// Asks for vectors ahead; they may lie past the end. A window that moves by several rows reads
/// them side by side, in jumps that the processor does not foresee: asking ahead halves the time of
/// 2×2 windows that move by two, measured on an AMD Zen core with planes of 27×27.
#[inline(always)]
fn prefetch<I: Isa>(isa: I, x: &[[f32; LANES]], vectors: Range<usize>) {
    let end = vectors.end.min(x.len());
    for vector in &x[vectors.start.min(end)..end] {
        isa.prefetch(vector.as_ptr());
    }
}

/// The largest value under each window into `y`, and where `argmax` is given its place in the
/// window there, row · kernel width + column, one byte for each float of `y`.
///
/// Of equal values the first in row-major order is taken. Padding never is: it is left out. A
/// window that holds NaN gives NaN, and the place of the first one.
///
/// # Panics
/// If a slice has another length than the shape demands, or the window more than [`MAX_PLACES`].
pub fn max_forward(
    set: InstructionSet,
    shape: &PoolShape,
    x: &[f32],
    y: &mut [f32],
    argmax: Option<&mut [u8]>,
) {
    check_lengths(shape, ["x", "y"], x.len(), y.len());
    check_places(shape);
    let planes = Planes::new(shape);
    if y.is_empty() {
        return;
    }
    let (input_task, output_task) = (
        planes.per_task * planes.input_len,
        planes.per_task * planes.output_len,
    );
    let task = |x: &[f32], y: &mut [f32], argmax: Option<&mut [u8]>| {
        set.run(MaxPlanes {
            axes: planes.axes,
            x,
            y,
            argmax,
        });
    };
    let pieces = y.par_chunks_mut(output_task).zip(x.par_chunks(input_task));
    match argmax {
        None => pieces.for_each(|(y, x)| task(x, y, None)),
        Some(argmax) => {
            check("argmax", argmax.len(), planes.count * planes.output_len);
            pieces
                .zip(argmax.par_chunks_mut(output_task))
                .for_each(|((y, x), argmax)| task(x, y, Some(argmax)));
        }
    }
}

struct MaxPlanes<'a> {
    axes: [Axis; 2],
    x: &'a [f32],
    y: &'a mut [f32],
    argmax: Option<&'a mut [u8]>,
}

impl Kernel for MaxPlanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [rows, columns] = self.axes;
        let x = self.x.as_chunks::<LANES>().0;
        let y = self.y.as_chunks_mut::<LANES>().0;
        let mut argmax = self.argmax.map(|argmax| argmax.as_chunks_mut::<LANES>().0);
        let mut window = [&x[..0]; MAX_PLACES];
        for (row, y) in y.chunks_exact_mut(columns.output).enumerate() {
            let (plane, row_of_plane) = (row / rows.output, row % rows.output);
            let inside = rows.inside(row_of_plane);
            let count = inside.len();
            let first =
                plane * rows.input + row_of_plane * rows.stride + inside.start - rows.before;
            let sources = x[first * columns.input..].chunks_exact(columns.input);
            for (source, place) in sources.zip(&mut window[..count]) {
                *place = source;
            }
            let window = WindowRows {
                rows: &window[..count],
                first: inside.start,
                columns,
            };
            let next = (first + count) * columns.input;
            prefetch(isa, x, next..next + rows.stride * columns.input);
            let part = row * columns.output..(row + 1) * columns.output;
            max_row(
                isa,
                window,
                (y, false),
                argmax.as_mut().map(|argmax| &mut argmax[part]),
            );
        }
    }
}

/// The gradient of [`max_forward`]: that of each output goes to the place its maximum came from,
/// and what several windows give one place adds up.
///
/// # Panics
/// If a slice has another length than the shape demands, or the window more than [`MAX_PLACES`].
pub fn max_backward(
    set: InstructionSet,
    shape: &PoolShape,
    argmax: &[u8],
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    let names = ["grad_input", "grad_output"];
    check_lengths(shape, names, grad_input.len(), grad_output.len());
    check("argmax", argmax.len(), grad_output.len());
    check_places(shape);
    let planes = Planes::new(shape);
    if grad_output.is_empty() {
        grad_input.fill(0.0);
        return;
    }
    let output_task = planes.per_task * planes.output_len;
    grad_input
        .par_chunks_mut(planes.per_task * planes.input_len)
        .zip(grad_output.par_chunks(output_task))
        .zip(argmax.par_chunks(output_task))
        .for_each(|((grad_input, grad_output), argmax)| {
            set.run(UnpoolPlanes {
                shape: PoolShape {
                    channels: grad_input.len() / planes.input_len,
                    ..*shape
                },
                argmax,
                grad_output,
                grad_input,
            });
        });
}

/// As many planes as the shape has channels.
struct UnpoolPlanes<'a> {
    shape: PoolShape,
    argmax: &'a [u8],
    grad_output: &'a [f32],
    grad_input: &'a mut [f32],
}

impl Kernel for UnpoolPlanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let gradient = MaxGradient {
            grad_output: self.grad_output.as_chunks().0,
            argmax: self.argmax.as_chunks().0,
            rectified: None,
        };
        let rows = 0..self.shape.height;
        let target = (rows.clone(), self.grad_input.as_chunks_mut().0);
        unpool_block(isa, &self.shape, gradient, rows, target);
    }
}

/// The mean of the values under each window into `y`; places beside the image do not count, as in
/// TensorFlow.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn average_forward(set: InstructionSet, shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    check_lengths(shape, ["x", "y"], x.len(), y.len());
    let planes = Planes::new(shape);
    if y.is_empty() {
        return;
    }
    y.par_chunks_mut(planes.per_task * planes.output_len)
        .zip(x.par_chunks(planes.per_task * planes.input_len))
        .for_each(|(y, x)| {
            set.run(AveragePlanes {
                planes: &planes,
                x,
                y,
            });
        });
}

struct AveragePlanes<'a> {
    planes: &'a Planes,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for AveragePlanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let sources = self.x.chunks_exact(self.planes.input_len);
        let targets = self.y.chunks_exact_mut(self.planes.output_len);
        for (y, x) in targets.zip(sources) {
            average_plane(isa, self.planes.axes, x.as_chunks().0, y.as_chunks_mut().0);
        }
    }
}

/// The gradient of [`average_forward`]: that of each output is spread evenly over the places on the
/// image under its window.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn average_backward(
    set: InstructionSet,
    shape: &PoolShape,
    grad_output: &[f32],
    grad_input: &mut [f32],
) {
    let names = ["grad_input", "grad_output"];
    check_lengths(shape, names, grad_input.len(), grad_output.len());
    let planes = Planes::new(shape);
    if grad_output.is_empty() {
        grad_input.fill(0.0);
        return;
    }
    grad_input
        .par_chunks_mut(planes.per_task * planes.input_len)
        .zip(grad_output.par_chunks(planes.per_task * planes.output_len))
        .for_each(|(grad_input, grad_output)| {
            with_scratch(planes.output_len, |shares| {
                set.run(SpreadPlanes {
                    planes: &planes,
                    grad_output,
                    shares,
                    grad_input,
                });
            });
        });
}

struct SpreadPlanes<'a> {
    planes: &'a Planes,
    grad_output: &'a [f32],
    /// Room for one plane of the output.
    shares: &'a mut [f32],
    grad_input: &'a mut [f32],
}

impl Kernel for SpreadPlanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let shares = self.shares.as_chunks_mut().0;
        let sources = self.grad_output.chunks_exact(self.planes.output_len);
        let targets = self.grad_input.chunks_exact_mut(self.planes.input_len);
        for (grad_input, grad_output) in targets.zip(sources) {
            let grad_output = grad_output.as_chunks().0;
            let grad_input = grad_input.as_chunks_mut().0;
            spread_plane(isa, self.planes.axes, grad_output, shares, grad_input);
        }
    }
}

#[cfg(test)]
mod tests;
