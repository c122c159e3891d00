//! The part of MNIST and of Fashion-MNIST that the program carries with it, and how it is made.
//!
//! Image `i` of the subset is image `i / 10` of class `i % 10`, both counted from 0, in the order of
//! the official files. So every class is there equally often, in the whole and in any ten images in
//! a row. Pixels and labels are the official ones.

use std::io::{self, Cursor, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::load::image_set;
use super::npz::Npz;
use super::registry::{DatasetInfo, FASHION_MNIST, MNIST};
use super::{DataError, Dataset, FormatError, ImageSet, Part, npy};
use crate::files::write_whole;

/// The datasets of the subset, in its order.
pub static SUBSET_DATASETS: [&DatasetInfo; 2] = [&MNIST, &FASHION_MNIST];
/// Images to train on, of each dataset.
pub const SUBSET_TRAIN: usize = 5_000;
/// Images to test with, of each dataset.
pub const SUBSET_TEST: usize = 1_000;

const EMBEDDED: &[u8] = include_bytes!("../../fixtures/quickstart.npz");
/// The best that deflate does.
const COMPRESSION_LEVEL: i64 = 9;

/// The images that the program carries: 5,000 to train on and 1,000 to test with, of MNIST and of
/// Fashion-MNIST. Attribution and licences are in `fixtures/README.md`.
///
/// ```
/// let [digits, fashion] = taskweave::data::quickstart()?;
/// assert_eq!((digits.train.count(), fashion.test.count()), (5_000, 1_000));
/// # Ok::<(), taskweave::data::DataError>(())
/// ```
///
/// # Errors
/// Where the program's own copy is damaged.
pub fn quickstart() -> Result<[Dataset; 2], DataError> {
    read_subset(EMBEDDED).map_err(DataError::Embedded)
}

fn read_subset(bytes: &[u8]) -> Result<[Dataset; 2], FormatError> {
    let mut npz = Npz::new(Cursor::new(bytes))?;
    let mut dataset = |info: &'static DatasetInfo| {
        let mut split = |images: Part, labels: Part| {
            let pixels = npz.images(&array_name(info.name, images))?;
            let labels = npz.labels(&array_name(info.name, labels), info.class_names.len())?;
            image_set(info, pixels, labels)
        };
        let train = split(Part::TrainImages, Part::TrainLabels)?;
        let test = split(Part::TestImages, Part::TestLabels)?;
        Ok::<_, FormatError>(Dataset::new(info.name, train, test, info.class_names)?)
    };
    let [digits, fashion] = SUBSET_DATASETS;
    Ok([dataset(digits)?, dataset(fashion)?])
}

fn array_name(dataset: &str, part: Part) -> String {
    format!("{dataset}/{}", part.npz_array())
}

/// Writes the subset of `datasets` to an npz file, with arrays such as `mnist/x_train`: the same bytes
/// for the same images. The file appears whole or not at all.
///
/// # Errors
/// When a class has too few images, or the file cannot be written.
pub fn write_subset(path: &Path, datasets: &[Dataset]) -> Result<(), DataError> {
    let cannot_write = |source: io::Error| DataError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for dataset in datasets {
        for split in [Split::Training, Split::Test] {
            let (pixels, labels) = chosen_images(dataset, split)?;
            let (set, [pixel_part, label_part], _) = split.of(dataset);
            let dims = [labels.len(), set.height(), set.width()];
            let name = |part| array_name(dataset.name, part);
            add(&mut writer, &name(pixel_part), &dims, &pixels).map_err(cannot_write)?;
            add(&mut writer, &name(label_part), &dims[..1], &labels).map_err(cannot_write)?;
        }
    }
    let bytes = writer
        .finish()
        .map_err(|error| cannot_write(error.into()))?
        .into_inner();
    write_whole(path, |file| file.write_all(&bytes)).map_err(cannot_write)
}

#[derive(Clone, Copy, Debug)]
enum Split {
    Training,
    Test,
}

impl Split {
    /// The images of this split, the parts they are stored as, and how many the subset takes.
    fn of(self, dataset: &Dataset) -> (&ImageSet, [Part; 2], usize) {
        match self {
            Self::Training => (
                &dataset.train,
                [Part::TrainImages, Part::TrainLabels],
                SUBSET_TRAIN,
            ),
            Self::Test => (
                &dataset.test,
                [Part::TestImages, Part::TestLabels],
                SUBSET_TEST,
            ),
        }
    }
}

