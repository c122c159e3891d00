//! The convolutional experiments through the program, on small synthetic datasets: data, sizes, phases
//! and reports come together as on the real ones.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use taskweave::data::cifar::{FILES, RECORD_BYTES};
use taskweave::data::{Part, idx};

mod common;
use common::layout;

/// Images of each set, every class among them.
const IMAGES: usize = 20;

fn write_grey(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for part in Part::ALL {
        let (dims, values): (Vec<usize>, Vec<u8>) = match part {
            Part::TrainLabels | Part::TestLabels => (
                vec![IMAGES],
                (0..IMAGES).map(|at| (at % 10) as u8).collect(),
            ),
            Part::TrainImages | Part::TestImages => {
                let values = (0..IMAGES * 784).map(|at| (at * 31 % 251) as u8);
                (vec![IMAGES, 28, 28], values.collect())
            }
        };
        let mut bytes = Vec::new();
        idx::write(&mut bytes, &dims, &values).unwrap();
        fs::write(folder.join(part.idx_stem()), bytes).unwrap();
    }
}

fn write_colour(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let byte = |at: usize| match at % RECORD_BYTES {
        0 => (at / RECORD_BYTES % 10) as u8,
        place => (place * 13 + at / RECORD_BYTES * 5) as u8,
    };
    let records: Vec<u8> = (0..IMAGES * RECORD_BYTES).map(byte).collect();
    for name in FILES {
        fs::write(folder.join(name), &records).unwrap();
    }
}

fn run(home: &Path, experiment: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_taskweave"))
        .args(["run", experiment, "--epochs", "1", "--data-dir"])
        .arg(home)
        .output()
        .unwrap()
}

#[test]
fn both_print_the_layout_of_the_published_texts() {
    let home = tempfile::tempdir().unwrap();
    write_grey(&home.path().join("mnist"));
    write_grey(&home.path().join("fashion-mnist"));
    write_colour(&home.path().join("cifar-10-batches-bin"));
    for (experiment, first_title, nets) in [
        ("digits-fashion-conv", "Dedicated Model Digit", 3),
        ("cifar-digits-fashion-conv", "Dedicated Model CIFAR", 2),
    ] {
        let output = run(home.path(), experiment);
        let story = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{story}");
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/seeds");
        let published = fs::read_to_string(seeds.join(format!("{experiment}.txt"))).unwrap();
        let start = published.find(first_title).unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            layout(&printed),
            layout(&published[start..]),
            "{experiment}"
        );
        let ends = story.matches("reached the limit after 1 epochs").count();
        let phases = story.matches("phase 1 of 2: CIFAR").count();
        assert_eq!(ends, nets + phases, "{story}");
        assert_eq!(
            phases,
            usize::from(first_title.ends_with("CIFAR")),
            "{story}"
        );
    }
}
