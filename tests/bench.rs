//! `taskweave bench`: what it prints, on which instruction sets, and what it refuses.

use std::process::{Command, Output, Stdio};

use serde_json::Value;
use taskweave_kernels::dispatch;

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskweave"));
    command
        .arg("bench")
        .args(args)
        .env_remove("TASKWEAVE_ISA")
        .stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a small benchmark prints.
fn printed(args: &[&str]) -> String {
    let small = ["--batch", "1", "--repetitions", "1", "--threads", "1"];
    let output = bench(&[args, &small].concat()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn json_lines(args: &[&str]) -> Vec<Value> {
    printed(&[args, &["--json"]].concat())
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn strings<'a>(lines: &'a [Value], key: &str) -> Vec<&'a str> {
    lines
        .iter()
        .map(|line| line[key].as_str().unwrap())
        .collect()
}

fn number(line: &Value, key: &str) -> f64 {
    line[key]
        .as_f64()
        .unwrap_or_else(|| panic!("{key}: {line}"))
}

/// Every line is a measurement with all its fields, and its times are in order.
fn assert_measured(lines: &[Value]) {
    for line in lines {
        let keys: Vec<&str> = line
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut expected = [
            "name",
            "median_ms",
            "min_ms",
            "max_ms",
            "gflops",
            "fma_peak_gflops",
            "share_of_peak",
            "gigabytes_per_second",
            "page_faults",
            "isa",
            "threads",
            "batch",
        ];
        expected.sort_unstable();
        assert_eq!(keys, expected);
        let [min, median, max] = ["min_ms", "median_ms", "max_ms"].map(|key| number(line, key));
        assert!(0.0 < min && min <= median && median <= max, "{line}");
        assert_eq!((number(line, "threads"), number(line, "batch")), (1.0, 1.0));
    }
}

/// The rate of arithmetic is that of so many multiply-adds.
fn assert_arithmetic(line: &Value, multiply_adds: usize) {
    let counted = number(line, "gflops") * number(line, "median_ms") * 1e6 / 2.0;
    assert!(
        (counted / multiply_adds as f64 - 1.0).abs() < 1e-9,
        "{line}"
    );
    let share = number(line, "gflops") / number(line, "fma_peak_gflops");
    assert_eq!(share, number(line, "share_of_peak"));
    assert!(line["gigabytes_per_second"].is_null());
}

#[test]
fn matrix_products_are_measured() {
    let lines = json_lines(&["gemm"]);
    assert_measured(&lines);
    assert_eq!(
        strings(&lines, "name"),
        [
            "gemm 1x1000x1000, row-major",
            "gemm 1024x1024x1024, row-major",
            "dense 1x1000x1000, forward",
            "dense 1x1000x1000, grad input",
            "dense 1x1000x1000, grad weights",
        ]
    );
    assert_arithmetic(&lines[1], 1 << 30);
    assert_arithmetic(&lines[4], 1_000_000);
}

#[test]
fn convolutions_are_measured() {
    let lines = json_lines(&["conv2d"]);
    assert_measured(&lines);
    let names = strings(&lines, "name");
    assert_eq!(names.len(), 15);
    assert_eq!(names[0], "conv 1->32 28x28, forward");
    assert_eq!(names[14], "conv 64->64 27x27, grad weights");
    assert_arithmetic(&lines[14], 9 * 64 * 64 * 27 * 27);
}

#[test]
fn poolings_are_measured_in_bytes() {
    let lines = json_lines(&["pool"]);
    assert_measured(&lines);
    assert_eq!(
        strings(&lines, "name"),
        [
            "max pool 32x28x28, forward",
            "max pool 32x28x28, grad input",
            "average pool 32x28x28, forward",
            "average pool 32x28x28, grad input",
            "max pool 64x27x27, forward",
            "max pool 64x27x27, grad input",
            "average pool 64x27x27, forward",
            "average pool 64x27x27, grad input",
        ]
    );
    // An image fills a block of sixteen.
    let (before, after) = (16 * 32 * 28 * 28, 16 * 32 * 27 * 27);
    for (line, bytes) in [
        (&lines[0], 4 * (before + after) + after),
        (&lines[3], 4 * (before + after)),
    ] {
        let counted = number(line, "gigabytes_per_second") * number(line, "median_ms") * 1e6;
        assert!((counted / f64::from(bytes) - 1.0).abs() < 1e-9, "{line}");
        for key in ["gflops", "fma_peak_gflops", "share_of_peak"] {
            assert!(line[key].is_null(), "{line}");
        }
    }
}

#[test]
fn steps_and_predictions_are_measured() {
    let step = json_lines(&["step"]);
    assert_measured(&step);
    assert_eq!(strings(&step, "name"), ["step mlp, batch 1"]);
    assert_arithmetic(&step[0], 16_598_000);
    let infer = json_lines(&["infer", "--net", "convnet"]);
    assert_measured(&infer);
    assert_eq!(strings(&infer, "name"), ["infer convnet, batch 1"]);
    assert_arithmetic(&infer[0], 58_905_600);
}

#[test]
fn sparse_kernels_are_measured_by_the_weights_that_there_are() {
    let lines = json_lines(&["sparse"]);
    assert_measured(&lines);
    let names = strings(&lines, "name");
    assert_eq!(names.len(), 15);
    assert_eq!(names[0], "sparse dense 1000->1000 at 90 %, forward");
    assert_eq!(names[14], "sparse conv 64->64 27x27 at 90 %, grad weights");
    assert_arithmetic(&lines[0], 100_000);
    assert_arithmetic(&lines[14], 3_687 * 27 * 27);
    let lines = json_lines(&["infer", "--percentile", "90"]);
    assert_measured(&lines);
    assert_eq!(strings(&lines, "name"), ["infer mlp at 90 %, batch 1"]);
}

#[test]
fn a_step_of_several_tasks_is_measured() {
    let lines = json_lines(&["step", "--tasks", "2"]);
    assert_measured(&lines);
    assert_eq!(
        strings(&lines, "name"),
        ["step mlp, 2 tasks at 80 %, batch 1"]
    );
    assert_arithmetic(&lines[0], 2 * 16_598_000);
    let lines = json_lines(&["step", "--tasks", "2", "--percentile", "66.5"]);
    assert_eq!(
        strings(&lines, "name"),
        ["step mlp, 2 tasks at 66.5 %, batch 1"]
    );
}

#[test]
fn every_instruction_set_is_measured() {
    let sets: Vec<&str> = dispatch::all().iter().map(|set| set.name()).collect();
    for work in ["step", "infer"] {
        let lines = json_lines(&[work, "--all-isas"]);
        assert_measured(&lines);
        assert_eq!(strings(&lines, "isa"), sets);
    }
    let lines = json_lines(&["pool", "--all-isas"]);
    let mut found = strings(&lines, "isa");
    assert_eq!(found.len(), 8 * sets.len());
    found.dedup();
    assert_eq!(found, sets);
}

#[test]
fn a_table_says_where_it_was_measured() {
    let table = printed(&["infer", "--all-isas"]);
    for (part, set) in table.split("\n\n").zip(dispatch::all()) {
        let [heading, row] = part.lines().collect::<Vec<_>>()[..] else {
            panic!("{table}");
        };
        assert!(
            heading.starts_with(&format!("{}, 1 thread ", set.name())),
            "{table}"
        );
        assert!(heading.ends_with("   GFLOP/s  of peak"), "{table}");
        assert!(row.starts_with("infer mlp, batch 1 "), "{table}");
        assert!(row.ends_with('%'), "{table}");
        assert_eq!(heading.len(), row.len(), "{table}");
    }
    assert_eq!(table.split("\n\n").count(), dispatch::all().len());
    let table = printed(&["pool"]);
    assert_eq!(table.lines().count(), 9);
    assert!(
        table.lines().next().unwrap().ends_with("      GB/s"),
        "{table}"
    );
}

fn assert_refused(output: &Output, part: &str) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty());
    assert!(error.contains(part), "{part:?} is not in {error}");
}

