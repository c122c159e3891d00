//! Planes of one image with room around them, each as one long row.

use crate::conv2d::Conv2dShape;
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

    /// Puts an image `[channels, height, width]` into its padded planes, zeros around it.
    pub(super) fn fill(&self, image: &[f32], padded: &mut [f32]) {
        let [rows, columns] = &self.axes;
        padded.fill(0.0);
        let planes = padded.chunks_exact_mut(self.len);
        for (plane, image) in planes.zip(image.chunks_exact(rows.input * columns.input)) {
            let lines = plane.chunks_exact_mut(self.columns).skip(rows.before);
            for (line, pixels) in lines.zip(image.chunks_exact(columns.input)) {
                line[columns.before..][..columns.input].copy_from_slice(pixels);
            }
        }
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
