//! The `taskweave` program.

fn main() {}
