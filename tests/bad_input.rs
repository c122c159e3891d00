//! The program itself on bad input and in bad surroundings: a sentence and an exit code, never a
//! panic, and nothing left behind.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use taskweave::data::{idx, npy};
use tempfile::TempDir;

const IMAGES: usize = 20;

fn program(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskweave"));
    command.args(args).stdin(Stdio::null());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every path below a folder, in order.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(entries(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

/// The program fails with this code, says one sentence with these parts, and prints and leaves nothing.
fn assert_fails(folder: &Path, code: i32, args: &[&str], parts: &[&str]) {
    let before = entries(folder);
    let output = program(args).output().unwrap();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?}");
    let sentences: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("warning: "))
        .collect();
    let [sentence] = sentences[..] else {
        panic!("{args:?}: {text}");
    };
    assert!(sentence.starts_with("taskweave: "), "{text}");
    for part in parts {
        assert!(sentence.contains(part), "{part:?} is not in {text}");
    }
    assert_eq!(entries(folder), before, "{args:?}");
}

fn idx_bytes(dims: &[usize]) -> Vec<u8> {
    let values: Vec<u8> = (0..dims.iter().product())
        .map(|i: usize| (i % 10) as u8)
        .collect();
    let mut bytes = Vec::new();
    idx::write(&mut bytes, dims, &values).unwrap();
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A data folder with a small MNIST.
fn data_folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mnist = folder.path().join("mnist");
    fs::create_dir(&mnist).unwrap();
    for (name, dims) in [
        ("train-images-idx3-ubyte", &[IMAGES, 28, 28][..]),
        ("train-labels-idx1-ubyte", &[IMAGES]),
        ("t10k-images-idx3-ubyte", &[IMAGES, 28, 28]),
        ("t10k-labels-idx1-ubyte", &[IMAGES]),
    ] {
        fs::write(mnist.join(name), idx_bytes(dims)).unwrap();
    }
    folder
}

/// One of the files of MNIST replaced.
fn assert_file_fails(name: &str, bytes: &[u8], parts: &[&str]) {
    let folder = data_folder();
    let stem = name.strip_suffix(".gz").unwrap_or(name);
    fs::remove_file(folder.path().join("mnist").join(stem)).unwrap();
    let path = folder.path().join("mnist").join(name);
    fs::write(&path, bytes).unwrap();
    let at = path.display().to_string();
    let parts = [&[at.as_str()], parts].concat();
    let home = folder.path().to_str().unwrap();
    let run = ["run", "digits-fashion-mlp", "--data-dir", home];
    assert_fails(folder.path(), 1, &run, &parts);
}

#[test]
fn damaged_idx_files_end_a_run_with_a_sentence() {
    let images = idx_bytes(&[IMAGES, 28, 28]);
    let zipped = gzip(&images);
    let mut corrupt = zipped.clone();
    let middle = corrupt.len() - 6;
    corrupt[middle] ^= 1;
    let mut lying = images.clone();
    lying[4..8].copy_from_slice(&[0x80, 0, 0, 0]);
    for (name, bytes, part) in [
        (
            "train-images-idx3-ubyte.gz",
            &zipped[..zipped.len() / 2],
            "damaged or cut off",
        ),
        ("train-images-idx3-ubyte.gz", &corrupt, "damaged or cut off"),
        (
            "train-images-idx3-ubyte.gz",
            &gzip(&zipped),
            "it begins with the bytes [1f, 8b",
        ),
        (
            "train-images-idx3-ubyte",
            &images[..100],
            "15680 bytes, but only 84 follow",
        ),
        ("train-images-idx3-ubyte", &[], "it has 0 bytes"),
        (
            "train-images-idx3-ubyte",
            &lying,
            "asks for 1683627180032 bytes; at most 1073741824",
        ),
        (
            "train-images-idx3-ubyte.gz",
            &gzip(&lying),
            "asks for 1683627180032 bytes",
        ),
        (
            "t10k-images-idx3-ubyte",
            &idx_bytes(&[IMAGES, 14, 14]),
            "images of 14x14; those of mnist are 28x28",
        ),
        (
            "t10k-images-idx3-ubyte",
            &idx_bytes(&[IMAGES, 0, 0]),
            "images of 0x0",
        ),
        (
            "train-images-idx3-ubyte",
            &idx_bytes(&[0, 28, 28]),
            "it holds no images",
        ),
        (
            "train-labels-idx1-ubyte",
            &idx_bytes(&[IMAGES - 1]),
            "20 images but 19 labels",
        ),
        (
            "train-labels-idx1-ubyte",
            &images,
            "an IDX file of labels begins with [00, 00, 08, 01]",
        ),
    ] {
        assert_file_fails(name, bytes, &[part]);
    }
    let mut label = idx_bytes(&[IMAGES]);
    label[8 + 3] = 10;
    assert_file_fails(
        "t10k-labels-idx1-ubyte",
        &label,
        &["label 10 of image 3 is out of range: the 10 classes are 0 to 9"],
    );
}

#[test]
fn damaged_npz_files_end_a_run_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mnist.npz");
    let mut damaged = Vec::new();
    npy::write(&mut damaged, &[1], &[1_u8]).unwrap();
    for bytes in [&b""[..], b"<html>Not found</html>", b"PK\x03\x04", &damaged] {
        fs::write(&path, bytes).unwrap();
        let home = folder.path().to_str().unwrap();
        let run = ["run", "digits-fashion-mlp", "--data-dir", home];
        let at = format!("{}: it is not a whole npz file: ", path.display());
        assert_fails(folder.path(), 1, &run, &[&at]);
    }
}

