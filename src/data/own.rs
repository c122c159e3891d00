//! Datasets of one's own.

use std::path::Path;

use super::load::in_file;
use super::npz::Npz;
use super::pixels::arranged;
use super::{DataError, FormatError, ImageSet};

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
    let mut set = |array: &str, labels: Vec<u8>| {
        let (dims, values) = npz.bytes(array)?;
        let is_grey = match dims[..] {
            [_, first, _, last] => first == 1 || last == 1,
            _ => dims.len() == 3,
        };
        let (pixels, shape) = arranged(dims, values, if is_grey { 1 } else { 3 })?;
        ImageSet::new(pixels, shape, labels, classes).map_err(|source| FormatError::InArray {
            array: array.to_owned(),
            source,
        })
    };
    Ok((set("x_train", train)?, set("x_test", test)?))
}
