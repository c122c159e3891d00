//! Max pooling behind a convolution, while its rows are still in the cache.
//!
//! The rows that a window covers lie in a ring; each row of the pooled output is taken as soon as
//! its last one is there. So the activation before pooling is never stored: what the backward pass
//! needs of it is one byte per output, the place within the window that was largest.

use crate::isa::Isa;
use crate::lanes::LANES;
use crate::window::Axis;

/// Places that a window may have, so that one fits a byte.
pub(super) const MOST_PLACES: usize = 256;

/// How pooling follows a convolution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pooling {
    pub(super) channels: usize,
    /// Over rows and columns of the convolution's output.
    pub(super) axes: [Axis; 2],
}

impl Pooling {
    /// Pixels of a channel before pooling.
    pub(super) fn unpooled_plane(&self) -> usize {
        self.axes[0].input * self.axes[1].input
    }

    /// Pixels of a channel after it.
    pub(super) fn plane(&self) -> usize {
        self.axes[0].output * self.axes[1].output
    }

    /// Floats of the ring for one block of images, filled `band` rows at a time.
    pub(super) fn ring_len(&self, band: usize) -> usize {
        self.channels * self.ring_rows(band) * self.row_len()
    }

    /// Rows that the ring holds of each channel: those of a window and what a band adds to them, in
    /// whole bands, none of which then wraps around.
    pub(super) fn ring_rows(&self, band: usize) -> usize {
        (self.axes[0].kernel + band - 1).next_multiple_of(band)
    }

    /// Floats of a row before pooling.
    pub(super) fn row_len(&self) -> usize {
        self.axes[1].input * LANES
    }

    /// Takes row `y` of the output of every channel from the ring. The first of equal maxima wins;
    /// NaN is larger than every number.
    #[inline(always)]
    pub(super) fn pool_row<I: Isa>(
        &self,
        isa: I,
        ring: Ring<'_>,
        y: usize,
        output: &mut [f32],
        argmax: &mut [u8],
    ) {
        let [rows, columns] = &self.axes;
        let plane = self.plane();
        let row_len = self.row_len();
        let inside = rows.inside(y);
        for (channel, values) in ring.values.chunks_exact(ring.rows * row_len).enumerate() {
            let start = (channel * plane + y * columns.output) * LANES;
            let targets = start..start + columns.output * LANES;
            let outputs = output[targets.clone()].as_chunks_mut::<LANES>().0;
            let places = argmax[targets].as_chunks_mut::<LANES>().0;
            for (x, (output, place)) in outputs.iter_mut().zip(places).enumerate() {
                let across = columns.inside(x);
                let mut best = isa.splat(f32::NEG_INFINITY);
                let mut best_place =
                    isa.splat((inside.start * columns.kernel + across.start) as f32);
                for ky in inside.clone() {
                    let row = (y * rows.stride + ky - rows.before) % ring.rows;
                    let first = x * columns.stride + across.start - columns.before;
                    let pixels = &values[row * row_len + first * LANES..];
                    let pixels = pixels[..across.len() * LANES].as_chunks::<LANES>().0;
                    for (kx, pixel) in across.clone().zip(pixels) {
                        let value = isa.load(pixel);
                        let place = isa.splat((ky * columns.kernel + kx) as f32);
                        // Held by a NaN, and against whatever is not larger.
                        let next = isa.select(isa.le(value, best), best, value);
                        let next_place = isa.select(isa.le(value, best), best_place, place);
                        let number = isa.eq(best, best);
                        best_place = isa.select(number, next_place, best_place);
                        best = isa.select(number, next, best);
                    }
                }
                isa.store(output, best);
                isa.store_u8(place, best_place);
            }
        }
    }

    /// The gradient before pooling of one block from that of the output, which goes to the place of
    /// each maximum; behind relu, only where the output is positive.
    #[inline(always)]
    pub(super) fn unpool<I: Isa>(
        &self,
        isa: I,
        pooled: Pooled<'_>,
        grad_output: &[f32],
        grad: &mut [f32],
    ) {
        let [rows, columns] = &self.axes;
        let (from, to) = (self.plane() * LANES, self.unpooled_plane() * LANES);
        grad.fill(0.0);
        for channel in 0..self.channels {
            let part = channel * from..(channel + 1) * from;
            let outputs = pooled.output[part.clone()].as_chunks::<LANES>().0;
            let places = pooled.argmax[part.clone()].as_chunks::<LANES>().0;
            let grads = grad_output[part].as_chunks::<LANES>().0;
            let targets = grad[channel * to..(channel + 1) * to]
                .as_chunks_mut::<LANES>()
                .0;
            for y in 0..rows.output {
                let down = rows.inside(y);
                for x in 0..columns.output {
                    let across = columns.inside(x);
                    let at = y * columns.output + x;
                    let mut value = isa.load(&grads[at]);
                    if pooled.relu {
                        value = isa.select_gt_zero(isa.load(&outputs[at]), value);
                    }
                    let place = isa.load_u8(&places[at]);
                    for ky in down.clone() {
                        let row = y * rows.stride + ky - rows.before;
                        let first = x * columns.stride + across.start - columns.before;
                        let row = &mut targets[row * columns.input + first..][..across.len()];
                        for (kx, target) in across.clone().zip(row) {
                            let here = isa.splat((ky * columns.kernel + kx) as f32);
                            let share = isa.select(isa.eq(place, here), value, isa.zero());
                            isa.store(target, isa.add(isa.load(target), share));
                        }
                    }
                }
            }
        }
    }
}

/// The latest rows of a convolution's output, `[channels][rows][columns][16]`: row r of the output
/// lies at `r % rows`.
#[derive(Clone, Copy)]
pub(super) struct Ring<'a> {
    pub(super) values: &'a [f32],
    pub(super) rows: usize,
}

/// One block of a pooled output.
#[derive(Clone, Copy)]
pub(super) struct Pooled<'a> {
    pub(super) output: &'a [f32],
    /// A byte for each of its values.
    pub(super) argmax: &'a [u8],
    /// Whether relu stood between the sums and the pooling.
    pub(super) relu: bool,
}
