//! Reading a dataset that was found, and holding its content to the official one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::digest;
use super::find::{Located, Source, find};
use super::idx::{self, ByteArray, Kind};
use super::npz::Npz;
use super::registry::{self, Checksum, DatasetInfo};
use super::{
    DataError, DataHome, Dataset, FormatError, ImageSet, ImageSetError, ImageShape, MappedBytes,
    PixelStore, Warning, cifar,
};

/// One of the four parts of a dataset in the manner of MNIST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Images to train on.
    TrainImages,
    /// Their labels.
    TrainLabels,
    /// Images to test with.
    TestImages,
    /// Their labels.
    TestLabels,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 4] = [
        Self::TrainImages,
        Self::TrainLabels,
        Self::TestImages,
        Self::TestLabels,
    ];

    /// The place in [`Part::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name of the IDX file, without ".gz".
    pub fn idx_stem(self) -> &'static str {
        [
            "train-images-idx3-ubyte",
            "train-labels-idx1-ubyte",
            "t10k-images-idx3-ubyte",
            "t10k-labels-idx1-ubyte",
        ][self.index()]
    }

    /// The name of the array in an npz file.
    pub fn npz_array(self) -> &'static str {
        ["x_train", "y_train", "x_test", "y_test"][self.index()]
    }

    /// What an IDX file of it holds.
    pub fn kind(self) -> Kind {
        match self {
            Self::TrainImages | Self::TestImages => Kind::Images,
            Self::TrainLabels | Self::TestLabels => Kind::Labels,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            [
                "training images",
                "training labels",
                "test images",
                "test labels",
            ][self.index()],
        )
    }
}

/// What a check found out about a file, or about a part within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The file.
    pub path: PathBuf,
    /// The part; `None` for an archive, and for a file of its own records.
    pub part: Option<Part>,
    /// SHA-256 of the content: of the part as an uncompressed IDX file, or of the whole file.
    pub sha256: String,
    /// The official one, where one is known: none is for the files out of an archive.
    pub official: Option<&'static str>,
}

impl Checked {
    /// Whether the content is the official one.
    pub fn is_official(&self) -> bool {
        self.official == Some(self.sha256.as_str())
    }

    /// The warning that this is not the official content, where that is so.
    pub fn warning(&self, dataset: &'static str) -> Option<Warning> {
        let known = self.official.filter(|_| !self.is_official())?;
        Some(Warning::UnknownContent {
            dataset,
            part: self.part,
            path: self.path.clone(),
            found: self.sha256.clone(),
            known,
        })
    }
}

/// Finds a dataset in the data folder and reads it.
///
/// # Errors
/// When there is no such dataset, it is not there, or something is wrong with its files.
pub fn load(name: &str, home: &DataHome) -> Result<(Dataset, Vec<Warning>), DataError> {
    let info = registry::dataset(name)?;
    load_located(&find(info, home)?)
}

/// Reads a dataset that was found. Content other than the official one is a warning.
///
/// # Errors
/// When something is wrong with its files.
pub fn load_located(located: &Located) -> Result<(Dataset, Vec<Warning>), DataError> {
    let (parts, checked) = read(located, !located.verified)?;
    let warnings = checked
        .iter()
        .filter_map(|checked| checked.warning(located.info.name))
        .collect();
    Ok((build(located, parts)?, warnings))
}

/// Reads the files of a dataset whole, and compares their content with the official one.
///
/// # Errors
/// When something is wrong with the files. Another content is none: see [`Checked`].
pub fn check(located: &Located) -> Result<Vec<Checked>, DataError> {
    let (parts, checked) = read(located, true)?;
    build(located, parts)?;
    Ok(checked)
}

/// The four parts of an npz file.
pub(super) fn read_npz(path: &Path, classes: usize) -> Result<[ByteArray; 4], FormatError> {
    let mut npz = Npz::open(path)?;
    let mut part = |part: Part| match part.kind() {
        Kind::Images => npz.images(part.npz_array()),
        Kind::Labels => npz.labels(part.npz_array(), classes),
    };
    let [a, b, c, d] = Part::ALL;
    Ok([part(a)?, part(b)?, part(c)?, part(d)?])
}

/// SHA-256 of an array as an uncompressed IDX file.
pub(super) fn content_hash(array: &ByteArray) -> io::Result<String> {
    Ok(digest::sha256(&[
        &idx::header(array.dims())?,
        array.values(),
    ]))
}

/// The parts, and what their checksums say if they are wanted.
fn read(
    located: &Located,
    with_checksums: bool,
) -> Result<([ByteArray; 4], Vec<Checked>), DataError> {
    let classes = located.info.class_names.len();
    let parts = match &located.source {
        Source::Archive(path) => return read_archive(located.info, path, with_checksums),
        Source::Batches(paths) => return read_batches(located.info, paths, with_checksums),
        Source::Npz(path) => read_npz(path, classes).map_err(in_file(path))?,
        Source::Idx(paths) => {
            let part = |part: Part| {
                let path = &paths[part.index()];
                idx::read(path, part.kind()).map_err(in_file(path))
            };
            let [a, b, c, d] = Part::ALL;
            [part(a)?, part(b)?, part(c)?, part(d)?]
        }
    };
    let checked = if with_checksums {
        check_parts(located, &parts)?
    } else {
        Vec::new()
    };
    Ok((parts, checked))
}

/// Puts the file's name before what is wrong with it.
pub(super) fn in_file(path: &Path) -> impl Fn(FormatError) -> DataError {
    |reason| DataError::InFile {
        path: path.to_owned(),
        reason,
    }
}

