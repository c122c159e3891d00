//! Gradients of a pooling, gathered by the places of the input.

use std::ops::Range;

use super::PoolShape;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::window::Axis;

/// What the outputs of a pooling give to the places under their windows.
pub(super) trait Share: Copy {
    /// Adds what `C` neighbouring outputs from number `first` on give to one place of the input, which
    /// of their windows is number `place`, `place - 1` and so on.
    fn add<I: Isa, const C: usize>(self, isa: I, sum: I::F32, first: usize, place: usize)
    -> I::F32;

    /// Asks for what follows output number `first` at some distance, which comes from memory.
    fn prefetch<I: Isa>(self, isa: I, first: usize);
}

/// Outputs to ask for ahead, 4 KB of gradients: not every processor follows such streams by itself.
pub(super) const AHEAD: usize = 64;

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

/// A gradient that flows where the maxima are positive, if it is `RECTIFIED`; else everywhere.
#[derive(Clone, Copy)]
struct Maxima<'a, const RECTIFIED: bool> {
    gradient: MaxGradient<'a>,
    /// May be empty if nothing is rectified.
    maxima: &'a [[f32; LANES]],
}

impl<const RECTIFIED: bool> Share for Maxima<'_, RECTIFIED> {
    #[inline(always)]
    fn add<I: Isa, const C: usize>(
        self,
        isa: I,
        mut sum: I::F32,
        first: usize,
        place: usize,
    ) -> I::F32 {
        let outputs = first..first + C;
        let argmax = &self.gradient.argmax[outputs.clone()];
        let grads = &self.gradient.grad_output[outputs.clone()];
        let maxima = if RECTIFIED {
            &self.maxima[outputs]
        } else {
            &[]
        };
        for c in 0..C {
            let from_here = isa.eq_u8(&argmax[c], (place - c) as u8);
            let mut grad = isa.load(&grads[c]);
            if RECTIFIED {
                grad = isa.select_gt_zero(isa.load(&maxima[c]), grad);
            }
            sum = isa.add_where(from_here, sum, grad);
        }
        sum
    }

    #[inline(always)]
    fn prefetch<I: Isa>(self, isa: I, first: usize) {
        let MaxGradient {
            grad_output,
            argmax,
            ..
        } = self.gradient;
        isa.prefetch(grad_output.as_ptr().wrapping_add(first + AHEAD).cast());
        isa.prefetch(argmax.as_ptr().wrapping_add(first + 2 * AHEAD).cast());
        if RECTIFIED {
            isa.prefetch(self.maxima.as_ptr().wrapping_add(first + AHEAD).cast());
        }
    }
}

/// Some rows of the gradient by the input of a pooling of one block, `[channels][held rows][width]`, from
/// that by its output: [`unpool_plane`] for every channel.
///
/// # Panics
/// If a slice is shorter than the shape demands.
#[inline(always)]
pub(crate) fn unpool_block<I: Isa>(
    isa: I,
    shape: &PoolShape,
    gradient: MaxGradient<'_>,
    rows: Range<usize>,
    (held, grad_input): (Range<usize>, &mut [[f32; LANES]]),
) {
    let axes = shape.axes();
    let columns = axes[1].input;
    let output = axes[0].output * axes[1].output;
    for channel in 0..shape.channels {
        let part = channel * output..(channel + 1) * output;
        let gradient = MaxGradient {
            grad_output: &gradient.grad_output[part.clone()],
            argmax: &gradient.argmax[part.clone()],
            rectified: gradient.rectified.map(|maxima| &maxima[part]),
        };
        let first = channel * held.len() + rows.start - held.start;
        let grad_input = &mut grad_input[first * columns..(first + rows.len()) * columns];
        unpool_plane(isa, axes, gradient, (rows.clone(), grad_input));
    }
}

/// Some rows of the gradient by one plane of the input of a pooling, `[rows][width]`, from that by its
/// output. Every value of theirs is written, and what several windows give adds up in row-major order of
/// the outputs.
///
/// # Panics
/// If a slice is shorter than the axes demand.
#[inline(always)]
fn unpool_plane<I: Isa>(
    isa: I,
    axes: [Axis; 2],
    gradient: MaxGradient<'_>,
    rows: (Range<usize>, &mut [[f32; LANES]]),
) {
    match gradient.rectified {
        None => {
            let maxima = &[];
            gather(isa, axes, Maxima::<false> { gradient, maxima }, rows);
        }
        Some(maxima) => gather(isa, axes, Maxima::<true> { gradient, maxima }, rows),
    }
}

