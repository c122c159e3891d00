//! Reading a dataset that was found, and holding its content to the official one.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::digest::{self, StreamDigest};
use super::error::LARGEST_ARRAY;
use super::find::{Located, Source, find};
use super::idx::{self, ByteArray, Kind};
use super::npz::Npz;
use super::registry::{self, Checksum, DatasetInfo};
use super::{
    DataError, DataHome, Dataset, FormatError, ImageSet, ImageSetError, ImageShape, Warning,
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
    /// The part; `None` for an archive.
    pub part: Option<Part>,
    /// SHA-256 of the content: of the part as an uncompressed IDX file, or of the whole archive.
    pub sha256: String,
    /// The official one.
    pub official: Option<&'static str>,
}

impl Checked {
    /// Whether the content is the official one.
    pub fn is_official(&self) -> bool {
        self.official == Some(self.sha256.as_str())
    }

    fn warning(&self, dataset: &'static str) -> Option<Warning> {
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
    let info = located.info;
    let parts = read_parts(located)?;
    let warnings = if located.verified {
        Vec::new()
    } else {
        let checked = check_parts(located, &parts)?;
        checked
            .iter()
            .filter_map(|checked| checked.warning(info.name))
            .collect()
    };
    Ok((build(located, parts)?, warnings))
}

/// Reads the files of a dataset whole, and compares their content with the official one.
///
/// # Errors
/// When something is wrong with the files. Another content is none: see [`Checked`].
pub fn check(located: &Located) -> Result<Vec<Checked>, DataError> {
    if let Source::Archive(path) = &located.source {
        return Ok(vec![check_archive(located.info, path)?]);
    }
    let parts = read_parts(located)?;
    let checked = check_parts(located, &parts)?;
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

fn read_parts(located: &Located) -> Result<[ByteArray; 4], DataError> {
    let in_file = |path: &Path, reason| DataError::InFile {
        path: path.to_owned(),
        reason,
    };
    match &located.source {
        Source::Archive(_) => Err(registry::not_readable(located.info)),
        Source::Npz(path) => {
            let classes = located.info.class_names.len();
            read_npz(path, classes).map_err(|reason| in_file(path, reason))
        }
        Source::Idx(paths) => {
            let part = |part: Part| {
                let path = &paths[part.index()];
                idx::read(path, part.kind()).map_err(|reason| in_file(path, reason))
            };
            let [a, b, c, d] = Part::ALL;
            Ok([part(a)?, part(b)?, part(c)?, part(d)?])
        }
    }
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

/// Unpacks an archive to nowhere, which finds it whole or not, and takes its checksum.
fn check_archive(info: &'static DatasetInfo, path: &Path) -> Result<Checked, DataError> {
    let in_file = |reason| DataError::InFile {
        path: path.to_owned(),
        reason,
    };
    let open = || File::open(path).map_err(|error| in_file(error.into()));
    let checksums = info.downloads.iter().flat_map(|download| download.files);
    let official = checksums
        .flat_map(|file| file.checksums)
        .find_map(|checksum| match checksum {
            Checksum::Sha256(text) => Some(*text),
            Checksum::Md5(_) => None,
        });
    let digest = StreamDigest::of(open()?).map_err(|error| in_file(error.into()))?;
    if official != Some(digest.sha256.as_str()) {
        let mut unpacked = MultiGzDecoder::new(BufReader::new(open()?)).take(LARGEST_ARRAY);
        io::copy(&mut unpacked, &mut io::sink()).map_err(|e| in_file(FormatError::Gzip(e)))?;
    }
    Ok(Checked {
        path: path.to_owned(),
        part: None,
        sha256: digest.sha256,
        official,
    })
}

fn build(located: &Located, parts: [ByteArray; 4]) -> Result<Dataset, DataError> {
    let info = located.info;
    let [train_images, train_labels, test_images, test_labels] = parts;
    let split = |part: Part, images: ByteArray, labels: ByteArray| {
        image_set(info, images, labels).map_err(|reason| DataError::InFile {
            path: blamed(located, part, &reason).to_owned(),
            reason,
        })
    };
    let train = split(Part::TrainImages, train_images, train_labels)?;
    let test = split(Part::TestImages, test_images, test_labels)?;
    Dataset::new(info.name, train, test, info.class_names).map_err(|error| DataError::InFile {
        path: located.source.file_of(Part::TrainImages).to_owned(),
        reason: error.into(),
    })
}

/// The file to look into: that of the labels where these are wrong.
fn blamed<'a>(located: &'a Located, images: Part, reason: &FormatError) -> &'a Path {
    let labels = match images {
        Part::TrainImages | Part::TrainLabels => Part::TrainLabels,
        Part::TestImages | Part::TestLabels => Part::TestLabels,
    };
    located.source.file_of(match reason {
        FormatError::Images(ImageSetError::Label { .. } | ImageSetError::Count { .. }) => labels,
        _ => images,
    })
}

/// Grey images of the dataset's size with their labels.
pub(super) fn image_set(
    info: &'static DatasetInfo,
    images: ByteArray,
    labels: ByteArray,
) -> Result<ImageSet, FormatError> {
    let [height, width, channels] = info.image;
    let &[count, found_height, found_width] = images.dims() else {
        return Err(FormatError::Shape {
            array: "of images".to_owned(),
            found: images.dims().to_vec(),
            wanted: "[count, height, width]",
        });
    };
    if [found_height, found_width, 1] != [height, width, channels] {
        return Err(FormatError::ImageSize {
            dataset: info.name,
            found: vec![found_height, found_width],
            wanted: if channels == 1 {
                vec![height, width]
            } else {
                info.image.to_vec()
            },
        });
    }
    if count == 0 {
        return Err(FormatError::Empty);
    }
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
