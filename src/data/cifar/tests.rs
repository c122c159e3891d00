use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::*;

/// Records of a file: every byte tells file, record and place apart as far as a byte can.
fn records(file: usize, count: usize) -> Vec<u8> {
    let record = |index: usize| {
        let pixel = move |at: usize| (at * 7 + index * 31 + file * 101) as u8;
        std::iter::once((index + file) as u8 % 10).chain((1..RECORD_BYTES).map(pixel))
    };
    (0..count).flat_map(record).collect()
}

/// Images of each file: not all the same.
const COUNTS: [usize; 6] = [2, 1, 3, 1, 2, 4];

fn files() -> Vec<(String, Vec<u8>)> {
    let file = |index: usize| {
        let name = format!("cifar-10-batches-bin/{}", FILES[index]);
        (name, records(index, COUNTS[index]))
    };
    (0..6).map(file).collect()
}

fn header(name: &str, kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size as u64);
    header.set_cksum();
    header
}

fn tar(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in members {
        let header = header(name, EntryType::Regular, bytes.len());
        builder.append(&header, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn read(members: &[(String, Vec<u8>)]) -> Result<Batches, FormatError> {
    read_archive(&gzip(&tar(members)), 10)
}

fn sentence(result: Result<Batches, FormatError>) -> String {
    result.expect_err("must not be taken").to_string()
}

/// The sentence about the files of which `change` changed one.
fn after(change: impl FnOnce(&mut Vec<(String, Vec<u8>)>)) -> String {
    let mut members = files();
    change(&mut members);
    sentence(read(&members))
}

/// Every pixel and label is that of its record, in the order of the files.
fn assert_whole(batches: Batches) {
    let parts = batches.into_parts();
    for (files, images, labels) in [(0..5, &parts[0], &parts[1]), (5..6, &parts[2], &parts[3])] {
        let bytes: Vec<u8> = files.flat_map(|file| records(file, COUNTS[file])).collect();
        let count = bytes.len() / RECORD_BYTES;
        assert_eq!(images.dims(), [count, 3, 32, 32]);
        assert_eq!(labels.dims(), [count]);
        for (index, record) in bytes.chunks_exact(RECORD_BYTES).enumerate() {
            assert_eq!(labels.values()[index], record[0]);
            assert_eq!(&images.values()[index * 3072..][..3072], &record[1..]);
        }
    }
}

#[test]
fn every_record_is_read_whatever_the_folder_and_the_order() {
    assert_whole(read(&files()).unwrap());
    let mut others = files();
    others.reverse();
    for (name, _) in &mut others {
        *name = name.replace("cifar-10-batches-bin", "../../etc");
    }
    others.insert(2, ("cifar/batches.meta.txt".into(), b"airplane\n".to_vec()));
    others.push(("/readme.html".into(), b"<html>".to_vec()));
    others.push(("._data_batch_1.bin".into(), vec![0; 100]));
    assert_whole(read(&others).unwrap());
}

#[test]
fn headers_that_describe_another_member_are_passed_over() {
    let mut builder = Builder::new(Vec::new());
    for (name, bytes) in files() {
        let about = format!("30 mtime=1700000000.{:09}\n", 1);
        for kind in [EntryType::XHeader, EntryType::GNULongName] {
            let place = format!("PaxHeaders.0/{}", name.rsplit('/').next().unwrap());
            let header = header(&place, kind, about.len());
            builder.append(&header, about.as_bytes()).unwrap();
        }
        let header = header(&name, EntryType::Regular, bytes.len());
        builder.append(&header, &bytes[..]).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    assert_whole(read_archive(&gzip(&bytes), 10).unwrap());
}

#[test]
fn missing_and_doubled_members_are_named() {
    let missing = after(|members| {
        members.remove(3);
        members.push(("a/data_batch_4".into(), vec![1; 10]));
    });
    assert_eq!(
        missing,
        "it has no member data_batch_4.bin; it has data_batch_1.bin, data_batch_2.bin, \
         data_batch_3.bin, data_batch_5.bin, test_batch.bin, a/data_batch_4"
    );
    assert_eq!(
        sentence(read(&[])),
        "it has no member data_batch_1.bin; it has none"
    );
    let doubled = after(|members| members.push(("else/data_batch_2.bin".into(), records(1, 1))));
    assert_eq!(
        doubled,
        "its member data_batch_2.bin: it occurs more than once in the archive"
    );
}

#[test]
fn names_of_others_are_shown_briefly_and_without_control_characters() {
    let others: Vec<_> = (0..1_000)
        .map(|i| (format!("\u{1b}[31m{i}{}", "a".repeat(80)), Vec::new()))
        .collect();
    let text = sentence(read(&others));
    assert!(
        text.starts_with("it has no member data_batch_1.bin; it has \\u{1b}[31m0aaa"),
        "{text}"
    );
    assert!(text.ends_with(", and 990 more"), "{text}");
    assert!(text.len() < 1_000 && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn members_of_a_wrong_size_are_named() {
    let size = |bytes: usize| after(|members| members[1].1 = vec![0; bytes]);
    for bytes in [1, RECORD_BYTES - 1, RECORD_BYTES + 1] {
        assert_eq!(
            size(bytes),
            format!(
                "its member data_batch_2.bin: it has {bytes} bytes, which are no whole number of \
                 records of 3073 (a label and 3x32x32 pixels)"
            )
        );
    }
    assert_eq!(size(0), "its member data_batch_2.bin: it holds no images");
}

#[test]
fn a_label_out_of_range_is_named() {
    let text = after(|members| members[5].1[2 * RECORD_BYTES] = 10);
    assert_eq!(
        text,
        "its member test_batch.bin: label 10 of image 2 is out of range: the 10 classes are 0 to 9"
    );
}

#[test]
fn what_is_no_regular_file_is_not_followed() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::GNUSparse,
    ] {
        let mut builder = Builder::new(Vec::new());
        let header = header("x/data_batch_1.bin", kind, 0);
        builder.append(&header, &[][..]).unwrap();
        let bytes = gzip(&builder.into_inner().unwrap());
        assert_eq!(
            sentence(read_archive(&bytes, 10)),
            "its member data_batch_1.bin: it is no regular file"
        );
    }
}

#[test]
fn a_size_that_a_header_only_claims_takes_no_memory() {
    let claim = |size: usize| {
        let mut bytes = Vec::new();
        let header = header("x/data_batch_1.bin", EntryType::Regular, size);
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&[3; 512]);
        sentence(read_archive(&gzip(&bytes), 10))
    };
    assert_eq!(
        claim(RECORD_BYTES * 400_000),
        "its member data_batch_1.bin: its size asks for 1229200000 bytes; at most 1073741824 are read"
    );
    assert_eq!(
        claim(RECORD_BYTES * 300_000),
        "its member data_batch_1.bin: it is cut off after 512 of 921900000 bytes"
    );
}

#[test]
fn an_archive_that_unpacks_to_too_much_is_left_alone() {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let other = header("readme.html", EntryType::Regular, 1 << 32);
    encoder.write_all(other.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1_025 {
        encoder.write_all(&zeros).unwrap();
    }
    let bytes = encoder.finish().unwrap();
    assert!(bytes.len() < 1 << 25);
    assert_eq!(
        sentence(read_archive(&bytes, 10)),
        "what it unpacks to asks for 1073741825 bytes; at most 1073741824 are read"
    );
}

#[test]
fn broken_gzip_and_tar_data_is_named() {
    let tar = tar(&files());
    let zipped = gzip(&tar);
    let text = sentence(read_archive(b"<html>Not found</html>", 10));
    assert!(
        text.starts_with("its gzip data is damaged or cut off ("),
        "{text}"
    );
    // Cut off within a member, that member is named too.
    let text = sentence(read_archive(&zipped[..zipped.len() / 2], 10));
    assert!(text.starts_with("its member data_batch_"), "{text}");
    assert!(
        text.contains(".bin: its gzip data is damaged or cut off ("),
        "{text}"
    );
    // The checksum stands in the last eight bytes, behind everything that the archive needs.
    for at in 1..=8 {
        let mut wrong = zipped.clone();
        let place = wrong.len() - at;
        wrong[place] ^= 1;
        let text = sentence(read_archive(&wrong, 10));
        assert!(
            text.starts_with("its gzip data is damaged or cut off ("),
            "{text}"
        );
    }
    let text = sentence(read_archive(&gzip(&[b'x'; 2_000]), 10));
    assert!(
        text.starts_with("it is not a whole tar archive: "),
        "{text}"
    );
    // A tar archive that ends early within whole gzip data.
    assert_eq!(
        sentence(read_archive(&gzip(&tar[..512 + 5_000]), 10)),
        "its member data_batch_1.bin: it is cut off after 5000 of 6146 bytes"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_anywhere_never_panics(
        cut in 0_usize..60_000,
        changes in prop::collection::vec((0_usize..60_000, any::<u8>()), 0..4),
        within_gzip in any::<bool>(),
    ) {
        let mut bytes = tar(&files());
        if within_gzip {
            bytes = gzip(&bytes);
        }
        let length = bytes.len();
        for (at, value) in changes {
            bytes[at % length] = value;
        }
        bytes.truncate(cut);
        if !within_gzip {
            bytes = gzip(&bytes);
        }
        if let Ok(batches) = read_archive(&bytes, 10) {
            let [images, labels, ..] = batches.into_parts();
            prop_assert_eq!(images.values().len(), labels.values().len() * 3072);
            prop_assert!(labels.values().iter().all(|&label| label < 10));
        }
    }
}
