//! NumPy's npz format: a zip archive with one npy file per array, as in Keras's `mnist.npz`.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::error::{LARGEST_ARRAY, LARGEST_LABELS, brief_names};
use super::idx::ByteArray;
use super::npy::{self, NpyError};
use super::{FormatError, ImageSetError, PixelStore};

/// An open archive.
#[derive(Debug)]
pub struct Npz<R> {
    archive: ZipArchive<R>,
}

impl Npz<BufReader<File>> {
    /// Opens a file.
    ///
    /// # Errors
    /// When it cannot be read, or is no zip archive.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: Read + Seek> Npz<R> {
    /// Opens an archive.
    ///
    /// # Errors
    /// When it is no zip archive.
    pub fn new(reader: R) -> Result<Self, FormatError> {
        Ok(Self {
            archive: ZipArchive::new(reader)?,
        })
    }

    /// Reads an array of unsigned bytes of any shape.
    ///
    /// # Errors
    /// When there is no such array, or it is not whole.
    pub fn bytes(&mut self, array: &str) -> Result<(Vec<usize>, PixelStore), FormatError> {
        let mut bytes = self.entry(array, LARGEST_ARRAY)?;
        let parsed = npy::parse(&bytes).map_err(|source| in_array(array, source))?;
        let values = parsed.u8().map_err(|source| in_array(array, source))?.len();
        let dims = parsed.shape().to_vec();
        bytes.drain(..bytes.len() - values);
        Ok((dims, bytes.into()))
    }

    /// Reads images: an array of unsigned bytes, `[count, height, width]`.
    ///
    /// # Errors
    /// When there is no such array, or it is not whole.
    pub fn images(&mut self, array: &str) -> Result<ByteArray, FormatError> {
        let (dims, values) = self.bytes(array)?;
        if dims.len() != 3 {
            return Err(FormatError::Shape {
                array: array.to_owned(),
                found: dims,
                wanted: "[count, height, width]",
            });
        }
        Ok(ByteArray::new(dims, values))
    }

    /// Reads labels: an array `[count]` of any integer type, every value below `classes`.
    ///
    /// # Errors
    /// When there is no such array, it is not whole, or a label is out of range.
    pub fn labels(&mut self, array: &str, classes: usize) -> Result<ByteArray, FormatError> {
        let bytes = self.entry(array, LARGEST_LABELS)?;
        let parsed = npy::parse(&bytes).map_err(|source| in_array(array, source))?;
        if parsed.shape().len() != 1 {
            return Err(FormatError::Shape {
                array: array.to_owned(),
                found: parsed.shape().to_vec(),
                wanted: "[count]",
            });
        }
        let integers = parsed
            .integers()
            .map_err(|source| in_array(array, source))?;
        let label = |(index, label): (usize, i64)| {
            u8::try_from(label)
                .ok()
                .filter(|&label| usize::from(label) < classes)
                .ok_or_else(|| FormatError::InArray {
                    array: array.to_owned(),
                    source: ImageSetError::Label {
                        index,
                        label,
                        classes,
                    },
                })
        };
        let labels: Vec<u8> = integers
            .into_iter()
            .enumerate()
            .map(label)
            .collect::<Result<_, _>>()?;
        Ok(ByteArray::new(vec![labels.len()], labels.into()))
    }

    /// The npy file of one array, no larger than the archive says and no larger than `most`.
    fn entry(&mut self, array: &str, most: u64) -> Result<Vec<u8>, FormatError> {
        let name = format!("{array}.npy");
        let found = self.names();
        let entry = match self.archive.by_name(&name) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) => {
                return Err(FormatError::NpzMissing {
                    array: array.to_owned(),
                    found,
                });
            }
            Err(error) => return Err(error.into()),
        };
        let size = entry.size();
        if size > most {
            return Err(FormatError::TooLarge {
                what: format!("its array {array}"),
                bytes: u128::from(size),
                most,
            });
        }
        // The vector grows with what is really there, and one byte too many ends the reading.
        let mut bytes = Vec::new();
        entry
            .take(size + 1)
            .read_to_end(&mut bytes)
            .map_err(|source| FormatError::NpzEntry {
                array: array.to_owned(),
                source,
            })?;
        if bytes.len() as u64 != size {
            return Err(FormatError::Npz(ZipError::InvalidArchive(
                format!("its directory gives another size for {name} ({size} bytes)").into(),
            )));
        }
        Ok(bytes)
    }

    /// What the archive holds, as far as it fits a sentence.
    fn names(&self) -> String {
        let names = self.archive.file_names().flatten();
        let stems = names.map(|name| match name.strip_suffix(".npy") {
            Some(stem) => Cow::Owned(stem.to_owned()),
            None => Cow::Owned(name.to_string()),
        });
        brief_names(stems, self.archive.len())
    }
}

fn in_array(array: &str, source: NpyError) -> FormatError {
    FormatError::Npy {
        array: array.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
