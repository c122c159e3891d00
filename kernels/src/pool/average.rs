//! The mean under a window, one plane at a time.

use super::backward::{AHEAD, Share, gather};
use super::prefetch;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::window::Axis;

/// The means of one plane, summed in row-major order.
#[inline(always)]
pub(super) fn average_plane<I: Isa>(
    isa: I,
    axes: [Axis; 2],
    x: &[[f32; LANES]],
    y: &mut [[f32; LANES]],
) {
    let [rows, columns] = axes;
    for (at_y, targets) in y.chunks_exact_mut(columns.output).enumerate() {
        let window_rows = rows.inside(at_y);
        let top = at_y * rows.stride + window_rows.start - rows.before;
        let next = (top + window_rows.len()) * columns.input;
        prefetch(isa, x, next..next + rows.stride * columns.input);
        for (at_x, target) in targets.iter_mut().enumerate() {
            let window_columns = columns.inside(at_x);
            let left = at_x * columns.stride + window_columns.start - columns.before;
            let mut sum = isa.zero();
            for row in top..top + window_rows.len() {
                let start = row * columns.input + left;
                for value in &x[start..start + window_columns.len()] {
                    sum = isa.add(sum, isa.load(value));
                }
            }
            let count = (window_rows.len() * window_columns.len()) as f32;
            isa.store(target, isa.div(sum, isa.splat(count)));
        }
    }
}

/// What each place under a window gets of it, the same for all.
#[derive(Clone, Copy)]
struct Even<'a>(&'a [[f32; LANES]]);

impl Share for Even<'_> {
    #[inline(always)]
    fn add<I: Isa, const C: usize>(self, isa: I, sum: I::F32, first: usize, _: usize) -> I::F32 {
        let means = &self.0[first..first + C];
        means
            .iter()
            .fold(sum, |sum, mean| isa.add(sum, isa.load(mean)))
    }

    // They were written just now.
    #[inline(always)]
    fn prefetch<I: Isa>(self, _: I, _: usize) {}
}

/// The gradient by one plane of the input from that by its means. `shares` is room for as many
/// vectors as there are means.
#[inline(always)]
pub(super) fn spread_plane<I: Isa>(
    isa: I,
    axes: [Axis; 2],
    grad_output: &[[f32; LANES]],
    shares: &mut [[f32; LANES]],
    grad_input: &mut [[f32; LANES]],
) {
    let [rows, columns] = axes;
    let grads = grad_output.chunks_exact(columns.output);
    let targets = shares.chunks_exact_mut(columns.output);
    for (at_y, (targets, grads)) in targets.zip(grads).enumerate() {
        let height = rows.inside(at_y).len();
        for (at_x, (target, grad)) in targets.iter_mut().zip(grads).enumerate() {
            let count = (height * columns.inside(at_x).len()) as f32;
            isa.prefetch(grad.as_ptr().wrapping_add(AHEAD * LANES));
            isa.store(target, isa.div(isa.load(grad), isa.splat(count)));
        }
    }
    let rows = 0..axes[0].input;
    gather(isa, axes, Even(shares), (rows, grad_input));
}
