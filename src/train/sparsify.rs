//! Sparsifying tasks while they are trained together.

use super::prune::largest_owned;
use super::{FitSettings, Importance, Model, OwnerRule, TaskNet, TrainError};
use crate::nn::NetSpec;
use crate::optim::Optimizer;

/// Epochs at whose beginnings tasks are pruned; the last of them has the shares of the rule.
const EPOCHS: usize = 5;

/// The share that a task has in an epoch from 1, between what it starts with and what it ends with: it
/// falls fast while there are many weights to spare, and slowly at the end, with the cube of the epochs
/// that are left (M. Zhu, S. Gupta, *To prune, or not to prune: exploring the efficacy of pruning for
/// model compression*, 2018).
fn share_in([first, last]: [f64; 2], epoch: usize, epochs: usize) -> f64 {
    let left = 1.0 - epoch as f64 / epochs as f64;
    last + (first - last) * left.powi(3)
}

impl OwnerRule {
    /// The rule by which so many tasks own weights before they are sparsified while training: beside the
    /// share that it ends with, each has an equal part of what all of them leave, by magnitude as
    /// while training.
    ///
    /// # Panics
    /// If there are several percentiles, and not one for each task.
    pub fn before_sparsifying(&self, tasks: usize) -> Self {
        let lasts: Vec<f64> = (0..tasks).map(|task| self.share_of(task)).collect();
        let spare = (1.0 - lasts.iter().sum::<f64>()).max(0.0) / tasks.max(1) as f64;
        Self {
            importance: Importance::Magnitude,
            ..self.with_shares(lasts.into_iter().map(|last| last + spare))
        }
    }

    /// The share of its positions that a task owns.
    fn share_of(&self, task: usize) -> f64 {
        1.0 - self.percentile(task) / 100.0
    }

    /// The same rule with these shares of the tasks.
    fn with_shares(&self, shares: impl Iterator<Item = f64>) -> Self {
        Self {
            percentiles: shares.map(|share| 100.0 * (1.0 - share)).collect(),
            ..self.clone()
        }
    }

    /// The rule in an epoch, from 1, of a phase of at most so many, if tasks are pruned at its beginning.
    fn in_epoch(&self, tasks: usize, epoch: usize, most_epochs: usize) -> Option<Self> {
        let epochs = EPOCHS.min(most_epochs);
        if epoch >= epochs {
            return (epoch == epochs).then(|| self.clone());
        }
        let first = self.before_sparsifying(tasks);
        Some(self.with_shares((0..tasks).map(|task| {
            let shares = [first.share_of(task), self.share_of(task)];
            share_in(shares, epoch, epochs)
        })))
    }
}

/// Prunes the active tasks by magnitude as far as this epoch, from 1, asks for, and says whether it asks
/// for anything. What the optimiser keeps for the other weights stays.
///
/// # Errors
/// When a percentile of the rule is outside 0 to 100, or a weight is not finite.
///
/// # Panics
/// As [`before_sparsifying`](OwnerRule::before_sparsifying).
pub(super) fn sparsify(
    model: &mut Model,
    active: &[usize],
    (settings, epoch): (&FitSettings, usize),
    optimizer: &mut Optimizer,
) -> Result<bool, TrainError> {
    let tasks = model.tasks().len();
    let rule = settings.sparsify.as_ref();
    let Some(rule) = rule.and_then(|rule| rule.in_epoch(tasks, epoch, settings.epochs)) else {
        return Ok(false);
    };
    let nets: Vec<&NetSpec> = model.tasks().iter().map(TaskNet::spec).collect();
    let shares = rule.shares(&nets)?;
    for &task in active {
        let owned = largest_owned(model, task, &shares[task], settings.seed)?;
        model.narrow_owned(task, owned, optimizer);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fall_from_all_that_is_there_to_those_of_the_rule() {
        let rule = OwnerRule {
            percentiles: vec![90.0, 50.0],
            ..OwnerRule::new(Importance::Active, 0.0)
        };
        let percentiles = |epoch, most| rule.in_epoch(2, epoch, most).map(|rule| rule.percentiles);
        let rounded = |epoch| {
            let percentiles = percentiles(epoch, 100).unwrap();
            percentiles.into_iter().map(f64::round).collect::<Vec<_>>()
        };
        // Two tenths of all weights each are left to spare, then what is left of them by the cube.
        let before = rule.before_sparsifying(2).percentiles;
        assert_eq!(
            before.iter().map(|p| p.round()).collect::<Vec<_>>(),
            [70.0, 30.0]
        );
        assert_eq!(rounded(1), [80.0, 40.0]);
        assert_eq!(rounded(4), [90.0, 50.0]);
        assert_eq!(percentiles(5, 100), Some(vec![90.0, 50.0]));
        assert_eq!(percentiles(6, 100), None);
        assert_eq!(percentiles(1, 1), Some(vec![90.0, 50.0]), "at once");
        let crowded = OwnerRule::new(Importance::Active, 40.0);
        let start = crowded.before_sparsifying(2).percentiles;
        assert!(
            start
                .iter()
                .all(|percentile| (percentile - 40.0).abs() < 1e-9)
        );
    }
}
