//! NumPy's npy format, versions 1 to 3: an array's element type and shape as text, then its values.
//!
//! [`parse`] borrows the values from bytes in memory (an entry of an npz file), [`read`] takes them
//! from a file, [`read_integers`] reads a label vector of any integer type, and [`write()`] and
//! [`save`] write version 1. Layout: `numpy.lib.format` in NumPy's documentation.
//!
//! ```
//! use taskweave::data::npy;
//! let mut bytes = Vec::new();
//! npy::write(&mut bytes, &[2, 2], &[3_u8, 1, 4, 1])?;
//! let array = npy::parse(&bytes)?;
//! assert_eq!((array.shape(), array.u8()?), (&[2, 2][..], &[3, 1, 4, 1][..]));
//! assert_eq!(array.integers()?, [3, 1, 4, 1]);
//! # Ok::<(), npy::NpyError>(())
//! ```

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

mod element;
mod header;

pub use element::{Dtype, Element};
use header::Header;

use crate::files::write_whole;

const INTEGERS: &str = "integers (int8 to int64, uint8 to uint64)";
/// Bytes that stand before the values in a file, at most: NumPy itself writes well under 1 KiB.
const LONGEST_HEADER: usize = 1 << 16;
/// Values of a file, at most: as 64-bit integers they take 1 GiB.
const MOST_VALUES: u64 = 1 << 27;

/// Why an npy array cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NpyError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The magic string is not there.
    #[error("not an npy file: it does not begin with \\x93NUMPY, as files of numpy.save do")]
    Magic,
    /// A version of the format that is not known.
    #[error("npy version {0}.{1} is not known; versions 1.0, 2.0 and 3.0 are")]
    Version(u8, u8),
    /// The header does not follow the format.
    #[error("the npy header is damaged: {0}")]
    Header(String),
    /// Fewer or more bytes than the header promises.
    #[error(
        "the npy header says {shape:?} values of {dtype}, {expected} bytes, but {} follow",
        found.map_or_else(|| "more".to_owned(), |bytes| bytes.to_string())
    )]
    Length {
        /// Shape that the header gives.
        shape: Vec<usize>,
        /// Element type that the header gives.
        dtype: Dtype,
        /// Bytes that shape and type ask for.
        expected: u64,
        /// Bytes that are there; `None` where reading stopped at the first one too many.
        found: Option<u64>,
    },
    /// An element type other than the one asked for.
    #[error("it holds {found} values, and {accepted} are needed")]
    Type {
        /// What the array holds, by NumPy's name.
        found: String,
        /// What would have been read.
        accepted: &'static str,
    },
    /// Several dimensions stored column by column.
    #[error("it is stored in Fortran order with shape {0:?}; save numpy.ascontiguousarray(x)")]
    FortranOrder(Vec<usize>),
    /// More values than are ever read from a file.
    #[error("the npy header says {shape:?} values; at most {MOST_VALUES} are read")]
    TooMany {
        /// Shape that the header gives.
        shape: Vec<usize>,
    },
    /// A shape other than the one asked for.
    #[error("its shape is {0:?}; a vector [n], or [n, 1], is needed")]
    NotVector(Vec<usize>),
    /// A value above `i64::MAX`.
    #[error(
        "value {value} at position {index} is above {}, the largest that is read",
        i64::MAX
    )]
    TooLarge {
        /// Position in row-major order.
        index: usize,
        /// The value.
        value: u64,
    },
    /// What to write has another number of values than its shape.
    #[error("{values} values do not fill shape {shape:?}")]
    Shape {
        /// Shape to write.
        shape: Vec<usize>,
        /// Number of values given.
        values: usize,
    },
    /// Any of the others, in a named file.
    #[error("{}: {reason}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: Box<NpyError>,
    },
}

/// An array in row-major order, its values still as the bytes of the file.
#[derive(Debug, Clone)]
pub struct Array<'a> {
    dtype: Dtype,
    big_endian: bool,
    shape: Vec<usize>,
    payload: Cow<'a, [u8]>,
}

