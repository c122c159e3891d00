//! Choosing owners by pruning while training, task after task.

use super::select::{Draw, in_parameter, taken_positions};
use super::{FitOutcome, FitSettings, Model, Observer, OwnerRule, Snapshot, TaskImages, TaskNet};
use super::{TrainError, fit};
use crate::multitask::{Owned, choose_owners, shared_layers};
use crate::nn::NetSpec;

/// Share of a task's positions that a round keeps (J. Frankle, M. Carbin, *The Lottery Ticket Hypothesis*,
/// 2019, prunes a fifth at a time, too).
const KEPT: f64 = 0.8;

/// A round that the task's percentile does not ask for counts if its validation loss is at most this many
/// times that of the net before any pruning.
const TOLERANCE: f64 = 1.05;

/// Epochs that a pruned net is trained for.
const EPOCHS_OF_ROUND: usize = 2;

/// The share of its positions that a task keeps at least.
const LEAST: f64 = 0.01;

/// Trains one task after the other in the positions that no task before it owns, and prunes them by
/// magnitude, round by round, with some epochs of training in between: down to the share that the
/// task's percentile gives, so that those behind find theirs, and on as far as the validation loss
/// allows. The model then has owners and trained weights.
///
/// Positions are pruned tensor by tensor, as the rule's budget says (S. Han et al., *Learning both Weights
/// and Connections for Efficient Neural Networks*, 2015). Of the settings, the weights of the losses do
/// not count.
///
/// # Errors
/// When data and settings do not go together, a loss is not finite, or the observer asks to stop.
pub fn prune_iteratively(
    model: &mut Model,
    data: &[TaskImages<'_>],
    rule: &OwnerRule,
    settings: &FitSettings,
    observer: &mut dyn Observer,
) -> Result<(), TrainError> {
    for task in 0..model.tasks().len() {
        let free = free_positions(model, task);
        model.set_owned(task, free);
        let mut pruning = Pruning {
            task,
            data,
            rule,
            settings,
            epochs: 0,
        };
        pruning.run(model, observer)?;
    }
    Ok(())
}

/// Of each of a task's parameters the positions that no task before it owns.
fn free_positions(model: &Model, task: usize) -> Vec<Owned> {
    let nets: Vec<&NetSpec> = model.tasks().iter().map(TaskNet::spec).collect();
    let mut free = vec![Owned::new(); nets[task].parameters().len()];
    for layer in shared_layers(&nets) {
        let Some(own) = layer.sharers.iter().find(|sharer| sharer.task == task) else {
            continue;
        };
        for place in 0..layer.parameters.len() {
            let taken = taken_positions(model, &layer, place, task);
            free[own.first_parameter + place] =
                taken.iter().map(|&taken| u8::from(!taken)).collect();
        }
    }
    free
}

/// The validation loss of the epoch whose weights a model has.
fn best_loss(outcome: &FitOutcome) -> f64 {
    let best = outcome
        .history
        .get(outcome.restored_epoch.saturating_sub(1));
    best.map_or(f64::INFINITY, |epoch| epoch.val_loss)
}

/// One task on its way down.
struct Pruning<'a> {
    task: usize,
    data: &'a [TaskImages<'a>],
    rule: &'a OwnerRule,
    settings: &'a FitSettings,
    /// Epochs so far.
    epochs: usize,
}

impl Pruning<'_> {
    fn run(&mut self, model: &mut Model, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let most = self.settings.epochs;
        let allowed = TOLERANCE * self.fit(model, most, observer)?;
        let wanted = 1.0 - self.rule.percentile(self.task) / 100.0;
        let mut share = 1.0;
        while share > wanted {
            share = (share * KEPT).max(wanted);
            let owned = self.pruned(model, share)?;
            model.set_owned(self.task, owned);
            self.fit(model, most.min(EPOCHS_OF_ROUND), observer)?;
        }
        while share * KEPT >= LEAST {
            share *= KEPT;
            let before = model.tasks()[self.task].owned().map(<[Owned]>::to_vec);
            let mut weights = Snapshot::default();
            weights.take(model, &[self.task]);
            let owned = self.pruned(model, share)?;
            model.set_owned(self.task, owned);
            if self.fit(model, most.min(EPOCHS_OF_ROUND), observer)? > allowed {
                if let Some(before) = before {
                    model.set_owned(self.task, before);
                }
                weights.restore(model, &[self.task]);
                break;
            }
        }
        Ok(())
    }

    /// Trains the task alone; the validation loss that it has then.
    fn fit(
        &mut self,
        model: &mut Model,
        epochs: usize,
        observer: &mut dyn Observer,
    ) -> Result<f64, TrainError> {
        let mut loss_weights = vec![0.0; model.tasks().len()];
        loss_weights[self.task] = 1.0;
        let settings = FitSettings {
            epochs,
            loss_weights,
            epochs_before: self.epochs,
            ..self.settings.clone()
        };
        let outcome = fit(model, self.data, &settings, observer)?;
        self.epochs += outcome.history.len();
        Ok(best_loss(&outcome))
    }

    /// The positions of largest magnitude among those that the task owns: this share of every net.
    fn pruned(&self, model: &Model, share: f64) -> Result<Vec<Owned>, TrainError> {
        let nets: Vec<&NetSpec> = model.tasks().iter().map(TaskNet::spec).collect();
        let rule = OwnerRule {
            percentiles: vec![100.0 * (1.0 - share)],
            ..self.rule.clone()
        };
        let shares = &rule.shares(&nets)?[self.task];
        largest_owned(model, self.task, shares, self.settings.seed)
    }
}

/// Of what a task owns the positions of largest magnitude: so many of each parameter, or all if it
/// owns fewer.
pub(super) fn largest_owned(
    model: &Model,
    task: usize,
    shares: &[usize],
    seed: u64,
) -> Result<Vec<Owned>, TrainError> {
    let nets: Vec<&NetSpec> = model.tasks().iter().map(TaskNet::spec).collect();
    let draw = Draw::new(&nets, seed);
    let specs = nets[task].parameters();
    let now = model.tasks()[task].owned().unwrap_or_default();
    let mut largest = Vec::with_capacity(specs.len());
    for (parameter, spec) in specs.iter().enumerate() {
        let gone = now[parameter].iter().map(|&owned| owned == 0).collect();
        let weights = model.parameter(task, parameter);
        let ties = |_| draw.ties(task, parameter);
        let chosen = choose_owners(&[shares[parameter]], gone, &[&weights], ties)
            .map_err(|source| in_parameter(spec, source))?;
        largest.push(chosen.into_iter().next().unwrap_or_default());
    }
    Ok(largest)
}
