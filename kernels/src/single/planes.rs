//! Planes of one image with room around them, each as one long row.

use crate::conv2d::Conv2dShape;
use crate::dispatch::Kernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::window::Axis;

/// Where a convolution finds and leaves its pixels, counted in places of a padded plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes {
    pub(super) channels: usize,
    /// How the window moves over rows and columns.
    pub(super) axes: [Axis; 2],
    /// Places of a padded row.
    pub(super) columns: usize,
    /// Places of a padded plane.
    pub(super) len: usize,
}

/// Places of a padded axis: all that a window covers, and all of the image.
fn padded(axis: &Axis) -> usize {
    let covered = axis.output.saturating_sub(1) * axis.stride + axis.kernel;
    covered.max(axis.before + axis.input)
}

impl Planes {
    pub(super) fn new(shape: &Conv2dShape) -> Self {
        let axes = shape.window.axes([shape.height, shape.width]);
        let columns = padded(&axes[1]);
        Self {
            channels: shape.inputs,
            axes,
            columns,
            len: padded(&axes[0]) * columns,
        }
    }

    /// Floats of all planes and of what tiles of `tile` places read behind the last.
    pub(super) fn padded_len(&self, tile: usize) -> usize {
        self.channels * self.len + tile + LANES
    }

    /// Places from where a window stands to each of its taps, row by row.
    pub(super) fn taps(&self) -> impl Iterator<Item = usize> {
        let [rows, columns] = self.axes;
        let padded_columns = self.columns;
        (0..rows.kernel).flat_map(move |row| {
            (0..columns.kernel).map(move |column| row * padded_columns + column)
        })
    }

    /// Places from where a window stands in the first of `rows` rows of the result to behind where it
    /// stands last.
    pub(super) fn flat_len(&self, rows: usize) -> usize {
        let [down, across] = &self.axes;
        (rows - 1) * down.stride * self.columns + (across.output - 1) * across.stride + 1
    }
}

/// Puts an image `[channels, height, width]` into its padded planes, zeros around it.
pub(super) struct Fill<'a> {
    pub(super) planes: &'a Planes,
    pub(super) image: &'a [f32],
    pub(super) padded: &'a mut [f32],
}

impl Kernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let planes = self.planes;
        let [down, across] = &planes.axes;
        for (plane, image) in self
            .image
            .chunks_exact(down.input * across.input)
            .enumerate()
        {
            for line in 0..planes.len / planes.columns {
                let row = line
                    .checked_sub(down.before)
                    .filter(|&row| row < down.input);
                let pixels =
                    row.map_or(&[][..], |row| &image[row * across.input..][..across.input]);
                let line = &mut self.padded[plane * planes.len + line * planes.columns..];
                fill_line(isa, pixels, across.before, planes.columns, line);
            }
        }
        self.padded[planes.channels * planes.len..].fill(0.0);
    }
}

/// Zeros, pixels from place `before` on, and zeros up to `columns`. It writes whole vectors, so what lies
/// behind is to be filled later.
#[inline(always)]
fn fill_line<I: Isa>(isa: I, pixels: &[f32], before: usize, columns: usize, line: &mut [f32]) {
    let mut put = |at: usize, values| {
        let target = line[at..].first_chunk_mut();
        isa.store(target.expect("room for a vector behind the planes"), values);
    };
    for at in (0..before).step_by(LANES) {
        put(at, isa.zero());
    }
    for (index, pixels) in pixels.chunks(LANES).enumerate() {
        // SAFETY: the chunk has as many pixels.
        let values = unsafe { isa.load_first_ptr(pixels.as_ptr(), pixels.len()) };
        put(before + index * LANES, values);
    }
    for at in (before + pixels.len().next_multiple_of(LANES)..columns).step_by(LANES) {
        put(at, isa.zero());
    }
}
