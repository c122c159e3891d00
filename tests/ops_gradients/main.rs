//! Every operation of the library against its f64 version, gradients by finite differences.

mod cases;
mod naive;
mod scan;
mod wrong;

use std::env;
use std::path::Path;
use std::process::Command;

use taskweave_kernels::dispatch;

#[test]
fn every_case_agrees_with_its_reference() {
    let failures: Vec<String> = cases::all()
        .iter()
        .filter_map(|case| {
            let error = case.check().err()?;
            Some(format!("{}: {error}", case.describe()))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The set in use is chosen once per process, so every set runs in one of its own.
#[test]
fn every_case_agrees_on_every_instruction_set() {
    for set in dispatch::all() {
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", "every_case_agrees_with_its_reference"])
            .env(dispatch::ENV, set.name())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "on {}:\n{text}", set.name());
        assert!(text.contains("1 passed"), "on {}:\n{text}", set.name());
    }
}

#[test]
fn every_operation_is_registered() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let found = scan::implementations_below(&sources).unwrap();
    let cases = cases::all();
    let registered: Vec<&str> = cases.iter().map(|case| case.operation).collect();
    assert!(found.iter().any(|name| name == "Dense"), "{found:?}");
    let missing = scan::unregistered(&found, &registered);
    assert!(
        missing.is_empty(),
        "no gradient check for {missing:?}: add cases in tests/ops_gradients/cases.rs"
    );
}
