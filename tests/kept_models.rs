//! Model files that a run keeps: looked into, predicted by, added to, exported.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use image::GrayImage;
use safetensors::SafeTensors;
use taskweave::data::{self, ImageSet, npy};
use taskweave::multitask::count_owned;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

mod program;
use program::{metrics_without_circumstances, run_into, taskweave, text};

#[test]
fn a_kept_multitask_model_is_one_woven_tensor_per_parameter() {
    let folder = tempfile::tempdir().unwrap();
    run_into(folder.path(), &[]);
    let path = folder.path().join("multitask.safetensors");
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    // Kernels and biases of four layers, each with its owners.
    assert_eq!(file.names().len(), 2 * 8);
    let owners = file.tensor("Digit+Fashion/dense_0/kernel.owners").unwrap();
    let counts = count_owned(owners.data(), 784 * 800, 2).unwrap();
    let values = file.tensor("Digit+Fashion/dense_0/kernel").unwrap();
    assert_eq!(values.shape(), [counts[0] + counts[1]]);
    assert_eq!(counts[0], counts[1]);

    let printed = taskweave(&["inspect", path.to_str().unwrap(), "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&printed.stdout).unwrap();
    // A fifth of the 800 biases, too.
    assert_eq!(found["layers"][0]["owned"][1], counts[1] + 160);
    assert_eq!(found["tasks"][1]["class_names"][9], "Ankle boot");
    let bytes_of = |name: &str| found[name].as_f64().unwrap();
    assert!(bytes_of("bytes_woven") <= 0.47 * bytes_of("bytes_one_dense"));
    let printed = taskweave(&["inspect", path.to_str().unwrap()]);
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("0.4625 of one"), "{text}");

    let dedicated = folder.path().join("dedicated-digit.safetensors");
    let printed = taskweave(&["inspect", dedicated.to_str().unwrap()]);
    let text = String::from_utf8(printed.stdout).unwrap();
    assert!(text.contains("1.0000 of one"), "{text}");
}

#[test]
fn predictions_of_a_kept_model_are_those_of_the_report() {
    let folder = tempfile::tempdir().unwrap();
    run_into(folder.path(), &[]);
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let metrics = metrics_without_circumstances(folder.path());
    let model = place("multitask.safetensors");
    for (task, dataset) in data::quickstart().unwrap().iter().enumerate() {
        let test = &dataset.test;
        let (images, labels) = (place("images.npy"), place("labels.npy"));
        npy::save(&images, &[test.count(), 28, 28], test.pixels()).unwrap();
        let name = ["Digit", "Fashion"][task];
        let args = ["predict", &model, &images, "--task", name];
        let output = taskweave(&[&args[..], &["--out", &labels]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let found = npy::read_integers(&labels).unwrap();
        let right = found.iter().zip(test.labels());
        let right = right.filter(|(found, label)| **found == i64::from(**label));
        let accuracy = right.count() as f64 / test.count() as f64;
        let reported = &metrics["models"][2]["tasks"][task]["accuracy"];
        assert_eq!(Some(accuracy), reported.as_f64());

        let csv = text(&taskweave(&args).stdout);
        let first = csv.lines().nth(1).unwrap();
        let class = dataset.class_names[found[0] as usize];
        assert!(
            first.starts_with(&format!("0,{},{class},0.", found[0])),
            "{first}"
        );
        assert_eq!(csv.lines().count(), 1 + test.count());
        let proba = taskweave(&[&args[..], &["--proba"]].concat());
        let header = format!("index,{}", dataset.class_names.join(","));
        assert_eq!(text(&proba.stdout).lines().next(), Some(&header[..]));
    }
    for (args, expected, code) in [
        (
            vec![],
            "has several tasks: give --task Digit or --task Fashion",
            2,
        ),
        (
            vec!["--task", "Cat"],
            "has no task \"Cat\"; its tasks are: Digit, Fashion",
            2,
        ),
        (
            vec!["--task", "Digit", "--out", "x.txt"],
            "neither in .npy nor in .csv",
            2,
        ),
        (
            vec!["--task", "Digit", "--batch", "0"],
            "from 1 to 65536",
            2,
        ),
    ] {
        let images = place("images.npy");
        let output = taskweave(&[&["predict", &model, &images][..], &args].concat());
        assert_eq!(output.status.code(), Some(code));
        let message = text(&output.stderr);
        assert!(message.contains(expected), "{message}");
    }
    let output = taskweave(&["predict", &model, &place("report.txt"), "--task", "Digit"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("report.txt: it begins with"));
}

#[test]
fn a_damaged_model_file_gets_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    run_into(folder.path(), &[]);
    let path = folder.path().join("multitask.safetensors");
    let whole = fs::read(&path).unwrap();
    let version = b"format_version\\\":4";
    let at = whole.windows(version.len()).position(|w| w == version);
    let mut later = whole.clone();
    later[at.unwrap() + version.len() - 1] = b'9';
    let mut other_owner = whole.clone();
    // The last tensors are those of bytes: an owner that is no task.
    *other_owner.last_mut().unwrap() = 0xff;
    let cases: [(&[u8], &str); 5] = [
        (&[], "cannot read"),
        (&whole[..100], "cannot read"),
        (&whole[..whole.len() - 1], "cannot read"),
        (&later, "it has format version 9, and this program reads 4"),
        (&other_owner, "and there are 2 tasks"),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, bytes).unwrap();
        let output = taskweave(&["inspect", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(expected), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

/// Writes images and labels as Keras keeps its own.
fn write_npz(path: &Path, sets: [&ImageSet; 2]) {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default();
    for (split, set) in ["train", "test"].into_iter().zip(sets) {
        archive
            .start_file(format!("x_{split}.npy"), options)
            .unwrap();
        let dims = [set.count(), set.height(), set.width()];
        let mut bytes = Vec::new();
        npy::write(&mut bytes, &dims, set.pixels()).unwrap();
        archive.write_all(&bytes).unwrap();
        archive
            .start_file(format!("y_{split}.npy"), options)
            .unwrap();
        let labels: Vec<i64> = set.labels().iter().map(|&label| i64::from(label)).collect();
        let mut bytes = Vec::new();
        npy::write(&mut bytes, &dims[..1], &labels).unwrap();
        archive.write_all(&bytes).unwrap();
    }
    fs::write(path, archive.finish().unwrap().into_inner()).unwrap();
}

#[test]
fn a_third_task_joins_a_kept_model() {
    let folder = tempfile::tempdir().unwrap();
    run_into(folder.path(), &[]);
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, images, own) = (
        place("multitask.safetensors"),
        place("x.npy"),
        place("own.npz"),
    );
    let [digits, fashion] = data::quickstart().unwrap();
    npy::save(
        &images,
        &[digits.test.count(), 28, 28],
        digits.test.pixels(),
    )
    .unwrap();
    write_npz(Path::new(&own), [&fashion.train, &fashion.test]);
    let predict = |model: &str, task| {
        taskweave(&["predict", model, &images, "--task", task, "--proba"]).stdout
    };
    let before = [predict(&model, "Digit"), predict(&model, "Fashion")];
    let bytes = fs::read(&model).unwrap();
    let add = |more: &[&str]| {
        let args = ["add", &model, "--data", &own, "--epochs", "2"];
        taskweave(&[&args[..], more].concat())
    };
    for (more, expected, code) in [
        (
            &["--task", "Digit"][..],
            "the model has a task of this name",
            1,
        ),
        (
            &["--task", "Third", "--classes", "1,1"],
            "class 1 is given twice",
            2,
        ),
        (
            &["--task", "Third", "--classes", "1,10"],
            "there is no class 10",
            2,
        ),
        (
            &["--task", "Third", "--classes", "4"],
            "a task has 2 to 256 classes",
            1,
        ),
        (
            &["--task", "Third", "--percentile", "101"],
            "from 0 to 100",
            2,
        ),
    ] {
        let output = add(more);
        let message = text(&output.stderr);
        assert!(message.contains(expected), "{message}");
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert!(output.stdout.is_empty());
    }
    let dedicated = place("dedicated-digit.safetensors");
    let output = taskweave(&["add", &dedicated, "--task", "Third", "--data", &own]);
    let message = text(&output.stderr);
    assert!(
        message.contains("every weight of a dedicated model belongs to its task"),
        "{message}"
    );
    assert!(
        fs::read(&model).unwrap() == bytes,
        "a refusal changed the file"
    );

    let larger = place("three.safetensors");
    let output = add(&["--task", "Third", "--classes", "1,5,7", "--out", &larger]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        fs::read(&model).unwrap() == bytes,
        "--out changed the model itself"
    );
    let report = text(&output.stdout);
    assert!(
        report.starts_with("Multitask Model Third Performance:\n[["),
        "{report}"
    );
    let accuracy = report
        .lines()
        .find(|line| line.contains("accuracy"))
        .unwrap();
    let accuracy: f64 = accuracy.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(accuracy > 0.8, "{report}");
    assert!(
        text(&output.stderr).contains("Third joined"),
        "{}",
        text(&output.stderr)
    );
    assert!([predict(&larger, "Digit"), predict(&larger, "Fashion")] == before);
    let found = taskweave(&["inspect", &larger, "--json"]).stdout;
    let found: serde_json::Value = serde_json::from_slice(&found).unwrap();
    assert_eq!(found["tasks"][2]["name"], "Third");
    assert_eq!(
        found["tasks"][2]["class_names"],
        serde_json::json!(["1", "5", "7"])
    );

    // The same into the file itself.
    let output = add(&["--task", "Third", "--classes", "1,5,7"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(fs::read(&model).unwrap() == fs::read(&larger).unwrap());
}

#[test]
fn a_task_is_exported_and_pictures_are_classified() {
    let folder = tempfile::tempdir().unwrap();
    run_into(folder.path(), &[]);
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (model, onnx) = (place("multitask.safetensors"), place("digit.onnx"));
    let output = taskweave(&["export", &model, "--onnx", &onnx]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("has several tasks"));
    let output = taskweave(&["export", &model, "--onnx", &onnx, "--task", "Digit"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
    let bytes = fs::read(&onnx).unwrap();
    // The first field, and a tensor for each weight of the net.
    assert_eq!(bytes[..2], [0x08, 8]);
    assert!(bytes.len() > 4 * 1_917_610);
    let output = taskweave(&[
        "export",
        &model,
        "--onnx",
        &place("no/digit.onnx"),
        "--task",
        "Digit",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot write"));

    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    let [digits, _] = data::quickstart().unwrap();
    let shape = [3, 28, 28];
    npy::save(place("x.npy"), &shape, &digits.test.pixels()[..3 * 784]).unwrap();
    for index in 0..3 {
        let pixels = digits.test.image(index).unwrap().to_vec();
        let picture = GrayImage::from_raw(28, 28, pixels).unwrap();
        picture.save(pictures.join(format!("{index}.png"))).unwrap();
    }
    let predict = |input: &str| {
        let output = taskweave(&["predict", &model, input, "--task", "Digit"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let (by_array, by_file) = (
        predict(&place("x.npy")),
        predict(pictures.to_str().unwrap()),
    );
    assert_eq!(by_file.lines().next(), Some("file,label,class,probability"));
    for (index, (a, b)) in by_array.lines().zip(by_file.lines()).skip(1).enumerate() {
        let path = pictures.join(format!("{index}.png"));
        assert_eq!(
            b.strip_prefix(path.to_str().unwrap()),
            a.strip_prefix(&index.to_string())
        );
    }
    assert_eq!(by_file.lines().count(), 4);
    let floats = place("floats.npy");
    npy::save(&floats, &shape, &[0.0_f32; 3 * 784]).unwrap();
    let output = taskweave(&["predict", &model, &floats, "--task", "Digit"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        format!("taskweave: {floats}: it holds float32 values, and uint8 are needed\n")
    );
    fs::write(pictures.join("2.png"), "no picture").unwrap();
    let input = pictures.to_str().unwrap();
    let output = taskweave(&["predict", &model, input, "--task", "Digit"]);
    assert_eq!(output.status.code(), Some(1));
    let message = text(&output.stderr);
    assert!(
        message.contains("2.png: it is no picture that can be read"),
        "{message}"
    );
}
