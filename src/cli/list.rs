//! `taskweave list`.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::Failure;
use crate::experiment::{self, Experiment, Source};

/// The arguments of `taskweave list`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  taskweave list")]
pub(super) struct ListArgs {
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ListArgs, out: &mut impl Write) -> Result<(), Failure> {
    let experiments = experiment::built_in();
    if args.json {
        let list: Vec<_> = experiments.iter().map(as_json).collect();
        writeln!(out, "{:#}", json!(list))?;
        return Ok(());
    }
    let width = experiments.iter().map(|e| e.name.len()).max().unwrap_or(0);
    for experiment in &experiments {
        writeln!(out, "{:width$}  {}", experiment.name, experiment.summary)?;
    }
    Ok(())
}

fn as_json(experiment: &Experiment) -> serde_json::Value {
    json!({
        "name": experiment.name,
        "summary": experiment.summary,
        "tasks": experiment.tasks,
        "parameters": experiment.nets[0].parameter_count(),
        "offline": experiment.source == Source::Embedded,
        "default": experiment.default,
        "reference": experiment.reference,
    })
}
