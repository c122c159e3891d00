//! Downloads from a server on the loopback, well behaved or not.

#[path = "data_fetch/server.rs"]
mod server;

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use server::{Reply, Server};
use sha2::{Digest, Sha256};
use taskweave::data::registry::{Checksum, Content, DatasetInfo, Download, Layout, RemoteFile};
use taskweave::data::{
    self, DataError, DataHome, FetchOptions, Located, Part, Progress, Silent, Source, idx,
};

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

#[test]
fn a_file_arrives_whole_and_is_not_fetched_again() {
    let server = Server::new(|_| Reply::Bytes(photos()));
    let fetched = fetch(&[&server]);
    fetched.assert_right();
    assert_eq!(fetched.story.done, LENGTH as u64);
    assert!(fetched.story.notes.is_empty());
    let home = DataHome::at(fetched.folder.path());
    data::fetch(dataset(&[&server]), &home, &options(), &mut Silent).unwrap();
    assert_eq!(server.requests().len(), 1);
    assert_eq!(server.requests()[0].path, format!("/{NAME}"));
}

#[test]
fn bodies_without_a_length_and_redirects_are_fine() {
    fetch(&[&Server::new(|_| Reply::Unmeasured(photos()))]).assert_right();
    fetch(&[&Server::new(|_| Reply::Chunked(photos()))]).assert_right();
    let there = Server::new(|_| Reply::Bytes(photos()));
    let url = format!("{}elsewhere", there.url());
    fetch(&[&Server::new(move |_| Reply::Redirect(url.clone()))]).assert_right();
    assert_eq!(there.requests()[0].path, "/elsewhere");
}

#[test]
fn a_connection_that_breaks_off_is_carried_on() {
    let server = Server::new(|request| match request.number {
        0 => Reply::BreakOff(photos(), 100_000),
        1 => Reply::HangUp,
        2 => Reply::BreakOff(photos(), 50_000),
        _ => Reply::Bytes(photos()),
    });
    let fetched = fetch(&[&server]);
    fetched.assert_right();
    assert_eq!(
        server.ranges(),
        [None, Some(100_000), Some(100_000), Some(150_000)]
    );
    assert_eq!(fetched.story.begun_at, [0, 100_000, 150_000]);
    let url = format!("{}{NAME}", server.url());
    let again = |reason: &str| format!("{url}: {reason}; trying again");
    assert_eq!(
        fetched.story.notes,
        [
            again("the connection broke off after 100000 of 300000 bytes"),
            again("the connection broke off before an answer"),
            again("the connection broke off after 150000 of 300000 bytes"),
        ]
    );
}

#[test]
fn a_server_that_ignores_the_range_begins_again() {
    let server = Server::new(|request| match request.number {
        0 => Reply::BreakOff(photos(), 100_000),
        _ => Reply::AllBytes(photos()),
    });
    let fetched = fetch(&[&server]);
    fetched.assert_right();
    assert_eq!(server.ranges(), [None, Some(100_000)]);
    assert_eq!(fetched.story.begun_at, [0, 0]);
}

#[test]
fn a_server_that_sends_another_range_is_asked_for_everything() {
    let server = Server::new(|request| match request.number {
        0 => Reply::BreakOff(photos(), 100_000),
        1 => Reply::WrongRange(photos()),
        _ => Reply::Bytes(photos()),
    });
    fetch(&[&server]).assert_right();
    assert_eq!(server.ranges(), [None, Some(100_000), None]);
}

#[test]
fn a_body_without_a_length_that_ends_early_is_carried_on() {
    let server = Server::new(|request| match request.number {
        0 => Reply::Unmeasured(photos()[..100_000].to_vec()),
        _ => Reply::Bytes(photos()),
    });
    fetch(&[&server]).assert_right();
    assert_eq!(server.ranges(), [None, Some(100_000)]);
}

#[test]
fn what_an_earlier_run_left_is_carried_on() {
    let server = Server::new(|_| Reply::Bytes(photos()));
    fetch_over(&[&server], Some(&photos()[..123_456]), &options()).assert_right();
    assert_eq!(server.ranges(), [Some(123_456)]);
}