impl Array<'_> {
    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Length of every dimension; empty for a single number.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The values of a uint8 array, not copied.
    ///
    /// # Errors
    /// [`NpyError::Type`] for any other element type.
    pub fn u8(&self) -> Result<&[u8], NpyError> {
        match self.dtype {
            Dtype::U8 => Ok(&self.payload),
            _ => Err(self.wrong_type("uint8")),
        }
    }

    /// The values of a float32 array.
    ///
    /// # Errors
    /// [`NpyError::Type`] for any other element type: nothing is rounded in passing.
    pub fn f32(&self) -> Result<Vec<f32>, NpyError> {
        match self.dtype {
            Dtype::F32 => Ok(self.values::<f32>().collect()),
            _ => Err(self.wrong_type("float32")),
        }
    }

    /// The values of a float64 or float32 array.
    ///
    /// # Errors
    /// [`NpyError::Type`] for any other element type.
    pub fn f64(&self) -> Result<Vec<f64>, NpyError> {
        match self.dtype {
            Dtype::F32 => Ok(self.values::<f32>().map(f64::from).collect()),
            Dtype::F64 => Ok(self.values::<f64>().collect()),
            _ => Err(self.wrong_type("float32 or float64")),
        }
    }

    /// The values of an array of any integer type.
    ///
    /// # Errors
    /// [`NpyError::Type`] for floats and booleans, [`NpyError::TooLarge`] for a uint64 value that
    /// an `i64` does not hold.
    pub fn integers(&self) -> Result<Vec<i64>, NpyError> {
        Ok(match self.dtype {
            Dtype::I8 => self.values::<i8>().map(i64::from).collect(),
            Dtype::I16 => self.values::<i16>().map(i64::from).collect(),
            Dtype::I32 => self.values::<i32>().map(i64::from).collect(),
            Dtype::I64 => self.values::<i64>().collect(),
            Dtype::U8 => self.values::<u8>().map(i64::from).collect(),
            Dtype::U16 => self.values::<u16>().map(i64::from).collect(),
            Dtype::U32 => self.values::<u32>().map(i64::from).collect(),
            Dtype::U64 => {
                let signed = |(index, value): (usize, u64)| {
                    i64::try_from(value).map_err(|_| NpyError::TooLarge { index, value })
                };
                self.values::<u64>()
                    .enumerate()
                    .map(signed)
                    .collect::<Result<_, _>>()?
            }
            Dtype::Bool | Dtype::F16 | Dtype::F32 | Dtype::F64 => {
                return Err(self.wrong_type(INTEGERS));
            }
        })
    }

    fn values<T: Element>(&self) -> impl Iterator<Item = T> {
        let big_endian = self.big_endian;
        self.payload
            .chunks_exact(size_of::<T>())
            .map(move |bytes| T::decode(bytes, big_endian))
    }

    fn wrong_type(&self, accepted: &'static str) -> NpyError {
        NpyError::Type {
            found: self.dtype.to_string(),
            accepted,
        }
    }
}

/// Reads an array from the bytes of an npy file, which it borrows.
///
/// # Errors
/// [`NpyError`] unless `bytes` is one whole array, in row-major order, of an integer, boolean or
/// float type.
pub fn parse(bytes: &[u8]) -> Result<Array<'_>, NpyError> {
    let mut rest = bytes;
    let header = Header::read(&mut rest)?;
    header.check_length(rest.len() as u64)?;
    Ok(header.array(Cow::Borrowed(rest)))
}

/// Reads an array from a file.
///
/// # Errors
/// As [`parse`], and when the file cannot be read; each names the file.
pub fn read(path: impl AsRef<Path>) -> Result<Array<'static>, NpyError> {
    let path = path.as_ref();
    read_file(path).map_err(|reason| in_file(path, reason))
}

/// Reads labels: a vector, or a matrix of one column, of any integer type.
///
/// # Errors
/// As [`read`] and [`Array::integers`], and [`NpyError::NotVector`] for any other shape.
pub fn read_integers(path: impl AsRef<Path>) -> Result<Vec<i64>, NpyError> {
    let path = path.as_ref();
    let integers = || {
        let array = read_file(path)?;
        match array.shape() {
            [_] | [_, 1] => array.integers(),
            other => Err(NpyError::NotVector(other.to_vec())),
        }
    };
    integers().map_err(|reason| in_file(path, reason))
}

/// Writes an array in npy version 1, little-endian, row-major.
///
/// # Errors
/// [`NpyError::Shape`] unless `shape` has as many places as there are `values`, and when writing
/// fails.
pub fn write<T: Element>(
    out: &mut impl Write,
    shape: &[usize],
    values: &[T],
) -> Result<(), NpyError> {
    let places = shape
        .iter()
        .try_fold(1_usize, |all, &length| all.checked_mul(length));
    if places != Some(values.len()) {
        return Err(NpyError::Shape {
            shape: shape.to_vec(),
            values: values.len(),
        });
    }
    out.write_all(&header::encode(T::DTYPE, shape)?)?;
    let mut bytes = Vec::with_capacity(size_of_val(values));
    for value in values {
        value.encode(&mut bytes);
    }
    Ok(out.write_all(&bytes)?)
}

/// Writes an array to a file, which appears whole or not at all.
///
/// # Errors
/// As [`write()`], naming the file.
pub fn save<T: Element>(
    path: impl AsRef<Path>,
    shape: &[usize],
    values: &[T],
) -> Result<(), NpyError> {
    let path = path.as_ref();
    write_whole(path, |file| write(file, shape, values)).map_err(|reason| in_file(path, reason))
}

fn in_file(path: &Path, reason: NpyError) -> NpyError {
    NpyError::InFile {
        path: path.to_owned(),
        reason: Box::new(reason),
    }
}

/// [`read`] whose errors do not name the file.
pub(super) fn read_file(path: &Path) -> Result<Array<'static>, NpyError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut reader = BufReader::new(file);
    let header = Header::read(&mut reader)?;
    // A pipe has no length: there the vector grows with what arrives and stops one byte too late.
    if metadata.is_file() {
        header.check_length(metadata.len().saturating_sub(header.offset))?;
    }
    header.check_values(MOST_VALUES)?;
    let mut payload = Vec::new();
    reader
        .take(header.payload_bytes + 1)
        .read_to_end(&mut payload)?;
    header.check_length(payload.len() as u64)?;
    Ok(header.array(Cow::Owned(payload)))
}

#[cfg(test)]
mod tests;
