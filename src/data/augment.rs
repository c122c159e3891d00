//! Changes to training images from epoch to epoch: shifted crops, mirror images, squares cut out.
//!
//! An image is padded on every side and cropped to its old size at a random place, then mirrored
//! left to right with some probability, then a square around a random pixel is set to zero, as far
//! as it lies within the image (T. DeVries, G. W. Taylor, "Improved Regularization of Convolutional
//! Neural Networks with Cutout", 2017, arXiv:1708.04552). All of this happens to the raw bytes: the
//! zeros of padding and cutout are black, also where a [`Normalisation`](super::Normalisation)
//! follows.
//!
//! What happens to an image follows from (seed, epoch, index of the image) alone. Every choice has
//! its own place in that stream: to switch one change off leaves the others as they are.
//!
//! A changed batch goes into lanes like a table of images of its own:
//!
//! ```
//! use taskweave::data::augment::{Augmentation, Batch};
//! use taskweave::data::{self, Normalisation};
//! use taskweave_kernels::{dispatch, lanes};
//!
//! let [digits, _] = data::quickstart()?;
//! let normalisation = Normalisation::of(&digits.train);
//! let augmentation = Augmentation { cutout: Some(8), ..Augmentation::default() };
//! let mut bytes = Vec::new(); // kept from batch to batch
//! augmentation.gather(&Batch::of(&digits.train, &[17, 4_000, 3], 0, 1), &mut bytes);
//!
//! let mut inputs = vec![0.0; lanes::lanes_len(3, 784)];
//! let gather = lanes::PixelGather {
//!     pixels: &bytes,
//!     features: 784,
//!     indices: &[0, 1, 2],
//!     scales: &normalisation.scales(),
//! };
//! lanes::pack_u8(dispatch::active(), gather, &mut inputs);
//! # Ok::<(), data::DataError>(())
//! ```

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ImageSet;
use crate::random::{Purpose, Stream};

/// How images are changed. The default changes nothing.
///
/// ```
/// use taskweave::data::augment::{Augmentation, CropPadding, PaddingMode};
/// let augmentation = Augmentation {
///     crop_padding: Some(CropPadding { pixels: 4, mode: PaddingMode::Zero }),
///     flip_probability: 0.5,
///     cutout: Some(16),
/// };
/// augmentation.validate(32, 32)?;
/// assert!(augmentation.validate(4, 4).is_err());
/// # Ok::<(), taskweave::data::augment::AugmentationError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Padding before a random crop of the image's own size; `None` for no crop.
    pub crop_padding: Option<CropPadding>,
    /// How probable it is that an image is mirrored left to right, from 0 to 1.
    pub flip_probability: f64,
    /// Side of the square that is set to zero, in pixels; `None` for no square.
    pub cutout: Option<usize>,
}

/// What is put around an image before it is cropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CropPadding {
    /// Pixels on every side: how far an image is shifted at most.
    pub pixels: usize,
    /// What they hold.
    pub mode: PaddingMode,
}

/// What the pixels around an image hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaddingMode {
    /// Zero.
    Zero,
    /// The image mirrored at its outermost pixels, which are not repeated.
    Reflect,
}

/// A setting that makes no sense, or not for images of this size.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AugmentationError {
    /// The probability is none.
    #[error("flip_probability is {0}; a probability from 0 to 1 is wanted")]
    FlipProbability(f64),
    /// Padding of nothing, or so much that a crop could miss the image.
    #[error(
        "crop_padding of {pixels} pixels: images of {height}x{width} take 1 to {}",
        height.min(width).saturating_sub(1)
    )]
    CropPadding {
        /// Pixels on every side.
        pixels: usize,
        /// Rows of the images.
        height: usize,
        /// Columns of the images.
        width: usize,
    },
    /// A square of nothing, or larger than the image.
    #[error(
        "cutout of {side}x{side} pixels: images of {height}x{width} take 1 to {}",
        height.min(width)
    )]
    Cutout {
        /// Side of the square.
        side: usize,
        /// Rows of the images.
        height: usize,
        /// Columns of the images.
        width: usize,
    },
}

/// A batch of images to gather, some more than once or in any order.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The images, planar `[count, channels, height, width]`.
    pub pixels: &'a [u8],
    /// Channels, rows and columns of an image.
    pub size: [usize; 3],
    /// The images of the batch, in order.
    pub indices: &'a [usize],
    /// The seed of the run.
    pub seed: u64,
    /// The epoch, which makes all the difference between two visits to an image.
    pub epoch: u64,
}

impl<'a> Batch<'a> {
    /// Images of a set.
    pub fn of(images: &'a ImageSet, indices: &'a [usize], seed: u64, epoch: u64) -> Self {
        Self {
            pixels: images.pixels(),
            size: [images.channels(), images.height(), images.width()],
            indices,
            seed,
            epoch,
        }
    }
}

impl Augmentation {
    /// Whether nothing is ever changed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Holds the settings to images of `height` × `width`.
    ///
    /// # Errors
    /// When the probability is none, the padding is 0 or not less than a side, or the square is 0
    /// or larger than a side.
    pub fn validate(&self, height: usize, width: usize) -> Result<(), AugmentationError> {
        let shorter = height.min(width);
        if !(0.0..=1.0).contains(&self.flip_probability) {
            return Err(AugmentationError::FlipProbability(self.flip_probability));
        }
        if let Some(CropPadding { pixels, .. }) = self.crop_padding
            && !(1..shorter).contains(&pixels)
        {
            return Err(AugmentationError::CropPadding {
                pixels,
                height,
                width,
            });
        }
        if let Some(side) = self.cutout
            && !(1..=shorter).contains(&side)
        {
            return Err(AugmentationError::Cutout {
                side,
                height,
                width,
            });
        }
        Ok(())
    }

