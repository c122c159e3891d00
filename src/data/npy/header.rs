//! The header of an npy file: magic string, version, and a Python dictionary as text.

use std::borrow::Cow;
use std::io::{self, Read};

use super::{Array, Dtype, LONGEST_HEADER, NpyError};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Values begin at a multiple of this many bytes, as `numpy.save` aligns them.
const ALIGNMENT: usize = 64;
/// NumPy's own limit.
const MOST_DIMENSIONS: usize = 64;
/// Characters of a damaged header that a message shows.
const LONGEST_QUOTE: usize = 200;

pub(super) struct Header {
    dtype: Dtype,
    big_endian: bool,
    shape: Vec<usize>,
    /// Bytes that the values take.
    pub(super) payload_bytes: u64,
    /// Bytes before the values.
    pub(super) offset: u64,
}

impl Header {
    /// Reads up to the first value.
    pub(super) fn read(reader: &mut impl Read) -> Result<Self, NpyError> {
        let mut magic = [0; 6];
        fill(reader, &mut magic, NpyError::Magic)?;
        if magic != MAGIC {
            return Err(NpyError::Magic);
        }
        let cut = || NpyError::Header("the file ends within it".to_owned());
        let mut version = [0; 2];
        fill(reader, &mut version, cut())?;
        let (length, before) = match version {
            [1, 0] => {
                let mut length = [0; 2];
                fill(reader, &mut length, cut())?;
                (usize::from(u16::from_le_bytes(length)), 10)
            }
            [2 | 3, 0] => {
                let mut length = [0; 4];
                fill(reader, &mut length, cut())?;
                (u32::from_le_bytes(length) as usize, 12)
            }
            [major, minor] => return Err(NpyError::Version(major, minor)),
        };
        if length > LONGEST_HEADER {
            return Err(NpyError::Header(format!(
                "it claims {length} bytes, and at most {LONGEST_HEADER} are read"
            )));
        }
        let mut text = vec![0; length];
        fill(reader, &mut text, cut())?;
        let text = std::str::from_utf8(&text)
            .map_err(|_| NpyError::Header("it is not text".to_owned()))?;
        Self::from_text(text, (before + length) as u64)
    }

    fn from_text(text: &str, offset: u64) -> Result<Self, NpyError> {
        let fields = Fields::parse(text).map_err(|expected| {
            let shown: String = text.trim_end().chars().take(LONGEST_QUOTE).collect();
            NpyError::Header(format!("{shown:?} is not {expected}"))
        })?;
        let (dtype, big_endian) =
            Dtype::from_descr(&fields.descr).ok_or_else(|| NpyError::Type {
                found: format!("'{}'", fields.descr),
                accepted: "integers, bool or floats of 16 to 64 bits",
            })?;
        let shape = fields.shape;
        if fields.fortran_order && shape.iter().filter(|&&length| length != 1).count() > 1 {
            return Err(NpyError::FortranOrder(shape));
        }
        let payload_bytes = shape
            .iter()
            .try_fold(dtype.size() as u64, |bytes, &length| {
                bytes.checked_mul(length as u64)
            })
            .filter(|&bytes| bytes < isize::MAX as u64)
            .ok_or_else(|| NpyError::Header(format!("no memory holds shape {shape:?}")))?;
        Ok(Self {
            dtype,
            big_endian,
            shape,
            payload_bytes,
            offset,
        })
    }

    /// Refuses more values than `most`.
    pub(super) fn check_values(&self, most: u64) -> Result<(), NpyError> {
        if self.payload_bytes / self.dtype.size() as u64 <= most {
            return Ok(());
        }
        Err(NpyError::TooMany {
            shape: self.shape.clone(),
        })
    }

    /// Refuses values of any other number of bytes than shape and type ask for.
    pub(super) fn check_length(&self, found: u64) -> Result<(), NpyError> {
        if found == self.payload_bytes {
            return Ok(());
        }
        Err(NpyError::Length {
            shape: self.shape.clone(),
            dtype: self.dtype,
            expected: self.payload_bytes,
            found: (found != self.payload_bytes + 1).then_some(found),
        })
    }

