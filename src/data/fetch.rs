//! Downloading a dataset into the data folder.
//!
//! Every file comes from the first source that has it. It grows beside its place, as `NAME.part`,
//! which a later attempt carries on with; only when it is found to be right does it get its name, so
//! that a file of that name is always whole. A lock file per dataset keeps two processes from
//! fetching the same: the second waits, and then finds what the first one brought.

mod confirm;
mod options;
mod transfer;

pub use options::{FetchOptions, Progress, Silent};

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::find::{self, find};
use super::load::load_located;
use super::registry::{self, DatasetInfo, Download, RemoteFile};
use super::{DataError, DataHome, Dataset, Located, Warning};
use confirm::Confirmation;
use transfer::{Outcome, Transfer};

/// A source that did not have what was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedSource {
    /// The address.
    pub url: String,
    /// Why not.
    pub reason: String,
}

/// What stands in the way of one file.
enum Obstacle {
    /// No source has it.
    Sources(Vec<FailedSource>),
    /// Other sources would not help.
    Other(DataError),
}

impl From<DataError> for Obstacle {
    fn from(error: DataError) -> Self {
        Self::Other(error)
    }
}

/// Reads a dataset from the data folder, downloading it first where it is not there.
///
/// # Errors
/// As [`load`](super::load()) and [`fetch`].
pub fn load_or_fetch(
    name: &str,
    home: &DataHome,
    options: &FetchOptions,
    progress: &mut dyn Progress,
) -> Result<(Dataset, Vec<Warning>), DataError> {
    let info = registry::dataset(name)?;
    load_located(&fetch(info, home, options, progress)?)
}

/// Downloads a dataset, unless the data folder has it in any form.
///
/// # Errors
/// [`DataError::NoSource`] when no source has it, [`DataError::NotWritable`] when it cannot be put
/// into the data folder, [`DataError::Interrupted`] when [`Progress::interrupted`] says so.
pub fn fetch(
    info: &'static DatasetInfo,
    home: &DataHome,
    options: &FetchOptions,
    progress: &mut dyn Progress,
) -> Result<Located, DataError> {
    match find(info, home) {
        Err(DataError::NotFound { .. }) => {}
        found => return found,
    }
    create_folder(home.path())?;
    let _lock = lock(info, home, progress)?;
    match find(info, home) {
        Err(DataError::NotFound { .. }) => {}
        found => return found,
    }
    let mut failed = Vec::new();
    for download in info.downloads {
        match fetch_files(info, download, home, options, progress) {
            Ok(all_new) => {
                let mut located = find(info, home)?;
                located.verified = all_new;
                return Ok(located);
            }
            Err(Obstacle::Sources(sources)) => failed.extend(sources),
            Err(Obstacle::Other(error)) => return Err(error),
        }
    }
    Err(DataError::NoSource {
        dataset: info.name,
        failed,
        by_hand: by_hand(info, home),
    })
}

/// Where to put which files without this program's help.
fn by_hand(info: &DatasetInfo, home: &DataHome) -> String {
    let Some(download) = info.downloads.first() else {
        return format!("put it into {}", home.path().display());
    };
    let names: Vec<&str> = download.files.iter().map(RemoteFile::name).collect();
    let folder = download
        .files
        .first()
        .and_then(|file| Path::new(file.path).parent());
    let folder = home.path().join(folder.unwrap_or(Path::new("")));
    format!(
        "put {} into {}",
        names.join(", "),
        folder.components().as_path().display()
    )
}

/// Brings all files of a download that are not there; `true` where all of them were brought now.
fn fetch_files(
    info: &'static DatasetInfo,
    download: &Download,
    home: &DataHome,
    options: &FetchOptions,
    progress: &mut dyn Progress,
) -> Result<bool, Obstacle> {
    let mut all_new = true;
    for file in download.files {
        let target = home.path().join(file.path);
        if find::existing(target.clone())?.is_some() {
            all_new = false;
            continue;
        }
        if let Some(folder) = target.parent() {
            create_folder(folder)?;
        }
        let part = part_path(&target);
        check_free(&target)?;
        check_free(&part)?;
        let job = Job {
            info,
            file,
            part,
            target,
            options,
        };
        job.run(download.sources, progress)?;
    }
    Ok(all_new)
}

fn part_path(target: &Path) -> PathBuf {
    let mut part = target.to_owned().into_os_string();
    part.push(".part");
    part.into()
}

/// One file to bring.
struct Job<'a> {
    info: &'static DatasetInfo,
    file: &'a RemoteFile,
    part: PathBuf,
    target: PathBuf,
    options: &'a FetchOptions,
}