#[test]
fn damaged_archives_are_no_datasets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cifar-10-binary.tar.gz");
    let archive = |name: &str, bytes: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
        builder.into_inner().unwrap()
    };
    let one = archive("a/data_batch_1.bin", &[1; 3073]);
    let labels = archive("a/test_batch.bin", &[10; 3073]);
    let short = archive("a/test_batch.bin", &[1; 3000]);
    for (bytes, part) in [
        (
            b"<html>Not found</html>".to_vec(),
            "its gzip data is damaged",
        ),
        (one.clone(), "its gzip data is damaged"),
        (gzip(b"no archive"), "it is not a whole tar archive: "),
        (gzip(&one[..600]), "data_batch_1.bin: it is cut off after"),
        (gzip(&one), "it has no member data_batch_2.bin"),
        (gzip(&one)[..50].to_vec(), "damaged or cut off"),
        (gzip(&labels), "test_batch.bin: label 10 of image 0"),
        (gzip(&short), "test_batch.bin: it has 3000 bytes"),
    ] {
        fs::write(&path, bytes).unwrap();
        let home = folder.path().to_str().unwrap();
        let at = format!("{}: ", path.display());
        let fetch = ["data", "fetch", "cifar-10", "--data-dir", home];
        assert_fails(folder.path(), 1, &fetch, &[&at, part]);
    }
}

#[test]
fn label_files_that_are_none_end_a_report_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let good = path("good.npy");
    npy::save(&good, &[2], &[0_u8, 1]).unwrap();
    npy::save(path("float.npy"), &[2], &[0.0_f32, 1.0]).unwrap();
    npy::save(path("short.npy"), &[1], &[0_i64]).unwrap();
    npy::save(path("matrix.npy"), &[2, 2], &[0_i64; 4]).unwrap();
    fs::write(path("empty.npy"), b"").unwrap();
    fs::write(path("text.npy"), b"0\n1\n").unwrap();
    let whole = fs::read(&good).unwrap();
    fs::write(path("cut.npy"), &whole[..whole.len() - 1]).unwrap();
    fs::write(path("long.npy"), [&whole[..], &[0]].concat()).unwrap();
    fs::create_dir(path("folder.npy")).unwrap();
    for (name, part) in [
        (
            "float.npy",
            "it holds float32 values, and integers (int8 to int64, uint8 to uint64)",
        ),
        ("short.npy", "2 true labels but 1 predictions"),
        (
            "matrix.npy",
            "its shape is [2, 2]; a vector [n], or [n, 1], is needed",
        ),
        ("empty.npy", "empty.npy: not an npy file"),
        ("text.npy", "text.npy: not an npy file"),
        ("cut.npy", "2 bytes, but 1 follow"),
        ("long.npy", "2 bytes, but more follow"),
        ("folder.npy", "folder.npy: "),
        ("absent.npy", "absent.npy: "),
    ] {
        assert_fails(folder.path(), 1, &["report", &good, &path(name)], &[part]);
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("loop.npy", path("loop.npy")).unwrap();
        assert_fails(
            folder.path(),
            1,
            &["report", &good, &path("loop.npy")],
            &["loop.npy: "],
        );
    }
}

