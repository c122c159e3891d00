//! The program itself: what `taskweave run` prints and keeps, and that it repeats.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

mod common;
mod program;

use common::layout;
use program::{metrics_without_circumstances, run_into, taskweave, text};

const MODELS: [&str; 3] = [
    "dedicated-digit.safetensors",
    "dedicated-fashion.safetensors",
    "multitask.safetensors",
];

#[test]
fn results_repeat_bit_for_bit_at_any_number_of_threads() {
    let folders: Vec<_> = ["1", "2", "3", "2"]
        .into_iter()
        .map(|threads| {
            let folder = tempfile::tempdir().unwrap();
            let output = run_into(folder.path(), &["--threads", threads]);
            let report = fs::read(folder.path().join("report.txt")).unwrap();
            assert_eq!(text(&report), text(&output.stdout));
            folder
        })
        .collect();
    let (first, others) = folders.split_first().unwrap();
    for other in others {
        assert_eq!(
            metrics_without_circumstances(first.path()),
            metrics_without_circumstances(other.path())
        );
        for model in MODELS {
            let bytes = |folder: &tempfile::TempDir| fs::read(folder.path().join(model)).unwrap();
            assert!(bytes(first) == bytes(other), "{model} differs");
        }
    }
}

#[test]
fn another_seed_gives_another_model() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run_into(first.path(), &["--seed", "1"]);
    run_into(second.path(), &["--seed", "2"]);
    for model in MODELS {
        let bytes = |folder: &tempfile::TempDir| fs::read(folder.path().join(model)).unwrap();
        assert!(bytes(&first) != bytes(&second), "{model}");
    }
}

/// Accuracies as the reports have them, task by task of every model.
fn accuracies(metrics: &serde_json::Value) -> Vec<f64> {
    let models = metrics["models"].as_array().unwrap().iter();
    models
        .flat_map(|model| model["tasks"].as_array().unwrap())
        .map(|task| task["accuracy"].as_f64().unwrap())
        .collect()
}

/// The small convolutional net, of whose products few are in bf16, so that it is quick where these
/// are emulated.
#[test]
fn bf16_is_kept_repeats_at_any_number_of_threads_and_learns_as_well() {
    let results = [("f32", "2"), ("bf16", "1"), ("bf16", "3")].map(|(precision, threads)| {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().to_str().unwrap();
        let output = taskweave(&[
            "run",
            "quickstart-conv",
            "--epochs",
            "2",
            "--out",
            out,
            "--precision",
            precision,
            "--threads",
            threads,
        ]);
        let story = text(&output.stderr);
        assert!(output.status.success(), "{story}");
        assert_eq!(
            story.contains(", bf16, seed 0"),
            precision == "bf16",
            "{story}"
        );
        let models = MODELS.map(|model| fs::read(folder.path().join(model)).unwrap());
        (metrics_without_circumstances(folder.path()), models)
    });
    let [plain, rounded, again] = results;
    assert!(rounded == again, "threads change the results");
    assert_eq!(plain.0["precision"], "f32");
    assert_eq!(rounded.0["precision"], "bf16");
    let accuracies = [plain.0, rounded.0].map(|metrics| accuracies(&metrics));
    assert_eq!(accuracies[0].len(), 4);
    assert!(
        accuracies[0].iter().all(|accuracy| *accuracy > 0.6),
        "it does not learn: {accuracies:?}"
    );
    for (plain, rounded) in accuracies[0].iter().zip(&accuracies[1]) {
        // Of 1,000 images each, after two epochs: twice the deviation of such a share, and more.
        assert!((plain - rounded).abs() < 0.05, "{accuracies:?}");
    }
}

#[test]
fn stdout_has_the_layout_of_the_published_text() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_into(folder.path(), &["--quiet"]);
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/seeds");
    let published = fs::read_to_string(seeds.join("digits-fashion-mlp.txt")).unwrap();
    let start = published.find("Dedicated Model Digit").unwrap();
    assert_eq!(layout(&text(&output.stdout)), layout(&published[start..]));
    assert!(output.stdout.ends_with(b"\n\n"));
    let warnings_only = text(&output.stderr);
    assert!(
        warnings_only
            .lines()
            .all(|line| line.starts_with("warning: ")),
        "{warnings_only}"
    );
}

#[test]
fn stderr_tells_the_story_in_plain_lines() {
    let folder = tempfile::tempdir().unwrap();
    let output = run_into(folder.path(), &[]);
    let story = text(&output.stderr);
    for part in [
        "of memory",
        "Dedicated Model Digit",
        "epoch   2:",
        "restored the weights of epoch",
        "choosing which task owns which weight",
        "One network for all tasks:",
        "Kept in",
    ] {
        assert!(story.contains(part), "{part:?} is missing in:\n{story}");
    }
    assert!(!story.contains('\u{1b}'), "no terminal, no escape codes");
}

#[test]
fn the_reference_protocol_runs_too() {
    let folder = tempfile::tempdir().unwrap();
    run_into(folder.path(), &["--protocol", "reference"]);
    let metrics = metrics_without_circumstances(folder.path());
    assert_eq!(metrics["protocol_name"], "reference");
    assert_eq!(metrics["protocol"]["owners"]["importance"], "gradient");
    assert_eq!(metrics["protocol"]["owners"]["percentiles"][0], 90.0);
}

