//! What goes to stderr. That its reader has gone, or its disk is full, does not end the work.

use std::fmt;
use std::io::{self, Write};

/// Writes a line to stderr; where that fails, nobody is left to be told.
pub(super) fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// `eprintln!` that does not panic.
macro_rules! tell {
    ($($text:tt)*) => { $crate::cli::story::line(format_args!($($text)*)) };
}
pub(super) use tell;
