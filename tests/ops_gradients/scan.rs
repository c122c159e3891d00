//! Finds the operations that the sources implement.

use std::path::Path;
use std::{fs, io};

/// Names of the types in `source` that implement `Op`, themselves or by being `Elementwise`, comments
/// and documentation aside.
pub(crate) fn implementations(source: &str) -> Vec<String> {
    let code: Vec<&str> = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect();
    let code = code.join(" ");
    let words: Vec<&str> = code.split_whitespace().collect();
    let mut names = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let implements = ["Op", "Elementwise"].contains(&word.rsplit("::").next().unwrap_or(word));
        // `impl<F: Elementwise> Op for F`, whose types are found by `Elementwise`.
        let is_blanket = at > 0 && words[at - 1] == "Elementwise>";
        if implements && !is_blanket && words.get(at + 1) == Some(&"for") {
            let path = words.get(at + 2).copied().unwrap_or("");
            let path = path.split(['<', '{', '(']).next().unwrap_or("");
            names.push(path.rsplit("::").next().unwrap_or(path).to_string());
        }
    }
    names
}

/// [`implementations`] in every Rust file below a folder.
pub(crate) fn implementations_below(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            names.extend(implementations_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(implementations(&fs::read_to_string(&path)?));
        }
    }
    Ok(names)
}

/// The names that are not among the registered ones.
pub(crate) fn unregistered(found: &[String], registered: &[&str]) -> Vec<String> {
    let missing = found
        .iter()
        .filter(|name| !registered.contains(&name.as_str()));
    missing.cloned().collect()
}

#[test]
fn an_unregistered_operation_is_found() {
    let source = "
        //! impl Op for InDocs {}
        /// impl Op for AlsoInDocs {}
        pub struct Cube;
        impl Op for Cube { }
        impl crate::autograd::Op for Softplus{}
        impl<T: Send>
            Op for ops::Generic<T>
        where T: Sync {}
        impl<F: Elementwise> Op for F {}
        impl ops::Elementwise for Sine {}
        impl<T: Other> Op for T {}
        impl Clone for Cube {}
        impl OpLike for Other {}
    ";
    let found = implementations(source);
    assert_eq!(found, ["Cube", "Softplus", "Generic", "Sine", "T"]);
    assert_eq!(
        unregistered(&found, &["Cube", "Generic"]),
        ["Softplus", "Sine", "T"]
    );
}