#[test]
fn a_whole_part_needs_no_server() {
    let server = Server::new(|_| Reply::Status("404 Not Found"));
    fetch_over(&[&server], Some(&photos()), &options()).assert_right();
    assert_eq!(server.requests(), []);
}

#[test]
fn a_part_of_something_else_is_thrown_away() {
    let server = Server::new(|_| Reply::Bytes(photos()));
    fetch_over(&[&server], Some(&[9; 1_000]), &options()).assert_right();
    assert_eq!(server.ranges(), [Some(1_000), None]);
    // As long as the file, but another: there is nothing left to send.
    let server = Server::new(|_| Reply::Bytes(photos()));
    fetch_over(&[&server], Some(&[9; LENGTH]), &options()).assert_right();
    assert_eq!(server.ranges(), [Some(LENGTH), None]);
    // Longer than the file can be.
    let server = Server::new(|_| Reply::Bytes(photos()));
    fetch_over(&[&server], Some(&[9; LENGTH + 1]), &options()).assert_right();
    assert_eq!(server.ranges(), [None]);
}

#[test]
fn a_part_longer_than_what_the_server_has_is_thrown_away() {
    let server = Server::new(|request| match request.number {
        0 => Reply::Bytes(photos()[..1_000].to_vec()),
        _ => Reply::Bytes(photos()),
    });
    fetch_over(&[&server], Some(&photos()[..5_000]), &options()).assert_right();
    assert_eq!(server.ranges(), [Some(5_000), None]);
}

