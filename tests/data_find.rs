//! Finding and reading datasets in data folders of every layout, made here with small images.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use taskweave::data::{self, DataError, DataHome, Part, Warning, idx, npy, registry};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const TRAIN: usize = 30;
const TEST: usize = 20;

/// Small images of 28x28 and their labels, part by part.
struct Small {
    dims: [Vec<usize>; 4],
    values: [Vec<u8>; 4],
}

impl Small {
    fn new() -> Self {
        let pixels = |count: usize| (0..count * 784).map(|i| (i * 31 % 251) as u8).collect();
        let labels = |count: usize| (0..count).map(|i| (i % 10) as u8).collect();
        Self {
            dims: [
                vec![TRAIN, 28, 28],
                vec![TRAIN],
                vec![TEST, 28, 28],
                vec![TEST],
            ],
            values: [pixels(TRAIN), labels(TRAIN), pixels(TEST), labels(TEST)],
        }
    }

    fn idx(&self, part: Part) -> Vec<u8> {
        let mut bytes = Vec::new();
        idx::write(
            &mut bytes,
            &self.dims[part.index()],
            &self.values[part.index()],
        )
        .unwrap();
        bytes
    }

    fn write_idx(&self, folder: &Path, zipped: impl Fn(Part) -> bool) {
        fs::create_dir_all(folder).unwrap();
        for part in Part::ALL {
            if zipped(part) {
                let path = folder.join(format!("{}.gz", part.idx_stem()));
                fs::write(path, gzip(&self.idx(part))).unwrap();
            } else {
                fs::write(folder.join(part.idx_stem()), self.idx(part)).unwrap();
            }
        }
    }

