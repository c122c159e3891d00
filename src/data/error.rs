//! What can be wrong with data, and what is only worth a warning.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::PathBuf;

use zip::result::ZipError;

use super::cifar::RECORD_BYTES;
use super::idx::Kind;
use super::npy::NpyError;
use super::{FailedSource, ImageSetError, Part};

/// Bytes of one array, at most: far above every dataset of the registry, far below a machine's memory.
pub(super) const LARGEST_ARRAY: u64 = 1 << 30;
/// Bytes of an array of labels in an npz file, at most: eight million of the widest.
pub(super) const LARGEST_LABELS: u64 = 1 << 26;

/// What is wrong within a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The compressed data is not whole.
    #[error("its gzip data is damaged or cut off ({0})")]
    Gzip(io::Error),
    /// The first bytes of an IDX file are others.
    #[error(
        "it begins with the bytes {found:02x?}; an IDX file of {kind} begins with {:02x?} \
         (or is gzipped, and begins with [1f, 8b])",
        kind.magic()
    )]
    IdxMagic {
        /// What was to be read.
        kind: Kind,
        /// The first bytes.
        found: Vec<u8>,
    },
    /// An IDX file ends before its header does.
    #[error("it has {found} bytes, but the header of an IDX file of {kind} takes {}", kind.header_bytes())]
    IdxHeader {
        /// What was to be read.
        kind: Kind,
        /// Bytes that are there.
        found: usize,
    },
    /// An IDX header promises more or less than there is.
    #[error(
        "its IDX header says {} values, {expected} bytes, but {}",
        by(dims),
        match found {
            Some(bytes) if bytes < expected => format!("only {bytes} follow"),
            Some(bytes) => format!("{bytes} follow"),
            None => "more follow".to_owned(),
        }
    )]
    IdxLength {
        /// The dimensions that the header gives.
        dims: Vec<usize>,
        /// Bytes that they ask for.
        expected: u64,
        /// Bytes that follow; `None` where reading stopped at the first one too many.
        found: Option<u64>,
    },
    /// More than is ever read.
    #[error("{what} asks for {bytes} bytes; at most {most} are read")]
    TooLarge {
        /// What asks for them.
        what: String,
        /// How many.
        bytes: u128,
        /// How many are read.
        most: u64,
    },
    /// The zip archive around the arrays is not whole.
    #[error("it is not a whole npz file: {0}")]
    Npz(#[from] ZipError),
    /// An entry of the archive cannot be unpacked.
    #[error("its array {array} is damaged or cut off ({source})")]
    NpzEntry {
        /// Which one.
        array: String,
        /// Why.
        source: io::Error,
    },
    /// An array is missing.
    #[error("it has no array {array}; it has {}", if found.is_empty() { "none" } else { found })]
    NpzMissing {
        /// Which one.
        array: String,
        /// The names of those that are there.
        found: String,
    },
    /// A file that is one array is not what is needed.
    #[error(transparent)]
    NpyFile(#[from] NpyError),
    /// An array is not what its name says.
    #[error("its array {array}: {source}")]
    Npy {
        /// Which one.
        array: String,
        /// What is wrong.
        source: NpyError,
    },
    /// An array has the wrong number of dimensions.
    #[error("its array {array} has shape {found:?}; {wanted} is needed")]
    Shape {
        /// Which one.
        array: String,
        /// Its shape.
        found: Vec<usize>,
        /// What would have been read.
        wanted: &'static str,
    },
    /// Images and labels of an npz file do not go together.
    #[error("its array {array}: {source}")]
    InArray {
        /// The array to look into.
        array: String,
        /// What is wrong.
        source: ImageSetError,
    },
    /// Images of another size than the dataset's.
    #[error(
        "it holds images of {}; those of {dataset} are {}",
        by(found),
        by(wanted)
    )]
    ImageSize {
        /// The dataset.
        dataset: &'static str,
        /// Rows, columns and, where there is more than one, channels.
        found: Vec<usize>,
        /// What they should be.
        wanted: Vec<usize>,
    },
    /// A picture that cannot be read.
    #[error("it is no picture that can be read: {0}")]
    Picture(String),
    /// A folder without pictures.
    #[error("it has no .png, .jpg or .jpeg file")]
    NoPictures,
    /// No images at all.
    #[error("it holds no images")]
    Empty,
    /// A file of records ends within one.
    #[error(
        "it has {bytes} bytes, which are no whole number of records of {RECORD_BYTES} \
         (a label and 3x32x32 pixels)"
    )]
    Records {
        /// Its bytes.
        bytes: u64,
    },
    /// The tar archive within the gzip data is not whole.
    #[error("it is not a whole tar archive: {0}")]
    Tar(io::Error),
    /// Something is wrong with a member of an archive.
    #[error("its member {member}: {reason}")]
    InMember {
        /// Which one.
        member: &'static str,
        /// What is wrong with it.
        reason: Box<FormatError>,
    },
    /// A member of an archive is missing.
    #[error("it has no member {member}; it has {}", if found.is_empty() { "none" } else { found })]
    MemberMissing {
        /// Which one.
        member: &'static str,
        /// The names of those that are there.
        found: String,
    },
    /// A member occurs twice, so that nobody can tell which one is meant.
    #[error("it occurs more than once in the archive")]
    MemberTwice,
    /// A member is a link, a folder or the like.
    #[error("it is no regular file")]
    NoRegularFile,
    /// A member ends before the size that the archive gives for it.
    #[error("it is cut off after {found} of {expected} bytes")]
    CutOff {
        /// Bytes that are there.
        found: u64,
        /// Bytes that should be there.
        expected: u64,
    },
    /// Images and labels do not go together.
    #[error(transparent)]
    Images(#[from] ImageSetError),
}

