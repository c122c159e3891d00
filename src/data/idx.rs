//! The IDX format of MNIST: two zero bytes, the type of the values (8: unsigned bytes), the number
//! of dimensions, every dimension as a big-endian u32, then the values in row-major order. Plain
//! files are mapped into memory, gzipped ones are unpacked; the first bytes tell which it is.
//!
//! Source: "File formats for the MNIST database", <http://yann.lecun.com/exdb/mnist/>.
//!
//! ```
//! use taskweave::data::idx::{self, Kind};
//! let mut bytes = Vec::new();
//! idx::write(&mut bytes, &[3], &[7, 2, 1])?;
//! let labels = idx::parse(&bytes, Kind::Labels)?;
//! assert_eq!((labels.dims(), labels.values()), (&[3][..], &[7, 2, 1][..]));
//! # Ok::<(), taskweave::data::FormatError>(())
//! ```

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;

use byteorder::{BigEndian, ByteOrder, WriteBytesExt};
use flate2::bufread::MultiGzDecoder;

use super::error::LARGEST_ARRAY;
use super::{FormatError, MappedBytes, PixelStore};

const UNSIGNED_BYTES: u8 = 8;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// What an IDX file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grey images: `[count, height, width]`.
    Images,
    /// Labels: `[count]`.
    Labels,
}

impl Kind {
    /// Number of dimensions.
    pub fn rank(self) -> usize {
        match self {
            Self::Images => 3,
            Self::Labels => 1,
        }
    }

    /// The first four bytes of such a file.
    pub fn magic(self) -> [u8; 4] {
        [0, 0, UNSIGNED_BYTES, self.rank() as u8]
    }

    /// Bytes before the values.
    pub fn header_bytes(self) -> usize {
        4 + 4 * self.rank()
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Labels => "labels",
        })
    }
}

/// Unsigned bytes with their dimensions, in row-major order.
#[derive(Clone, Debug)]
pub struct ByteArray {
    dims: Vec<usize>,
    values: PixelStore,
}

impl ByteArray {
    /// Dimensions and as many values as they ask for; the caller has checked that.
    pub(super) fn new(dims: Vec<usize>, values: PixelStore) -> Self {
        Self { dims, values }
    }

    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The values.
    pub fn values(&self) -> &[u8] {
        self.values.as_slice()
    }

    /// The values, without copying them.
    pub fn into_values(self) -> PixelStore {
        self.values
    }

    /// The values, copied where they are mapped.
    pub fn into_vec(self) -> Vec<u8> {
        match self.values {
            PixelStore::Owned(values) => values,
            PixelStore::Mapped(values) => values.as_slice().to_vec(),
        }
    }
}

/// Reads a file, gzipped or not.
///
/// # Errors
/// [`FormatError`] unless it is one whole array of this kind, with nothing after it.
pub fn read(path: &Path, kind: Kind) -> Result<ByteArray, FormatError> {
    let mut file = File::open(path)?;
    let mut first = Vec::new();
    (&mut file).take(2).read_to_end(&mut first)?;
    if first == GZIP_MAGIC {
        file.rewind()?;
        return read_gzip(BufReader::new(file), kind);
    }
    let bytes = MappedBytes::map(&file)?;
    let dims = parse_header(bytes.as_slice(), kind)?;
    let offset = kind.header_bytes();
    check_length(&dims, Some((bytes.as_slice().len() - offset) as u64))?;
    Ok(ByteArray::new(dims, bytes.skip(offset).into()))
}

/// Reads an array that is in memory, gzipped or not.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], kind: Kind) -> Result<ByteArray, FormatError> {
    if bytes.starts_with(&GZIP_MAGIC) {
        return read_gzip(bytes, kind);
    }
    let dims = parse_header(bytes, kind)?;
    let values = &bytes[kind.header_bytes()..];
    check_length(&dims, Some(values.len() as u64))?;
    Ok(ByteArray::new(dims, values.to_vec().into()))
}

fn read_gzip(stream: impl io::BufRead, kind: Kind) -> Result<ByteArray, FormatError> {
    let mut stream = MultiGzDecoder::new(stream);
    let mut header = Vec::new();
    (&mut stream)
        .take(kind.header_bytes() as u64)
        .read_to_end(&mut header)
        .map_err(FormatError::Gzip)?;
    let dims = parse_header(&header, kind)?;
    let expected = check_length(&dims, None)?;
    // The vector grows with what is really there, and one byte too many ends the reading.
    let mut values = Vec::new();
    stream
        .take(expected + 1)
        .read_to_end(&mut values)
        .map_err(FormatError::Gzip)?;
    let found = values.len() as u64;
    if found > expected {
        return Err(FormatError::IdxLength {
            dims,
            expected,
            found: None,
        });
    }
    check_length(&dims, Some(found))?;
    Ok(ByteArray::new(dims, values.into()))
}

fn parse_header(bytes: &[u8], kind: Kind) -> Result<Vec<usize>, FormatError> {
    let magic = &bytes[..bytes.len().min(4)];
    if magic.len() == 4 && magic != kind.magic() {
        return Err(FormatError::IdxMagic {
            kind,
            found: magic.to_vec(),
        });
    }
    let Some(header) = bytes.get(4..kind.header_bytes()) else {
        return Err(FormatError::IdxHeader {
            kind,
            found: bytes.len(),
        });
    };
    Ok(header
        .chunks_exact(4)
        .map(|dim| BigEndian::read_u32(dim) as usize)
        .collect())
}

/// Bytes that `dims` ask for: no more than are ever read, and as many as were found.
fn check_length(dims: &[usize], found: Option<u64>) -> Result<u64, FormatError> {
    // Three 32-bit numbers fit: 96 bits.
    let expected: u128 = dims.iter().map(|&dim| dim as u128).product();
    if expected > u128::from(LARGEST_ARRAY) {
        return Err(FormatError::TooLarge {
            what: format!("its IDX header ({dims:?})"),
            bytes: expected,
            most: LARGEST_ARRAY,
        });
    }
    let expected = expected as u64;
    match found {
        Some(found) if found != expected => Err(FormatError::IdxLength {
            dims: dims.to_vec(),
            expected,
            found: Some(found),
        }),
        _ => Ok(expected),
    }
}

/// The bytes before the values of an array.
///
/// # Errors
/// When there are more than 255 dimensions, or one does not fit 32 bits.
pub fn header(dims: &[usize]) -> io::Result<Vec<u8>> {
    let invalid = || {
        let text = format!("dimensions {dims:?} do not fit an IDX header");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    };
    let rank = u8::try_from(dims.len()).map_err(|_| invalid())?;
    let mut bytes = vec![0, 0, UNSIGNED_BYTES, rank];
    for &dim in dims {
        bytes.write_u32::<BigEndian>(u32::try_from(dim).map_err(|_| invalid())?)?;
    }
    Ok(bytes)
}

/// Writes an array, not gzipped.
///
/// # Errors
/// When `dims` ask for another number of values, or `out` cannot be written.
pub fn write(out: &mut impl Write, dims: &[usize], values: &[u8]) -> Result<(), FormatError> {
    check_length(dims, Some(values.len() as u64))?;
    out.write_all(&header(dims)?)?;
    Ok(out.write_all(values)?)
}

#[cfg(test)]
mod tests;