#[test]
fn a_server_that_stalls_is_given_up_in_time() {
    let begin = Instant::now();
    let server = Server::new(|request| match request.from {
        None => Reply::Stall(photos(), 100_000),
        Some(_) => Reply::Stall(photos(), 0),
    });
    let fetched = fetch_over(&[&server], None, &hasty());
    let text = fetched.sentence();
    assert!(
        text.contains("it stalled for 0.4 s after 100000 of 300000 bytes"),
        "{text}"
    );
    assert_eq!(
        server.ranges(),
        [None, Some(100_000), Some(100_000), Some(100_000)]
    );
    assert_eq!(
        names(fetched.folder.path()),
        [".photos.lock", "photos.tar.gz.part"]
    );
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_server_that_stalls_once_is_carried_on() {
    let server = Server::new(|request| match request.number {
        0 => Reply::Stall(photos(), 100_000),
        _ => Reply::Bytes(photos()),
    });
    fetch_over(&[&server], None, &hasty()).assert_right();
    assert_eq!(server.ranges(), [None, Some(100_000)]);
}

#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let begin = Instant::now();
    let server = Server::new(|_| Reply::Silence);
    let text = fetch_over(&[&server], None, &hasty()).sentence();
    assert!(
        text.contains(&format!("{}{NAME}: no answer within 0.4 s", server.url())),
        "{text}"
    );
    assert_eq!(server.requests().len(), 4);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn an_error_status_is_named() {
    let server = Server::new(|_| Reply::Status("404 Not Found"));
    let fetched = fetch(&[&server]);
    let folder = fetched.folder.path().display();
    assert_eq!(
        fetched.sentence(),
        format!(
            "photos could not be downloaded:\n  {}{NAME}: it answers 404 Not Found\n\
             To do without a download, put {NAME} into {folder}, or name a folder that has it with \
             --data-dir",
            server.url()
        )
    );
    assert_eq!(server.requests().len(), 1);
    // A server that is busy is asked again.
    let server = Server::new(|request| match request.number {
        0 => Reply::Status("503 Service Unavailable"),
        _ => Reply::Bytes(photos()),
    });
    fetch(&[&server]).assert_right();
}

#[test]
fn a_server_that_sends_too_much_is_cut_off() {
    let server = Server::new(|_| Reply::Endless);
    let fetched = fetch(&[&server]);
    let text = fetched.sentence();
    assert!(
        text.contains("it sends more, and the official file has 300000 bytes"),
        "{text}"
    );
    assert!(fetched.story.done <= LENGTH as u64);
    assert_eq!(names(fetched.folder.path()), [".photos.lock"]);

    let server = Server::new(|_| Reply::Promise(1 << 40));
    let text = fetch(&[&server]).sentence();
    assert!(
        text.contains("it sends 1099511627776 bytes, and the official file has 300000 bytes"),
        "{text}"
    );
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn wrong_bytes_are_named_and_thrown_away() {
    let mut wrong = photos();
    wrong[LENGTH / 2] ^= 1;
    let found = sha256(&wrong);
    let server = Server::new(move |_| Reply::Bytes(wrong.clone()));
    let fetched = fetch(&[&server]);
    let text = fetched.sentence();
    let official = sha256(&photos());
    assert!(
        text.contains(&format!(
            "it sent 300000 bytes that are not the right ones: the official file has 300000 bytes \
             with SHA-256 {official}, and this is {found}"
        )),
        "{text}"
    );
    assert_eq!(names(fetched.folder.path()), [".photos.lock"]);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn the_next_source_is_tried_whatever_the_first_one_does() {
    let mut wrong = photos();
    wrong[0] ^= 1;
    let replies = [
        Reply::Status("404 Not Found"),
        Reply::HangUp,
        Reply::Stall(photos(), 10),
        Reply::Endless,
        Reply::Promise(1 << 40),
        Reply::Bytes(wrong.clone()),
        Reply::Bytes(b"<html>Please log in</html>".to_vec()),
        Reply::BreakOff(wrong, 20_000),
    ];
    for reply in replies {
        let bad = Server::new({
            let reply = reply.clone();
            move |_| reply.clone()
        });
        let good = Server::new(|_| Reply::Bytes(photos()));
        let fetched = fetch_over(&[&bad, &good], None, &hasty());
        fetched.assert_right();
        assert!(
            !bad.requests().is_empty() && !good.requests().is_empty(),
            "{reply:?}"
        );
        assert!(!fetched.story.notes.is_empty(), "{reply:?}");
    }
}

#[test]
fn addresses_that_lead_nowhere_are_each_named() {
    // Nothing listens where a listener has just closed.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let sources = leak([leak(format!("http://{closed}/")).as_str(), "nonsense:/"]);
    let folder = tempfile::tempdir().unwrap();
    let home = DataHome::at(folder.path());
    let error = data::fetch(dataset_at(sources), &home, &options(), &mut Silent).unwrap_err();
    let DataError::NoSource { failed, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0].reason, "the connection was refused");
    assert!(
        failed[1].reason.starts_with("this is no address of a file"),
        "{}",
        failed[1].reason
    );
}

#[test]
fn the_mirror_is_tried_first() {
    let mirror = Server::new(|_| Reply::Bytes(photos()));
    let official = Server::new(|_| Reply::Status("404 Not Found"));
    let folder = tempfile::tempdir().unwrap();
    let options = FetchOptions {
        mirror: Some(format!("{}data", mirror.url())),
        ..options()
    };
    let home = DataHome::at(folder.path().join("new/folder"));
    data::fetch(dataset(&[&official]), &home, &options, &mut Silent).unwrap();
    assert_eq!(mirror.requests()[0].path, format!("/data/{NAME}"));
    assert_eq!(official.requests(), []);
}

/// Tells somebody what there is to tell.
struct Telling(mpsc::Sender<String>);

impl Progress for Telling {
    fn note(&mut self, line: &str) {
        self.0.send(line.to_owned()).unwrap();
    }
    fn begin(&mut self, _file: &str, _url: &str, _done: u64, _total: u64) {}
    fn advance(&mut self, _done: u64) {}
    fn end(&mut self) {}
}

#[test]
fn two_threads_that_fetch_at_once_fetch_once() {
    let (sender, notes) = mpsc::channel();
    let notes = Mutex::new(notes);
    // The first thread gets its answer once the second one says that it waits.
    let server = Server::new(move |_| {
        let note = notes
            .lock()
            .unwrap()
            .recv_timeout(Duration::from_secs(20))
            .unwrap();
        assert_eq!(note, "another process is fetching photos; waiting for it");
        Reply::Bytes(photos())
    });
    let info = dataset(&[&server]);
    let folder = tempfile::tempdir().unwrap();
    let home = DataHome::at(folder.path());
    thread::scope(|scope| {
        for _ in 0..2 {
            let mut progress = Telling(sender.clone());
            let home = &home;
            scope.spawn(move || data::fetch(info, home, &options(), &mut progress).unwrap());
        }
    });
    assert_eq!(server.requests().len(), 1);
    assert!(fs::read(folder.path().join(NAME)).unwrap() == photos());
}

const CHILD_URL: &str = "TASKWEAVE_TEST_CHILD_URL";
const CHILD_FOLDER: &str = "TASKWEAVE_TEST_CHILD_FOLDER";

/// What the processes of the next test do; on its own it does nothing.
#[test]
fn child_process() {
    let (Ok(url), Ok(folder)) = (env::var(CHILD_URL), env::var(CHILD_FOLDER)) else {
        return;
    };
    let sources = leak([leak(url).as_str()]);
    data::fetch(
        dataset_at(sources),
        &DataHome::at(folder),
        &options(),
        &mut Silent,
    )
    .unwrap();
}

#[test]
fn two_processes_that_fetch_at_once_fetch_once() {
    let server =
        Server::new(|_| Reply::Late(Duration::from_millis(300), Box::new(Reply::Bytes(photos()))));
    let folder = tempfile::tempdir().unwrap();
    let child = || {
        Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_process"])
            .env(CHILD_URL, server.url())
            .env(CHILD_FOLDER, folder.path())
            .spawn()
            .unwrap()
    };
    for mut child in [child(), child()] {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(server.requests().len(), 1);
    assert!(fs::read(folder.path().join(NAME)).unwrap() == photos());
}

#[test]
fn a_folder_that_cannot_be_written_to_is_named() {
    // Also for those who may write everywhere: below a file there can be no folder.
    let file = tempfile::NamedTempFile::new().unwrap();
    let server = Server::new(|_| Reply::Bytes(photos()));
    let home = DataHome::at(file.path().join("data"));
    let error = data::fetch(dataset(&[&server]), &home, &options(), &mut Silent).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot write {}: ", home.path().display())),
        "{text}"
    );
    assert!(
        text.ends_with("name a folder that can be written to with --data-dir or TASKWEAVE_HOME")
    );
    assert_eq!(server.requests(), []);
}

/// An onlooker who wants to stop once half has arrived.
struct Impatient {
    done: u64,
}

impl Progress for Impatient {
    fn note(&mut self, _line: &str) {}
    fn begin(&mut self, _file: &str, _url: &str, _done: u64, _total: u64) {}
    fn advance(&mut self, done: u64) {
        self.done = done;
    }
    fn end(&mut self) {}
    fn interrupted(&self) -> bool {
        self.done >= LENGTH as u64 / 2
    }
}

#[test]
fn an_interrupted_download_is_carried_on_later() {
    let server = Server::new(|_| Reply::Bytes(photos()));
    let folder = tempfile::tempdir().unwrap();
    let home = DataHome::at(folder.path());
    let error = data::fetch(
        dataset(&[&server]),
        &home,
        &options(),
        &mut Impatient { done: 0 },
    );
    assert!(matches!(error, Err(DataError::Interrupted)));
    let part = fs::metadata(folder.path().join(format!("{NAME}.part")))
        .unwrap()
        .len() as usize;
    assert!(part >= LENGTH / 2);
    data::fetch(dataset(&[&server]), &home, &options(), &mut Silent).unwrap();
    assert!(fs::read(folder.path().join(NAME)).unwrap() == photos());
    if part < LENGTH {
        assert_eq!(server.ranges(), [None, Some(part)]);
    }
}

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
    assert_eq!(names(&place), Vec::<String>::new());
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
