use std::fs;
use std::path::Path;

use clap::{CommandFactory, Parser};

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    report: ReportArgs,
}

/// What is printed, or the sentence that is said instead.
fn report(folder: &Path, arguments: &str) -> Result<String, String> {
    let words = arguments
        .split(' ')
        .map(|word| match word.ends_with(".npy") {
            true => folder.join(word).into_os_string(),
            false => word.into(),
        });
    let program = Program::try_parse_from(
        [std::ffi::OsString::from("report")]
            .into_iter()
            .chain(words),
    );
    let args = program.map_err(|error| error.to_string())?.report;
    let mut out = Vec::new();
    let outcome = run(&args, &mut out);
    assert!(
        outcome.is_ok() || out.is_empty(),
        "something was printed before the failure"
    );
    outcome.map_err(|error| error.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

/// A folder with label files.
fn labels() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    npy::save(path("true.npy"), &[4], &[-1_i64, 2, 2, 3]).unwrap();
    npy::save(path("pred.npy"), &[4], &[-1_i16, 2, 3, 3]).unwrap();
    npy::save(path("short.npy"), &[3], &[0_u8, 2, 2]).unwrap();
    npy::save(path("empty.npy"), &[0], &[0_u8; 0]).unwrap();
    npy::save(path("float.npy"), &[4], &[0_f32; 4]).unwrap();
    npy::save(path("image.npy"), &[2, 2], &[0_u8; 4]).unwrap();
    fs::write(path("text.npy"), "0 1 2 3\n").unwrap();
    folder
}

#[test]
fn options_reach_the_report() {
    let folder = labels();
    let print =
        |options: &str| report(folder.path(), &format!("true.npy pred.npy {options}")).unwrap();
    let negative = print("--labels -1,2");
    assert!(negative.starts_with("[[1 0]\n [0 1]]\n"), "{negative}");
    assert!(
        negative.contains("   micro avg       1.00      0.67      0.80         3\n"),
        "{negative}"
    );
    assert_eq!(print("--labels=-1,2"), negative);
    let named = print("--target-names a,b,c --digits 4");
    assert!(
        named.contains("\n           b     1.0000    0.5000    0.6667         2\n"),
        "{named}"
    );
    let undefined = print("--labels 3,9 --zero-division nan");
    assert!(
        undefined.contains("\n           9        nan       nan       nan         0\n"),
        "{undefined}"
    );
    assert!(print("--json").starts_with("{\n  \"confusion\": {\n    \"labels\": [\n      -1,"));
}

#[test]
fn bad_files_and_labels_get_a_sentence() {
    let folder = labels();
    let says = |arguments: &str, expected: &str| {
        let sentence = report(folder.path(), arguments).unwrap_err();
        assert!(sentence.contains(expected), "{sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    };
    says("true.npy short.npy", "4 true labels but 3 predictions");
    says("empty.npy empty.npy", "there are no labels");
    says("true.npy absent.npy", "absent.npy: No such file");
    says(
        "float.npy pred.npy",
        "float.npy: it holds float32 values, and integers (int8 to int64",
    );
    says(
        "true.npy image.npy",
        "image.npy: its shape is [2, 2]; a vector [n], or [n, 1]",
    );
    says("text.npy pred.npy", "text.npy: not an npy file");
    says(
        "true.npy pred.npy --labels 7,8",
        "none of the labels [7, 8] is a true label",
    );
    says("true.npy pred.npy --labels 2,2", "label 2 stands twice");
    says(
        "true.npy pred.npy --target-names a,b",
        "2 target names for 3 classes (labels [-1, 2, 3])",
    );
}

#[test]
fn bad_options_are_usage_errors() {
    let folder = labels();
    let says = |options: &str, expected: &str| {
        let sentence = report(folder.path(), &format!("true.npy pred.npy {options}")).unwrap_err();
        assert!(sentence.contains(expected), "{sentence}");
    };
    says("--labels 1,x", "invalid value 'x' for '--labels <LABELS>'");
    says("--labels 1,,2", "invalid value '' for '--labels <LABELS>'");
    says("--digits 101", "101 is not in 0..=100");
    says("--zero-division 2", "[possible values: 0, 1, nan]");
}

#[test]
fn help_shows_an_example() {
    Program::command().debug_assert();
    let help = Program::command().render_long_help().to_string();
    for expected in [
        "taskweave report true.npy pred.npy\n",
        "numpy.save",
        "[possible values: 0, 1, nan]",
    ] {
        assert!(help.contains(expected), "{help}");
    }
}
