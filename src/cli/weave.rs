//! `taskweave weave`.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::story::tell;
use crate::experiment::StoredModel;

/// The arguments of `taskweave weave`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave weave results/multitask.safetensors --tasks Digit --out digit.safetensors\n  taskweave weave digit.safetensors fashion.safetensors --out both.safetensors\n\nNo position may have two owners: tasks of one multitask model, or added to it, can be taken apart and\nwoven again in any order."
)]
pub(super) struct WeaveArgs {
    /// Model files
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<PathBuf>,
    /// Only these of their tasks [default: all]
    #[arg(long, value_name = "T,T...", value_delimiter = ',')]
    tasks: Vec<String>,
    /// File for the woven model
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn run(args: &WeaveArgs) -> Result<(), Failure> {
    let models = args.models.iter().map(|path| StoredModel::open(path, 1));
    let models = models.collect::<Result<Vec<_>, _>>()?;
    let names: Vec<&str> = models.iter().flat_map(StoredModel::tasks).collect();
    if let Some(unknown) = args.tasks.iter().find(|task| !names.contains(&&task[..])) {
        return Err(Failure::usage(format!(
            "no model has a task {unknown:?}; their tasks are: {}",
            names.join(", ")
        )));
    }
    let is_wanted = |name: &str| args.tasks.is_empty() || args.tasks.iter().any(|t| t == name);
    let woven = StoredModel::weave(&models, is_wanted)?;
    woven.save(&args.out)?;
    let tasks: Vec<&str> = woven.tasks().collect();
    tell!("wove {} into {}", tasks.join(", "), args.out.display());
    Ok(())
}
