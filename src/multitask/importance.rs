//! The mean gradient over many images, summed batch by batch without loss.

use std::borrow::Cow;

/// The mean of a parameter's gradient over images that come in batches.
///
/// Sums are kept in f64: what the f32 gradients of the batches hold is added without rounding that
/// could matter to an order by size.
pub struct MeanGradient {
    sums: Vec<Vec<f64>>,
    images: usize,
}

impl MeanGradient {
    /// An empty mean over parameters of these numbers of elements.
    pub fn new(elements: impl IntoIterator<Item = usize>) -> Self {
        Self {
            sums: elements.into_iter().map(|len| vec![0.0; len]).collect(),
            images: 0,
        }
    }

    /// Adds the mean gradient of a batch of `images` images, one tensor per parameter; `None` counts
    /// as zeros.
    pub fn add<'a>(
        &mut self,
        images: usize,
        grads: impl IntoIterator<Item = Option<Cow<'a, [f32]>>>,
    ) {
        let weight = images as f64;
        for (sum, grad) in self.sums.iter_mut().zip(grads) {
            let Some(grad) = grad else { continue };
            for (sum, grad) in sum.iter_mut().zip(&grad[..]) {
                *sum += weight * f64::from(*grad);
            }
        }
        self.images += images;
    }

    /// The mean over all images, per parameter; zeros if there were none.
    pub fn mean(self) -> Vec<Vec<f32>> {
        let scale = 1.0 / self.images.max(1) as f64;
        self.sums
            .into_iter()
            .map(|sum| {
                sum.into_iter()
                    .map(|value| (value * scale) as f32)
                    .collect()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_count_by_their_images() {
        let mut mean = MeanGradient::new([2, 1]);
        mean.add(3, [Some(Cow::from(&[1.0, -2.0][..])), None]);
        let second = [&[4.0, 1.0][..], &[8.0]];
        mean.add(1, second.map(|grad| Some(Cow::from(grad))));
        assert_eq!(mean.mean(), [vec![1.75, -1.25], vec![2.0]]);
    }

    #[test]
    fn no_images_give_zeros() {
        assert_eq!(MeanGradient::new([2]).mean(), [vec![0.0, 0.0]]);
    }
}
