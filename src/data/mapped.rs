//! Files mapped into memory, read only: pixels that the system reads when they are first needed and
//! may drop again.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// A range of a file, mapped into memory. The file must not be cut short or written to while a run
/// uses it; to replace it, rename another over it, as this program does.
#[derive(Clone, Debug)]
pub struct MappedBytes {
    map: Arc<Mmap>,
    range: Range<usize>,
}

impl MappedBytes {
    /// Opens and maps a whole file.
    ///
    /// # Errors
    /// When it cannot be opened or mapped.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::map(&File::open(path)?)
    }

    /// Maps a whole file.
    ///
    /// # Errors
    /// When the system cannot map it, as with pipes.
    pub fn map(file: &File) -> io::Result<Self> {
        // SAFETY: the map is read only and is only ever seen as bytes, for which any value is valid.
        // What remains is another process that changes the file in place: datasets are files that
        // are written once, and this program replaces them by renaming, which leaves a mapped file
        // whole; the type's documentation asks the same of everyone else.
        let map = unsafe { Mmap::map(file)? };
        let range = 0..map.len();
        Ok(Self {
            map: Arc::new(map),
            range,
        })
    }

    /// The part without the first `count` bytes; empty where there are no more than these.
    pub fn skip(mut self, count: usize) -> Self {
        self.range.start = self.range.start.saturating_add(count).min(self.range.end);
        self
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.map[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_mapped_file_is_its_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"header and pixels").unwrap();
        let bytes = MappedBytes::map(&file).unwrap();
        assert_eq!(bytes.as_slice(), b"header and pixels");
        let rest = bytes.clone().skip(11);
        assert_eq!(rest.as_slice(), b"pixels");
        assert_eq!(rest.skip(usize::MAX).as_slice(), b"");
        assert_eq!(bytes.as_slice().len(), 17);
    }
}
