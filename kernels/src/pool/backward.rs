//! Gradients of a pooling, gathered by the places of the input.

use super::PoolShape;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::window::Axis;

/// What the outputs of a pooling give to the places under their windows.
pub(super) trait Share: Copy {
    /// What output number `output` gives to place number `place` of its window.
    fn share<I: Isa>(self, isa: I, output: usize, place: usize) -> I::F32;
}

/// The gradient of one plane of maxima, or of the planes of a block, `[channels][height][width]`.
#[derive(Clone, Copy)]
pub(crate) struct MaxGradient<'a> {
    /// By the maxima.
    pub(crate) grad_output: &'a [[f32; LANES]],
    /// Where in its window each maximum lay.
    pub(crate) argmax: &'a [[u8; LANES]],
    /// The maxima, if relu stands before the pooling: where they are not positive, the gradient by
    /// relu's input is zero.
    pub(crate) rectified: Option<&'a [[f32; LANES]]>,
}

/// [`MaxGradient`] without relu.
#[derive(Clone, Copy)]
struct Linear<'a>(MaxGradient<'a>);

impl Share for Linear<'_> {
    #[inline(always)]
    fn share<I: Isa>(self, isa: I, output: usize, place: usize) -> I::F32 {
        let came_from = isa.load_u8(&self.0.argmax[output]);
        let from_here = isa.eq(came_from, isa.splat(place as f32));
        isa.select(from_here, isa.load(&self.0.grad_output[output]), isa.zero())
    }
}

/// [`MaxGradient`] with relu before it, given the maxima.
#[derive(Clone, Copy)]
struct Rectified<'a>(MaxGradient<'a>, &'a [[f32; LANES]]);

impl Share for Rectified<'_> {
    #[inline(always)]
    fn share<I: Isa>(self, isa: I, output: usize, place: usize) -> I::F32 {
        let share = Linear(self.0).share(isa, output, place);
        isa.select_gt_zero(isa.load(&self.1[output]), share)
    }
}

/// The gradient by the input of a pooling, `[channels][height][width]` of one block, from that by its
/// output: [`unpool_plane`] for every channel.
///
/// # Panics
/// If a slice is shorter than the shape demands.
#[inline(always)]
pub(crate) fn unpool_block<I: Isa>(
    isa: I,
    shape: &PoolShape,
    gradient: MaxGradient<'_>,
    grad_input: &mut [[f32; LANES]],
) {
    let axes = shape.axes();
    let (input, output) = (
        axes[0].input * axes[1].input,
        axes[0].output * axes[1].output,
    );
    for channel in 0..shape.channels {
        let part = channel * output..(channel + 1) * output;
        let gradient = MaxGradient {
            grad_output: &gradient.grad_output[part.clone()],
            argmax: &gradient.argmax[part.clone()],
            rectified: gradient.rectified.map(|maxima| &maxima[part]),
        };
        let grad_input = &mut grad_input[channel * input..(channel + 1) * input];
        unpool_plane(isa, axes, gradient, grad_input);
    }
}

/// The gradient by one plane of the input of a pooling, `[height][width]`, from that by its output.
/// Every value is written, and what several windows give adds up in row-major order of the outputs.
///
/// # Panics
/// If a slice is shorter than the axes demand.
#[inline(always)]
fn unpool_plane<I: Isa>(
    isa: I,
    axes: [Axis; 2],
    gradient: MaxGradient<'_>,
    grad_input: &mut [[f32; LANES]],
) {
    match gradient.rectified {
        None => gather(isa, axes, Linear(gradient), grad_input),
        Some(maxima) => gather(isa, axes, Rectified(gradient, maxima), grad_input),
    }
}

/// The sum of what the windows over each place give it.
#[inline(always)]
pub(super) fn gather<I: Isa>(
    isa: I,
    axes: [Axis; 2],
    shares: impl Share,
    grad_input: &mut [[f32; LANES]],
) {
    let [rows, columns] = axes;
    for (y, row) in grad_input.chunks_exact_mut(columns.input).enumerate() {
        let over_row = rows.covering(y);
        for (x, target) in row.iter_mut().enumerate() {
            let mut sum = isa.zero();
            for at_y in over_row.clone() {
                let window_row = y + rows.before - at_y * rows.stride;
                for at_x in columns.covering(x) {
                    let window_column = x + columns.before - at_x * columns.stride;
                    let place = window_row * columns.kernel + window_column;
                    let share = shares.share(isa, at_y * columns.output + at_x, place);
                    sum = isa.add(sum, share);
                }
            }
            isa.store(target, sum);
        }
    }
}