impl Job<'_> {
    fn run(&self, sources: &[&str], progress: &mut dyn Progress) -> Result<(), Obstacle> {
        let left_whole = transfer::length(&self.part)? == self.file.bytes;
        if left_whole && self.confirm()? == Confirmation::Right {
            return Ok(self.put_in_place()?);
        }
        let mut failed = Vec::new();
        let urls = self.urls(sources);
        for (index, url) in urls.iter().enumerate() {
            match self.from(url, progress)? {
                None => return Ok(self.put_in_place()?),
                Some(reason) => {
                    if index + 1 < urls.len() {
                        progress.note(&format!("{url}: {reason}; trying the next source"));
                    }
                    failed.push(FailedSource {
                        url: url.clone(),
                        reason,
                    });
                }
            }
        }
        if let Some(folder) = self.target.parent() {
            // A folder that was made for nothing goes; one that holds anything stays.
            let _ = fs::remove_dir(folder);
        }
        Err(Obstacle::Sources(failed))
    }

    /// Every address to try, the user's own mirror first.
    fn urls(&self, sources: &[&str]) -> Vec<String> {
        let mut urls = Vec::new();
        if let Some(mirror) = &self.options.mirror {
            let mirror = mirror.trim_end_matches('/');
            urls.push(format!("{mirror}/{}", self.file.path));
            if self.file.path != self.file.name() {
                urls.push(format!("{mirror}/{}", self.file.name()));
            }
        }
        urls.extend(
            sources
                .iter()
                .map(|source| format!("{source}{}", self.file.name())),
        );
        urls
    }

    /// Brings the file from one source; otherwise says why that did not work.
    fn from(&self, url: &str, progress: &mut dyn Progress) -> Result<Option<String>, DataError> {
        let transfer = Transfer {
            url,
            part: &self.part,
            name: self.file.name(),
            expected: self.file.bytes,
            limit: confirm::largest(self.file),
            options: self.options,
        };
        let mut reason = String::new();
        for attempt in 0..self.options.attempts.max(1) {
            if attempt > 0 {
                progress.note(&format!("{url}: {reason}; trying again"));
                std::thread::sleep(self.options.pause * attempt);
            }
            let outcome = transfer.attempt(progress);
            progress.end();
            match outcome? {
                Outcome::GiveUp(reason) => return Ok(Some(reason)),
                Outcome::Again(why) => reason = why,
                Outcome::Whole { resumed, known_end } => match self.confirm()? {
                    Confirmation::Right => return Ok(None),
                    Confirmation::Wrong(why) if known_end || self.is_long_enough()? => {
                        transfer::remove(&self.part)?;
                        if !resumed {
                            return Ok(Some(why));
                        }
                        // The beginning may have come from elsewhere.
                        reason = why;
                    }
                    Confirmation::Wrong(_) => {
                        let length = transfer::length(&self.part)?;
                        reason = transfer::broke_off(length, self.file.bytes);
                    }
                },
            }
        }
        Ok(Some(reason))
    }

    fn is_long_enough(&self) -> Result<bool, DataError> {
        Ok(transfer::length(&self.part)? >= self.file.bytes)
    }

    fn confirm(&self) -> Result<Confirmation, DataError> {
        confirm::confirm(self.info, self.file, &self.part)
    }

    fn put_in_place(&self) -> Result<(), DataError> {
        fs::rename(&self.part, &self.target).map_err(|error| not_writable(&self.target, error))
    }
}

/// Fails where a folder or a pipe stands in the place of a file.
fn check_free(path: &Path) -> Result<(), DataError> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(not_writable(
            path,
            io::Error::other("something that is no file has this name"),
        )),
        _ => Ok(()),
    }
}

fn create_folder(folder: &Path) -> Result<(), DataError> {
    fs::create_dir_all(folder).map_err(|error| not_writable(folder, error))
}

fn not_writable(path: &Path, source: io::Error) -> DataError {
    DataError::NotWritable {
        path: path.to_owned(),
        source,
    }
}

/// Waits until no other process fetches this dataset. The lock ends with the file that is returned,
/// at the latest with the process.
fn lock(
    info: &DatasetInfo,
    home: &DataHome,
    progress: &mut dyn Progress,
) -> Result<File, DataError> {
    let path = home.path().join(format!(".{}.lock", info.name));
    let cannot = |error| not_writable(&path, error);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(cannot)?;
    let locked = match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            progress.note(&format!(
                "another process is fetching {}; waiting for it",
                info.name
            ));
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
    };
    match locked {
        // Without locks, as on some network file systems, the checksum still tells right from wrong.
        Err(error) if error.kind() != io::ErrorKind::Unsupported => Err(cannot(error)),
        _ => Ok(file),
    }
}
