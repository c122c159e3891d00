//! `--all-isas`: one instruction set after the other.
//!
//! The set is chosen once in the life of a process, so that each gets a process of its own.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::{Command, Stdio};

use taskweave_kernels::dispatch;

use crate::cli::Failure;

/// Runs this command once for every set of the machine and passes its lines on.
pub(super) fn run(json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if let Some(name) = env::var_os(dispatch::ENV).filter(|name| !name.is_empty()) {
        return Err(Failure::usage(format!(
            "--all-isas measures every instruction set, but {} asks for '{}': leave one of them out",
            dispatch::ENV,
            name.to_string_lossy()
        )));
    }
    let arguments: Vec<OsString> = env::args_os()
        .skip(1)
        .filter(|argument| argument != "--all-isas")
        .collect();
    for (index, set) in dispatch::all().iter().enumerate() {
        if index > 0 && !json {
            writeln!(out)?;
        }
        run_on(set.name(), &arguments, out)?;
    }
    Ok(())
}

fn run_on(set: &str, arguments: &[OsString], out: &mut impl Write) -> Result<(), Failure> {
    let cannot = |error: io::Error| Failure::error(format!("cannot measure {set}: {error}"));
    let mut child = env::current_exe()
        .and_then(|program| {
            Command::new(program)
                .args(arguments)
                .env(dispatch::ENV, set)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
        })
        .map_err(cannot)?;
    let lines = child.stdout.take();
    // Where nobody reads on, the pipe is closed here, and the child ends at its next line.
    let copied = lines.map_or(Ok(0), |mut lines| io::copy(&mut lines, out));
    let status = child.wait().map_err(cannot)?;
    copied?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::told(u8::try_from(code).unwrap_or(1))),
        None => Err(Failure::error(format!(
            "the process that measured {set} was killed"
        ))),
    }
}
