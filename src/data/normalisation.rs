//! Mean and deviation of every channel, by which pixels are brought to a common scale.

use serde::{Deserialize, Serialize};
use taskweave_kernels::lanes::PixelScale;

use super::ImageSet;

/// What a net is given instead of a pixel: `(pixel - mean) / deviation` of its channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalisation {
    /// A mean for every channel, in units of the raw pixel, 0 to 255.
    pub mean: Vec<f32>,
    /// A deviation for every channel, in the same units.
    pub deviation: Vec<f32>,
}

/// Numbers that pixels cannot be brought to scale with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NormalisationError {
    /// Not one of each for every channel.
    #[error(
        "the normalisation has {means} means and {deviations} deviations; images of {channels} \
         channels take {channels} of each"
    )]
    Channels {
        /// Number of means.
        means: usize,
        /// Number of deviations.
        deviations: usize,
        /// Channels of the images.
        channels: usize,
    },
    /// A mean that is no number.
    #[error("the mean of channel {channel} is {mean}; a finite number is wanted")]
    Mean {
        /// Which channel, counted from 0.
        channel: usize,
        /// Its mean.
        mean: f32,
    },
    /// A deviation that nothing can be divided by.
    #[error("the deviation of channel {channel} is {deviation}; a finite number above 0 is wanted")]
    Deviation {
        /// Which channel, counted from 0.
        channel: usize,
        /// Its deviation.
        deviation: f32,
    },
}

impl Normalisation {
    /// Mean and standard deviation (over all pixels, not one fewer) of every channel of a set, from
    /// exact sums. A channel that is the same everywhere, or has no pixels, gets deviation 1.
    ///
    /// ```
    /// use taskweave::data::{ImageSet, ImageShape, Normalisation};
    /// let shape = ImageShape { count: 2, height: 1, width: 1, channels: 2 };
    /// let images = ImageSet::new(vec![10, 7, 30, 7], shape, vec![0, 0], 1)?;
    /// let found = Normalisation::of(&images);
    /// assert_eq!((found.mean, found.deviation), (vec![20.0, 7.0], vec![10.0, 1.0]));
    /// # Ok::<(), taskweave::data::ImageSetError>(())
    /// ```
    pub fn of(images: &ImageSet) -> Self {
        let plane = images.height() * images.width();
        Self::of_pixels(images.pixels(), images.channels(), plane)
    }

    /// Like [`of`](Self::of), from pixels `[count, channels, plane]`.
    pub fn of_pixels(pixels: &[u8], channels: usize, plane: usize) -> Self {
        let (mut mean, mut deviation) = (Vec::new(), Vec::new());
        for channel in 0..channels {
            let (mut sum, mut squares) = (0_u64, 0_u64);
            let planes = pixels.chunks_exact(plane.max(1));
            for &pixel in planes.skip(channel).step_by(channels).flatten() {
                sum += u64::from(pixel);
                squares += u64::from(pixel) * u64::from(pixel);
            }
            let count = (pixels.len() / channels) as u64;
            // Whole numbers, so that a channel without variation has exactly none.
            let variation = u128::from(count) * u128::from(squares) - u128::from(sum).pow(2);
            let count = count.max(1) as f64;
            mean.push((sum as f64 / count) as f32);
            deviation.push(match variation {
                0 => 1.0,
                variation => ((variation as f64).sqrt() / count) as f32,
            });
        }
        Self { mean, deviation }
    }

    /// Holds the numbers to images of so many channels.
    ///
    /// # Errors
    /// Unless there is a finite mean and a finite positive deviation for each.
    pub fn validate(&self, channels: usize) -> Result<(), NormalisationError> {
        if [self.mean.len(), self.deviation.len()] != [channels; 2] {
            return Err(NormalisationError::Channels {
                means: self.mean.len(),
                deviations: self.deviation.len(),
                channels,
            });
        }
        for (channel, (&mean, &deviation)) in self.mean.iter().zip(&self.deviation).enumerate() {
            if !mean.is_finite() {
                return Err(NormalisationError::Mean { channel, mean });
            }
            if !(deviation > 0.0 && deviation.is_finite()) {
                return Err(NormalisationError::Deviation { channel, deviation });
            }
        }
        Ok(())
    }

