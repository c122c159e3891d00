//! Downloads from a server on the loopback, well behaved or not.

mod at_once;
mod cli;
mod content;
mod refused;
mod resume;
mod server;

use std::fs;
use std::path::Path;
use std::time::Duration;

use server::Server;
use sha2::{Digest, Sha256};
use taskweave::data::registry::{Checksum, Content, DatasetInfo, Download, Layout, RemoteFile};
use taskweave::data::{self, DataError, DataHome, FetchOptions, Located, Progress};

/// Larger than the buffers on the way, so that a download can end in its middle.
const LENGTH: usize = 300_000;
const NAME: &str = "photos.tar.gz";

fn leak<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn sha256(bytes: &[u8]) -> &'static str {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    leak(hex)
}

fn photos() -> Vec<u8> {
    (0..LENGTH).map(|i| (i * i / 7 + i) as u8).collect()
}

/// A dataset of one archive, at these servers.
fn dataset(servers: &[&Server]) -> &'static DatasetInfo {
    let sources: Vec<&'static str> = servers
        .iter()
        .map(|server| leak(server.url()).as_str())
        .collect();
    dataset_at(leak(sources))
}

fn dataset_at(sources: &'static [&'static str]) -> &'static DatasetInfo {
    let file = RemoteFile {
        path: NAME,
        bytes: LENGTH as u64,
        checksums: leak([Checksum::Sha256(sha256(&photos()))]),
        content: Content::Opaque,
    };
    leak(DatasetInfo {
        name: "photos",
        summary: "photographs",
        train_images: 1,
        test_images: 1,
        image: [28, 28, 1],
        class_names: &["a", "b"],
        layouts: &[Layout::Archive(NAME)],
        downloads: leak([Download {
            files: leak([file]),
            sources,
        }]),
        content: None,
    })
}

fn options() -> FetchOptions {
    FetchOptions {
        pause: Duration::from_millis(1),
        ..FetchOptions::default()
    }
}

/// For servers that keep silent.
fn hasty() -> FetchOptions {
    FetchOptions {
        stall_timeout: Duration::from_millis(400),
        ..options()
    }
}

/// What a person would have been told.
#[derive(Default)]
struct Story {
    notes: Vec<String>,
    begun_at: Vec<u64>,
    done: u64,
}

impl Progress for Story {
    fn note(&mut self, line: &str) {
        self.notes.push(line.to_owned());
    }
    fn begin(&mut self, file: &str, _url: &str, done: u64, _total: u64) {
        assert_eq!(file, NAME);
        self.begun_at.push(done);
    }
    fn advance(&mut self, done: u64) {
        self.done = done;
    }
    fn end(&mut self) {}
}

struct Fetched {
    folder: tempfile::TempDir,
    story: Story,
    result: Result<Located, DataError>,
}

impl Fetched {
    /// It worked, and left nothing but the right file and the lock.
    fn assert_right(&self) -> &Self {
        match &self.result {
            Ok(located) => assert_eq!(located.source.files(), [self.folder.path().join(NAME)]),
            Err(error) => panic!("{error}"),
        }
        assert!(fs::read(self.folder.path().join(NAME)).unwrap() == photos());
        assert_eq!(names(self.folder.path()), [".photos.lock", NAME]);
        self
    }

    /// It did not work, and left no file by the name of the right one.
    fn sentence(&self) -> String {
        assert!(!self.folder.path().join(NAME).exists());
        self.result.as_ref().expect_err("must not work").to_string()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn fetch(servers: &[&Server]) -> Fetched {
    fetch_over(servers, None, &options())
}

/// Fetches where an earlier download may have left a part.
fn fetch_over(servers: &[&Server], part: Option<&[u8]>, options: &FetchOptions) -> Fetched {
    let folder = tempfile::tempdir().unwrap();
    if let Some(part) = part {
        fs::write(folder.path().join(format!("{NAME}.part")), part).unwrap();
    }
    let mut story = Story::default();
    let home = DataHome::at(folder.path());
    let result = data::fetch(dataset(servers), &home, options, &mut story);
    Fetched {
        folder,
        story,
        result,
    }
}
