//! Servers that do not have the file, or do not send it.

use std::time::{Duration, Instant};

use taskweave::data::{self, DataError, DataHome, FetchOptions, Silent};

use super::{
    LENGTH, NAME, dataset, dataset_at, fetch, fetch_over, hasty, leak, names, options, photos,
    sha256,
};
use crate::server::{Reply, Server};

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
fn a_server_that_only_drips_is_given_up_in_time() {
    let begin = Instant::now();
    let server = Server::new(|_| Reply::Drip(photos()));
    let text = fetch_over(&[&server], None, &hasty()).sentence();
    assert!(text.contains("it stalled for 0.4 s after "), "{text}");
    assert_eq!(server.requests().len(), 4);
    assert!(begin.elapsed() < Duration::from_secs(20));
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

#[test]
fn a_folder_in_the_place_of_the_file_is_named_before_any_download() {
    for name in [NAME.to_owned(), format!("{NAME}.part")] {
        let folder = tempfile::tempdir().unwrap();
        let taken = folder.path().join(&name);
        std::fs::create_dir(&taken).unwrap();
        let server = Server::new(|_| Reply::Bytes(photos()));
        let home = DataHome::at(folder.path());
        let error = data::fetch(dataset(&[&server]), &home, &options(), &mut Silent).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot write {}: something that is no file has this name; name a folder that can \
                 be written to with --data-dir or TASKWEAVE_HOME",
                taken.display()
            )
        );
        assert_eq!(server.requests(), []);
    }
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
