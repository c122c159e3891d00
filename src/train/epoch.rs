//! One epoch: every training image once, then the validation images.

use std::time::Instant;

use super::model::BatchResult;
use super::{
    EpochRecord, FitSettings, Model, Observer, StepReport, TaskImages, TaskRecord, TrainError,
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

    /// Trains step by step, and in a step task by task: they share no parameter, but memory.
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
        for (step, batch) in order.chunks(self.model.batch()).enumerate() {
            // An epoch has fewer than 2³² steps, so that no two steps of the net are told the same.
            let step_of_net = epoch << 32 | step as u64;
            self.model.set_mode(Mode::Training { step: step_of_net });
            optimizer.begin_step();
            for &task in self.active {
                if settings.augmentation.is_none() {
                    self.model.set_batch(task, &data[task], batch);
                } else {
                    let key = [settings.seed, epoch];
                    let augmentation = &settings.augmentation;
                    self.model
                        .set_augmented_batch(task, &data[task], batch, augmentation, key);
                }
                self.forward(task, ("training", step), &mut totals[task])?;
                self.model
                    .learn(task, settings.loss_weights[task], optimizer)?;
                self.model.release(task);
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
        for (step, batch) in order.chunks(self.model.batch()).enumerate() {
            for &task in self.active {
                self.model.set_batch(task, &data[task], batch);
                self.forward(task, ("validation", step), &mut totals[task])?;
                self.model.release(task);
            }
        }
        Ok(totals)
    }

    /// Computes the loss of a task's batch and counts it.
    fn forward(
        &mut self,
        task: usize,
        (part, step): (&'static str, usize),
        totals: &mut Totals,
    ) -> Result<(), TrainError> {
        if self.observer.interrupted() {
            return Err(TrainError::Interrupted);
        }
        self.model.forward(&[task])?;
        let result = self.model.batch_result(task);
        if !result.loss.is_finite() {
            return Err(TrainError::NotFinite {
                task: self.model.tasks()[task].name().to_owned(),
                loss: result.loss,
                epoch: self.epoch,
                phase: part,
                step: step + 1,
            });
        }
        totals.add(result);
        Ok(())
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
