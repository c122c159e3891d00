//! Files that appear whole or not at all: written beside their place, then renamed into it. And how
//! sizes of files and of memory are written for people.

use std::fs::File;
use std::io;
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes a file through `write`, which gets a temporary file in the same folder; only when that
/// succeeded does the file get its name, replacing what had it. Others may read it as far as the
/// umask lets them.
///
/// # Errors
/// When `write` fails, or the folder cannot be written to.
pub fn write_whole<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<(), E>,
) -> Result<(), E> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = temporary_in(folder)?;
    write(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A temporary file in this folder. Its errors are the system's alone, without its name, which tells
/// nobody anything.
pub(crate) fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    tempfile::Builder::new().make_in(folder, |path| File::create_new(path))
}

/// A number of bytes in the decimal unit that suits it: "23.2 MB".
pub fn size_text(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_failure_leaves_what_was_there_and_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write_whole(&path, |file| file.write_all(b"first")).unwrap();
        let failed = write_whole(&path, |file| {
            file.write_all(b"second")?;
            Err(io::Error::other("no more"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_does_not_name_the_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/file");
        let error = write_whole(&path, |_| io::Result::Ok(())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(!error.to_string().contains("absent"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn others_may_read_what_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (whole, plain) = (folder.path().join("whole"), folder.path().join("plain"));
        write_whole(&whole, |file| file.write_all(b"")).unwrap();
        std::fs::write(&plain, b"").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&whole), mode(&plain));
    }

    #[test]
    fn sizes_take_the_unit_that_suits() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (999, "999 bytes"),
            (5_148, "5.1 kB"),
            (11_490_434, "11.5 MB"),
            (170_052_171, "170.1 MB"),
            (1_830_000_000, "1.8 GB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }
}
