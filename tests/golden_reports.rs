//! `taskweave report` against texts that NumPy 2 and scikit-learn 1.9 printed for the same labels.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::{Value, json};
use taskweave::cli::report::{self, ReportArgs};
use taskweave::data::npy::{self, Dtype};

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    report: ReportArgs,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/reports")
}

/// The cases, by name.
fn names() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".txt").map(str::to_owned)
        })
        .collect();
    names.sort();
    assert_eq!(names.len(), 29, "{names:?}");
    names
}

/// The command-line options that a case's JSON file asks for.
fn options(name: &str) -> Vec<String> {
    let path = folder().join(format!("{name}.json"));
    if !path.exists() {
        return Vec::new();
    }
    let options: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let of_one = |(key, value): (&String, &Value)| {
        let value = match value.as_array() {
            Some(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
            None => text(value),
        };
        [format!("--{}", key.replace('_', "-")), value]
    };
    options
        .as_object()
        .unwrap()
        .iter()
        .flat_map(of_one)
        .collect()
}

fn print(truth: &Path, predicted: &Path, options: Vec<String>) -> String {
    let mut arguments = vec![
        PathBuf::from("report"),
        truth.to_owned(),
        predicted.to_owned(),
    ];
    arguments.extend(options.into_iter().map(PathBuf::from));
    let args = Program::try_parse_from(arguments).unwrap().report;
    let mut out = Vec::new();
    report::run(&args, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn every_case_is_printed_byte_for_byte() {
    let mut with_options = 0;
    for name in names() {
        let options = options(&name);
        with_options += usize::from(!options.is_empty());
        let expected = fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
        let label_file = |of: &str| folder().join(format!("{name}.{of}.npy"));
        let printed = print(&label_file("true"), &label_file("pred"), options);
        assert!(
            printed == expected,
            "{name}: printed\n{printed}instead of\n{expected}"
        );
    }
    assert_eq!(with_options, 7);
}

#[test]
fn every_integer_type_prints_the_same() {
    let expected = fs::read_to_string(folder().join("random_01.txt")).unwrap();
    let labels = |of: &str| folder().join(format!("random_01.{of}.npy"));
    let truth = npy::read_integers(labels("true")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("truth.npy");
    let shape = [truth.len()];
    let narrow = |label: &i64| u8::try_from(*label).unwrap();
    let narrowed: Vec<u8> = truth.iter().map(narrow).collect();
    let saves: [&dyn Fn() -> Result<(), npy::NpyError>; 8] = [
        &|| npy::save(&path, &shape, &narrowed),
        &|| npy::save(&path, &shape, &widened::<u16>(&narrowed)),
        &|| npy::save(&path, &shape, &widened::<u32>(&narrowed)),
        &|| npy::save(&path, &shape, &widened::<u64>(&narrowed)),
        &|| {
            npy::save(
                &path,
                &shape,
                &narrowed
                    .iter()
                    .map(|&label| label as i8)
                    .collect::<Vec<_>>(),
            )
        },
        &|| npy::save(&path, &shape, &widened::<i16>(&narrowed)),
        &|| npy::save(&path, &shape, &widened::<i32>(&narrowed)),
        &|| npy::save(&path, &[truth.len(), 1], &truth),
    ];
    let mut seen: Vec<Dtype> = Vec::new();
    for save in saves {
        save().unwrap();
        let dtype = npy::read(&path).unwrap().dtype();
        assert!(!seen.contains(&dtype));
        seen.push(dtype);
        assert!(
            print(&path, &labels("pred"), Vec::new()) == expected,
            "{dtype}"
        );
    }
}

fn widened<T: From<u8>>(labels: &[u8]) -> Vec<T> {
    labels.iter().map(|&label| label.into()).collect()
}

#[test]
fn fixtures_keep_numpy_s_default_type_among_others() {
    let dtypes: Vec<Dtype> = names()
        .iter()
        .map(|name| {
            npy::read(folder().join(format!("{name}.true.npy")))
                .unwrap()
                .dtype()
        })
        .collect();
    for dtype in [Dtype::I64, Dtype::U8, Dtype::I16] {
        assert!(dtypes.contains(&dtype), "{dtype}");
    }
}

#[test]
fn json_has_every_number() {
    let json = |name: &str| -> Value {
        let label_file = |of: &str| folder().join(format!("{name}.{of}.npy"));
        let mut options = options(name);
        options.push("--json".to_owned());
        let printed = print(&label_file("true"), &label_file("pred"), options);
        assert!(printed.ends_with("}\n"));
        serde_json::from_str(&printed).unwrap()
    };
    let nan = json("zero_division_nan");
    assert_eq!(nan["confusion"]["labels"], json!([0, 1, 2, 5]));
    assert_eq!(
        nan["confusion"]["matrix"],
        json!([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]])
    );
    let report = &nan["report"];
    assert_eq!(
        report["classes"][2],
        json!({"label": 2, "name": "2", "precision": null, "recall": 0.0, "f1": 0.0, "support": 2})
    );
    assert_eq!(report["accuracy"], json!(0.6));
    assert_eq!(report["macro_avg"]["precision"], json!(2.0 / 3.0));
    assert_eq!(report["support"], json!(5));
    assert!(report.get("micro_avg").is_none());

    let subset = json("label_subset");
    let report = &subset["report"];
    assert_eq!(subset["confusion"]["labels"], json!([4, 1, 2]));
    assert_eq!(report["micro_avg"]["recall"], json!(355.0 / 423.0));
    assert!(report.get("accuracy").is_none());
}