    /// As [`pack_u8`](taskweave_kernels::lanes::pack_u8) takes it, channel by channel.
    pub fn scales(&self) -> Vec<PixelScale> {
        let scale = |(&mean, &divisor)| PixelScale { mean, divisor };
        self.mean.iter().zip(&self.deviation).map(scale).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageShape;

    #[test]
    fn mean_and_deviation_are_those_of_each_channel() {
        let shape = ImageShape {
            count: 3,
            height: 2,
            width: 2,
            channels: 3,
        };
        let pixels: Vec<u8> = (0..36).map(|i| (i * i * 5 + i) as u8).collect();
        let set = ImageSet::new(pixels.clone(), shape, vec![0; 3], 1).unwrap();
        let found = Normalisation::of(&set);
        found.validate(3).unwrap();
        for channel in 0..3 {
            let values: Vec<f64> = pixels
                .chunks(4)
                .skip(channel)
                .step_by(3)
                .flatten()
                .map(|&pixel| f64::from(pixel))
                .collect();
            assert_eq!(values.len(), 12);
            let mean = values.iter().sum::<f64>() / 12.0;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 12.0;
            // Rounded to f32 once; the references have their own roundings, far below.
            let close = |a: f32, b: f64| (f64::from(a) - b).abs() <= b * 2_f64.powi(-23);
            assert!(close(found.mean[channel], mean));
            assert!(close(found.deviation[channel], variance.sqrt()));
        }
    }

    #[test]
    fn nothing_and_no_variation_get_a_deviation_of_one() {
        let shape = ImageShape {
            count: 3,
            height: 1,
            width: 1,
            channels: 1,
        };
        let set = ImageSet::new(vec![77; 3], shape, vec![0; 3], 1).unwrap();
        let expected = |mean| Normalisation {
            mean: vec![mean],
            deviation: vec![1.0],
        };
        assert_eq!(Normalisation::of(&set), expected(77.0));
        for (count, height) in [(0, 1), (3, 0)] {
            let shape = ImageShape {
                count,
                height,
                ..shape
            };
            let set = ImageSet::new(Vec::new(), shape, vec![0; count], 1).unwrap();
            assert_eq!(Normalisation::of(&set), expected(0.0));
        }
    }

    #[test]
    fn numbers_that_do_not_serve_are_named() {
        let sentence = |mean: &[f32], deviation: &[f32]| {
            let normalisation = Normalisation {
                mean: mean.to_vec(),
                deviation: deviation.to_vec(),
            };
            normalisation.validate(2).unwrap_err().to_string()
        };
        assert_eq!(
            sentence(&[1.0], &[1.0, 2.0]),
            "the normalisation has 1 means and 2 deviations; images of 2 channels take 2 of each"
        );
        assert_eq!(
            sentence(&[1.0, f32::NAN], &[1.0, 2.0]),
            "the mean of channel 1 is NaN; a finite number is wanted"
        );
        for (deviation, text) in [
            (0.0, "0"),
            (-2.0, "-2"),
            (f32::NAN, "NaN"),
            (f32::INFINITY, "inf"),
        ] {
            assert_eq!(
                sentence(&[1.0, 1.0], &[1.0, deviation]),
                format!("the deviation of channel 1 is {text}; a finite number above 0 is wanted")
            );
        }
    }

    #[test]
    fn it_travels_as_json_and_knows_its_fields() {
        let normalisation = Normalisation {
            mean: vec![125.5],
            deviation: vec![63.25],
        };
        let text = serde_json::to_string(&normalisation).unwrap();
        assert_eq!(text, r#"{"mean":[125.5],"deviation":[63.25]}"#);
        let back: Normalisation = serde_json::from_str(&text).unwrap();
        assert_eq!(back, normalisation);
        assert_eq!(
            back.scales(),
            [PixelScale {
                mean: 125.5,
                divisor: 63.25
            }]
        );
        assert!(serde_json::from_str::<Normalisation>(r#"{"mean":[1],"std":[1]}"#).is_err());
    }
}
