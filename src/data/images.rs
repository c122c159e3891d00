//! Images with their labels, checked against each other when they are put together.

use std::fmt;

use super::MappedBytes;

/// The size of a set of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Number of images.
    pub count: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Planes of an image, each of `height` × `width` bytes: 1 for grey, 3 for colour.
    pub channels: usize,
}

impl ImageShape {
    /// Bytes of all pixels; `None` where that number does not fit.
    pub fn bytes(&self) -> Option<usize> {
        self.count
            .checked_mul(self.height)?
            .checked_mul(self.width)?
            .checked_mul(self.channels)
    }
}

impl fmt::Display for ImageShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            height,
            width,
            channels,
        } = self;
        write!(f, "{count} images of {height}x{width}x{channels}")
    }
}

/// Pixels in memory, or in a file that is mapped into it.
#[derive(Clone, Debug)]
pub enum PixelStore {
    /// Bytes of our own.
    Owned(Vec<u8>),
    /// Bytes of a file.
    Mapped(MappedBytes),
}

impl PixelStore {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped(bytes) => bytes.as_slice(),
        }
    }
}

impl From<Vec<u8>> for PixelStore {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Owned(bytes)
    }
}

impl From<MappedBytes> for PixelStore {
    fn from(bytes: MappedBytes) -> Self {
        Self::Mapped(bytes)
    }
}

/// Why images and labels do not go together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageSetError {
    /// Another number of bytes than the shape asks for.
    #[error(
        "{shape} take {} bytes of pixels, but there are {found}",
        shape.bytes().map_or_else(|| "too many".to_owned(), |bytes| bytes.to_string())
    )]
    Pixels {
        /// The shape.
        shape: ImageShape,
        /// Bytes that are there.
        found: usize,
    },
    /// Not one label for every image.
    #[error("there are {images} images but {labels} labels; every image needs one label")]
    Count {
        /// Number of images.
        images: usize,
        /// Number of labels.
        labels: usize,
    },
    /// A label that is no class.
    #[error("label {label} of image {index} is out of range: the {classes} classes are 0 to {}", classes.saturating_sub(1))]
    Label {
        /// Which image, counted from 0.
        index: usize,
        /// Its label.
        label: i64,
        /// Number of classes.
        classes: usize,
    },
    /// A class that there is not.
    #[error("there is no class {class}: the {classes} classes are 0 to {}", classes.saturating_sub(1))]
    NoClass {
        /// The class asked for.
        class: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A class that was asked for twice.
    #[error("class {class} is given twice")]
    ClassTwice {
        /// The class.
        class: usize,
    },
    /// A size that images cannot be brought to.
    #[error(
        "images of {}x{} cannot be resized to {}x{}: every side needs a pixel, and at most 1 GiB of \
         pixels is made",
        from[0], from[1], to[0], to[1]
    )]
    Resize {
        /// Rows and columns of the images.
        from: [usize; 2],
        /// Rows and columns asked for.
        to: [usize; 2],
    },
    /// Not one name for every class.
    #[error("the images have {classes} classes, but {names} class names are given")]
    ClassNames {
        /// Number of classes.
        classes: usize,
        /// Number of names.
        names: usize,
    },
}

/// Labelled images: pixels from 0 to 255, planar, `[count, channels, height, width]`, and a class
/// for each. The planes of a colour image are red, green and blue; a grey image has one.
#[derive(Clone)]
pub struct ImageSet {
    pixels: PixelStore,
    shape: ImageShape,
    labels: Vec<u8>,
    classes: usize,
}

impl ImageSet {
    /// Puts images and labels together.
    ///
    /// # Errors
    /// Unless there is exactly a byte for every value of `shape`, a label for every image, and every
    /// label is below `classes`.
    pub fn new(
        pixels: impl Into<PixelStore>,
        shape: ImageShape,
        labels: Vec<u8>,
        classes: usize,
    ) -> Result<Self, ImageSetError> {
        let pixels = pixels.into();
        let found = pixels.as_slice().len();
        if shape.bytes() != Some(found) {
            return Err(ImageSetError::Pixels { shape, found });
        }
        if labels.len() != shape.count {
            return Err(ImageSetError::Count {
                images: shape.count,
                labels: labels.len(),
            });
        }
        if let Some(index) = labels
            .iter()
            .position(|&label| usize::from(label) >= classes)
        {
            return Err(ImageSetError::Label {
                index,
                label: i64::from(labels[index]),
                classes,
            });
        }
        Ok(Self {
            pixels,
            shape,
            labels,
            classes,
        })
    }

