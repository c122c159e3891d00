//! `taskweave inspect`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::Failure;
use crate::experiment::Inspection;

/// The arguments of `taskweave inspect`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave inspect results/multitask.safetensors\n  taskweave inspect results/multitask.safetensors --json\n\nBytes are those of weights and biases. Density is the share of a layer that has an owner."
)]
pub(super) struct InspectArgs {
    /// A model file of `taskweave run --out`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &InspectArgs, out: &mut impl Write) -> Result<(), Failure> {
    let inspection = Inspection::open(&args.model)?;
    if args.json {
        writeln!(out, "{:#}", json!(inspection))?;
    } else {
        writeln!(out, "{inspection}")?;
    }
    Ok(())
}
