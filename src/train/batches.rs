//! The images of a task as training sees them.

use std::ops::Range;

use super::TrainError;

/// Labelled images of one task, borrowed: raw pixels, `[count, features]`, and a class for each.
#[derive(Clone, Copy, Debug)]
pub struct TaskImages<'a> {
    pixels: &'a [u8],
    labels: &'a [u8],
    features: usize,
}

impl<'a> TaskImages<'a> {
    /// Images of `features` pixels each, with their labels.
    ///
    /// # Errors
    /// When there is not exactly one label for every image, or a label is no class.
    pub fn new(
        pixels: &'a [u8],
        labels: &'a [u8],
        features: usize,
        classes: usize,
    ) -> Result<Self, TrainError> {
        if pixels.len() != labels.len() * features {
            return Err(TrainError::Data(format!(
                "{} labels want {} pixels ({features} per image), but there are {}",
                labels.len(),
                labels.len() * features,
                pixels.len()
            )));
        }
        if let Some(at) = labels
            .iter()
            .position(|&label| usize::from(label) >= classes)
        {
            return Err(TrainError::Data(format!(
                "label {} of image {at} is no class: classes run from 0 to {}",
                labels[at],
                classes.saturating_sub(1)
            )));
        }
        Ok(Self {
            pixels,
            labels,
            features,
        })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Pixels of one image.
    pub fn features(&self) -> usize {
        self.features
    }

    /// All pixels, image after image.
    pub fn pixels(&self) -> &'a [u8] {
        self.pixels
    }

    /// The class of every image.
    pub fn labels(&self) -> &'a [u8] {
        self.labels
    }

    /// Some of the images, in order.
    ///
    /// # Panics
    /// If the range reaches past the last image.
    pub fn slice(&self, images: Range<usize>) -> Self {
        Self {
            pixels: &self.pixels[images.start * self.features..images.end * self.features],
            labels: &self.labels[images],
            features: self.features,
        }
    }

    /// Splits the last `share` off for validation, as Keras's `validation_split` does:
    /// `(training, validation)`.
    ///
    /// # Panics
    /// If the share is negative.
    pub fn split_validation(&self, share: f64) -> (Self, Self) {
        let train = (self.len() as f64 * (1.0 - share)).floor() as usize;
        (self.slice(0..train), self.slice(train..self.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_is_the_end_of_the_set() {
        let pixels: Vec<u8> = (0..20).collect();
        let labels: Vec<u8> = (0..10).collect();
        let images = TaskImages::new(&pixels, &labels, 2, 10).unwrap();
        let (train, validation) = images.split_validation(0.2);
        assert_eq!(train.labels(), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(validation.labels(), [8, 9]);
        assert_eq!(validation.pixels(), [16, 17, 18, 19]);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let error = TaskImages::new(&[0; 5], &[0; 2], 3, 10).unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 labels want 6 pixels (3 per image), but there are 5"
        );
        let error = TaskImages::new(&[0; 6], &[0, 10], 3, 10).unwrap_err();
        assert_eq!(
            error.to_string(),
            "label 10 of image 1 is no class: classes run from 0 to 9"
        );
    }
}
