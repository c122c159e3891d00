//! Bilinear resizing of images, byte for byte as OpenCV's `resize` does by default (`INTER_LINEAR`
//! on unsigned bytes).
//!
//! Pixels are squares whose centres lie at half-integers, and nothing is smoothed before: place `d`
//! of the target lies at `(d + ½) · from / to − ½` in the source, between two pixels whose weights
//! are its distances. Beyond the outermost centres the outermost pixel counts alone.
//!
//! The arithmetic is OpenCV's fixed point. Weights are rounded to multiples of 2⁻¹¹, halves to
//! even. A row is first resized by itself, exactly, into values of 8 + 11 bits; then two such rows
//! are weighted, each product cut to 2 bits after the point, and their sum rounded, halves up.
//!
//! Source: OpenCV 4, `modules/imgproc/src/resize.cpp` (`resizeGeneric_`, `HResizeLinear`,
//! `VResizeLinear` for unsigned bytes).

use rayon::prelude::*;

use super::error::LARGEST_ARRAY;
use super::{ImageSet, ImageSetError, ImageShape};

/// Bits of a weight after the point: OpenCV's `INTER_RESIZE_COEF_BITS`.
const WEIGHT_BITS: u32 = 11;
/// The weight of a pixel that counts alone.
const ONE: i32 = 1 << WEIGHT_BITS;

/// Two neighbours in the source and their weights; the second may be the first again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tap {
    places: [usize; 2],
    weights: [i32; 2],
}

/// What happens to a position beyond the outermost centres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    /// The outermost pixel gets all the weight, as along a row.
    Alone,
    /// Both neighbours are the outermost pixel, as down a column: the rounding of two products
    /// stays.
    Twice,
}

fn taps(from: usize, to: usize, edge: Edge) -> Vec<Tap> {
    let scale = 1.0 / (to as f64 / from as f64);
    let last = from - 1;
    let tap = |place: usize| {
        // In these steps and types, as OpenCV takes them.
        let position = ((place as f64 + 0.5) * scale - 0.5) as f32;
        let floor = position.floor();
        let mut beyond = position - floor;
        let first = floor as i64;
        let within = |place: i64| place.clamp(0, last as i64) as usize;
        if edge == Edge::Alone && (first < 0 || within(first) == last) {
            beyond = 0.0;
        }
        let weight = |share: f32| (share * ONE as f32).round_ties_even() as i32;
        Tap {
            places: [within(first), within(first + 1)],
            weights: [weight(1.0 - beyond), weight(beyond)],
        }
    };
    (0..to).map(tap).collect()
}

/// Resizes planes of bytes from one size to another.
///
/// ```
/// use taskweave::data::resize::Bilinear;
/// let to_four_columns = Bilinear::new([1, 2], [1, 4]);
/// let mut row = [0; 4];
/// to_four_columns.resize(&[0, 100], &mut row);
/// assert_eq!(row, [0, 25, 75, 100]);
/// ```
#[derive(Clone, Debug)]
pub struct Bilinear {
    from: [usize; 2],
    to: [usize; 2],
    rows: Vec<Tap>,
    columns: Vec<Tap>,
}

impl Bilinear {
    /// From planes of `from` rows and columns to planes of `to`.
    ///
    /// # Panics
    /// If one of these numbers is 0.
    pub fn new(from: [usize; 2], to: [usize; 2]) -> Self {
        assert!(
            !from.contains(&0) && !to.contains(&0),
            "cannot resize {from:?} to {to:?} pixels"
        );
        Self {
            from,
            to,
            rows: taps(from[0], to[0], Edge::Twice),
            columns: taps(from[1], to[1], Edge::Alone),
        }
    }

    /// Resizes one plane, row by row in both.
    ///
    /// # Panics
    /// If one of the slices is not a plane of its size.
    pub fn resize(&self, source: &[u8], target: &mut [u8]) {
        let [height, width] = self.from;
        assert_eq!(source.len(), height * width, "bytes of the source");
        assert_eq!(target.len(), self.to[0] * self.to[1], "bytes of the target");
        // Two rows of the source, resized: rows of the target in order need few others.
        let mut resized = [None, None].map(|row: Option<usize>| (row, vec![0; self.to[1]]));
        for (target, tap) in target.chunks_exact_mut(self.to[1]).zip(&self.rows) {
            for row in tap.places {
                if resized.iter().any(|(held, _)| *held == Some(row)) {
                    continue;
                }
                let free = resized
                    .iter_mut()
                    .find(|(held, _)| held.is_none_or(|held| !tap.places.contains(&held)));
                if let Some((held, values)) = free {
                    *held = Some(row);
                    self.resize_row(&source[row * width..][..width], values);
                }
            }
            let values = |row: usize| {
                let found = resized.iter().find(|(held, _)| *held == Some(row));
                found.map_or(&[][..], |(_, values)| &values[..])
            };
            let [above, below] = tap.places.map(values);
            for ((byte, &above), &below) in target.iter_mut().zip(above).zip(below) {
                *byte = weigh([above, below], tap.weights);
            }
        }
    }

    /// One row, in multiples of 2⁻¹¹.
    fn resize_row(&self, source: &[u8], target: &mut [i32]) {
        for (value, tap) in target.iter_mut().zip(&self.columns) {
            let [left, right] = tap.places.map(|place| i32::from(source[place]));
            *value = left * tap.weights[0] + right * tap.weights[1];
        }
    }
}

/// Two values in multiples of 2⁻¹¹, weighted and rounded. Four bits are cut off them beforehand, so
/// that a product fits 32 bits, and sixteen from the product, which leaves two after the point.
fn weigh(values: [i32; 2], weights: [i32; 2]) -> u8 {
    let product = |at: usize| ((values[at] >> 4) * weights[at]) >> 16;
    // 255 in every value and all the weight give 1,020: what is cut off only makes it less.
    ((product(0) + product(1) + 2) >> 2) as u8
}

impl ImageSet {
    /// The same images, each plane resized to `height` × `width` as OpenCV does by default
    /// (see [`resize`](crate::data::resize)). Images are resized in parallel.
    ///
    /// # Errors
    /// [`ImageSetError::Resize`] where a side would be or is 0, or the images would take more than
    /// 1 GiB.
    pub fn resized(&self, height: usize, width: usize) -> Result<Self, ImageSetError> {
        let from = self.shape();
        let shape = ImageShape {
            height,
            width,
            ..from
        };
        let bytes = shape
            .bytes()
            .filter(|&bytes| bytes as u64 <= LARGEST_ARRAY)
            .filter(|_| ![height, width, from.height, from.width].contains(&0))
            .ok_or(ImageSetError::Resize {
                from: [from.height, from.width],
                to: [height, width],
            })?;
        if shape == from {
            return Ok(self.clone());
        }
        let resizer = Bilinear::new([from.height, from.width], [height, width]);
        let mut pixels = vec![0; bytes];
        let planes = self.pixels().par_chunks_exact(from.height * from.width);
        pixels
            .par_chunks_exact_mut(height * width)
            .zip(planes)
            .for_each(|(target, source)| resizer.resize(source, target));
        Self::new(pixels, shape, self.labels().to_vec(), self.classes())
    }
}

#[cfg(test)]
mod tests;
