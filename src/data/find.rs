//! Finding a dataset in the data folder, in any of the forms it may have there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::registry::{DatasetInfo, Layout};
use super::{DataError, DataHome, Part, cifar};

/// The files of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An npz file with all four parts.
    Npz(PathBuf),
    /// An IDX file for each of [`Part::ALL`].
    Idx([PathBuf; 4]),
    /// A gzipped tar archive with all of [`cifar::FILES`].
    Archive(PathBuf),
    /// Each of [`cifar::FILES`].
    Batches([PathBuf; 6]),
}

impl Source {
    /// The files.
    pub fn files(&self) -> &[PathBuf] {
        match self {
            Self::Npz(path) | Self::Archive(path) => std::slice::from_ref(path),
            Self::Idx(paths) => paths,
            Self::Batches(paths) => paths,
        }
    }

    /// The file that a part is in, or begins in.
    pub(super) fn file_of(&self, part: Part) -> &Path {
        match self {
            Self::Npz(path) | Self::Archive(path) => path,
            Self::Idx(paths) => &paths[part.index()],
            Self::Batches(paths) => match part {
                Part::TrainImages | Part::TrainLabels => &paths[0],
                Part::TestImages | Part::TestLabels => &paths[cifar::TRAINING_FILES],
            },
        }
    }
}

/// A dataset that was found.
#[derive(Clone, Debug)]
pub struct Located {
    /// Which one.
    pub info: &'static DatasetInfo,
    /// Its files.
    pub source: Source,
    pub(super) verified: bool,
}

impl Located {
    /// Whether its content was found to be the official one when it was fetched.
    pub fn is_verified(&self) -> bool {
        self.verified
    }
}

/// Looks for a dataset in the data folder, which is only read.
///
/// # Errors
/// [`DataError::NotFound`] where it is not there whole; also when the folder cannot be looked into.
pub fn find(info: &'static DatasetInfo, home: &DataHome) -> Result<Located, DataError> {
    check_folder(home.path())?;
    for layout in info.layouts {
        if let Some(source) = find_layout(layout, home.path())? {
            return Ok(Located {
                info,
                source,
                verified: false,
            });
        }
    }
    let looked_for: Vec<String> = info.layouts.iter().map(describe).collect();
    Err(DataError::NotFound {
        dataset: info.name,
        folder: home.path().to_owned(),
        looked_for: looked_for.join(", or "),
    })
}

fn describe(layout: &Layout) -> String {
    match layout {
        Layout::Npz(file) | Layout::Archive(file) => (*file).to_owned(),
        Layout::Idx(folder) => {
            let stems = Part::ALL.map(Part::idx_stem).join(", ");
            format!("{stems}, each plain or .gz, in {folder}/")
        }
        Layout::Batches(folder) => format!("{} in {folder}/", cifar::FILES.join(", ")),
    }
}

fn find_layout(layout: &Layout, home: &Path) -> Result<Option<Source>, DataError> {
    Ok(match layout {
        Layout::Npz(file) => existing(home.join(file))?.map(Source::Npz),
        Layout::Archive(file) => existing(home.join(file))?.map(Source::Archive),
        Layout::Idx(folder) => {
            let folder = home.join(folder);
            let mut paths = Vec::new();
            for part in Part::ALL {
                let plain = existing(folder.join(part.idx_stem()))?;
                let found = match plain {
                    Some(path) => Some(path),
                    None => existing(folder.join(format!("{}.gz", part.idx_stem())))?,
                };
                paths.extend(found);
            }
            <[PathBuf; 4]>::try_from(paths).ok().map(Source::Idx)
        }
        Layout::Batches(folder) => {
            let folder = home.join(folder);
            let mut paths = Vec::new();
            for file in cifar::FILES {
                paths.extend(existing(folder.join(file))?);
            }
            <[PathBuf; 6]>::try_from(paths).ok().map(Source::Batches)
        }
    })
}

/// The path if a file is there; an error where the system does not let us know.
pub(super) fn existing(path: PathBuf) -> Result<Option<PathBuf>, DataError> {
    match fs::metadata(&path) {
        Ok(metadata) => Ok(metadata.is_file().then_some(path)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(source) => Err(DataError::Io {
            action: "look for",
            path,
            source,
        }),
    }
}

/// Fails where the data folder is there but is no folder.
pub(super) fn check_folder(path: &Path) -> Result<(), DataError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Err(DataError::NotAFolder {
            path: path.to_owned(),
        }),
        _ => Ok(()),
    }
}
