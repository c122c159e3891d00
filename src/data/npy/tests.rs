use proptest::prelude::*;

use super::*;

/// A file of `version` with this dictionary and these values.
fn file(version: u8, dictionary: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((dictionary.len() as u16).to_le_bytes()),
        _ => bytes.extend((dictionary.len() as u32).to_le_bytes()),
    }
    bytes.extend(dictionary.as_bytes());
    bytes.extend(payload);
    bytes
}

fn dictionary(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
}

fn sentence(bytes: &[u8]) -> String {
    parse(bytes)
        .and_then(|array| array.integers())
        .unwrap_err()
        .to_string()
}

#[test]
fn reads_every_integer_type_in_both_byte_orders() {
    for (descr, payload) in [
        ("|i1", &[0xfe, 3][..]),
        ("<i1", &[0xfe, 3]),
        ("<i2", &[0xfe, 0xff, 3, 0]),
        (">i2", &[0xff, 0xfe, 0, 3]),
        ("<i4", &[0xfe, 0xff, 0xff, 0xff, 3, 0, 0, 0]),
        (">i4", &[0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 3]),
        (
            "<i8",
            &[
                0xfe, 255, 255, 255, 255, 255, 255, 255, 3, 0, 0, 0, 0, 0, 0, 0,
            ],
        ),
        (
            ">i8",
            &[
                255, 255, 255, 255, 255, 255, 255, 0xfe, 0, 0, 0, 0, 0, 0, 0, 3,
            ],
        ),
    ] {
        for version in 1..=3 {
            let bytes = file(version, &dictionary(descr, "(2,)"), payload);
            assert_eq!(
                parse(&bytes).unwrap().integers().unwrap(),
                [-2, 3],
                "{descr}"
            );
        }
    }
    for (descr, payload) in [
        ("|u1", &[0xfe][..]),
        ("<u2", &[0xfe, 0]),
        (">u2", &[0, 0xfe]),
        ("<u4", &[0xfe, 0, 0, 0]),
        (">u4", &[0, 0, 0, 0xfe]),
        ("<u8", &[0xfe, 0, 0, 0, 0, 0, 0, 0]),
        (">u8", &[0, 0, 0, 0, 0, 0, 0, 0xfe]),
    ] {
        let bytes = file(1, &dictionary(descr, "(1,)"), payload);
        assert_eq!(parse(&bytes).unwrap().integers().unwrap(), [254], "{descr}");
    }
}

#[test]
fn reads_shapes_and_floats() {
    let scalar = file(1, &dictionary("<u1", "()"), &[7]);
    let scalar = parse(&scalar).unwrap();
    assert_eq!((scalar.shape(), scalar.u8().unwrap()), (&[][..], &[7][..]));

    let empty = file(1, &dictionary("<i8", "(3, 0, 2)"), &[]);
    let empty = parse(&empty).unwrap();
    assert_eq!(empty.shape(), [3, 0, 2]);
    assert_eq!(empty.integers().unwrap(), [0_i64; 0]);

    let halves = file(
        1,
        &dictionary(">f4", "(1, 2L)"),
        &[0x3f, 0, 0, 0, 0xbf, 0, 0, 0],
    );
    let halves = parse(&halves).unwrap();
    assert_eq!(halves.f32().unwrap(), [0.5, -0.5]);
    assert_eq!(halves.f64().unwrap(), [0.5, -0.5]);

    let keys_in_any_order = "{\"shape\":(1,),\"fortran_order\":True,\"descr\":\"|u1\"}";
    let bytes = file(1, keys_in_any_order, &[9]);
    assert_eq!(parse(&bytes).unwrap().u8().unwrap(), [9]);
}

#[test]
fn refuses_other_types_with_a_sentence() {
    let sentence =
        |descr: &str, bytes| sentence(&file(1, &dictionary(descr, "(1,)"), &vec![0; bytes]));
    let integers = "and integers (int8 to int64, uint8 to uint64) are needed";
    assert_eq!(
        sentence("<f8", 8),
        format!("it holds float64 values, {integers}")
    );
    assert_eq!(
        sentence("<f2", 2),
        format!("it holds float16 values, {integers}")
    );
    assert_eq!(
        sentence("|b1", 1),
        format!("it holds bool values, {integers}")
    );
    let known = "values, and integers, bool or floats of 16 to 64 bits are needed";
    for descr in ["<U5", "|O", "<c8", "<M8[ns]", "=i4", "|i2", "<i3", "", "é"] {
        assert_eq!(sentence(descr, 8), format!("it holds '{descr}' {known}"));
    }
    let largest = file(1, &dictionary("<u8", "(1,)"), &[255; 8]);
    assert_eq!(
        super::tests::sentence(&largest),
        "value 18446744073709551615 at position 0 is above 9223372036854775807, \
         the largest that is read"
    );
    let floats = file(1, &dictionary("<f8", "(1,)"), &[0; 8]);
    let floats = parse(&floats).unwrap();
    assert!(
        floats
            .u8()
            .unwrap_err()
            .to_string()
            .contains("float64 values, and uint8")
    );
    assert!(
        floats
            .f32()
            .unwrap_err()
            .to_string()
            .contains("float64 values, and float32")
    );
}

