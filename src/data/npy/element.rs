//! The element types of npy arrays.

use std::fmt;

/// Element type of an array. Its text is NumPy's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// `bool`, one byte each; not read as a number.
    Bool,
    /// `int8`.
    I8,
    /// `int16`.
    I16,
    /// `int32`.
    I32,
    /// `int64`.
    I64,
    /// `uint8`.
    U8,
    /// `uint16`.
    U16,
    /// `uint32`.
    U32,
    /// `uint64`.
    U64,
    /// `float16`; not read as a number.
    F16,
    /// `float32`.
    F32,
    /// `float64`.
    F64,
}

impl Dtype {
    /// NumPy's kind letter, size in bytes, and name.
    const fn described(self) -> (char, usize, &'static str) {
        match self {
            Self::Bool => ('b', 1, "bool"),
            Self::I8 => ('i', 1, "int8"),
            Self::I16 => ('i', 2, "int16"),
            Self::I32 => ('i', 4, "int32"),
            Self::I64 => ('i', 8, "int64"),
            Self::U8 => ('u', 1, "uint8"),
            Self::U16 => ('u', 2, "uint16"),
            Self::U32 => ('u', 4, "uint32"),
            Self::U64 => ('u', 8, "uint64"),
            Self::F16 => ('f', 2, "float16"),
            Self::F32 => ('f', 4, "float32"),
            Self::F64 => ('f', 8, "float64"),
        }
    }

    /// Bytes of one value.
    pub const fn size(self) -> usize {
        self.described().1
    }

    /// The `descr` of a header, little-endian.
    pub(super) fn descr(self) -> String {
        let (kind, size, _) = self.described();
        let order = if size == 1 { '|' } else { '<' };
        format!("{order}{kind}{size}")
    }

    /// Element type and whether it is big-endian, from a header's `descr`.
    pub(super) fn from_descr(descr: &str) -> Option<(Self, bool)> {
        const ALL: [Dtype; 12] = [
            Dtype::Bool,
            Dtype::I8,
            Dtype::I16,
            Dtype::I32,
            Dtype::I64,
            Dtype::U8,
            Dtype::U16,
            Dtype::U32,
            Dtype::U64,
            Dtype::F16,
            Dtype::F32,
            Dtype::F64,
        ];
        let mut kind_and_size = descr.chars();
        let order = kind_and_size.next()?;
        let rest = kind_and_size.as_str();
        let dtype = ALL
            .into_iter()
            .find(|dtype| dtype.descr().get(1..) == Some(rest))?;
        match (order, dtype.size()) {
            ('<', _) | ('|', 1) => Some((dtype, false)),
            ('>', _) => Some((dtype, true)),
            _ => None,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.described().2)
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A number that an npy array can hold: integers of 8 to 64 bits, `f32` and `f64`.
pub trait Element: Copy + sealed::Sealed {
    /// Its element type.
    const DTYPE: Dtype;

    /// The value in `bytes`, which are as many as the type has.
    #[doc(hidden)]
    fn decode(bytes: &[u8], big_endian: bool) -> Self;

    /// Appends the value, little-endian.
    #[doc(hidden)]
    fn encode(self, out: &mut Vec<u8>);
}

macro_rules! elements {
    ($($number:ty => $dtype:ident),*) => {$(
        impl sealed::Sealed for $number {}
        impl Element for $number {
            const DTYPE: Dtype = Dtype::$dtype;
            fn decode(bytes: &[u8], big_endian: bool) -> Self {
                let mut raw = [0; size_of::<$number>()];
                raw.copy_from_slice(bytes);
                if big_endian { Self::from_be_bytes(raw) } else { Self::from_le_bytes(raw) }
            }
            fn encode(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}

elements!(
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64, f32 => F32, f64 => F64
);
