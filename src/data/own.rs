//! Datasets of one's own.

use std::path::Path;

use super::load::in_file;
use super::npz::Npz;
use super::{DataError, FormatError, ImageSet, read_images};

/// Planes of images: grey, then colour.
const CHANNELS: [usize; 2] = [1, 3];

/// Reads training and test images out of an npz file with `x_train`, `y_train`, `x_test` and `y_test`, as
/// Keras keeps its own. Images are unsigned bytes, `[count, height, width]`, or with one or three channels
/// last or second. Labels are whole numbers from 0; their largest tells how many classes there are.
///
/// # Errors
/// When the file cannot be read, is damaged, or its arrays do not go together.
pub fn read_own(path: &Path) -> Result<(ImageSet, ImageSet), DataError> {
    read(path).map_err(in_file(path))
}

fn read(path: &Path) -> Result<(ImageSet, ImageSet), FormatError> {
    let mut npz = Npz::open(path)?;
    let labels = ["y_train", "y_test"].map(|array| npz.labels(array, 256));
    let [train, test] = labels;
    let labels = [train?, test?].map(|labels| labels.values().to_vec());
    let classes = labels
        .iter()
        .flatten()
        .max()
        .map_or(0, |&most| usize::from(most) + 1);
    let [train, test] = labels;
    let set = |array: &str, labels: Vec<u8>| {
        let read = |channels| read_images(path, array, channels);
        let (pixels, shape) = match read(CHANNELS[0]) {
            Err(FormatError::Shape { .. }) => read(CHANNELS[1])?,
            other => other?,
        };
        ImageSet::new(pixels, shape, labels, classes).map_err(|source| FormatError::InArray {
            array: array.to_owned(),
            source,
        })
    };
    Ok((set("x_train", train)?, set("x_test", test)?))
}
