//! The rooms of the house import in one direction only (see `docs/architecture.md`).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Every room with the rooms it stands on: it may import from those, and from all that they stand on.
const ROOMS: &[(&str, &[&str])] = &[
    ("random", &[]),
    ("files", &[]),
    ("tensor", &[]),
    ("metrics", &[]),
    ("data", &["random", "files", "tensor"]),
    ("autograd", &["tensor"]),
    ("ops", &["random", "autograd"]),
    ("nn", &["ops"]),
    ("optim", &["nn"]),
    ("multitask", &["nn"]),
    ("train", &["data", "optim", "multitask"]),
    ("experiment", &["train", "data", "metrics"]),
    ("cli", &["experiment"]),
];

fn below(room: &str) -> Option<&'static [&'static str]> {
    let found = ROOMS.iter().find(|(name, _)| *name == room);
    found.map(|(_, below)| *below)
}

fn stands_on(room: &str, other: &str) -> bool {
    let mut next = below(room).unwrap_or(&[]).iter();
    next.any(|&next| next == other || stands_on(next, other))
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The rooms named behind `crate::` in code; comments and doc examples do not count.
fn imported_rooms(source: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let code = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    for line in code {
        for part in line.split("crate::").skip(1) {
            let name: String = part
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .collect();
            rooms.insert(name);
        }
    }
    rooms
}

/// Imports of a room that are not allowed, as sentences.
fn violations(room: &str, source: &str) -> Vec<String> {
    if below(room).is_none() {
        return vec![format!("{room} is not a known room")];
    }
    imported_rooms(source)
        .into_iter()
        .filter(|other| other != room && !stands_on(room, other))
        .map(|other| format!("{room} imports {other}"))
        .collect()
}

#[test]
fn imports_point_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    assert!(files.len() > 40, "only {} files found", files.len());
    let mut found = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap();
        let first = path.iter().next().unwrap().to_str().unwrap();
        let room = first.strip_suffix(".rs").unwrap_or(first);
        if ["lib", "main"].contains(&room) {
            continue;
        }
        let source = fs::read_to_string(&file).unwrap();
        for violation in violations(room, &source) {
            found.push(format!("{}: {violation}", path.display()));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_kernels_know_nothing_of_the_rooms() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/src");
    let mut files = Vec::new();
    rust_files(&folder, &mut files);
    assert!(!files.is_empty());
    for file in files {
        let source = fs::read_to_string(&file).unwrap();
        assert!(!source.contains("taskweave::"), "{}", file.display());
    }
}

#[test]
fn an_import_against_the_direction_is_caught() {
    assert_eq!(
        violations("tensor", "use crate::cli::Failure;"),
        ["tensor imports cli"]
    );
    assert_eq!(
        violations("metrics", "fn f(_: crate::nn::NetSpec) {}"),
        ["metrics imports nn"]
    );
    assert_eq!(
        violations("optim", "use crate::multitask::Owners;"),
        ["optim imports multitask"]
    );
    assert!(violations("train", "use crate::nn::Network; // not crate::cli").is_empty());
    assert_eq!(violations("attic", ""), ["attic is not a known room"]);
}