#[test]
fn wrong_usage_gets_a_sentence_and_exit_code_2() {
    for (args, part) in [
        (&["run", "quikstart"][..], "did you mean \"quickstart\"?"),
        (&["run", "quickstart", "--threads", "0"], "from 1 to 256"),
        (&["run", "quickstart", "--epochs", "0"], "from 1 to 100000"),
        (&["run", "quickstart", "--seed", "minus"], "--seed"),
        (&["bench", "gemm", "--batch", "0"], "1 to 8192"),
        (&["fly"], "fly"),
    ] {
        let output = taskweave(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let message = text(&output.stderr);
        assert!(message.contains(part), "{args:?}: {message}");
        assert!(!message.contains("panicked"), "{message}");
    }
}

#[test]
fn a_forced_choice_that_does_not_exist_is_named() {
    for (variable, value, known) in [
        ("TASKWEAVE_ISA", "sse9", "portable"),
        ("TASKWEAVE_CONV", "fft", "winograd"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_taskweave"))
            .args(["list"])
            .env(variable, value)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2));
        let message = text(&output.stderr);
        assert!(
            message.contains(value) && message.contains(known) && message.contains(variable),
            "{message}"
        );
    }
}

#[test]
fn a_folder_that_cannot_be_written_fails_before_training() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let inside = file.path().join("results");
    let output = taskweave(&["run", "quickstart", "--out", inside.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(message.starts_with("taskweave: cannot write"), "{message}");
    assert!(output.stdout.is_empty());
}

/// What a newcomer sees first must convince; eight epochs are enough for it.
#[test]
fn the_quickstart_learns_every_task() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let output = taskweave(&["run", "quickstart", "--epochs", "8", "--out", path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let metrics = metrics_without_circumstances(folder.path());
    let models = metrics["models"].as_array().unwrap();
    let tasks = models
        .iter()
        .flat_map(|model| model["tasks"].as_array().unwrap());
    let mut reports = 0;
    for task in tasks {
        let least = match task["name"].as_str().unwrap() {
            "Digit" => 0.90,
            _ => 0.78,
        };
        let accuracy = task["accuracy"].as_f64().unwrap();
        assert!(accuracy >= least, "{}: {accuracy}", task["name"]);
        reports += 1;
    }
    assert_eq!(reports, 4);
    assert_eq!(metrics["answer"]["rows"].as_array().unwrap().len(), 4);
    let warnings = models.iter().map(|model| &model["warnings"]);
    assert!(
        warnings
            .into_iter()
            .all(|w| w.as_array().unwrap().is_empty())
    );
}

/// Both pipes are closed before anything is written to them.
#[test]
fn kept_results_come_whole_when_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_taskweave"))
        .args(["run", "quickstart", "--epochs", "1", "--out"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop((program.stdout.take(), program.stderr.take()));
    assert_eq!(program.wait().unwrap().code(), Some(0));
    let report = fs::read_to_string(folder.path().join("report.txt")).unwrap();
    assert!(report.contains("Multitask Model Fashion Performance:"));
    for file in MODELS.iter().chain(&["metrics.json", "history.csv"]) {
        assert!(folder.path().join(file).exists(), "{file}");
    }
}

#[test]
fn list_names_the_experiments() {
    let output = taskweave(&["list"]);
    assert!(output.status.success());
    let list = text(&output.stdout);
    assert!(
        list.contains("quickstart") && list.contains("digits-fashion-mlp"),
        "{list}"
    );
    let output = taskweave(&["list", "--json"]);
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|e| e["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "quickstart",
            "quickstart-conv",
            "digits-fashion-mlp",
            "digits-fashion-conv",
            "cifar-digits-fashion-conv"
        ]
    );
    assert_eq!(list[2]["parameters"], 5_800_010);
}

#[test]
fn summary_counts_what_every_task_owns() {
    let output = taskweave(&["summary", "quickstart", "--protocol", "reference"]);
    assert!(output.status.success());
    let table = text(&output.stdout);
    assert!(table.contains("Digit owns"), "{table}");
    let output = taskweave(&["summary", "cifar-digits-fashion-conv", "--json"]);
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        summary["layers"][0]["output"],
        serde_json::json!([32, 28, 28])
    );
    assert!(summary["layers"][0]["owned"][1].is_null());
    let total = &summary["total"];
    let owned = total["owned"].as_array().unwrap().iter();
    let owned: u64 = owned.map(|owned| owned.as_u64().unwrap()).sum();
    assert!(owned < total["parameters"].as_u64().unwrap());
    let output = taskweave(&["summary", "quikstart"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn bench_prints_objects_that_scripts_can_read() {
    for work in ["gemm", "conv2d", "step"] {
        let output = taskweave(&["bench", work, "--batch", "16", "--threads", "1", "--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let lines = text(&output.stdout);
        assert!(!lines.is_empty());
        for line in lines.lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            for figure in ["median_ms", "min_ms", "max_ms", "gflops", "fma_peak_gflops"] {
                assert!(object[figure].as_f64().unwrap() > 0.0, "{figure} in {line}");
            }
            assert_eq!(object["threads"], 1);
            assert!(object["isa"].is_string());
        }
    }
}
