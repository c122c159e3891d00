//! The fit loop.

use std::time::Instant;

use taskweave_kernels::buffer::Buffer;

use super::model::BatchResult;
use super::{
    EarlyStopping, EarlyStoppingSettings, EpochRecord, FitOutcome, Model, Observer, StepReport,
    TaskImages, TaskRecord, TrainError,
};
use crate::optim::{Optimizer, OptimizerSpec};
use crate::random::{Purpose, Stream};

/// How to train.
#[derive(Clone, Debug)]
pub struct FitSettings {
    /// The optimiser.
    pub optimizer: OptimizerSpec,
    /// The most epochs.
    pub epochs: usize,
    /// The share at the end of the training set that is kept for validation, between 0 and 1.
    pub validation_split: f64,
    /// The learning rate is multiplied by this after every epoch; 1 keeps it.
    pub learning_rate_decay: f64,
    /// When to stop before the last epoch.
    pub early_stopping: EarlyStoppingSettings,
    /// Weight of every task's loss; a task of weight 0 is not computed.
    pub loss_weights: Vec<f32>,
    /// Seed of the run.
    pub seed: u64,
    /// Tells the shuffles of the nets of one run apart.
    pub shuffle_index: u64,
}

/// Trains a model on one set of images per task, all cut to the same number, and gives it back the
/// weights of its best epoch. Every epoch goes through one joint permutation of the images; the last
/// batch may be short. Losses of an epoch are means over its images.
///
/// # Errors
/// When a loss is not finite, the observer asks to stop, or data and settings do not go together.
pub fn fit(
    model: &mut Model,
    data: &[TaskImages<'_>],
    settings: &FitSettings,
    observer: &mut dyn Observer,
) -> Result<FitOutcome, TrainError> {
    let start = Instant::now();
    let active = active_tasks(model, data, settings)?;
    let images = active
        .iter()
        .map(|&task| data[task].len())
        .min()
        .unwrap_or(0);
    let splits: Vec<_> = data
        .iter()
        .map(|task| {
            task.slice(0..images.min(task.len()))
                .split_validation(settings.validation_split)
        })
        .collect();
    let (train, validation): (Vec<_>, Vec<_>) = splits.into_iter().unzip();
    if active
        .iter()
        .any(|&task| train[task].is_empty() || validation[task].is_empty())
    {
        return Err(TrainError::Data(format!(
            "{images} images are too few to train on with a validation share of {}",
            settings.validation_split
        )));
    }

    let mut optimizer = model.optimizer(settings.optimizer);
    let mut stopping = EarlyStopping::new(settings.early_stopping);
    let mut best = Snapshot::default();
    let mut history = Vec::new();
    let mut stopped_early = false;
    for epoch in 1..=settings.epochs {
        let epoch_start = Instant::now();
        optimizer.set_learning_rate_factor(settings.learning_rate_decay.powi(epoch as i32 - 1));
        let mut run = Epoch {
            model: &mut *model,
            settings,
            active: &active,
            epoch,
            observer: &mut *observer,
        };
        let trained = run.train(&train, &mut optimizer)?;
        let validated = run.validate(&validation)?;
        let record = record(&trained, &validated, settings, epoch, epoch_start);
        let verdict = stopping.observe(record.val_loss);
        if verdict.best {
            best.take(model);
        }
        observer.epoch(&record);
        history.push(record);
        if verdict.stop {
            stopped_early = true;
            break;
        }
    }
    best.restore(model);
    Ok(FitOutcome {
        restored_epoch: stopping.best_epoch() + 1,
        history,
        stopped_early,
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn active_tasks(
    model: &Model,
    data: &[TaskImages<'_>],
    settings: &FitSettings,
) -> Result<Vec<usize>, TrainError> {
    let tasks = model.tasks().len();
    if data.len() != tasks || settings.loss_weights.len() != tasks {
        return Err(TrainError::Data(format!(
            "{tasks} tasks want as many sets of images and loss weights, but there are {} and {}",
            data.len(),
            settings.loss_weights.len()
        )));
    }
    for (task, images) in model.tasks().iter().zip(data) {
        if images.features() != task.spec().inputs {
            return Err(TrainError::Data(format!(
                "the net of {} takes {} pixels per image, but its images have {}",
                task.name(),
                task.spec().inputs,
                images.features()
            )));
        }
    }
    if !(settings.validation_split > 0.0 && settings.validation_split < 1.0) {
        return Err(TrainError::Data(format!(
            "a validation share between 0 and 1 is wanted, but {} was given",
            settings.validation_split
        )));
    }
    let active: Vec<usize> = (0..tasks)
        .filter(|&task| settings.loss_weights[task] != 0.0)
        .collect();
    if active.is_empty() || settings.epochs == 0 {
        return Err(TrainError::Data(
            "training wants at least one epoch and one task whose loss has a weight".to_owned(),
        ));
    }
    Ok(active)
}

/// Sums over the batches of an epoch, for one task.
#[derive(Clone, Copy, Default)]
struct Totals {
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

    fn mean_loss(&self) -> f64 {
        self.loss / self.images as f64
    }

    fn accuracy(&self) -> f64 {
        self.correct as f64 / self.images as f64
    }
}

struct Epoch<'a> {
    model: &'a mut Model,
    settings: &'a FitSettings,
    active: &'a [usize],
    epoch: usize,
    observer: &'a mut dyn Observer,
}

impl Epoch<'_> {
    fn train(
        &mut self,
        data: &[TaskImages<'_>],
        optimizer: &mut Optimizer,
    ) -> Result<Vec<Totals>, TrainError> {
        let settings = self.settings;
        let images = data[self.active[0]].len();
        let mut order: Vec<usize> = (0..images).collect();
        Stream::new(
            settings.seed,
            Purpose::Shuffle,
            self.epoch as u64,
            settings.shuffle_index,
        )
        .shuffle(&mut order);
        let weights: Vec<(usize, f32)> = self
            .active
            .iter()
            .map(|&task| (task, settings.loss_weights[task]))
            .collect();
        let mut totals = vec![Totals::default(); data.len()];
        let mut accuracies = vec![None; data.len()];
        for (step, batch) in order.chunks(self.model.batch()).enumerate() {
            self.forward(data, batch, ("training", step), &mut totals)?;
            self.model.backward(&weights)?;
            self.model.update(optimizer);
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

    fn validate(&mut self, data: &[TaskImages<'_>]) -> Result<Vec<Totals>, TrainError> {
        let order: Vec<usize> = (0..data[self.active[0]].len()).collect();
        let mut totals = vec![Totals::default(); data.len()];
        for (step, batch) in order.chunks(self.model.batch()).enumerate() {
            self.forward(data, batch, ("validation", step), &mut totals)?;
        }
        Ok(totals)
    }

    fn forward(
        &mut self,
        data: &[TaskImages<'_>],
        batch: &[usize],
        (phase, step): (&'static str, usize),
        totals: &mut [Totals],
    ) -> Result<(), TrainError> {
        if self.observer.interrupted() {
            return Err(TrainError::Interrupted);
        }
        for &task in self.active {
            self.model.set_batch(task, &data[task], batch);
        }
        self.model.forward(self.active)?;
        for &task in self.active {
            let result = self.model.batch_result(task);
            if !result.loss.is_finite() {
                return Err(TrainError::NotFinite {
                    task: self.model.tasks()[task].name().to_owned(),
                    loss: result.loss,
                    epoch: self.epoch,
                    phase,
                    step: step + 1,
                });
            }
            totals[task].add(result);
        }
        Ok(())
    }
}

fn weighted(active: &[usize], settings: &FitSettings, loss: impl Fn(usize) -> f64) -> f64 {
    let weight = |task: usize| f64::from(settings.loss_weights[task]);
    active.iter().map(|&task| weight(task) * loss(task)).sum()
}

fn record(
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

/// A copy of all weights of a model.
#[derive(Default)]
struct Snapshot(Vec<Buffer>);

impl Snapshot {
    fn take(&mut self, model: &Model) {
        let values = (0..model.tasks().len()).flat_map(|task| model.parameters(task));
        for (slot, value) in values.enumerate() {
            match self.0.get_mut(slot) {
                Some(copy) => copy.copy_from_slice(value.data()),
                None => self.0.push(Buffer::from_slice(value.data())),
            }
        }
    }

    fn restore(&self, model: &mut Model) {
        let mut copies = self.0.iter();
        for task in 0..model.tasks().len() {
            let parameters = model.parameters(task).count();
            for (parameter, copy) in (0..parameters).zip(&mut copies) {
                model.edit_parameter(task, parameter, |values| values.copy_from_slice(copy));
            }
        }
    }
}
