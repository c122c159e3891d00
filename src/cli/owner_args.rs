//! Options for how the owners of a multitask net's weights are chosen.

use clap::{Args, ValueEnum};

use super::Failure;
use crate::experiment::{Experiment, OwnerChoices};
use crate::multitask::Budget;
use crate::train::Importance;

/// How owners are chosen, where not as the protocol says.
#[derive(Args, Debug)]
pub(super) struct OwnerArgs {
    /// What makes a weight important to a task of the multitask net [default: the protocol's]
    #[arg(long, value_enum, value_name = "METHOD")]
    owners: Option<OwnersArg>,
    /// Percentile of importance below which a task owns nothing: one for all tasks, or one for each
    /// [default: the protocol's]
    #[arg(long, value_name = "P[,P...]", value_delimiter = ',', value_parser = percentile)]
    percentile: Vec<f64>,
    /// How a task's weights are spread over the layers [default: the protocol's]
    #[arg(long, value_enum)]
    budget: Option<BudgetArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OwnersArg {
    /// The magnitude of the mean gradient of the loss
    Gradient,
    /// The magnitude of the initial weight
    Magnitude,
    /// Drawn by lot
    Random,
    /// The magnitude of weight times gradient
    Snip,
    /// Pruned while training, task after task, as far as the validation loss allows
    Iterative,
    /// Pruned by magnitude while the tasks are trained together, epoch by epoch
    Active,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum BudgetArg {
    /// The same share of every tensor
    Uniform,
    /// More densely in small layers
    ErdosRenyi,
}

impl OwnerArgs {
    /// What is chosen, which must go with the experiment's tasks.
    pub(super) fn choices(&self, experiment: &Experiment) -> Result<OwnerChoices, Failure> {
        let (percentiles, tasks) = (self.percentile.len(), experiment.tasks.len());
        if percentiles > 1 && percentiles != tasks {
            return Err(Failure::usage(format!(
                "--percentile has {percentiles} values, and {} has {tasks} tasks: give one for all or \
                 one for each",
                experiment.name
            )));
        }
        Ok(OwnerChoices {
            importance: self.owners.map(|method| match method {
                OwnersArg::Gradient => Importance::Gradient,
                OwnersArg::Magnitude => Importance::Magnitude,
                OwnersArg::Random => Importance::Random,
                OwnersArg::Snip => Importance::Snip,
                OwnersArg::Iterative => Importance::Iterative,
                OwnersArg::Active => Importance::Active,
            }),
            percentiles: (percentiles > 0).then(|| self.percentile.clone()),
            budget: self.budget.map(|budget| match budget {
                BudgetArg::Uniform => Budget::Uniform,
                BudgetArg::ErdosRenyi => Budget::ErdosRenyi,
            }),
        })
    }
}

/// A percentile from the command line.
pub(super) fn percentile(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(percentile) if (0.0..=100.0).contains(&percentile) => Ok(percentile),
        _ => Err("a percentile from 0 to 100 is wanted".to_owned()),
    }
}
