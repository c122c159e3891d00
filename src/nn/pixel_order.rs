//! The order of the features behind a flatten layer: ours against Keras's.
//!
//! In lanes an image is stored channel by channel, so its features come as channel, row, column. In
//! Keras they come as row, column, channel. The rows of the first dense kernel behind an image follow
//! them; they are brought from one order to the other here and nowhere else.

/// The features of an image of several channels, flattened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelOrder {
    channels: usize,
    /// Rows times columns.
    pixels: usize,
}

impl PixelOrder {
    /// The order for images `[channels, height, width]`; `None` where both orders are the same.
    pub fn of([channels, height, width]: [usize; 3]) -> Option<Self> {
        let pixels = height * width;
        (channels > 1 && pixels > 1).then_some(Self { channels, pixels })
    }

    /// Values with a row for every feature, in our order, brought to Keras's.
    ///
    /// # Panics
    /// If there are not as many values for every feature.
    ///
    /// ```
    /// use taskweave::nn::PixelOrder;
    /// let order = PixelOrder::of([2, 1, 3]).unwrap();
    /// let keras = order.to_keras(&["a0", "a1", "a2", "b0", "b1", "b2"]);
    /// assert_eq!(keras, ["a0", "b0", "a1", "b1", "a2", "b2"]);
    /// assert_eq!(order.from_keras(&keras), ["a0", "a1", "a2", "b0", "b1", "b2"]);
    /// ```
    pub fn to_keras<T: Copy>(&self, values: &[T]) -> Vec<T> {
        transposed(values, self.channels, self.pixels)
    }

    /// Values with a row for every feature, in Keras's order, brought to ours.
    ///
    /// # Panics
    /// If there are not as many values for every feature.
    pub fn from_keras<T: Copy>(&self, values: &[T]) -> Vec<T> {
        transposed(values, self.pixels, self.channels)
    }
}

/// Rows of values that stand as `[outer, inner]`, brought to `[inner, outer]`.
fn transposed<T: Copy>(values: &[T], outer: usize, inner: usize) -> Vec<T> {
    let features = outer * inner;
    assert!(
        values.len().is_multiple_of(features),
        "{} values for {features} features",
        values.len()
    );
    let row = values.len() / features;
    let mut result = Vec::with_capacity(values.len());
    for place in 0..inner {
        for group in 0..outer {
            let start = (group * inner + place) * row;
            result.extend_from_slice(&values[start..start + row]);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_move_whole_and_come_back() {
        let order = PixelOrder::of([3, 2, 2]).unwrap();
        let values: Vec<u8> = (0..24).collect();
        let keras = order.to_keras(&values);
        // Row 1 in Keras is channel 1 of the first pixel: row 4 of ours.
        assert_eq!(keras[2..4], [8, 9]);
        assert_eq!(order.from_keras(&keras), values);
        assert_ne!(order.from_keras(&values), keras);
    }

    #[test]
    fn one_channel_or_one_pixel_has_one_order() {
        assert_eq!(PixelOrder::of([1, 5, 5]), None);
        assert_eq!(PixelOrder::of([5, 1, 1]), None);
    }
}
