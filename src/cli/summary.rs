//! `taskweave summary`.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::Failure;
use super::owner_args::OwnerArgs;
use super::run::ProtocolArg;
use crate::experiment::{self, RunSettings, Summary};

/// The arguments of `taskweave summary`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave summary digits-fashion-conv\n  taskweave summary digits-fashion-mlp --protocol reference --json\n\nMultiply-adds are those of one image's forward pass. What a task owns is its share of each tensor\nin the multitask net; a dedicated net owns all. Behind 'sparse' stands how many times faster than\ndense kernels the sparse ones are expected to be."
)]
pub(super) struct SummaryArgs {
    /// Which experiment
    experiment: String,
    /// By whose percentile the weights are shared out
    #[arg(long, value_enum, default_value_t = ProtocolArg::Default)]
    protocol: ProtocolArg,
    #[command(flatten)]
    owners: OwnerArgs,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &SummaryArgs, out: &mut impl Write) -> Result<(), Failure> {
    let experiment = experiment::find(&args.experiment)?;
    let settings = RunSettings {
        protocol: args.protocol.into(),
        owners: args.owners.choices(&experiment)?,
        ..RunSettings::default()
    };
    let summary = Summary::new(&experiment, &settings)?;
    if args.json {
        writeln!(out, "{:#}", json!(summary))?;
    } else {
        writeln!(out, "{summary}")?;
    }
    Ok(())
}
