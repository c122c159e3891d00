//! Downloads that arrive, in one piece or in several.

use std::fs;

use taskweave::data::{self, DataError, DataHome, Progress, Silent};

use super::{LENGTH, NAME, dataset, fetch, fetch_over, hasty, options, photos};
use crate::server::{Reply, Server};

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
fn a_server_that_stalls_once_is_carried_on() {
    let server = Server::new(|request| match request.number {
        0 => Reply::Stall(photos(), 100_000),
        _ => Reply::Bytes(photos()),
    });
    fetch_over(&[&server], None, &hasty()).assert_right();
    assert_eq!(server.ranges(), [None, Some(100_000)]);
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