#[test]
fn refuses_damaged_files() {
    let whole = file(1, &dictionary("<i2", "(2, 3)"), &[0; 12]);
    assert!(parse(&whole).is_ok());
    for length in 0..whole.len() {
        assert!(parse(&whole[..length]).is_err(), "{length} bytes");
    }
    let says = |bytes: &[u8], expected: &str| {
        let sentence = sentence(bytes);
        assert!(sentence.contains(expected), "{sentence}");
    };
    says(b"PK\x03\x04 not an array", "does not begin with");
    says(&whole[..9], "the file ends within it");
    says(
        &whole[..whole.len() - 1],
        "says [2, 3] values of int16, 12 bytes, but 11 follow",
    );
    says(&[&whole[..], &[0]].concat(), "12 bytes, but more follow");
    says(b"\x93NUMPY\x04\x00", "npy version 4.0 is not known");
    says(
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        "it claims 4294967295 bytes",
    );
    says(
        &file(1, "{'descr': [('a', '<i8')], 'shape': (1,)}", &[]),
        "is not of one plain dtype",
    );
    for shape in [
        "2",
        "(2",
        "(-1,)",
        "(2 3)",
        "(a,)",
        "(99999999999999999999,)",
    ] {
        says(
            &file(1, &dictionary("<i2", shape), &[]),
            "is not clear on its shape",
        );
    }
    let huge = "(4294967296, 4294967296)";
    says(
        &file(1, &dictionary("<i2", huge), &[]),
        "no memory holds shape",
    );
    says(&file(1, "", &[]), "is not a dictionary");
    says(
        &file(1, "{'descr': '<i2'}", &[]),
        "of descr, fortran_order and shape",
    );
    says(
        &file(1, "{'descr': '<i2', 'pickle': 1}", &[]),
        "and shape alone",
    );
    says(&file(1, "{'descr': '<i2' 'shape': ()}", &[]), "commas");
    says(&file(1, "{'fortran_order': 1}", &[]), "True or False");
    says(
        &file(
            1,
            "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3)}",
            &[0; 12],
        ),
        "Fortran order with shape [2, 3]",
    );
}

#[test]
fn no_more_values_are_read_than_memory_is_meant_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.npy");
    let header = file(1, &dictionary("|u1", "(134217729,)"), &[]);
    std::fs::write(&path, &header).unwrap();
    // As long as the header says, without taking room on the disk.
    let large = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    large.set_len(header.len() as u64 + 134_217_729).unwrap();
    let sentence = read_integers(&path).unwrap_err().to_string();
    assert!(
        sentence.ends_with("says [134217729] values; at most 134217728 are read"),
        "{sentence}"
    );
}

#[test]
fn a_long_damaged_header_is_not_shown_whole() {
    let sentence = sentence(&file(1, &"{".repeat(60_000), &[]));
    assert!(
        sentence.ends_with("{\" is not a dictionary with text as keys"),
        "{sentence}"
    );
    assert!(sentence.len() < 400, "{}", sentence.len());
}

#[test]
fn reads_and_saves_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("labels.npy");
    save(&path, &[3, 1], &[5_i16, -6, 7]).unwrap();
    assert_eq!(read_integers(&path).unwrap(), [5, -6, 7]);
    assert_eq!(read(&path).unwrap().shape(), [3, 1]);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);

    save(&path, &[1, 3], &[5_i16, -6, 7]).unwrap();
    let sentence = read_integers(&path).unwrap_err().to_string();
    assert!(
        sentence.contains("labels.npy: its shape is [1, 3]; a vector [n]"),
        "{sentence}"
    );

    let lie = file(1, &dictionary("<i8", "(1000000000000,)"), &[0; 8]);
    std::fs::write(&path, lie).unwrap();
    let sentence = read(&path).unwrap_err().to_string();
    assert!(
        sentence.contains("8000000000000 bytes, but 8 follow"),
        "{sentence}"
    );

    let absent = folder.path().join("absent.npy");
    assert!(
        read(&absent)
            .unwrap_err()
            .to_string()
            .contains("absent.npy: No such file")
    );
    let nowhere = folder.path().join("absent/x.npy");
    assert!(save(&nowhere, &[1], &[1_u8]).is_err());
}

#[test]
fn writes_what_numpy_writes() {
    let mut bytes = Vec::new();
    write(&mut bytes, &[2], &[1_i64, -1]).unwrap();
    let text = "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }";
    let expected = file(1, &format!("{text:117}\n"), &[1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[..expected.len()], expected);
    assert_eq!(bytes[expected.len()..], [255; 8]);

    for (shape, text) in [
        (&[][..], "()"),
        (&[1, 1], "(1, 1)"),
        (&[1, 1, 1], "(1, 1, 1)"),
    ] {
        let mut bytes = Vec::new();
        write(&mut bytes, shape, &[0_u8]).unwrap();
        let text = format!("'shape': {text}, }}");
        assert!(String::from_utf8_lossy(&bytes).contains(&text), "{shape:?}");
    }
    let refused = write(&mut Vec::new(), &[2, 2], &[0_u8]).unwrap_err();
    assert_eq!(refused.to_string(), "1 values do not fill shape [2, 2]");
}

proptest! {
    #[test]
    fn reads_back_what_it_wrote(values: Vec<i32>, floats: Vec<f32>) {
        let mut bytes = Vec::new();
        write(&mut bytes, &[values.len()], &values).unwrap();
        let expected: Vec<i64> = values.into_iter().map(i64::from).collect();
        prop_assert_eq!(parse(&bytes).unwrap().integers().unwrap(), expected);

        let mut bytes = Vec::new();
        write(&mut bytes, &[1, floats.len()], &floats).unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(&parse(&bytes).unwrap().f32().unwrap()), bits(&floats));
    }

    #[test]
    fn no_bytes_panic(mut bytes: Vec<u8>, at in 0_usize..140, byte: u8) {
        let _ = parse(&bytes);
        bytes = file(1, &dictionary("<i8", "(2,)"), &[0; 16]);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _ = parse(&bytes).map(|array| array.integers());
    }
}
