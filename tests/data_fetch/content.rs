//! Datasets of IDX files, which are recognised by their content.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use taskweave::data::registry::{Checksum, Content, DatasetInfo, Download, Layout, RemoteFile};
use taskweave::data::{self, DataHome, FetchOptions, Part, Silent, Source, idx};

use super::{leak, names, options, sha256};
use crate::server::{Reply, Server};

fn gzip(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Four small IDX files whose official form is compressed best.
fn idx_files() -> [Vec<u8>; 4] {
    Part::ALL.map(|part| {
        let (dims, values) = match part {
            Part::TrainImages => (
                vec![40, 28, 28],
                (0..40 * 784).map(|i| (i % 97) as u8).collect(),
            ),
            Part::TestImages => (
                vec![20, 28, 28],
                (0..20 * 784).map(|i| (i % 89) as u8).collect(),
            ),
            Part::TrainLabels => (vec![40], (0..40).map(|i| i % 2).collect()),
            Part::TestLabels => (vec![20], (0..20).map(|i| i % 2).collect::<Vec<u8>>()),
        };
        let mut bytes = Vec::new();
        idx::write(&mut bytes, &dims, &values).unwrap();
        bytes
    })
}

fn idx_dataset(server: &Server) -> &'static DatasetInfo {
    let files = idx_files();
    let remote = |part: Part| {
        let official = gzip(&files[part.index()], Compression::best());
        RemoteFile {
            path: leak(format!("small/{}.gz", part.idx_stem())),
            bytes: official.len() as u64,
            checksums: leak([Checksum::Sha256(sha256(&official))]),
            content: Content::Idx(part),
        }
    };
    leak(DatasetInfo {
        name: "small",
        summary: "small images",
        train_images: 40,
        test_images: 20,
        image: [28, 28, 1],
        class_names: &["even", "odd"],
        layouts: &[Layout::Idx("small")],
        downloads: leak([Download {
            files: leak(Part::ALL.map(remote)),
            sources: leak([leak(server.url()).as_str()]),
        }]),
        content: Some(files.each_ref().map(|bytes| sha256(bytes))),
    })
}

fn part_of(path: &str) -> Part {
    *Part::ALL
        .iter()
        .find(|part| path.contains(part.idx_stem()))
        .unwrap()
}

#[test]
fn another_compression_of_the_official_content_is_right() {
    let official = Server::new(|_| Reply::Status("404 Not Found"));
    let mirror = Server::new(|request| {
        let part = part_of(&request.path);
        Reply::Bytes(gzip(&idx_files()[part.index()], Compression::new(8)))
    });
    let folder = tempfile::tempdir().unwrap();
    let home = DataHome::at(folder.path());
    let options = FetchOptions {
        mirror: Some(mirror.url()),
        ..options()
    };
    let info = idx_dataset(&official);
    let located = data::fetch(info, &home, &options, &mut Silent).unwrap();
    assert!(matches!(located.source, Source::Idx(_)));
    assert_eq!(mirror.requests().len(), 4);
    assert_eq!(
        mirror.requests()[0].path,
        "/small/train-images-idx3-ubyte.gz"
    );
    let (dataset, warnings) = data::load_located(&located).unwrap();
    assert_eq!(
        (dataset.train.count(), dataset.test.count(), warnings),
        (40, 20, vec![])
    );
    // Looked at anew, it is checked anew, and still official.
    let (_, warnings) = data::load_located(&data::find(info, &home).unwrap()).unwrap();
    assert_eq!(warnings, []);
}

#[test]
fn other_content_is_wrong_even_where_it_is_whole() {
    let server = Server::new(|request| {
        let part = part_of(&request.path);
        let mut bytes = idx_files()[part.index()].clone();
        *bytes.last_mut().unwrap() ^= 1;
        Reply::Bytes(gzip(&bytes, Compression::best()))
    });
    let folder = tempfile::tempdir().unwrap();
    let home = DataHome::at(folder.path());
    let error = data::fetch(idx_dataset(&server), &home, &options(), &mut Silent).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("bytes that are not the right ones"), "{text}");
    let by_hand = Part::ALL
        .map(|part| format!("{}.gz", part.idx_stem()))
        .join(", ");
    let place = folder.path().join("small");
    assert!(
        text.contains(&format!("put {by_hand} into {}", place.display())),
        "{text}"
    );
    assert_eq!(server.requests().len(), 1);
    assert!(!place.exists());
    assert_eq!(names(folder.path()), [".small.lock"]);
}

#[test]
fn only_the_missing_files_are_fetched() {
    let server = Server::new(|request| {
        let part = part_of(&request.path);
        Reply::Bytes(gzip(&idx_files()[part.index()], Compression::best()))
    });
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("small")).unwrap();
    let there = folder.path().join("small/train-images-idx3-ubyte.gz");
    fs::write(there, gzip(&idx_files()[0], Compression::fast())).unwrap();
    let home = DataHome::at(folder.path());
    data::fetch(idx_dataset(&server), &home, &options(), &mut Silent).unwrap();
    let paths: Vec<String> = server
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(
        paths,
        Part::ALL[1..]
            .iter()
            .map(|part| format!("/{}.gz", part.idx_stem()))
            .collect::<Vec<_>>()
    );
}
