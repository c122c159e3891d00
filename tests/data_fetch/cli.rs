//! `taskweave data` as its users call it. Nothing here reaches beyond this machine: addresses of
//! other hosts lead to a proxy that is not there.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::server::{Reply, Server};

/// The program with this data folder.
fn command(home: &Path, mirror: Option<&str>, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskweave"));
    for name in [
        "ALL_PROXY",
        "all_proxy",
        "NO_PROXY",
        "no_proxy",
        "TASKWEAVE_MIRROR",
    ] {
        command.env_remove(name);
    }
    // Nothing can listen on port 0.
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        command.env(name, "http://127.0.0.1:0");
    }
    if let Some(mirror) = mirror {
        command.env("TASKWEAVE_MIRROR", mirror);
    }
    command.env("TASKWEAVE_HOME", home).arg("data").args(args);
    command
}

fn taskweave(home: &Path, mirror: Option<&str>, args: &[&str]) -> Output {
    command(home, mirror, args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_data_folder_is_the_one_asked_for_or_else_the_variable() {
    let folder = tempfile::tempdir().unwrap();
    let output = taskweave(folder.path(), None, &["path"]);
    assert_eq!(stdout(&output), format!("{}\n", folder.path().display()));
    let output = taskweave(folder.path(), None, &["path", "--data-dir", "other"]);
    assert_eq!(stdout(&output), "other\n");
}

#[test]
fn what_is_not_there_is_said_in_text_and_in_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = taskweave(folder.path(), None, &["list"]);
    assert!(output.status.success());
    let text = stdout(&output);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "mnist          60000 + 10000 images of 28x28x1, 10 classes: not here, 11.5 MB to download"
    );
    assert_eq!(lines.len(), 3);
    let output = taskweave(folder.path(), None, &["list", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["data_dir"], folder.path().to_str().unwrap());
    assert_eq!(json["datasets"][1]["name"], "fashion-mnist");
    assert_eq!(json["datasets"][1]["files"], serde_json::Value::Null);
    assert_eq!(json["datasets"][2]["download_bytes"], 170_052_171);
    let output = taskweave(folder.path(), None, &["path", "mnist"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    assert!(stderr(&output).contains("mnist is not in the data folder"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_unknown_dataset_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["fetch", "verify", "path"] {
        let output = taskweave(folder.path(), None, &[command, "minst"]);
        assert_eq!(output.status.code(), Some(2));
        let text = stderr(&output);
        assert!(
            text.contains("no dataset \"minst\" (did you mean \"mnist\"?)"),
            "{text}"
        );
    }
}

#[test]
fn verify_tells_missing_from_damaged_from_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let output = taskweave(folder.path(), None, &["verify"]);
    assert!(output.status.success());
    assert_eq!(stdout(&output).matches("missing").count(), 3);
    assert_eq!(
        taskweave(folder.path(), None, &["verify", "mnist"])
            .status
            .code(),
        Some(1)
    );

    fs::write(folder.path().join("mnist.npz"), "<html>Not found</html>").unwrap();
    let output = taskweave(folder.path(), None, &["verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["datasets"][0]["status"], "damaged");
    assert!(stderr(&output).contains("mnist.npz: it is not a whole npz file: "));

    fs::remove_file(folder.path().join("mnist.npz")).unwrap();
    let archive = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(archive);
    for name in taskweave::data::cifar::FILES {
        let record = [3; taskweave::data::cifar::RECORD_BYTES];
        let mut header = tar::Header::new_ustar();
        header.set_size(record.len() as u64);
        archive
            .append_data(&mut header, format!("photographs/{name}"), &record[..])
            .unwrap();
    }
    let path = folder.path().join("cifar-10-binary.tar.gz");
    fs::write(&path, archive.into_inner().unwrap().finish().unwrap()).unwrap();
    let output = taskweave(folder.path(), None, &["verify", "cifar-10"]);
    assert!(output.status.success());
    assert_eq!(
        stdout(&output),
        format!("cifar-10  unknown   {}\n", path.display())
    );
    let text = stderr(&output);
    assert!(
        text.contains("this is not the official file of cifar-10"),
        "{text}"
    );
}

#[test]
fn when_nothing_works_every_source_is_named_and_the_place_for_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mirror = Server::new(|_| Reply::Status("404 Not Found"));
    let url = mirror.url();
    let output = taskweave(folder.path(), Some(&url), &["fetch", "mnist"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let text = stderr(&output);
    for line in [
        format!("  {url}mnist.npz: it answers 404 Not Found"),
        "  https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz: ".to_owned(),
        format!("  {url}mnist/train-images-idx3-ubyte.gz: it answers 404 Not Found"),
        "  https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz: ".to_owned(),
        format!("put mnist.npz into {}", folder.path().display()),
    ] {
        assert!(text.contains(&line), "{text}");
    }
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, [".mnist.lock"]);
}

/// A download in the background, of which 1,000 bytes have arrived; the rest never will.
#[cfg(unix)]
fn stalled_download(home: &Path, server: &Server) -> std::process::Child {
    let program = command(home, Some(&server.url()), &["fetch", "mnist"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let part = home.join("mnist.npz.part");
    let begin = std::time::Instant::now();
    while fs::metadata(&part).map_or(0, |metadata| metadata.len()) < 1_000 {
        assert!(begin.elapsed().as_secs() < 30, "nothing arrives");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    program
}

#[test]
#[cfg(unix)]
fn an_interrupted_download_keeps_what_has_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let mnist = vec![7; 11_490_434];
    let server = Server::new(move |_| Reply::Stall(mnist.clone(), 1_000));
    let program = stalled_download(folder.path(), &server);
    let id = program.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let begin = std::time::Instant::now();
    let output = program.wait_with_output().unwrap();
    assert!(begin.elapsed().as_secs() < 20);
    assert_eq!(output.status.code(), Some(130));
    assert!(
        stderr(&output).ends_with("taskweave: interrupted\n"),
        "{}",
        stderr(&output)
    );
    let part = fs::metadata(folder.path().join("mnist.npz.part")).unwrap();
    assert_eq!(part.len(), 1_000);
    assert!(!folder.path().join("mnist.npz").exists());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let output = taskweave(&file.path().join("data"), None, &["fetch", "mnist"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("name a folder that can be written to"));
}

#[test]
fn a_subset_of_what_is_not_there_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("subset.npz");
    let output = taskweave(
        folder.path(),
        None,
        &["subset", "--out", out.to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(!out.exists());
}

#[test]
fn every_sub_command_helps_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["list", "fetch", "verify", "path", "subset"] {
        let text = stdout(&taskweave(folder.path(), None, &[command, "--help"]));
        assert!(text.contains("Example") && text.contains(&format!("taskweave data {command}")));
    }
}
