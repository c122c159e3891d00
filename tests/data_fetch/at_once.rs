//! Two fetches of the same dataset at the same time.

use std::env;
use std::fs;
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::Duration;

use taskweave::data::{self, DataHome, Progress, Silent};

use super::{NAME, dataset, dataset_at, leak, options, photos};
use crate::server::{Reply, Server};

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
            .args(["--exact", "at_once::child_process"])
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