/// Names within an archive that a message shows, and characters of each.
const MOST_NAMES: usize = 10;
const LONGEST_NAME: usize = 40;

/// The names of `count` things within an archive, as far as they fit a sentence.
pub(super) fn brief_names<'a>(names: impl Iterator<Item = Cow<'a, str>>, count: usize) -> String {
    let mut shown: Vec<String> = names
        .take(MOST_NAMES)
        .map(|name| {
            let shown: String = name.chars().take(LONGEST_NAME).collect();
            shown.escape_debug().to_string()
        })
        .collect();
    if count > MOST_NAMES {
        shown.push(format!("and {} more", count - MOST_NAMES));
    }
    shown.join(", ")
}

fn by(dims: &[usize]) -> String {
    let dims: Vec<String> = dims.iter().map(usize::to_string).collect();
    dims.join("x")
}

/// Why there is no data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No dataset has this name.
    #[error(
        "there is no dataset {name:?}{}; the datasets are: {available}",
        did_you_mean(suggestion)
    )]
    Unknown {
        /// The name asked for.
        name: String,
        /// The most similar name.
        suggestion: Option<&'static str>,
        /// All names.
        available: String,
    },
    /// The data folder does not have it.
    #[error(
        "{dataset} is not in the data folder {} (looked for {looked_for}); \
         `taskweave data fetch {dataset}` downloads it, --data-dir names another folder",
        folder.display()
    )]
    NotFound {
        /// The dataset.
        dataset: &'static str,
        /// The data folder.
        folder: PathBuf,
        /// The files that were looked for.
        looked_for: String,
    },
    /// The data folder is something else.
    #[error("the data folder {} is not a folder; name another with --data-dir or TASKWEAVE_HOME", path.display())]
    NotAFolder {
        /// Its path.
        path: PathBuf,
    },
    /// Nothing says where data is kept.
    #[error(
        "there is no home folder to keep data in; name a folder with --data-dir or TASKWEAVE_HOME"
    )]
    NoHome,
    /// Something is wrong with a file.
    #[error("{}: {reason}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: FormatError,
    },
    /// A file or folder cannot be used.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
    /// Nothing that was tried had the dataset.
    #[error(
        "{dataset} could not be downloaded:\n{}\nTo do without a download, {by_hand}, or name a folder \
         that has it with --data-dir",
        failed.iter().map(|source| format!("  {}: {}", source.url, source.reason)).collect::<Vec<_>>().join("\n")
    )]
    NoSource {
        /// The dataset.
        dataset: &'static str,
        /// What was tried, in order.
        failed: Vec<FailedSource>,
        /// Where to put which files.
        by_hand: String,
    },
    /// The data folder cannot be written to.
    #[error(
        "cannot write {}: {source}; name a folder that can be written to with --data-dir or \
         TASKWEAVE_HOME",
        path.display()
    )]
    NotWritable {
        /// The file or folder that was to be made.
        path: PathBuf,
        /// Why it could not be.
        source: io::Error,
    },
    /// The onlooker asked to stop.
    #[error("interrupted; what has arrived is kept, and the next download carries on with it")]
    Interrupted,
    /// The embedded images are not whole.
    #[error("the images that the program carries are damaged: {0}")]
    Embedded(FormatError),
    /// A class has too few images for the subset.
    #[error("class {class} has only {found} of the {dataset} {images}; the subset takes {wanted}")]
    TooFew {
        /// The dataset.
        dataset: &'static str,
        /// Which images.
        images: Part,
        /// Which class.
        class: usize,
        /// Images of it that are there.
        found: usize,
        /// Images of it that are needed.
        wanted: usize,
    },
}

fn did_you_mean(suggestion: &Option<&'static str>) -> String {
    match suggestion {
        Some(name) => format!(" (did you mean {name:?}?)"),
        None => String::new(),
    }
}

/// Something about data that does not keep it from being used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// The content is not the one that is known.
    UnknownContent {
        /// The dataset.
        dataset: &'static str,
        /// Which part of it; `None` for the whole.
        part: Option<Part>,
        /// The file.
        path: PathBuf,
        /// SHA-256 of what is there.
        found: String,
        /// SHA-256 of the official content.
        known: &'static str,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::UnknownContent {
            dataset,
            part,
            path,
            found,
            known,
        } = self;
        write!(f, "{}: ", path.display())?;
        match part {
            Some(part) => write!(f, "the {part} are not the official ones of {dataset}")?,
            None => write!(f, "this is not the official file of {dataset}")?,
        }
        write!(
            f,
            " (SHA-256 {found}, officially {known}); used as they are"
        )
    }
}
