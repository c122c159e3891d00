use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

fn image_file(dims: [usize; 3]) -> Vec<u8> {
    let values: Vec<u8> = (0..dims.iter().product::<usize>())
        .map(|i| (i * 37) as u8)
        .collect();
    let mut bytes = Vec::new();
    write(&mut bytes, &dims, &values).unwrap();
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn in_file<T>(bytes: &[u8], work: impl FnOnce(&Path) -> T) -> T {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    work(file.path())
}

/// The same sentence from memory and from a file.
fn sentence(bytes: &[u8], kind: Kind) -> String {
    let from_memory = parse(bytes, kind)
        .expect_err("must not be taken")
        .to_string();
    let from_file = in_file(bytes, |path| {
        read(path, kind).expect_err("must not be taken")
    });
    assert_eq!(from_memory, from_file.to_string());
    from_memory
}

#[test]
fn plain_and_gzipped_files_read_the_same() {
    let plain = image_file([3, 4, 5]);
    for bytes in [plain.clone(), gzip(&plain)] {
        for array in [
            parse(&bytes, Kind::Images).unwrap(),
            in_file(&bytes, |path| read(path, Kind::Images).unwrap()),
        ] {
            assert_eq!(array.dims(), [3, 4, 5]);
            assert_eq!(array.values(), &plain[16..]);
            assert_eq!(array.into_vec(), &plain[16..]);
        }
    }
}

#[test]
fn a_plain_file_is_mapped_and_a_gzipped_one_is_not() {
    let plain = image_file([1, 2, 2]);
    in_file(&plain, |path| {
        let array = read(path, Kind::Images).unwrap();
        assert!(matches!(array.into_values(), PixelStore::Mapped(_)));
    });
    in_file(&gzip(&plain), |path| {
        let array = read(path, Kind::Images).unwrap();
        assert!(matches!(array.into_values(), PixelStore::Owned(_)));
    });
}

#[test]
fn a_header_that_lies_is_named_with_both_sizes() {
    let mut lying = image_file([3, 4, 5]);
    lying[7] = 4;
    let text = "its IDX header says 4x4x5 values, 80 bytes, but only 60 follow";
    assert_eq!(sentence(&lying, Kind::Images), text);
    assert_eq!(sentence(&gzip(&lying), Kind::Images), text);
    lying[7] = 2;
    assert_eq!(
        sentence(&lying, Kind::Images),
        "its IDX header says 2x4x5 values, 40 bytes, but 60 follow"
    );
    assert_eq!(
        sentence(&gzip(&lying), Kind::Images),
        "its IDX header says 2x4x5 values, 40 bytes, but more follow"
    );
}

#[test]
fn a_header_that_asks_for_too_much_gets_nothing() {
    let mut lying = image_file([1, 2, 2]);
    lying[4..16].fill(0xff);
    let text = "its IDX header ([4294967295, 4294967295, 4294967295]) asks for \
                79228162458924105385300197375 bytes; at most 1073741824 are read";
    assert_eq!(sentence(&lying, Kind::Images), text);
    assert_eq!(sentence(&gzip(&lying), Kind::Images), text);
}

#[test]
fn a_gzip_bomb_is_left_alone_after_what_its_header_promised() {
    let mut bytes = header(&[1, 2, 2]).unwrap();
    bytes.resize(64 << 20, 0);
    let bomb = gzip(&bytes);
    assert_eq!(
        parse(&bomb, Kind::Images).unwrap_err().to_string(),
        "its IDX header says 1x2x2 values, 4 bytes, but more follow"
    );
}

#[test]
fn what_is_no_idx_file_of_that_kind_is_named() {
    let images = image_file([1, 2, 2]);
    assert_eq!(
        sentence(&images, Kind::Labels),
        "it begins with the bytes [00, 00, 08, 03]; an IDX file of labels begins with \
         [00, 00, 08, 01] (or is gzipped, and begins with [1f, 8b])"
    );
    assert_eq!(
        sentence(&images[..9], Kind::Images),
        "it has 9 bytes, but the header of an IDX file of images takes 16"
    );
    for length in [0, 1, 3] {
        let text =
            format!("it has {length} bytes, but the header of an IDX file of labels takes 8");
        assert_eq!(sentence(&images[..length], Kind::Labels), text);
    }
}

#[test]
fn damaged_and_truncated_gzip_is_named() {
    let whole = gzip(&image_file([3, 4, 5]));
    let named = |bytes: &[u8]| {
        let text = sentence(bytes, Kind::Images);
        assert!(
            text.starts_with("its gzip data is damaged or cut off ("),
            "{text}"
        );
    };
    for length in 2..whole.len() {
        named(&whole[..length]);
    }
    let mut wrong_checksum = whole.clone();
    let at = whole.len() - 8;
    wrong_checksum[at] ^= 1;
    named(&wrong_checksum);
    named(&[&whole[..], b"trailing"].concat());
}

#[test]
fn dimensions_that_do_not_fit_a_header_are_refused() {
    assert!(header(&[usize::MAX]).is_err());
    assert!(header(&[1; 256]).is_err());
    assert!(write(&mut Vec::new(), &[3], &[1, 2]).is_err());
}

proptest! {
    #[test]
    fn damage_anywhere_never_panics_and_never_passes_for_another_size(
        cut in 0_usize..200,
        changes in prop::collection::vec((0_usize..200, any::<u8>()), 0..4),
        zipped in any::<bool>(),
    ) {
        let plain = image_file([2, 5, 7]);
        let mut bytes = if zipped { gzip(&plain) } else { plain };
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        for kind in [Kind::Images, Kind::Labels] {
            let from_memory = parse(&bytes, kind);
            let from_file = in_file(&bytes, |path| read(path, kind));
            prop_assert_eq!(from_memory.is_ok(), from_file.is_ok());
            if let Ok(array) = from_memory {
                prop_assert_eq!(array.dims().iter().product::<usize>(), array.values().len());
            }
        }
    }
}
