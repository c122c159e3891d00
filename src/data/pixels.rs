//! Images without labels, out of any file that holds some.

use std::path::Path;

use super::error::LARGEST_ARRAY;
use super::idx::{self, Kind};
use super::npz::Npz;
use super::{FormatError, ImageShape, PixelStore, npy};

/// Reads images of so many channels: unsigned bytes, `[count, height, width]` where they are grey,
/// `[count, height, width, channels]` or `[count, channels, height, width]`. A file that ends in
/// `.npy` is one array, of one in `.npz` the named array is taken, everything else is read as IDX,
/// gzipped or not.
///
/// # Errors
/// When the file cannot be read, is damaged, or holds something else.
pub fn read_images(
    path: &Path,
    array: &str,
    channels: usize,
) -> Result<(PixelStore, ImageShape), FormatError> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let (dims, values) = match extension {
        Some("npy") => {
            let found = npy::read_file(path)?;
            let values = PixelStore::from(found.u8()?.to_vec());
            (found.shape().to_vec(), values)
        }
        Some("npz") => Npz::open(path)?.bytes(array)?,
        _ => {
            let found = idx::read(path, Kind::Images)?;
            (found.dims().to_vec(), found.into_values())
        }
    };
    arranged(dims, values, channels)
}

/// Values of these dimensions as planes of so many channels.
pub(super) fn arranged(
    dims: Vec<usize>,
    values: PixelStore,
    channels: usize,
) -> Result<(PixelStore, ImageShape), FormatError> {
    let is_planar = |dims: &[usize]| dims[1] == channels && dims[3] != channels;
    let (count, height, width) = match dims[..] {
        [count, height, width] if channels == 1 => (count, height, width),
        [count, _, height, width] if is_planar(&dims) => (count, height, width),
        [count, height, width, found] if found == channels => (count, height, width),
        _ => {
            return Err(FormatError::Shape {
                array: "of images".to_owned(),
                found: dims,
                wanted: match channels {
                    1 => "[count, height, width]",
                    _ => "[count, height, width, channels], as many channels as the net takes",
                },
            });
        }
    };
    let shape = ImageShape {
        count,
        height,
        width,
        channels,
    };
    let bytes = shape.bytes().unwrap_or(usize::MAX);
    if bytes as u64 > LARGEST_ARRAY {
        return Err(FormatError::TooLarge {
            what: shape.to_string(),
            bytes: bytes as u128,
            most: LARGEST_ARRAY,
        });
    }
    if channels == 1 || is_planar(&dims) {
        return Ok((values, shape));
    }
    Ok((planes(values.as_slice(), &shape).into(), shape))
}

/// Pixels with their channels side by side, brought into planes.
fn planes(values: &[u8], shape: &ImageShape) -> Vec<u8> {
    let (channels, plane) = (shape.channels, shape.height * shape.width);
    let mut planar = vec![0; values.len()];
    let images = values.chunks_exact((channels * plane).max(1));
    for (target, image) in planar
        .chunks_exact_mut((channels * plane).max(1))
        .zip(images)
    {
        for (channel, target) in target.chunks_exact_mut(plane).enumerate() {
            for (target, pixel) in target.iter_mut().zip(image.chunks_exact(channels)) {
                *target = pixel[channel];
            }
        }
    }
    planar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_side_by_side_become_planes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.npy");
        let values: Vec<u8> = (0..24).collect();
        npy::save(&path, &[2, 2, 2, 3], &values).unwrap();
        let (pixels, shape) = read_images(&path, "", 3).unwrap();
        assert_eq!((shape.count, shape.height, shape.width), (2, 2, 2));
        assert_eq!(pixels.as_slice()[..6], [0, 3, 6, 9, 1, 4]);
        npy::save(&path, &[2, 3, 2, 2], &values).unwrap();
        let (pixels, _) = read_images(&path, "", 3).unwrap();
        assert_eq!(pixels.as_slice(), values);
    }

    #[test]
    fn another_shape_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("images.npy");
        npy::save(&path, &[2, 3], &[0_u8; 6]).unwrap();
        let message = read_images(&path, "", 1).unwrap_err().to_string();
        assert!(message.contains("[2, 3]"), "{message}");
        assert!(message.contains("[count, height, width]"), "{message}");
    }
}
