//! One epoch: every training image once, then the validation images.

use std::time::Instant;

use super::model::BatchResult;
use super::{
    EpochRecord, FitSettings, Model, Observer, StepReport, TaskImages, TaskNet, TaskRecord,
    TrainError,
};
use crate::autograd::Mode;
use crate::optim::Optimizer;
use crate::random::{Purpose, Stream};

/// Sums over the batches of an epoch, for one task.
#[derive(Clone, Copy, Default)]
pub(super) struct Totals {
    images: usize,
    loss: f64,
    correct: usize,
}

impl Totals {
    fn add(&mut self, batch: BatchResult) {
        self.images += batch.images;
        self.loss += f64::from(batch.loss) * batch.images as f64;
        self.correct += batch.correct;
    }

    pub(super) fn mean_loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    fn accuracy(&self) -> f64 {
        self.correct as f64 / self.images as f64
    }
}

/// An epoch on its way.
pub(super) struct Epoch<'a> {
    pub(super) model: &'a mut Model,
    pub(super) settings: &'a FitSettings,
    pub(super) active: &'a [usize],
    /// From 1.
    pub(super) epoch: usize,
    pub(super) observer: &'a mut dyn Observer,
}

impl Epoch<'_> {
    /// The epoch among all that the net was trained, from 1: what random streams are keyed by.
    fn epoch_of_net(&self) -> u64 {
        (self.settings.epochs_before + self.epoch) as u64
    }

    /// Trains step by step, and in a step task by task, or several at once: they share no parameter.
    pub(super) fn train(
        &mut self,
        data: &[TaskImages<'_>],
        optimizer: &mut Optimizer,
    ) -> Result<Vec<Totals>, TrainError> {
        let settings = self.settings;
        let images = data[self.active[0]].len();
        let mut order: Vec<usize> = (0..images).collect();
        let epoch = self.epoch_of_net();
        Stream::new(
            settings.seed,
            Purpose::Shuffle,
            epoch,
            settings.shuffle_index,
        )
        .shuffle(&mut order);
        let mut totals = vec![Totals::default(); data.len()];
        let mut accuracies = vec![None; data.len()];
        let at_once = self.model.at_once(self.active);
        for (step, batch) in order.chunks(self.model.batch()).enumerate() {
            // An epoch has fewer than 2³² steps, so that no two steps of the net are told the same.
            let step_of_net = epoch << 32 | step as u64;
            self.model.set_mode(Mode::Training { step: step_of_net });
            optimizer.begin_step();
            let place = Place {
                epoch: self.epoch,
                phase: "training",
                step: step + 1,
            };
            for tasks in self.active.chunks(at_once) {
                self.stop_if_interrupted()?;
                let results = self.model.take_turns(tasks, Some(&mut *optimizer), |turn| {
                    let (images, augmentation) = (&data[turn.task], &settings.augmentation);
                    if augmentation.is_none() {
                        turn.net.set_batch(images, batch);
                    } else {
                        let key = [settings.seed, epoch];
                        turn.net
                            .set_augmented_batch(images, batch, augmentation, key);
                    }
                    let result = place.forward(turn.net)?;
                    let weight = settings.loss_weights[turn.task];
                    if let Some(optimizer) = turn.optimizer.take() {
                        turn.net.learn(weight, optimizer)?;
                    }
                    turn.net.release();
                    Ok(result)
                });
                add(&mut totals, tasks, results)?;
            }
            for &task in self.active {
                accuracies[task] = Some(totals[task].accuracy());
            }
            self.observer.step(&StepReport {
                epoch: self.epoch,
                images_done: totals[self.active[0]].images,
                images,
                loss: weighted(self.active, settings, |task| totals[task].mean_loss()),
                accuracies: &accuracies,
            });
        }
        Ok(totals)
    }

    pub(super) fn validate(&mut self, data: &[TaskImages<'_>]) -> Result<Vec<Totals>, TrainError> {
        self.model.set_mode(Mode::Inference);
        let order: Vec<usize> = (0..data[self.active[0]].len()).collect();
        let mut totals = vec![Totals::default(); data.len()];
        let at_once = self.model.at_once(self.active);
        for (step, batch) in order.chunks(self.model.batch()).enumerate() {
            let place = Place {
                epoch: self.epoch,
                phase: "validation",
                step: step + 1,
            };
            for tasks in self.active.chunks(at_once) {
                self.stop_if_interrupted()?;
                let results = self.model.take_turns(tasks, None, |turn| {
                    turn.net.set_batch(&data[turn.task], batch);
                    let result = place.forward(turn.net)?;
                    turn.net.release();
                    Ok(result)
                });
                add(&mut totals, tasks, results)?;
            }
        }
        Ok(totals)
    }

    fn stop_if_interrupted(&mut self) -> Result<(), TrainError> {
        match self.observer.interrupted() {
            true => Err(TrainError::Interrupted),
            false => Ok(()),
        }
    }
}

/// Counts the results of these tasks' batches, or gives the first error.
fn add(
    totals: &mut [Totals],
    tasks: &[usize],
    results: impl Iterator<Item = Result<BatchResult, TrainError>>,
) -> Result<(), TrainError> {
    for (&task, result) in tasks.iter().zip(results) {
        totals[task].add(result?);
    }
    Ok(())
}

/// A step of an epoch, both from 1.
#[derive(Clone, Copy)]
struct Place {
    epoch: usize,
    phase: &'static str,
    step: usize,
}

impl Place {
    /// Computes the loss of a net's batch there, which must be finite.
    fn forward(self, net: &mut TaskNet) -> Result<BatchResult, TrainError> {
        net.forward()?;
        let result = net.batch_result();
        if result.loss.is_finite() {
            return Ok(result);
        }
        Err(TrainError::NotFinite {
            task: net.name().to_owned(),
            loss: result.loss,
            epoch: self.epoch,
            phase: self.phase,
            step: self.step,
        })
    }
}

fn weighted(active: &[usize], settings: &FitSettings, loss: impl Fn(usize) -> f64) -> f64 {
    let weight = |task: usize| f64::from(settings.loss_weights[task]);
    active.iter().map(|&task| weight(task) * loss(task)).sum()
}

/// The record of an epoch that began at `start`.
pub(super) fn record(
    trained: &[Totals],
    validated: &[Totals],
    settings: &FitSettings,
    epoch: usize,
    start: Instant,
) -> EpochRecord {
    let tasks: Vec<_> = trained
        .iter()
        .zip(validated)
        .map(|(train, validation)| {
            (train.images > 0).then(|| TaskRecord {
                loss: train.mean_loss(),
                accuracy: train.accuracy(),
                val_loss: validation.mean_loss(),
                val_accuracy: validation.accuracy(),
            })
        })
        .collect();
    let active: Vec<usize> = (0..tasks.len())
        .filter(|&task| tasks[task].is_some())
        .collect();
    EpochRecord {
        epoch,
        val_loss: weighted(&active, settings, |task| validated[task].mean_loss()),
        tasks,
        images: active
            .first()
            .map_or(0, |&task| trained[task].images + validated[task].images),
        seconds: start.elapsed().as_secs_f64(),
    }
}
