//! Whether a downloaded file is the right one: the official file, or another compression of the
//! official content.

use std::fs::File;
use std::path::Path;

use super::super::digest::StreamDigest;
use super::super::load::{content_hash, read_npz};
use super::super::registry::{Checksum, Content, DatasetInfo, RemoteFile};
use super::super::{DataError, FormatError, Part, idx};

/// Another compression makes a file this much larger, at most: a sixteenth, and a little for headers.
const GROWTH: u64 = 16;
const HEADERS: u64 = 1_024;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Confirmation {
    Right,
    Wrong(String),
}

/// The most bytes that can be the right file.
pub(super) fn largest(file: &RemoteFile) -> u64 {
    match file.content {
        Content::Opaque => file.bytes,
        Content::Npz | Content::Idx(_) => file.bytes + file.bytes / GROWTH + HEADERS,
    }
}

pub(super) fn confirm(
    info: &DatasetInfo,
    file: &RemoteFile,
    path: &Path,
) -> Result<Confirmation, DataError> {
    let cannot_read = |source| DataError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let digest = StreamDigest::of(File::open(path).map_err(cannot_read)?).map_err(cannot_read)?;
    let matches = |checksum: &Checksum| match checksum {
        Checksum::Md5(md5) => digest.md5 == *md5,
        Checksum::Sha256(sha256) => digest.sha256 == *sha256,
    };
    if file.checksums.iter().all(matches) {
        return Ok(Confirmation::Right);
    }
    let wanted = match file.checksums.iter().find(|checksum| !matches(checksum)) {
        Some(Checksum::Md5(md5)) => format!("MD5 {md5}, and this is {}", digest.md5),
        Some(Checksum::Sha256(sha256)) => {
            format!("SHA-256 {sha256}, and this is {}", digest.sha256)
        }
        None => String::new(),
    };
    let official = format!("the official file has {} bytes with {wanted}", file.bytes);
    Ok(match has_official_content(info, file, path) {
        Ok(true) => Confirmation::Right,
        Ok(false) => Confirmation::Wrong(format!(
            "it sent {} bytes that are not the right ones: {official}",
            digest.length
        )),
        Err(reason) => Confirmation::Wrong(format!(
            "it sent {} bytes that are not the right ones: {reason}; {official}",
            digest.length
        )),
    })
}

fn has_official_content(
    info: &DatasetInfo,
    file: &RemoteFile,
    path: &Path,
) -> Result<bool, FormatError> {
    let Some(official) = info.content else {
        return Ok(false);
    };
    match file.content {
        Content::Opaque => Ok(false),
        Content::Idx(part) => {
            let array = idx::read(path, part.kind())?;
            Ok(content_hash(&array)? == official[part.index()])
        }
        Content::Npz => {
            let arrays = read_npz(path, info.class_names.len())?;
            for (part, array) in Part::ALL.into_iter().zip(&arrays) {
                if content_hash(array)? != official[part.index()] {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}