#[test]
fn what_is_no_model_file_is_refused_with_a_sentence() {
    let folder = TempDir::new().unwrap();
    let array = folder.path().join("x.npy");
    npy::save(&array, &[2], &[0_u8, 1]).unwrap();
    let (array, path) = (array.to_str().unwrap(), folder.path().to_str().unwrap());
    for command in [&["inspect"][..], &["predict", "--task", "Digit"]] {
        for (model, part) in [
            (array, "x.npy: it is no model file, or a damaged one ("),
            (path, "it is a folder, and a model file is needed"),
        ] {
            let mut args = command.to_vec();
            args.push(model);
            args.extend((command[0] == "predict").then_some(array));
            assert_fails(folder.path(), 1, &args, &[part]);
        }
    }
}

/// Not by a hint at how to give a file of that name.
#[test]
fn negative_numbers_are_refused_as_other_numbers_are() {
    for (args, wanted) in [
        (
            &["run", "quickstart", "--seed", "-1"][..],
            "a whole number from 0",
        ),
        (
            &["run", "quickstart", "--epochs", "-1"],
            "a number of epochs",
        ),
        (
            &["predict", "m", "x", "--batch", "-1"],
            "a number of images",
        ),
        (&["bench", "gemm", "--threads", "-1"], "a number of threads"),
        (
            &["report", "--digits", "-1", "a", "b"],
            "-1 is not in 0..=100",
        ),
    ] {
        let output = program(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let text = stderr(&output);
        assert!(
            text.starts_with("error: invalid value '-1' for '--"),
            "{text}"
        );
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn an_unknown_experiment_is_wrong_usage() {
    let folder = tempfile::tempdir().unwrap();
    let parts = ["no experiment \"quickstrat\" (did you mean \"quickstart\"?)"];
    assert_fails(folder.path(), 2, &["run", "quickstrat"], &parts);
}

#[test]
#[cfg(target_os = "linux")]
fn folders_without_write_permission_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    // Where this user may write everywhere, the kernel's own folder still takes nothing.
    let closed = match tempfile::tempfile_in(folder.path()) {
        Ok(_) => Path::new("/proc/self"),
        Err(_) => folder.path(),
    };
    let inside = closed.join("results");
    let inside = inside.to_str().unwrap();
    for args in [
        &["run", "quickstart", "--out", inside][..],
        &["data", "fetch", "mnist", "--data-dir", inside],
    ] {
        let part = format!("cannot write {inside}: ");
        assert_fails(folder.path(), 1, args, &[&part]);
    }
}

#[test]
fn an_empty_instruction_set_is_none_asked_for() {
    let output = program(&["list"])
        .env("TASKWEAVE_ISA", "")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

/// A device that takes no byte.
#[cfg(target_os = "linux")]
fn full() -> Stdio {
    fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_stderr_ends_no_work() {
    let output = program(&["run", "quickstart", "--epochs", "1"])
        .stderr(full())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("Multitask Model Fashion Performance:"),
        "{text}"
    );
    let status = program(&["report", "absent.npy", "absent.npy"])
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_stdout_is_a_failure() {
    let output = program(&["list"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("taskweave: cannot write to stdout: "));
}

#[test]
#[cfg(unix)]
fn results_are_kept_where_nobody_reads_the_text() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let mut run = program(&["run", "quickstart", "--epochs", "1", "--out", out])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(run.stdout.take());
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report = fs::read_to_string(folder.path().join("report.txt")).unwrap();
    assert_eq!(report.matches("Performance:").count(), 4);
    assert_eq!(entries(folder.path()).len(), 6);
}

#[test]
#[cfg(unix)]
fn an_interrupted_run_leaves_nothing() {
    use std::io::{BufRead, BufReader, Read};
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let mut run = program(&["run", "quickstart", "--out", out])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut story = BufReader::new(run.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("Dedicated Model Digit") {
        line.clear();
        assert_ne!(story.read_line(&mut line).unwrap(), 0, "it ended early");
    }
    let id = run.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    story.read_to_string(&mut rest).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(rest.ends_with("taskweave: interrupted\n"), "{rest}");
    assert_eq!(entries(folder.path()), Vec::<PathBuf>::new());
}