    pub(super) fn array(self, payload: Cow<'_, [u8]>) -> Array<'_> {
        Array {
            dtype: self.dtype,
            big_endian: self.big_endian,
            shape: self.shape,
            payload,
        }
    }
}

/// `read_exact` with a sentence of its own for an early end.
fn fill(reader: &mut impl Read, buffer: &mut [u8], early_end: NpyError) -> Result<(), NpyError> {
    reader
        .read_exact(buffer)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => early_end,
            _ => error.into(),
        })
}

/// Everything before the values, for version 1.
pub(super) fn encode(dtype: Dtype, shape: &[usize]) -> Result<Vec<u8>, NpyError> {
    let mut lengths = shape
        .iter()
        .map(|length| format!("{length}, "))
        .collect::<String>();
    if shape.len() == 1 {
        lengths.truncate(lengths.len() - 1);
    } else {
        lengths.truncate(lengths.len().saturating_sub(2));
    }
    let mut text = format!(
        "{{'descr': '{}', 'fortran_order': False, 'shape': ({lengths}), }}",
        dtype.descr()
    );
    let before = MAGIC.len() + 4;
    while !(before + text.len() + 1).is_multiple_of(ALIGNMENT) {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len())
        .map_err(|_| NpyError::Header(format!("{} dimensions are too many", shape.len())))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend([1, 0]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(text.as_bytes());
    Ok(bytes)
}

/// The three entries of the dictionary.
struct Fields {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Fields {
    /// On failure says what was expected.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut cursor = Cursor(text);
        if !cursor.take("{") {
            return Err("a dictionary");
        }
        while !cursor.take("}") {
            let key = cursor.string().ok_or("a dictionary with text as keys")?;
            if !cursor.take(":") {
                return Err("a dictionary with a value for each key");
            }
            match key {
                "descr" => {
                    let value = cursor.string().ok_or("of one plain dtype");
                    descr = Some(value?.to_owned());
                }
                "fortran_order" => {
                    let value = cursor.take("True");
                    if !value && !cursor.take("False") {
                        return Err("clear on fortran_order, True or False");
                    }
                    fortran_order = Some(value);
                }
                "shape" => shape = Some(cursor.shape().ok_or("clear on its shape")?),
                _ => return Err("a dictionary of descr, fortran_order and shape alone"),
            }
            if !cursor.take(",") && !cursor.0.trim_start().starts_with('}') {
                return Err("a dictionary with commas between its entries");
            }
        }
        if !cursor.0.trim().is_empty() {
            return Err("a dictionary alone");
        }
        match (descr, fortran_order, shape) {
            (Some(descr), Some(fortran_order), Some(shape)) => Ok(Self {
                descr,
                fortran_order,
                shape,
            }),
            _ => Err("a dictionary of descr, fortran_order and shape"),
        }
    }
}

/// What is left of the text.
struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    /// Steps over `token` if it comes next.
    fn take(&mut self, token: &str) -> bool {
        match self.0.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn string(&mut self) -> Option<&'a str> {
        let quote = ['\'', '"']
            .into_iter()
            .find(|&quote| self.take(quote.encode_utf8(&mut [0; 4])))?;
        let (value, rest) = self.0.split_once(quote)?;
        self.0 = rest;
        Some(value)
    }

    fn shape(&mut self) -> Option<Vec<usize>> {
        if !self.take("(") {
            return None;
        }
        let mut shape = Vec::new();
        while !self.take(")") {
            let text = self.0.trim_start();
            let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
            if shape.len() == MOST_DIMENSIONS {
                return None;
            }
            shape.push(text[..digits].parse().ok()?);
            self.0 = &text[digits..];
            // Python 2 wrote long integers with this letter.
            if self.0.starts_with('L') {
                self.0 = &self.0[1..];
            }
            if !self.take(",") && !self.0.trim_start().starts_with(')') {
                return None;
            }
        }
        Some(shape)
    }
}
