//! Checksums in hexadecimal.

use std::io::{self, Read};

use md5::Md5;
use sha2::{Digest, Sha256};

const CHUNK: usize = 1 << 16;

/// SHA-256 of some bytes, given in pieces.
pub(super) fn sha256(pieces: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update(piece);
    }
    hex(&hash.finalize())
}

/// Length, SHA-256 and MD5 of a whole stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StreamDigest {
    pub(super) length: u64,
    pub(super) sha256: String,
    pub(super) md5: String,
}

impl StreamDigest {
    pub(super) fn of(mut stream: impl Read) -> io::Result<Self> {
        let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
        let mut length = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            length += count as u64;
            sha256.update(&chunk[..count]);
            md5.update(&chunk[..count]);
        }
        Ok(Self {
            length,
            sha256: hex(&sha256.finalize()),
            md5: hex(&md5.finalize()),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_of_abc_are_those_of_the_standards() {
        let sha256_abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&[b"a", b"", b"bc"]), sha256_abc);
        let digest = StreamDigest::of(&b"abc"[..]).unwrap();
        assert_eq!(digest.sha256, sha256_abc);
        assert_eq!(digest.md5, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(digest.length, 3);
    }
}
