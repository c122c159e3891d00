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
        for (step, batch) in order.chunks(self.model.batch()).enumerate() {
            // An epoch has fewer than 2³² steps, so that no two steps of the net are told the same.
            let step_of_net = epoch << 32 | step as u64;
            self.model.set_mode(Mode::Training { step: step_of_net });
            optimizer.begin_step();
            let now = Step {
                phase: "training",
                number: step + 1,
                optimizer: Some(&mut *optimizer),
            };
            self.step(now, &mut totals, |task, net| {
                let (images, augmentation) = (&data[task], &settings.augmentation);
                if augmentation.is_none() {
                    net.set_batch(images, batch);
                } else {
                    let key = [settings.seed, epoch];
                    net.set_augmented_batch(images, batch, augmentation, key);
                }
            })?;
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
        for (step, batch) in order.chunks(self.model.batch()).enumerate() {
            let now = Step {
                phase: "validation",
                number: step + 1,
                optimizer: None,
            };
            self.step(now, &mut totals, |task, net| {
                net.set_batch(&data[task], batch)
            })?;
        }
        Ok(totals)
    }

    /// Goes through one batch of every task, and learns from it if there is an optimiser.
    fn step(
        &mut self,
        step: Step<'_>,
        totals: &mut [Totals],
        set_batch: impl Fn(usize, &mut TaskNet) + Sync,
    ) -> Result<(), TrainError> {
        let Step {
            phase,
            number,
            mut optimizer,
        } = step;
        let (epoch, settings) = (self.epoch, self.settings);
        for tasks in self.active.chunks(self.model.at_once(self.active)) {
            if self.observer.interrupted() {
                return Err(TrainError::Interrupted);
            }
            let optimizer = optimizer.as_deref_mut();
            let results = self.model.take_turns(tasks, optimizer, |turn| {
                set_batch(turn.task, turn.net);
                match turn.optimizer {
                    Some(_) => turn.net.forward()?,
                    None => turn.net.evaluate()?,
                }
                let result = turn.net.batch_result();
                if !result.loss.is_finite() {
                    return Err(TrainError::NotFinite {
                        task: turn.net.name().to_owned(),
                        loss: result.loss,
                        epoch,
                        phase,
                        step: number,
                    });
                }
                if let Some(optimizer) = turn.optimizer.take() {
                    turn.net
                        .learn(settings.loss_weights[turn.task], optimizer)?;
                }
                turn.net.release();
                Ok(result)
            });
            for (&task, result) in tasks.iter().zip(results) {
                totals[task].add(result?);
            }
        }
        Ok(())
    }
}

/// A step of an epoch.
struct Step<'a> {
    phase: &'static str,
    /// From 1.
    number: usize,
    optimizer: Option<&'a mut Optimizer>,
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