    /// Gathers the images of a batch, changed, one after the other into `bytes`, which is brought
    /// to their length and keeps its memory from batch to batch. Images are changed in parallel.
    ///
    /// # Panics
    /// If an index lies outside the pixels, or the settings are not [valid](Self::validate).
    pub fn gather(&self, batch: &Batch<'_>, bytes: &mut Vec<u8>) {
        let features: usize = batch.size.iter().product();
        bytes.resize(batch.indices.len() * features, 0);
        if features == 0 {
            return;
        }
        bytes
            .par_chunks_exact_mut(features)
            .zip(batch.indices)
            .for_each(|(target, &index)| {
                let source = &batch.pixels[index * features..][..features];
                let key = index as u64;
                let mut stream = Stream::new(batch.seed, Purpose::Augmentation, batch.epoch, key);
                self.apply(source, batch.size, &mut stream, target);
            });
    }

    /// Changes one image `[channels, height, width]` as the stream says, into `target`.
    ///
    /// # Panics
    /// If a slice is not an image of this size, or the settings are not [valid](Self::validate).
    pub fn apply(&self, source: &[u8], size: [usize; 3], stream: &mut Stream, target: &mut [u8]) {
        let [channels, height, width] = size;
        assert_eq!(source.len(), channels * height * width, "bytes of an image");
        assert_eq!(target.len(), source.len(), "bytes of the changed image");
        if target.is_empty() {
            return;
        }
        let choice = self.choose([height, width], stream);
        let plane = height * width;
        for (source, target) in source
            .chunks_exact(plane)
            .zip(target.chunks_exact_mut(plane))
        {
            choice.apply(source, target);
        }
    }

    /// Draws all five numbers, wanted or not, so that each has its place in the stream.
    fn choose(&self, [height, width]: [usize; 2], stream: &mut Stream) -> Choice {
        // Below 2^32 places, so that they are equally probable within 2^-21.
        let mut place = |count: usize| (stream.uniform() * count as f64) as usize;
        let (padding, mode) = match self.crop_padding {
            Some(CropPadding { pixels, mode }) => (pixels, mode),
            None => (0, PaddingMode::Zero),
        };
        assert!(
            padding < height.min(width) || padding == 0,
            "padding of {padding} pixels around {height}x{width}"
        );
        let shifts = 2 * padding + 1;
        let shifts = [place(shifts), place(shifts)].map(|shift| shift as isize - padding as isize);
        let centre = [place(height), place(width)];
        let flip = stream.uniform() < self.flip_probability;
        let crop = |shift: isize, length: usize| Crop {
            shift,
            length,
            mode,
        };
        let cutout = |side: usize| {
            let along = |centre: usize, length: usize| {
                let first = centre as isize - (side / 2) as isize;
                let end = first + side as isize;
                first.max(0) as usize..(end as usize).min(length)
            };
            [along(centre[0], height), along(centre[1], width)]
        };
        Choice {
            rows: crop(shifts[0], height),
            columns: crop(shifts[1], width),
            flip,
            cutout: self.cutout.map(cutout),
        }
    }
}

/// A crop along one side: place `at` shows place `at + shift` of the image or of what is around it.
#[derive(Clone, Copy, Debug)]
struct Crop {
    shift: isize,
    length: usize,
    mode: PaddingMode,
}

impl Crop {
    /// The place in the image; `None` for zero.
    fn place(&self, at: usize) -> Option<usize> {
        let last = self.length as isize - 1;
        let place = match (at as isize + self.shift, self.mode) {
            (place, _) if (0..=last).contains(&place) => place,
            (_, PaddingMode::Zero) => return None,
            (place, PaddingMode::Reflect) if place < 0 => -place,
            (place, PaddingMode::Reflect) => 2 * last - place,
        };
        Some(place as usize)
    }

    /// The places that show the image itself, and the place in it that the first of them shows.
    fn within(&self) -> (Range<usize>, usize) {
        let beyond = self.shift.unsigned_abs();
        if self.shift < 0 {
            (beyond..self.length, 0)
        } else {
            (0..self.length - beyond, beyond)
        }
    }
}

/// What happens to one image, in every plane the same.
#[derive(Clone, Debug)]
struct Choice {
    rows: Crop,
    columns: Crop,
    flip: bool,
    /// Rows and columns that are set to zero.
    cutout: Option<[Range<usize>; 2]>,
}

impl Choice {
    fn apply(&self, source: &[u8], target: &mut [u8]) {
        let width = self.columns.length;
        let (within, first) = self.columns.within();
        for (at, target) in target.chunks_exact_mut(width).enumerate() {
            let Some(row) = self.rows.place(at) else {
                target.fill(0);
                continue;
            };
            let source = &source[row * width..][..width];
            target[within.clone()].copy_from_slice(&source[first..][..within.len()]);
            for at in (0..within.start).chain(within.end..width) {
                target[at] = self.columns.place(at).map_or(0, |column| source[column]);
            }
            if self.flip {
                target.reverse();
            }
        }
        if let Some([rows, columns]) = &self.cutout {
            let target = target.chunks_exact_mut(width).take(rows.end);
            for row in target.skip(rows.start) {
                row[columns.clone()].fill(0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
