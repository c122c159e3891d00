//! The binary version of CIFAR-10: six files of records, in a gzipped tar archive or in a folder.
//!
//! A record is a label byte, then the red, the green and the blue plane of an image of 32×32, each
//! row by row. Five files hold the images to train on, one those to test with. Of an archive
//! nothing is written to disk and no path is trusted: members are known by the last part of their
//! names, whatever folder they are in, and all others are passed over.
//!
//! Source: A. Krizhevsky, "The CIFAR-10 dataset", <https://www.cs.toronto.edu/~kriz/cifar.html>.

use std::borrow::Cow;
use std::io::{self, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use tar::{Archive, Entry};

use super::error::{LARGEST_ARRAY, brief_names};
use super::idx::ByteArray;
use super::{FormatError, ImageSetError, MappedBytes, PixelStore};

/// The files, those to train on in order, then the one to test with.
pub const FILES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];
/// How many of [`FILES`] are to train on.
pub const TRAINING_FILES: usize = 5;
/// Channels, rows and columns of an image.
pub const IMAGE: [usize; 3] = [3, 32, 32];
/// Bytes of a label and its image.
pub const RECORD_BYTES: usize = 1 + IMAGE[0] * IMAGE[1] * IMAGE[2];

/// Names of other members that are kept for a message.
const MOST_NAMES_KEPT: usize = 10;

/// The bytes of each of [`FILES`], every one a whole number of records with labels in range.
#[derive(Debug)]
pub(super) struct Batches([PixelStore; 6]);

impl Batches {
    /// Training images and labels, test images and labels: images `[count, 3, 32, 32]`, labels
    /// `[count]`. The records of a file are let go of as soon as they are taken apart.
    pub(super) fn into_parts(self) -> [ByteArray; 4] {
        let [a, b, c, d, e, test] = self.0;
        let [train_images, train_labels] = take_apart([a, b, c, d, e]);
        let [test_images, test_labels] = take_apart([test]);
        [train_images, train_labels, test_images, test_labels]
    }
}

fn take_apart<const FILES: usize>(files: [PixelStore; FILES]) -> [ByteArray; 2] {
    let records = |file: &PixelStore| file.as_slice().len() / RECORD_BYTES;
    let count = files.iter().map(records).sum();
    let mut pixels = Vec::with_capacity(count * (RECORD_BYTES - 1));
    let mut labels = Vec::with_capacity(count);
    for file in files {
        for record in file.as_slice().chunks_exact(RECORD_BYTES) {
            labels.push(record[0]);
            pixels.extend_from_slice(&record[1..]);
        }
    }
    let [channels, height, width] = IMAGE;
    [
        ByteArray::new(vec![count, channels, height, width], pixels.into()),
        ByteArray::new(vec![count], labels.into()),
    ]
}

/// Reads one of [`FILES`] that stands by itself, mapped into memory.
///
/// # Errors
/// Unless it is a whole number of records, at least one, of `classes` classes.
pub(super) fn read_file(path: &Path, classes: usize) -> Result<PixelStore, FormatError> {
    let bytes = MappedBytes::open(path)?;
    check_size(bytes.as_slice().len() as u64)?;
    check_labels(bytes.as_slice(), classes)?;
    Ok(bytes.into())
}

/// Puts files that were read together.
///
/// # Errors
/// When they hold more bytes than are ever read.
pub(super) fn join_files(files: [PixelStore; 6]) -> Result<Batches, FormatError> {
    let bytes: u128 = files.iter().map(|f| f.as_slice().len() as u128).sum();
    if bytes > u128::from(LARGEST_ARRAY) {
        return Err(FormatError::TooLarge {
            what: "it, with the files beside it,".to_owned(),
            bytes,
            most: LARGEST_ARRAY,
        });
    }
    Ok(Batches(files))
}

/// Reads the gzipped tar archive that is in memory.
///
/// # Errors
/// Unless the gzip data is whole, and each of [`FILES`] is there once, as a regular file of a whole
/// number of records, at least one, of `classes` classes.
pub(super) fn read_archive(bytes: &[u8], classes: usize) -> Result<Batches, FormatError> {
    let mut unpacked = Unpacked {
        stream: MultiGzDecoder::new(bytes),
        left: LARGEST_ARRAY,
    };
    let members = Members::read(&mut unpacked, classes)?;
    // The checksums of the compressed data stand at its end, behind the archive's own.
    io::copy(&mut unpacked, &mut io::sink()).map_err(reason)?;
    members.whole()
}

