//! The program interrupted and told to go on.
#![cfg(unix)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MODELS: [&str; 3] = [
    "dedicated-digit.safetensors",
    "dedicated-fashion.safetensors",
    "multitask.safetensors",
];

fn taskweave(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_taskweave");
    Command::new(program).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Begins a run of two epochs per net and interrupts it once this file is there.
fn interrupted(folder: &Path, file: &str) -> Output {
    let program = Command::new(env!("CARGO_BIN_EXE_taskweave"))
        .args(["run", "quickstart", "--epochs", "2", "--seed", "3", "--out"])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    while !folder.join(file).exists() {
        assert!(start.elapsed() < Duration::from_secs(300), "no {file}");
        sleep(Duration::from_millis(5));
    }
    let process = program.id().to_string();
    let signal = Command::new("kill").args(["-INT", &process]).status();
    assert!(signal.unwrap().success());
    program.wait_with_output().unwrap()
}

#[test]
fn an_interrupted_run_says_how_to_go_on_and_ends_the_same() {
    let (folder, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().to_str().unwrap();
    let output = interrupted(folder.path(), "checkpoint.safetensors");
    assert_eq!(output.status.code(), Some(130));
    let message = text(&output.stderr);
    let advice = format!("interrupted; go on with: taskweave run quickstart --resume {path}\n");
    assert!(message.ends_with(&advice), "{message}");

    for (more, part) in [
        (&["--seed", "4"][..], "was begun with 3, not with --seed 4"),
        (&["--epochs", "5"], "was begun with 2, not with --epochs 5"),
        (
            &["--protocol", "reference"],
            "was begun with default, not with --protocol reference",
        ),
        (
            &["--precision", "bf16"],
            "was begun with f32, not with --precision bf16",
        ),
        (&["--out", "elsewhere"], "leave --out out"),
    ] {
        let args = [&["run", "quickstart", "--resume", path], more].concat();
        let output = taskweave(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let message = text(&output.stderr);
        assert!(message.contains(part), "{message}");
        assert!(output.stdout.is_empty());
    }
    let output = taskweave(&["run", "quickstart", "--out", path]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains("holds a run that did not end"),
        "{message}"
    );
    let output = taskweave(&["run", "digits-fashion-mlp", "--resume", path]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains("of the experiment quickstart"),
        "{message}"
    );

    let resumed = taskweave(&["run", "quickstart", "--resume", path, "--seed", "3"]);
    assert!(resumed.status.success(), "{}", text(&resumed.stderr));
    assert!(!folder.path().join("checkpoint.safetensors").exists());
    let path = whole.path().to_str().unwrap();
    let settings = ["--epochs", "2", "--seed", "3", "--threads", "1"];
    let args = [&["run", "quickstart", "--out", path], &settings[..]].concat();
    let output = taskweave(&args);
    assert_eq!(text(&resumed.stdout), text(&output.stdout));
    for model in MODELS {
        let bytes = |folder: &Path| fs::read(folder.join(model)).unwrap();
        assert!(bytes(folder.path()) == bytes(whole.path()), "{model}");
    }
}

#[test]
fn a_folder_without_a_checkpoint_gets_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let absent = folder.path().join("absent");
    for (path, part) in [
        (path, "there is none"),
        (absent.to_str().unwrap(), "it is no folder"),
    ] {
        let output = taskweave(&["run", "quickstart", "--resume", path]);
        assert_eq!(output.status.code(), Some(1));
        let message = text(&output.stderr);
        assert!(message.contains(part), "{message}");
    }
    assert!(!absent.exists());
}