/// The parts in an archive, which is unpacked and hashed at the same time: it is large.
fn read_archive(
    info: &'static DatasetInfo,
    path: &Path,
    with_checksum: bool,
) -> Result<([ByteArray; 4], Vec<Checked>), DataError> {
    let bytes = MappedBytes::open(path).map_err(|error| in_file(path)(error.into()))?;
    let bytes = bytes.as_slice();
    let (sha256, batches) = rayon::join(
        || with_checksum.then(|| digest::sha256(&[bytes])),
        || cifar::read_archive(bytes, info.class_names.len()),
    );
    let parts = batches.map_err(in_file(path))?.into_parts();
    let checked = sha256.map(|sha256| Checked {
        path: path.to_owned(),
        part: None,
        sha256,
        official: official_archive(info),
    });
    Ok((parts, checked.into_iter().collect()))
}

/// SHA-256 of the file to download.
fn official_archive(info: &DatasetInfo) -> Option<&'static str> {
    let files = info.downloads.iter().flat_map(|download| download.files);
    let mut checksums = files.flat_map(|file| file.checksums);
    checksums.find_map(|checksum| match checksum {
        Checksum::Sha256(text) => Some(*text),
        Checksum::Md5(_) => None,
    })
}

/// The parts in files of records, for which no official checksums are known.
fn read_batches(
    info: &'static DatasetInfo,
    paths: &[PathBuf; 6],
    with_checksums: bool,
) -> Result<([ByteArray; 4], Vec<Checked>), DataError> {
    let file = |path: &PathBuf| -> Result<PixelStore, DataError> {
        cifar::read_file(path, info.class_names.len()).map_err(in_file(path))
    };
    let [a, b, c, d, e, test] = paths;
    let files = [
        file(a)?,
        file(b)?,
        file(c)?,
        file(d)?,
        file(e)?,
        file(test)?,
    ];
    let checked = |(path, file): (&PathBuf, &PixelStore)| Checked {
        path: path.clone(),
        part: None,
        sha256: digest::sha256(&[file.as_slice()]),
        official: None,
    };
    let checked = if with_checksums {
        paths.iter().zip(&files).map(checked).collect()
    } else {
        Vec::new()
    };
    let batches = cifar::join_files(files).map_err(in_file(a))?;
    Ok((batches.into_parts(), checked))
}

fn check_parts(located: &Located, parts: &[ByteArray; 4]) -> Result<Vec<Checked>, DataError> {
    let check = |(part, array): (Part, &ByteArray)| {
        let path = located.source.file_of(part);
        Ok(Checked {
            path: path.to_owned(),
            part: Some(part),
            sha256: content_hash(array).map_err(|error| DataError::InFile {
                path: path.to_owned(),
                reason: error.into(),
            })?,
            official: located.info.content.map(|content| content[part.index()]),
        })
    };
    Part::ALL.into_iter().zip(parts).map(check).collect()
}

fn build(located: &Located, parts: [ByteArray; 4]) -> Result<Dataset, DataError> {
    let info = located.info;
    let [train_images, train_labels, test_images, test_labels] = parts;
    let split = |images_part: Part, images: ByteArray, labels: ByteArray| {
        image_set(info, images, labels).map_err(|reason| {
            let part = blamed(images_part, &reason);
            DataError::InFile {
                path: located.source.file_of(part).to_owned(),
                reason: match (reason, &located.source) {
                    (FormatError::Images(source), Source::Npz(_)) => FormatError::InArray {
                        array: part.npz_array().to_owned(),
                        source,
                    },
                    (reason, _) => reason,
                },
            }
        })
    };
    let train = split(Part::TrainImages, train_images, train_labels)?;
    let test = split(Part::TestImages, test_images, test_labels)?;
    Dataset::new(info.name, train, test, info.class_names).map_err(|error| DataError::InFile {
        path: located.source.file_of(Part::TrainImages).to_owned(),
        reason: error.into(),
    })
}

/// The part to look into: the labels where these are wrong.
fn blamed(images: Part, reason: &FormatError) -> Part {
    match reason {
        FormatError::Images(ImageSetError::Label { .. } | ImageSetError::Count { .. }) => {
            match images {
                Part::TrainImages | Part::TrainLabels => Part::TrainLabels,
                Part::TestImages | Part::TestLabels => Part::TestLabels,
            }
        }
        _ => images,
    }
}

/// Images of the dataset's size with their labels: grey `[count, height, width]`, or planar
/// `[count, channels, height, width]`.
pub(super) fn image_set(
    info: &'static DatasetInfo,
    images: ByteArray,
    labels: ByteArray,
) -> Result<ImageSet, FormatError> {
    let (count, found) = match *images.dims() {
        [count, height, width] => (count, [height, width, 1]),
        [count, channels, height, width] => (count, [height, width, channels]),
        _ => {
            return Err(FormatError::Shape {
                array: "of images".to_owned(),
                found: images.dims().to_vec(),
                wanted: "[count, height, width] or [count, channels, height, width]",
            });
        }
    };
    if found != info.image {
        let size = |[height, width, channels]: [usize; 3]| match channels {
            1 => vec![height, width],
            _ => vec![height, width, channels],
        };
        return Err(FormatError::ImageSize {
            dataset: info.name,
            found: size(found),
            wanted: size(info.image),
        });
    }
    if count == 0 {
        return Err(FormatError::Empty);
    }
    let [height, width, channels] = found;
    let shape = ImageShape {
        count,
        height,
        width,
        channels,
    };
    let classes = info.class_names.len();
    Ok(ImageSet::new(
        images.into_values(),
        shape,
        labels.into_vec(),
        classes,
    )?)
}
