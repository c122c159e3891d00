//! CIFAR-10 in a data folder: the archive, the files out of it, and what a user is told of them.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use taskweave::data::cifar::{FILES, RECORD_BYTES, TRAINING_FILES};
use taskweave::data::{self, DataError, DataHome, Dataset, Source, Warning, registry};

const ARCHIVE: &str = "cifar-10-binary.tar.gz";
const FOLDER: &str = "cifar-10-batches-bin";

/// Two records more in every file than in the one before.
fn records(file: usize) -> Vec<u8> {
    let byte = |at: usize| match at % RECORD_BYTES {
        0 => ((at / RECORD_BYTES + file) % 10) as u8,
        place => (place * 13 + at / RECORD_BYTES * 5 + file * 71) as u8,
    };
    (0..(1 + 2 * file) * RECORD_BYTES).map(byte).collect()
}

fn write_folder(home: &Path) {
    fs::create_dir_all(home.join(FOLDER)).unwrap();
    for (file, name) in FILES.iter().enumerate() {
        fs::write(home.join(FOLDER).join(name), records(file)).unwrap();
    }
}

fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (file, name) in FILES.iter().enumerate() {
        let bytes = records(file);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        let name = format!("{FOLDER}/{name}");
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn home() -> (tempfile::TempDir, DataHome) {
    let folder = tempfile::tempdir().unwrap();
    let home = DataHome::at(folder.path());
    (folder, home)
}

fn sentence(home: &DataHome) -> String {
    data::load("cifar-10", home)
        .expect_err("must not be taken")
        .to_string()
}

fn assert_whole(dataset: &Dataset) {
    for (set, files) in [
        (&dataset.train, 0..TRAINING_FILES),
        (&dataset.test, TRAINING_FILES..FILES.len()),
    ] {
        let bytes: Vec<u8> = files.flat_map(records).collect();
        assert_eq!(
            (set.count(), set.channels(), set.height(), set.width()),
            (bytes.len() / RECORD_BYTES, 3, 32, 32)
        );
        for (index, record) in bytes.chunks_exact(RECORD_BYTES).enumerate() {
            assert_eq!(set.labels()[index], record[0]);
            assert_eq!(set.image(index), Some(&record[1..]));
        }
    }
    assert_eq!(dataset.class_names[9], "truck");
}

#[test]
fn the_archive_is_read_and_warned_of_where_it_is_another() {
    let (folder, home) = home();
    let path = folder.path().join(ARCHIVE);
    fs::write(&path, archive()).unwrap();
    let (dataset, warnings) = data::load("cifar-10", &home).unwrap();
    assert_whole(&dataset);
    let digest = Sha256::digest(archive());
    let found: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let official = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd";
    assert_eq!(
        warnings,
        [Warning::UnknownContent {
            dataset: "cifar-10",
            part: None,
            path: path.clone(),
            found: found.clone(),
            known: official,
        }]
    );
    let located = data::find(registry::dataset("cifar-10").unwrap(), &home).unwrap();
    let checked = data::check(&located).unwrap();
    assert_eq!(checked.len(), 1);
    assert_eq!(
        (&checked[0].path, checked[0].part, &checked[0].sha256),
        (&path, None, &found)
    );
    assert!(!checked[0].is_official() && checked[0].official == Some(official));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn the_files_out_of_the_archive_are_read_too() {
    let (folder, home) = home();
    write_folder(folder.path());
    let (dataset, warnings) = data::load("cifar-10", &home).unwrap();
    assert_whole(&dataset);
    assert_eq!(warnings, []);
    let info = registry::dataset("cifar-10").unwrap();
    let located = data::find(info, &home).unwrap();
    let checked = data::check(&located).unwrap();
    let paths: Vec<_> = FILES
        .iter()
        .map(|name| folder.path().join(FOLDER).join(name))
        .collect();
    assert_eq!(located.source.files(), paths);
    assert_eq!(checked.len(), 6);
    for (checked, path) in checked.iter().zip(&paths) {
        let digest = Sha256::digest(fs::read(path).unwrap());
        let sha256: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((&checked.path, &checked.sha256), (path, &sha256));
        assert!(!checked.is_official() && checked.official.is_none());
    }
    // The archive comes first: its checksum is known.
    fs::write(folder.path().join(ARCHIVE), archive()).unwrap();
    let located = data::find(info, &home).unwrap();
    assert!(matches!(located.source, Source::Archive(_)));
}

#[test]
fn what_is_wrong_is_named_with_file_and_member() {
    let (folder, home) = home();
    let path = folder.path().join(ARCHIVE);
    let whole = archive();
    fs::write(&path, &whole[..whole.len() / 3]).unwrap();
    let text = sentence(&home);
    assert!(
        text.starts_with(&format!("{}: its member data_batch_", path.display())),
        "{text}"
    );
    assert!(
        text.contains("its gzip data is damaged or cut off ("),
        "{text}"
    );
    let located = data::find(registry::dataset("cifar-10").unwrap(), &home).unwrap();
    assert_eq!(data::check(&located).unwrap_err().to_string(), text);

    let mut plain = GzEncoder::new(Vec::new(), Compression::fast());
    plain.write_all(&[0; 1024]).unwrap();
    fs::write(&path, plain.finish().unwrap()).unwrap();
    assert_eq!(
        sentence(&home),
        format!(
            "{}: it has no member data_batch_1.bin; it has none",
            path.display()
        )
    );
    fs::write(&path, "").unwrap();
    assert!(
        sentence(&home).contains(&format!("{}: ", path.display())),
        "{}",
        sentence(&home)
    );
}

#[test]
fn a_wrong_file_of_the_folder_is_named() {
    let (folder, home) = home();
    write_folder(folder.path());
    let path = folder.path().join(FOLDER).join(FILES[4]);
    let with = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let text = sentence(&home);
        let reason = text.strip_prefix(&format!("{}: ", path.display()));
        reason.unwrap_or_else(|| panic!("{text}")).to_owned()
    };
    assert_eq!(
        with(&records(4)[1..]),
        "it has 27656 bytes, which are no whole number of records of 3073 (a label and 3x32x32 \
         pixels)"
    );
    assert_eq!(with(&[]), "it holds no images");
    let mut wrong = records(4);
    wrong[RECORD_BYTES] = 255;
    assert_eq!(
        with(&wrong),
        "label 255 of image 1 is out of range: the 10 classes are 0 to 9"
    );
    // A length is checked before anything is read: this file has holes only.
    let file = fs::File::create(&path).unwrap();
    file.set_len(400_000 * RECORD_BYTES as u64).unwrap();
    let text = sentence(&home);
    assert!(
        text.ends_with("its size asks for 1229200000 bytes; at most 1073741824 are read"),
        "{text}"
    );
    file.set_len(349_400 * RECORD_BYTES as u64).unwrap();
    let text = sentence(&home);
    assert!(
        text.ends_with("at most 1073741824 are read") && text.contains("with the files beside it"),
        "{text}"
    );

    fs::remove_file(&path).unwrap();
    let error = data::load("cifar-10", &home).unwrap_err();
    assert!(matches!(error, DataError::NotFound { .. }));
    assert!(
        error.to_string().contains(
            "(looked for cifar-10-binary.tar.gz, or data_batch_1.bin, data_batch_2.bin, \
             data_batch_3.bin, data_batch_4.bin, data_batch_5.bin, test_batch.bin in \
             cifar-10-batches-bin/)"
        ),
        "{error}"
    );
}
