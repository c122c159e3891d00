use std::io::{Cursor, Write};

use proptest::prelude::*;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

fn archive(arrays: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in arrays {
        writer
            .start_file(format!("{name}.npy"), SimpleFileOptions::default())
            .unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn array<T: npy::Element>(shape: &[usize], values: &[T]) -> Vec<u8> {
    let mut bytes = Vec::new();
    npy::write(&mut bytes, shape, values).unwrap();
    bytes
}

fn pair() -> Vec<u8> {
    let pixels: Vec<u8> = (0..60).collect();
    archive(&[
        ("x", &array(&[3, 4, 5], &pixels)),
        ("y", &array(&[3], &[9_i64, 0, 4])),
    ])
}

fn images(bytes: &[u8]) -> Result<ByteArray, FormatError> {
    Npz::new(Cursor::new(bytes))?.images("x")
}

fn labels(bytes: &[u8]) -> Result<ByteArray, FormatError> {
    Npz::new(Cursor::new(bytes))?.labels("y", 10)
}

#[test]
fn images_and_labels_of_any_integer_type_are_read() {
    let bytes = pair();
    let read = images(&bytes).unwrap();
    assert_eq!(
        (read.dims(), read.values()),
        (&[3, 4, 5][..], &(0..60).collect::<Vec<u8>>()[..])
    );
    let read = labels(&bytes).unwrap();
    assert_eq!((read.dims(), read.values()), (&[3][..], &[9, 0, 4][..]));
}

#[test]
fn arrays_of_another_type_or_shape_are_named() {
    let sentence = |error: FormatError| error.to_string();
    let floats = archive(&[
        ("x", &array(&[1, 2, 2], &[0.5_f32; 4])),
        ("y", &array(&[2], &[1.0_f32, 2.0])),
    ]);
    assert_eq!(
        sentence(images(&floats).unwrap_err()),
        "its array x: it holds float32 values, and uint8 are needed"
    );
    assert_eq!(
        sentence(labels(&floats).unwrap_err()),
        "its array y: it holds float32 values, and integers (int8 to int64, uint8 to uint64) are needed"
    );
    let flat = archive(&[
        ("x", &array(&[2, 2], &[1_u8; 4])),
        ("y", &array(&[2, 1], &[1_u8; 2])),
    ]);
    assert_eq!(
        sentence(images(&flat).unwrap_err()),
        "its array x has shape [2, 2]; [count, height, width] is needed"
    );
    assert_eq!(
        sentence(labels(&flat).unwrap_err()),
        "its array y has shape [2, 1]; [count] is needed"
    );
    let other = archive(&[("x_train", &[]), ("y_train", &[])]);
    assert_eq!(
        sentence(images(&other).unwrap_err()),
        "it has no array x; it has x_train, y_train"
    );
}

#[test]
fn a_label_out_of_range_is_named() {
    for (wrong, text) in [(10_i64, "10"), (300, "300"), (-1, "-1")] {
        let bytes = archive(&[("y", &array(&[3], &[9, wrong, 4]))]);
        assert_eq!(
            labels(&bytes).unwrap_err().to_string(),
            format!(
                "its array y: label {text} of image 1 is out of range: the 10 classes are 0 to 9"
            )
        );
    }
}

#[test]
fn truncated_and_damaged_archives_are_named() {
    let whole = pair();
    for length in 0..whole.len() {
        let error = images(&whole[..length])
            .expect_err("must not be taken")
            .to_string();
        assert!(error.starts_with("it is not a whole npz file: "), "{error}");
    }
    // The first byte of the compressed data follows the local header and the name.
    let mut damaged = whole.clone();
    damaged[30 + "x.npy".len() + 20] ^= 0xff;
    let error = images(&damaged).expect_err("must not be taken").to_string();
    assert!(
        error.starts_with("its array x is damaged or cut off ("),
        "{error}"
    );
}

#[test]
fn an_archive_that_lies_about_a_size_is_not_believed() {
    let plain = SimpleFileOptions::default();
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("x.npy", plain).unwrap();
    writer.write_all(&array(&[1, 2, 2], &[7_u8; 4])).unwrap();
    let bytes = writer.finish().unwrap().into_inner();
    let directory = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    for (size, start) in [
        (
            0xffff_fff0_u32,
            "its array x asks for 4294967280 bytes; at most 1073741824 are read",
        ),
        (1_000_000, "it is not a whole npz file: "),
        (20, "it"),
    ] {
        let mut lying = bytes.clone();
        lying[directory + 24..directory + 28].copy_from_slice(&size.to_le_bytes());
        let error = images(&lying).expect_err("must not be taken").to_string();
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn labels_that_unpack_to_too_much_are_left_alone() {
    let zeros = vec![0; (1 << 26) + 1];
    let small = archive(&[("y", &zeros)]);
    assert!(small.len() < 1 << 20);
    assert_eq!(
        labels(&small).expect_err("must not be taken").to_string(),
        "its array y asks for 67108865 bytes; at most 67108864 are read"
    );
}

#[test]
fn other_arrays_are_named_briefly_and_without_control_characters() {
    let names: Vec<String> = (0..1_000)
        .map(|i| format!("\u{1b}[31m{i}{}", "a".repeat(50)))
        .collect();
    let arrays: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    let error = images(&archive(&arrays))
        .expect_err("must not be taken")
        .to_string();
    assert!(
        error.starts_with("it has no array x; it has \\u{1b}[31m0aaa"),
        "{error}"
    );
    assert!(error.ends_with(", and 990 more"), "{error}");
    assert!(error.len() < 1_000 && !error.contains('\u{1b}'), "{error}");
}

proptest! {
    #[test]
    fn damage_anywhere_never_panics(
        cut in 0_usize..600,
        changes in prop::collection::vec((0_usize..600, any::<u8>()), 0..4),
    ) {
        let mut bytes = pair();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        if let Ok(array) = images(&bytes) {
            prop_assert_eq!(array.dims().iter().product::<usize>(), array.values().len());
        }
        if let Ok(array) = labels(&bytes) {
            prop_assert!(array.values().iter().all(|&label| label < 10));
        }
    }
}