/// The archive's bytes. Its errors carry a [`FormatError`], which tells them from those of the
/// layers above.
struct Unpacked<'a> {
    stream: MultiGzDecoder<&'a [u8]>,
    left: u64,
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self
            .stream
            .read(buffer)
            .map_err(|error| io::Error::other(FormatError::Gzip(error)))?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(FormatError::TooLarge {
                what: "what it unpacks to".to_owned(),
                bytes: u128::from(LARGEST_ARRAY) + 1,
                most: LARGEST_ARRAY,
            })
        })?;
        Ok(count)
    }
}

/// What is behind an error that came through the tar archive.
fn reason(error: io::Error) -> FormatError {
    error.downcast().unwrap_or_else(FormatError::Tar)
}

/// What has been found in an archive so far.
struct Members {
    files: [Option<Vec<u8>>; 6],
    others: Vec<String>,
    count: usize,
}

impl Members {
    fn read(unpacked: &mut Unpacked<'_>, classes: usize) -> Result<Self, FormatError> {
        let mut members = Self {
            files: Default::default(),
            others: Vec::new(),
            count: 0,
        };
        let mut archive = Archive::new(unpacked);
        // Raw: the headers that stretch the name of a following member could ask for any memory.
        for entry in archive.entries().map_err(reason)?.raw(true) {
            members.add(entry.map_err(reason)?, classes)?;
        }
        Ok(members)
    }

    fn add(&mut self, mut entry: Entry<'_, impl Read>, classes: usize) -> Result<(), FormatError> {
        let kind = entry.header().entry_type();
        let describes_another = kind.is_pax_local_extensions()
            || kind.is_pax_global_extensions()
            || kind.is_gnu_longname()
            || kind.is_gnu_longlink();
        if describes_another {
            return Ok(());
        }
        self.count += 1;
        let path = entry.path_bytes();
        let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(&path);
        let Some(index) = FILES.iter().position(|file| file.as_bytes() == name) else {
            if self.others.len() < MOST_NAMES_KEPT {
                self.others
                    .push(String::from_utf8_lossy(&path).into_owned());
            }
            return Ok(());
        };
        drop(path);
        let read = if self.files[index].is_some() {
            Err(FormatError::MemberTwice)
        } else if kind.is_file() {
            read_member(&mut entry, classes)
        } else {
            Err(FormatError::NoRegularFile)
        };
        self.files[index] = Some(read.map_err(|reason| FormatError::InMember {
            member: FILES[index],
            reason: Box::new(reason),
        })?);
        Ok(())
    }

    /// All of [`FILES`].
    fn whole(self) -> Result<Batches, FormatError> {
        let files = || FILES.into_iter().zip(&self.files);
        if let Some((member, _)) = files().find(|(_, bytes)| bytes.is_none()) {
            let there = files().filter(|(_, bytes)| bytes.is_some());
            let names = there.map(|(name, _)| Cow::Borrowed(name));
            let names = names.chain(self.others.iter().map(Cow::from));
            return Err(FormatError::MemberMissing {
                member,
                found: brief_names(names, self.count),
            });
        }
        Ok(Batches(
            self.files.map(|file| file.unwrap_or_default().into()),
        ))
    }
}

fn read_member(entry: &mut Entry<'_, impl Read>, classes: usize) -> Result<Vec<u8>, FormatError> {
    let expected = entry.size();
    check_size(expected)?;
    // The vector grows with what is really there.
    let mut records = Vec::new();
    entry.read_to_end(&mut records).map_err(reason)?;
    let found = records.len() as u64;
    if found != expected {
        return Err(FormatError::CutOff { found, expected });
    }
    check_labels(&records, classes)?;
    Ok(records)
}

/// Holds a file to a whole number of records, at least one, and no more than are ever read.
fn check_size(bytes: u64) -> Result<(), FormatError> {
    if bytes > LARGEST_ARRAY {
        return Err(FormatError::TooLarge {
            what: "its size".to_owned(),
            bytes: u128::from(bytes),
            most: LARGEST_ARRAY,
        });
    }
    if bytes == 0 {
        return Err(FormatError::Empty);
    }
    if !bytes.is_multiple_of(RECORD_BYTES as u64) {
        return Err(FormatError::Records { bytes });
    }
    Ok(())
}

fn check_labels(records: &[u8], classes: usize) -> Result<(), FormatError> {
    let labels = records.iter().step_by(RECORD_BYTES);
    for (index, &label) in labels.enumerate() {
        if usize::from(label) >= classes {
            return Err(FormatError::Images(ImageSetError::Label {
                index,
                label: i64::from(label),
                classes,
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
