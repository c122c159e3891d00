//! Max pooling behind a convolution, while its rows are still in the cache.
//!
//! The rows that a window covers lie in a ring; each row of the pooled output is taken as soon as
//! its last one is there. So the activation before pooling is never stored: what the backward pass
//! needs of it is one byte per output, the place within the window that was largest.

use std::ops::Range;

use rayon::prelude::*;
use smallvec::SmallVec;

use super::Conv2dShape;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, lanes_len};
use crate::pool::{MAX_PLACES, MaxGradient, PoolShape, WindowRows, max_row, unpool_block};
use crate::shared::is_streamed;
use crate::window::{Axis, Window};

/// How pooling follows a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pooling {
    shape: PoolShape,
    /// Over rows and columns of the convolution's output.
    pub(crate) axes: [Axis; 2],
}

/// The latest rows of a convolution's output, `[channels][rows][columns][16]`: row r of the output
/// lies at `r % rows`.
#[derive(Clone, Copy)]
pub(crate) struct Ring<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) rows: usize,
}

/// One block of a pooled output.
#[derive(Clone, Copy)]
pub(crate) struct Pooled<'a> {
    /// Its values; may be empty without relu.
    pub(crate) output: &'a [f32],
    /// A byte for each of its values.
    pub(crate) argmax: &'a [u8],
    /// Whether relu stood between the sums and the pooling.
    pub(crate) relu: bool,
}

/// Floats of a convolution's output at most, 16 MB, that is stored to let more threads compute it.
const MOST_STORED: usize = 4 << 20;

impl Pooling {
    /// How a window moves over the output of a convolution.
    ///
    /// # Panics
    /// If the window has more than [`MAX_PLACES`].
    pub(crate) fn new(shape: &Conv2dShape, window: Window) -> Self {
        let places = window.kernel[0] * window.kernel[1];
        assert!(
            places <= MAX_PLACES,
            "a window of {places} places, where at most {MAX_PLACES} can be told apart"
        );
        let [height, width] = shape.output();
        Self {
            shape: PoolShape {
                images: shape.images,
                channels: shape.outputs,
                height,
                width,
                window,
            },
            axes: window.axes([height, width]),
        }
    }

    /// Whether there are fewer blocks of images than threads. A task has a whole one: it is then better to
    /// convolve by rows and to pool by channels, which gives the same values, unless what lies between
    /// is large. (By sparse weights it takes as long either way.)
    pub(super) fn leaves_threads_idle(&self) -> bool {
        let stored = lanes_len(self.shape.images, self.shape.input_features());
        blocks(self.shape.images) < rayon::current_num_threads() && stored <= MOST_STORED
    }

    /// What is pooled.
    pub(super) fn shape(&self) -> &PoolShape {
        &self.shape
    }

    /// Floats of the output for one block of images.
    pub(crate) fn output_len(&self) -> usize {
        self.shape.channels * self.plane() * LANES
    }

    /// Pixels of a channel of the output.
    fn plane(&self) -> usize {
        self.axes[0].output * self.axes[1].output
    }

    /// Floats of the ring for one block of images, filled `band` rows at a time.
    pub(crate) fn ring_len(&self, band: usize) -> usize {
        self.shape.channels * self.ring_rows(band) * self.row_len()
    }

    /// Rows that the ring holds of each channel: those of a window and what a band adds to them, in
    /// whole bands, none of which then wraps around.
    pub(crate) fn ring_rows(&self, band: usize) -> usize {
        (self.axes[0].kernel + band - 1).next_multiple_of(band)
    }

    /// Floats of a row before pooling.
    pub(super) fn row_len(&self) -> usize {
        self.shape.width * LANES
    }

    /// Every row of the output with the bands of so many rows before pooling that are still to be
    /// computed for it; those that no window reaches are left out.
    pub(crate) fn rows(&self, band: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
        let rows = self.axes[0];
        let mut next = 0;
        (0..rows.output).map(move |y| {
            let inside = rows.inside(y);
            let start = (y * rows.stride + inside.start - rows.before) / band;
            let end = (y * rows.stride + inside.end - rows.before).div_ceil(band);
            let bands = next.max(start)..end;
            next = next.max(end);
            (y, bands)
        })
    }

    /// Calls `task` for each block of the output, in parallel, with its number, its values, whether to
    /// write them past the caches, and their places, if those are wanted.
    pub(crate) fn for_each_block(
        &self,
        output: &mut [f32],
        argmax: Option<&mut [u8]>,
        task: impl Fn(usize, (&mut [f32], bool), Option<&mut [u8]>) + Send + Sync,
    ) {
        let streamed = is_streamed(output.as_ptr(), output.len());
        let output_len = self.output_len();
        let blocks = output.par_chunks_mut(output_len).enumerate();
        match argmax {
            Some(argmax) => blocks
                .zip(argmax.par_chunks_mut(output_len))
                .with_max_len(1)
                .for_each(|((block, output), argmax)| {
                    task(block, (output, streamed), Some(argmax));
                }),
            None => blocks
                .with_max_len(1)
                .for_each(|(block, output)| task(block, (output, streamed), None)),
        }
    }

    /// Takes row `y` of the output of every channel from the ring, past the caches if it is to be
    /// `streamed`: see [`max_row`].
    #[inline(always)]
    pub(crate) fn pool_row<I: Isa>(
        &self,
        isa: I,
        ring: Ring<'_>,
        y: usize,
        (output, streamed): (&mut [f32], bool),
        argmax: Option<&mut [u8]>,
    ) {
        let [rows, columns] = self.axes;
        let (plane, row_len) = (self.plane() * LANES, self.row_len());
        let inside = rows.inside(y);
        let top = y * rows.stride + inside.start - rows.before;
        let mut window: SmallVec<[_; 5]> = SmallVec::new();
        let channels = ring.values.chunks_exact(ring.rows * row_len);
        let mut places = argmax.map(|argmax| argmax.chunks_exact_mut(plane));
        for (values, output) in channels.zip(output.chunks_exact_mut(plane)) {
            let argmax = places.as_mut().and_then(Iterator::next);
            window.clear();
            window.extend((top..top + inside.len()).map(|row| {
                let start = row % ring.rows * row_len;
                values[start..start + row_len].as_chunks::<LANES>().0
            }));
            let target = y * columns.output * LANES..(y + 1) * columns.output * LANES;
            max_row(
                isa,
                WindowRows {
                    rows: &window,
                    first: inside.start,
                    columns,
                },
                (output[target.clone()].as_chunks_mut::<LANES>().0, streamed),
                argmax.map(|argmax| argmax[target].as_chunks_mut::<LANES>().0),
            );
        }
    }

    /// Some rows of the gradient before pooling of one block from that of the output, which goes to the
    /// place of each maximum; behind relu, only where the output is positive. `grad` has room for so many
    /// `held` rows of each channel.
    #[inline(always)]
    pub(crate) fn unpool<I: Isa>(
        &self,
        isa: I,
        pooled: Pooled<'_>,
        grad_output: &[f32],
        rows: Range<usize>,
        (held, grad): (Range<usize>, &mut [f32]),
    ) {
        let maxima = pooled.output.as_chunks::<LANES>().0;
        let gradient = MaxGradient {
            grad_output: grad_output.as_chunks::<LANES>().0,
            argmax: pooled.argmax.as_chunks::<LANES>().0,
            rectified: pooled.relu.then_some(maxima),
        };
        let grad = grad.as_chunks_mut::<LANES>().0;
        unpool_block(isa, &self.shape, gradient, rows, (held, grad));
    }
}