/// Pixels and labels of the images that the subset takes: one of each class in turn.
fn chosen_images(dataset: &Dataset, split: Split) -> Result<(Vec<u8>, Vec<u8>), DataError> {
    let (set, [images, _], count) = split.of(dataset);
    let mut of_class = vec![Vec::new(); set.classes()];
    for (index, &label) in set.labels().iter().enumerate() {
        of_class[usize::from(label)].push(index);
    }
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for i in 0..count {
        let class = i % set.classes();
        let found = of_class[class].get(i / set.classes());
        let image = found.and_then(|&index| Some((set.image(index)?, set.labels()[index])));
        let Some((image, label)) = image else {
            return Err(DataError::TooFew {
                dataset: dataset.name,
                images,
                class,
                found: of_class[class].len(),
                wanted: count.div_ceil(set.classes()),
            });
        };
        pixels.extend_from_slice(image);
        labels.push(label);
    }
    Ok((pixels, labels))
}

fn add(
    writer: &mut ZipWriter<Cursor<Vec<u8>>>,
    array: &str,
    dims: &[usize],
    values: &[u8],
) -> io::Result<()> {
    // Without the time of day, which would make every file another.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(COMPRESSION_LEVEL))
        .last_modified_time(DateTime::default());
    writer.start_file(format!("{array}.npy"), options)?;
    npy::write(writer, dims, values).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::digest;

    /// The first `count` labels are each class in turn.
    fn assert_by_turns(set: &ImageSet, count: usize) {
        assert_eq!(set.count(), count);
        assert!(
            set.labels()
                .iter()
                .enumerate()
                .all(|(i, &label)| usize::from(label) == i % 10)
        );
    }

    #[test]
    fn the_embedded_images_are_those_that_the_command_makes() {
        let sets = quickstart().unwrap();
        let hashes = sets.each_ref().map(|dataset| {
            assert_by_turns(&dataset.train, 5_000);
            assert_by_turns(&dataset.test, 1_000);
            [&dataset.train, &dataset.test].map(|set| digest::sha256(&[set.pixels()]))
        });
        assert_eq!(hashes, PIXEL_HASHES);
        assert_eq!(sets.map(|dataset| dataset.name), ["mnist", "fashion-mnist"]);
        assert!(EMBEDDED.len() <= 5_000_000);
    }

    /// SHA-256 of the pixels to train on and to test with.
    const PIXEL_HASHES: [[&str; 2]; 2] = [
        [
            "d7099ff73588a67d7a5e8930873d86fffe892ba48884191961bdb5103d5b51b5",
            "501ea962d3888c85dbe46f44fe52d6cdbac808d88b775be13f3b2bb762b5b0a6",
        ],
        [
            "1c09648a17b2acf8bdf1dfff09c0eecdd1cff590079a3c9b53c8897cf4b01c91",
            "e9f89eb06e8c2328785b00abd588a8528d881d7f062acd7b17be736dfe20f1f5",
        ],
    ];

    #[test]
    fn writing_the_subset_of_the_subset_gives_the_same_images() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("subset.npz");
        let sets = quickstart().unwrap();
        write_subset(&path, &sets).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let again = read_subset(&bytes).unwrap();
        for (one, other) in sets.iter().zip(&again) {
            assert_eq!(one.train.pixels(), other.train.pixels());
            assert_eq!(one.test.labels(), other.test.labels());
        }
        write_subset(&path, &again).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_class_with_too_few_images_is_named() {
        let [digits, _] = quickstart().unwrap();
        let labels = digits
            .train
            .labels()
            .iter()
            .map(|&label| label.max(1))
            .collect();
        let train = ImageSet::new(
            digits.train.pixels().to_vec(),
            digits.train.shape(),
            labels,
            10,
        );
        let digits = Dataset {
            train: train.unwrap(),
            ..digits
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("subset.npz");
        assert_eq!(
            write_subset(&path, &[digits]).unwrap_err().to_string(),
            "class 0 has only 0 of the mnist training images; the subset takes 500"
        );
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_copy_is_an_error() {
        let error = read_subset(&EMBEDDED[..EMBEDDED.len() / 2]).unwrap_err();
        assert!(
            error.to_string().starts_with("it is not a whole npz file"),
            "{error}"
        );
    }
}