    /// The images of some classes alone, which are numbered anew in the order given.
    ///
    /// # Errors
    /// When there is no such class, or one is given twice.
    ///
    /// ```
    /// use taskweave::data::{ImageSet, ImageShape};
    /// let shape = ImageShape { count: 3, height: 1, width: 2, channels: 1 };
    /// let set = ImageSet::new(vec![1, 2, 3, 4, 5, 6], shape, vec![0, 7, 4], 10)?;
    /// let two = set.of_classes(&[4, 0])?;
    /// assert_eq!((two.labels(), two.pixels()), (&[1, 0][..], &[1, 2, 5, 6][..]));
    /// # Ok::<(), taskweave::data::ImageSetError>(())
    /// ```
    pub fn of_classes(&self, classes: &[usize]) -> Result<Self, ImageSetError> {
        let mut numbers = vec![None; self.classes];
        for (number, &class) in classes.iter().enumerate() {
            let slot = numbers.get_mut(class).ok_or(ImageSetError::NoClass {
                class,
                classes: self.classes,
            })?;
            if slot.replace(number as u8).is_some() {
                return Err(ImageSetError::ClassTwice { class });
            }
        }
        let size = self.shape.height * self.shape.width * self.shape.channels;
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for (index, &label) in self.labels.iter().enumerate() {
            if let Some(number) = numbers[usize::from(label)] {
                pixels.extend_from_slice(&self.pixels()[index * size..][..size]);
                labels.push(number);
            }
        }
        let shape = ImageShape {
            count: labels.len(),
            ..self.shape
        };
        Self::new(pixels, shape, labels, classes.len())
    }

    /// All pixels, `[count, channels, height, width]` in row-major order.
    pub fn pixels(&self) -> &[u8] {
        self.pixels.as_slice()
    }

    /// The pixels of one image, `[channels, height, width]`; `None` where there is no such image.
    pub fn image(&self, index: usize) -> Option<&[u8]> {
        let size = self.shape.height * self.shape.width * self.shape.channels;
        let start = index.checked_mul(size)?;
        (index < self.shape.count).then(|| &self.pixels()[start..start + size])
    }

    /// The class of every image.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Number of images and their size.
    pub fn shape(&self) -> ImageShape {
        self.shape
    }

    /// Number of images.
    pub fn count(&self) -> usize {
        self.shape.count
    }

    /// Rows of an image.
    pub fn height(&self) -> usize {
        self.shape.height
    }

    /// Columns of an image.
    pub fn width(&self) -> usize {
        self.shape.width
    }

    /// Planes of an image.
    pub fn channels(&self) -> usize {
        self.shape.channels
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }
}

impl fmt::Debug for ImageSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageSet({} in {} classes)", self.shape, self.classes)
    }
}

/// A dataset: images to train on, images to test with, and what the classes are called.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Its name in the registry, such as "mnist".
    pub name: &'static str,
    /// Images to train on.
    pub train: ImageSet,
    /// Images to test with.
    pub test: ImageSet,
    /// A name for every class.
    pub class_names: &'static [&'static str],
}

impl Dataset {
    /// Puts training and test images together.
    ///
    /// # Errors
    /// Unless there is a name for every class of both.
    pub fn new(
        name: &'static str,
        train: ImageSet,
        test: ImageSet,
        class_names: &'static [&'static str],
    ) -> Result<Self, ImageSetError> {
        for classes in [train.classes, test.classes] {
            if classes != class_names.len() {
                return Err(ImageSetError::ClassNames {
                    classes,
                    names: class_names.len(),
                });
            }
        }
        Ok(Self {
            name,
            train,
            test,
            class_names,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: ImageShape = ImageShape {
        count: 2,
        height: 2,
        width: 3,
        channels: 1,
    };

    fn error(pixels: usize, labels: &[u8]) -> String {
        ImageSet::new(vec![0; pixels], SHAPE, labels.to_vec(), 10)
            .expect_err("must not be taken")
            .to_string()
    }

    #[test]
    fn images_and_labels_that_fit_are_taken_as_they_are() {
        let set = ImageSet::new((0..12).collect::<Vec<u8>>(), SHAPE, vec![9, 0], 10).unwrap();
        assert_eq!(set.image(1), Some(&[6, 7, 8, 9, 10, 11][..]));
        assert_eq!(set.image(2), None);
        assert_eq!(set.image(usize::MAX), None);
        assert_eq!((set.labels(), set.count()), (&[9, 0][..], 2));
    }

    #[test]
    fn a_colour_image_is_its_planes_one_after_the_other() {
        let shape = ImageShape {
            channels: 3,
            ..SHAPE
        };
        let set = ImageSet::new((0..36).collect::<Vec<u8>>(), shape, vec![0, 0], 1).unwrap();
        let image = set.image(1).unwrap();
        let blue = &image[2 * 6..];
        assert_eq!(blue, [30, 31, 32, 33, 34, 35]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(
            error(11, &[1, 2]),
            "2 images of 2x3x1 take 12 bytes of pixels, but there are 11"
        );
        assert_eq!(
            error(12, &[1, 2, 3]),
            "there are 2 images but 3 labels; every image needs one label"
        );
        assert_eq!(
            error(12, &[1, 10]),
            "label 10 of image 1 is out of range: the 10 classes are 0 to 9"
        );
    }

    #[test]
    fn a_size_that_overflows_is_no_size() {
        let shape = ImageShape {
            count: usize::MAX,
            height: 3,
            ..SHAPE
        };
        assert!(matches!(
            ImageSet::new(Vec::new(), shape, Vec::new(), 10),
            Err(ImageSetError::Pixels { .. })
        ));
    }

    #[test]
    fn every_class_needs_a_name() {
        let set = ImageSet::new(vec![0; 12], SHAPE, vec![1, 0], 3).unwrap();
        let error = Dataset::new("pair", set.clone(), set, &["a", "b"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the images have 3 classes, but 2 class names are given"
        );
    }
}
