//! What tests of the program itself share.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the program.
pub(crate) fn taskweave(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taskweave"))
        .args(args)
        .output()
        .unwrap()
}

/// What a stream holds.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Trains two epochs and keeps the results.
pub(crate) fn run_into(folder: &Path, more: &[&str]) -> Output {
    let folder = folder.to_str().unwrap();
    let mut args = vec!["run", "quickstart", "--epochs", "2", "--out", folder];
    args.extend_from_slice(more);
    let output = taskweave(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

/// The kept numbers, but for times and threads.
pub(crate) fn metrics_without_circumstances(folder: &Path) -> serde_json::Value {
    let mut metrics: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("metrics.json")).unwrap()).unwrap();
    let object = metrics.as_object_mut().unwrap();
    assert!(object.remove("times").is_some());
    assert!(object.remove("threads").is_some());
    metrics
}