/// The sum of what the windows over each place of some rows give it; `grad_input` is these rows.
#[inline(always)]
pub(super) fn gather<I: Isa>(
    isa: I,
    [rows, columns]: [Axis; 2],
    shares: impl Share,
    (range, grad_input): (Range<usize>, &mut [[f32; LANES]]),
) {
    let targets = grad_input.chunks_exact_mut(columns.input);
    for (y, targets) in range.zip(targets) {
        let windows = rows.covering(y);
        if windows.is_empty() {
            targets.fill([0.0; LANES]);
            continue;
        }
        let row = GatherRow {
            bottom: y + rows.before - windows.start * rows.stride,
            windows,
            row_stride: rows.stride,
            columns,
            shares,
        };
        // Sizes that are known to the compiler spare it divisions and loops.
        match (columns.stride, columns.kernel, row.windows.len()) {
            (1, 2, 1) => row.overlapping::<I, 1, 2>(isa, targets),
            (1, 2, 2) => row.overlapping::<I, 2, 2>(isa, targets),
            (1, 3, 2) => row.overlapping::<I, 2, 3>(isa, targets),
            (1, 3, 3) => row.overlapping::<I, 3, 3>(isa, targets),
            (1, ..) => row.of_stride(1).places(isa, 0..columns.input, targets),
            (2, ..) => row.of_stride(2).places(isa, 0..columns.input, targets),
            _ => row.places(isa, 0..columns.input, targets),
        }
    }
}

/// What one row of the input is given.
struct GatherRow<S> {
    /// The rows of outputs whose windows cover this one, at least one.
    windows: Range<usize>,
    /// Which row of the first of these windows this one is; it lies higher in each of the next, by
    /// `row_stride`.
    bottom: usize,
    row_stride: usize,
    columns: Axis,
    shares: S,
}

impl<S: Share> GatherRow<S> {
    /// The same row, whose columns have this stride.
    #[inline(always)]
    fn of_stride(self, stride: usize) -> Self {
        let columns = Axis {
            stride,
            ..self.columns
        };
        Self { columns, ..self }
    }

    /// The places of a range of columns; `targets` is the whole row.
    #[inline(always)]
    fn places<I: Isa>(&self, isa: I, range: Range<usize>, targets: &mut [[f32; LANES]]) {
        let columns = self.columns;
        for (x, target) in range.clone().zip(&mut targets[range]) {
            let mut sum = isa.zero();
            for (index, at_y) in self.windows.clone().enumerate() {
                let window_row = self.bottom - index * self.row_stride;
                for at_x in columns.covering(x) {
                    let window_column = x + columns.before - at_x * columns.stride;
                    let place = window_row * columns.kernel + window_column;
                    let output = at_y * columns.output + at_x;
                    sum = self.shares.add::<I, 1>(isa, sum, output, place);
                }
            }
            isa.store(target, sum);
        }
    }

    /// The whole row under `R` rows of windows of `C` columns that move by one.
    #[inline(always)]
    fn overlapping<I: Isa, const R: usize, const C: usize>(
        self,
        isa: I,
        targets: &mut [[f32; LANES]],
    ) {
        let row = self.of_stride(1);
        let Axis { before, output, .. } = row.columns;
        // Places under as many windows as these have columns; fewer lie over those beside.
        let last = output.saturating_sub(before);
        let inner = (C - 1 - before).min(last)..last;
        row.places(isa, 0..inner.start, targets);
        for (x, target) in inner.clone().zip(&mut targets[inner.clone()]) {
            let first = row.windows.start * output + x + before - (C - 1);
            row.shares.prefetch(isa, first + (R - 1) * output);
            let mut sum = isa.zero();
            for r in 0..R {
                let place = (row.bottom - r * row.row_stride) * C + C - 1;
                let shares = row.shares;
                sum = shares.add::<I, C>(isa, sum, first + r * output, place);
            }
            isa.store(target, sum);
        }
        row.places(isa, inner.end..row.columns.input, targets);
    }
}