    fn write_npz(&self, path: &Path) {
        let mut writer = ZipWriter::new(fs::File::create(path).unwrap());
        for part in Part::ALL {
            let name = format!("{}.npy", part.npz_array());
            writer
                .start_file(name, SimpleFileOptions::default())
                .unwrap();
            npy::write(
                &mut writer,
                &self.dims[part.index()],
                &self.values[part.index()],
            )
            .unwrap();
        }
        writer.finish().unwrap();
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn folder() -> (tempfile::TempDir, DataHome) {
    let folder = tempfile::tempdir().unwrap();
    let home = DataHome::at(folder.path());
    (folder, home)
}

fn sentence(name: &str, home: &DataHome) -> String {
    data::load(name, home)
        .expect_err("must not be taken")
        .to_string()
}

/// The images are those of `small`, and every part is warned of: none is the official one.
fn assert_loads(name: &str, home: &DataHome, small: &Small) {
    let (dataset, warnings) = data::load(name, home).unwrap();
    assert_eq!(dataset.name, name);
    assert_eq!(dataset.train.pixels(), small.values[0]);
    assert_eq!(dataset.train.labels(), small.values[1]);
    assert_eq!(dataset.test.pixels(), small.values[2]);
    assert_eq!(dataset.test.labels(), small.values[3]);
    assert_eq!(
        (
            dataset.train.height(),
            dataset.train.width(),
            dataset.train.channels()
        ),
        (28, 28, 1)
    );
    let parts: Vec<_> = warnings
        .iter()
        .map(|warning| match warning {
            Warning::UnknownContent { part, .. } => part.unwrap(),
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!(parts, Part::ALL);
}

#[test]
fn every_layout_reads_the_same_images() {
    let small = Small::new();
    for name in ["mnist", "fashion-mnist"] {
        for zipped in [
            |_: Part| true,
            |_: Part| false,
            |part: Part| part == Part::TrainLabels,
        ] {
            let (folder, home) = folder();
            small.write_idx(&folder.path().join(name), zipped);
            assert_loads(name, &home, &small);
        }
    }
    let (folder, home) = folder();
    small.write_npz(&folder.path().join("mnist.npz"));
    assert_loads("mnist", &home, &small);
}

#[test]
fn the_same_content_has_the_same_hash_in_every_layout() {
    let small = Small::new();
    let (folder, home) = folder();
    let mnist = registry::dataset("mnist").unwrap();
    let hashes = || -> Vec<String> {
        let located = data::find(mnist, &home).unwrap();
        data::check(&located)
            .unwrap()
            .into_iter()
            .map(|checked| checked.sha256)
            .collect()
    };
    small.write_idx(&folder.path().join("mnist"), |_| true);
    let from_idx = hashes();
    small.write_npz(&folder.path().join("mnist.npz"));
    assert_eq!(hashes(), from_idx);
    assert_eq!(from_idx.len(), 4);
}

#[test]
fn reading_leaves_the_folder_as_it_is() {
    let (folder, home) = folder();
    Small::new().write_idx(&folder.path().join("mnist"), |_| true);
    let listing = || {
        let mut names: Vec<_> = fs::read_dir(folder.path().join("mnist"))
            .unwrap()
            .chain(fs::read_dir(folder.path()).unwrap())
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        names
    };
    let before = listing();
    data::load("mnist", &home).unwrap();
    data::load("fashion-mnist", &home).unwrap_err();
    assert_eq!(listing(), before);
}

#[test]
fn what_is_not_there_is_named_with_the_places_that_were_looked_at() {
    let (folder, home) = folder();
    let text = sentence("mnist", &home);
    let path = folder.path().display();
    assert!(text.starts_with(&format!("mnist is not in the data folder {path} (looked for mnist.npz, or train-images-idx3-ubyte, ")), "{text}");
    assert!(text.contains("`taskweave data fetch mnist`"), "{text}");
    // Three of four files are not a dataset.
    Small::new().write_idx(&folder.path().join("mnist"), |_| true);
    fs::remove_file(folder.path().join("mnist/t10k-labels-idx1-ubyte.gz")).unwrap();
    assert!(matches!(
        data::load("mnist", &home),
        Err(DataError::NotFound { .. })
    ));
    assert!(sentence("minst", &home).contains("did you mean \"mnist\"?"));
}

#[test]
fn a_data_folder_that_is_a_file_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = sentence("mnist", &DataHome::at(file.path()));
    assert!(
        text.ends_with("is not a folder; name another with --data-dir or TASKWEAVE_HOME"),
        "{text}"
    );
}

#[test]
fn files_that_do_not_go_together_are_named() {
    let (folder, home) = folder();
    let at = |name: &str| {
        folder
            .path()
            .join("fashion-mnist")
            .join(name)
            .display()
            .to_string()
    };

    let mut short = Small::new();
    short.dims[1] = vec![TRAIN - 1];
    short.values[1].pop();
    short.write_idx(&folder.path().join("fashion-mnist"), |_| false);
    assert_eq!(
        sentence("fashion-mnist", &home),
        format!(
            "{}: there are 30 images but 29 labels; every image needs one label",
            at("train-labels-idx1-ubyte")
        )
    );

    let mut wrong = Small::new();
    wrong.values[3][7] = 10;
    wrong.write_idx(&folder.path().join("fashion-mnist"), |_| false);
    assert_eq!(
        sentence("fashion-mnist", &home),
        format!(
            "{}: label 10 of image 7 is out of range: the 10 classes are 0 to 9",
            at("t10k-labels-idx1-ubyte")
        )
    );

    let mut other = Small::new();
    other.dims[2] = vec![TEST, 14, 56];
    other.write_idx(&folder.path().join("fashion-mnist"), |_| false);
    assert_eq!(
        sentence("fashion-mnist", &home),
        format!(
            "{}: it holds images of 14x56; those of fashion-mnist are 28x28",
            at("t10k-images-idx3-ubyte")
        )
    );

    let mut none = Small::new();
    none.dims[0][0] = 0;
    none.values[0].clear();
    none.write_idx(&folder.path().join("fashion-mnist"), |_| false);
    assert_eq!(
        sentence("fashion-mnist", &home),
        format!("{}: it holds no images", at("train-images-idx3-ubyte"))
    );
}

#[test]
fn arrays_of_an_npz_file_that_do_not_go_together_are_named() {
    let (folder, home) = folder();
    let path = folder.path().join("mnist.npz");
    let mut short = Small::new();
    short.dims[3] = vec![TEST - 1];
    short.values[3].pop();
    short.write_npz(&path);
    assert_eq!(
        sentence("mnist", &home),
        format!(
            "{}: its array y_test: there are 20 images but 19 labels; every image needs one label",
            path.display()
        )
    );
}

#[test]
fn a_damaged_file_is_named_and_left_in_place() {
    let (folder, home) = folder();
    let path = folder.path().join("mnist.npz");
    Small::new().write_npz(&path);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let text = sentence("mnist", &home);
    assert!(
        text.starts_with(&format!("{}: it is not a whole npz file: ", path.display())),
        "{text}"
    );
    assert_eq!(fs::read(&path).unwrap().len(), whole.len() / 2);
}
