//! Pictures: PNG and JPEG files, one or a folder of them.

use std::fs;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageReader, Limits};
use rayon::prelude::*;

use super::error::LARGEST_ARRAY;
use super::load::in_file;
use super::{DataError, FormatError, ImageSet, ImageShape};

/// How the names of picture files end.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Rows and columns of a picture, at most.
const LARGEST_SIDE: u32 = 1 << 15;

/// The picture files that a path stands for: itself if it ends in `.png`, `.jpg` or `.jpeg`, in a folder
/// all that do, by name; none where it is something else.
///
/// # Errors
/// When a folder cannot be read, or holds no such file.
pub fn picture_files(path: &Path) -> Result<Vec<PathBuf>, DataError> {
    if !path.is_dir() {
        let itself = is_picture(path).then(|| path.to_owned());
        return Ok(itself.into_iter().collect());
    }
    let failed = in_file(path);
    let entries = fs::read_dir(path).and_then(|entries| {
        let paths = entries.map(|entry| Ok(entry?.path()));
        paths.collect::<Result<Vec<PathBuf>, std::io::Error>>()
    });
    let mut files = entries.map_err(|error| failed(error.into()))?;
    files.retain(|file| is_picture(file) && file.is_file());
    if files.is_empty() {
        return Err(failed(FormatError::NoPictures));
    }
    files.sort();
    Ok(files)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|found| {
        EXTENSIONS
            .iter()
            .any(|known| found.eq_ignore_ascii_case(known))
    })
}

/// Reads pictures as images of so many channels, rows and columns: colours become grey where one channel
/// is wanted, by their luma, and grey becomes colour where three are. What is transparent counts as
/// opaque. Each picture is resized on its own.
///
/// # Errors
/// When a file cannot be read, is damaged or too large, or another number of channels is wanted.
pub fn read_pictures(
    files: &[PathBuf],
    [channels, height, width]: [usize; 3],
) -> Result<ImageSet, DataError> {
    let size = channels * height * width;
    let shape = ImageShape {
        count: files.len(),
        height,
        width,
        channels,
    };
    // Of all pictures together, the first stands for the others.
    let failed = in_file(files.first().map_or(Path::new(""), |file| file));
    let bytes = shape.bytes().unwrap_or(usize::MAX);
    if bytes as u64 > LARGEST_ARRAY {
        return Err(failed(FormatError::TooLarge {
            what: shape.to_string(),
            bytes: bytes as u128,
            most: LARGEST_ARRAY,
        }));
    }
    let mut pixels = vec![0; bytes];
    pixels
        .par_chunks_exact_mut(size.max(1))
        .zip(files)
        .try_for_each(|(target, file)| {
            let read = read_picture(file, channels).and_then(|picture| {
                let resized = picture.resized(height, width);
                resized.map_err(|error| FormatError::Picture(error.to_string()))
            });
            target.copy_from_slice(read.map_err(in_file(file))?.pixels());
            Ok(())
        })?;
    let labels = vec![0; files.len()];
    ImageSet::new(pixels, shape, labels, 1)
        .map_err(|error| failed(FormatError::Picture(error.to_string())))
}

/// One picture as a set of one image, in planes.
fn read_picture(path: &Path, channels: usize) -> Result<ImageSet, FormatError> {
    let failed = |error: image::ImageError| FormatError::Picture(error.to_string());
    let mut reader = ImageReader::open(path)?.with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(LARGEST_ARRAY);
    reader.limits(limits);
    let picture = reader.decode().map_err(failed)?;
    let shape = ImageShape {
        count: 1,
        height: picture.height() as usize,
        width: picture.width() as usize,
        channels,
    };
    let pixels = planes(&picture, channels)?;
    ImageSet::new(pixels, shape, vec![0], 1)
        .map_err(|error| FormatError::Picture(error.to_string()))
}

fn planes(picture: &DynamicImage, channels: usize) -> Result<Vec<u8>, FormatError> {
    match channels {
        1 => Ok(picture.to_luma8().into_raw()),
        3 => {
            let mixed = picture.to_rgb8().into_raw();
            let plane = |channel| mixed.iter().skip(channel).step_by(3).copied();
            Ok((0..3).flat_map(plane).collect())
        }
        _ => Err(FormatError::Picture(format!(
            "pictures have 1 or 3 channels, and {channels} are wanted"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, RgbImage};

    #[test]
    fn a_folder_is_read_by_name_and_each_picture_resized() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        GrayImage::from_raw(2, 1, vec![10, 20])
            .unwrap()
            .save(place("b.png"))
            .unwrap();
        let colours = [[255, 0, 0], [255, 0, 0], [0, 255, 0], [0, 255, 0]].concat();
        RgbImage::from_raw(2, 2, colours)
            .unwrap()
            .save(place("a.PNG"))
            .unwrap();
        fs::write(place("notes.txt"), "no picture").unwrap();
        let files = picture_files(folder.path()).unwrap();
        assert_eq!(files, [place("a.PNG"), place("b.png")]);
        let set = read_pictures(&files, [3, 1, 2]).unwrap();
        // Two rows of red and green have a mean of each; grey is the same in every plane.
        assert_eq!(set.image(0).unwrap(), [128, 128, 128, 128, 0, 0]);
        assert_eq!(set.image(1).unwrap(), [10, 20, 10, 20, 10, 20]);
        let set = read_pictures(&files[1..], [1, 1, 2]).unwrap();
        assert_eq!(set.pixels(), [10, 20]);
        assert_eq!(picture_files(&files[0]).unwrap(), files[..1]);
        assert!(picture_files(&place("notes.txt")).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let message = picture_files(folder.path()).unwrap_err().to_string();
        assert!(message.contains("no .png, .jpg or .jpeg file"), "{message}");
        let path = folder.path().join("broken.png");
        let mut whole = Vec::new();
        let picture = GrayImage::from_raw(40, 40, (0..1600).map(|at| at as u8).collect()).unwrap();
        picture.save(&path).unwrap();
        whole.extend(fs::read(&path).unwrap());
        for bytes in [&whole[..whole.len() / 2], b"PNG?", b""] {
            fs::write(&path, bytes).unwrap();
            let error = read_pictures(std::slice::from_ref(&path), [1, 4, 4]).unwrap_err();
            assert!(error.to_string().contains("broken.png"), "{error}");
        }
    }
}