#[test]
fn wrong_usage_is_refused() {
    let one_task = "--percentile 80 shares the weights out between tasks, but there is one: \
                    give --tasks 2 or more";
    for (args, part) in [
        (&["step", "--percentile", "80"][..], one_task),
        (&["step", "--tasks", "1", "--percentile", "80"], one_task),
        (
            &["step", "--tasks", "2", "--percentile", "101"],
            "a percentile from 0 to 100 is wanted",
        ),
        (
            &["step", "--tasks", "2", "--percentile", "NaN"],
            "a percentile from 0 to 100 is wanted",
        ),
        (&["step", "--tasks", "0"], "a number of tasks from 1 to 64"),
        (&["step", "--batch", "0"], "a batch of 1 to 8192 images"),
        (
            &["infer", "--repetitions", "0"],
            "a number of repetitions from 1 to 100000 is wanted",
        ),
        (
            &["infer", "--net", "resnet"],
            "[possible values: mlp, convnet]",
        ),
        (&["infer", "--tasks", "2"], "unexpected argument '--tasks'"),
        (&["gemm", "--net", "mlp"], "unexpected argument '--net'"),
    ] {
        assert_refused(&bench(args).output().unwrap(), part);
    }
}

#[test]
fn one_set_and_all_sets_are_not_measured_at_once() {
    let mut command = bench(&["infer", "--batch", "1", "--all-isas"]);
    assert_refused(
        &command.env("TASKWEAVE_ISA", "portable").output().unwrap(),
        "taskweave: --all-isas measures every instruction set, but TASKWEAVE_ISA asks for \
         'portable': leave one of them out",
    );
}

#[test]
#[cfg(target_os = "linux")]
fn lines_that_cannot_be_passed_on_are_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let output = bench(&["infer", "--batch", "1", "--repetitions", "1", "--all-isas"])
        .stdout(full.unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).starts_with("taskweave: cannot write to stdout: "));
}

#[test]
fn help_has_examples() {
    for work in ["gemm", "conv2d", "pool", "step", "infer"] {
        let output = bench(&[work, "--help"]).output().unwrap();
        let help = text(&output.stdout);
        assert!(
            help.contains(&format!("  taskweave bench {work}")),
            "{help}"
        );
        for option in [
            "--batch",
            "--threads",
            "--repetitions",
            "--all-isas",
            "--json",
        ] {
            assert!(help.contains(option), "{help}");
        }
    }
}
