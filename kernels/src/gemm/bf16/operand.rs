//! What a bf16 product multiplies, and where its result goes.

use super::super::Matrix;
use crate::lanes::LANES;

/// Activations in lanes, `[blocks][channels][pixels][16]`: what a dense layer calls features are
/// channels of one pixel.
///
/// A *vector* of a channel is one pixel of sixteen images; vectors count the pixels of the first
/// block, then those of the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneLayout {
    pub(crate) channels: usize,
    pub(crate) pixels: usize,
}

impl LaneLayout {
    /// Where a vector of a channel begins.
    #[inline(always)]
    pub(super) fn at(&self, channel: usize, vector: usize) -> usize {
        let (block, pixel) = match self.pixels {
            1 => (vector, 0),
            pixels => (vector / pixels, vector % pixels),
        };
        ((block * self.channels + channel) * self.pixels + pixel) * LANES
    }

    /// Floats from a channel to the next.
    #[inline(always)]
    pub(super) fn channel_stride(&self) -> usize {
        self.pixels * LANES
    }
}

/// One factor of a product: values that lie across, for each as many as the sum has steps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Operand<'a> {
    /// Row after row across.
    Matrix(Matrix<'a, f32>),
    /// Lanes, all pixels of all images across, summed over the channels.
    Images(&'a [f32], LaneLayout),
    /// Lanes, the channels across, summed over all pixels of all images.
    Channels(&'a [f32], LaneLayout),
}

impl Operand<'_> {
    /// Whether values across are neighbours in memory, and not steps.
    #[inline(always)]
    pub(super) fn lies_across(&self) -> bool {
        match self {
            Self::Matrix(matrix) => matrix.row_stride == 1,
            Self::Images(..) => true,
            Self::Channels(..) => false,
        }
    }

    /// Holds the values to what a product reads.
    ///
    /// # Panics
    /// If there are fewer.
    #[track_caller]
    pub(super) fn check(&self, across: usize, depth: usize) {
        if across == 0 || depth == 0 {
            return;
        }
        let (reach, len) = match self {
            Self::Matrix(matrix) => (
                (across - 1) * matrix.row_stride + (depth - 1) * matrix.col_stride + 1,
                matrix.values.len(),
            ),
            Self::Images(values, layout) => {
                assert_eq!((depth, across % LANES), (layout.channels, 0));
                (across * depth, values.len())
            }
            Self::Channels(values, layout) => {
                assert_eq!((across, depth % LANES), (layout.channels, 0));
                (across * depth, values.len())
            }
        };
        assert!(reach <= len, "an operand ends before its shape does");
    }
}

/// Where the result goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// To lanes: its rows are their channels.
    Lanes(LaneLayout),
    /// To rows of so many adjacent values, so far apart.
    Rows { columns: usize, stride: usize },
}

impl Target {
    /// Where a vector of a row begins.
    #[inline(always)]
    pub(super) fn at(&self, row: usize, vector: usize) -> usize {
        match self {
            Self::Lanes(layout) => layout.at(row, vector),
            Self::Rows { stride, .. } => row * stride + vector * LANES,
        }
    }

    /// Floats from a row to the next.
    #[inline(always)]
    pub(super) fn row_stride(&self) -> usize {
        match self {
            Self::Lanes(layout) => layout.channel_stride(),
            Self::Rows { stride, .. } => *stride,
        }
    }

    /// Whether so many vectors from this one on are as far apart, each from the next, as the first two.
    #[inline(always)]
    pub(super) fn is_even<const VECTORS: usize>(&self, vector: usize) -> bool {
        let mut even = true;
        for v in 2..VECTORS {
            let apart = self.at(0, vector + 1) - self.at(0, vector);
            even &= self.at(0, vector + v) == self.at(0, vector) + v * apart;
        }
        even
    }

    /// Lanes of a vector that belong to the result.
    #[inline(always)]
    pub(super) fn lanes(&self, vector: usize) -> usize {
        match self {
            Self::Lanes(_) => LANES,
            Self::Rows { columns, .. } => LANES.min(columns - vector * LANES),
        }
    }

    /// Holds the result to its shape.
    ///
    /// # Panics
    /// If it does not fit, or elements would share a place.
    #[track_caller]
    pub(super) fn check(&self, rows: usize, vectors: usize, len: usize) {
        let reach = match self {
            Self::Lanes(layout) => {
                assert_eq!((layout.channels, vectors % layout.pixels), (rows, 0));
                rows * vectors * LANES
            }
            Self::Rows { columns, stride } => {
                assert_eq!(vectors, columns.div_ceil(LANES));
                assert!(rows <= 1 || stride >= columns, "rows of the result overlap");
                (rows - 1) * stride + columns
            }
        };
        assert!(reach <= len, "the result ends before its shape does");
    }
}
