//! The `taskweave` program: parses the command line and hands over to [`taskweave::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    taskweave::cli::main()
}
