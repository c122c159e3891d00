//! The fit loop, one epoch at a time.

use std::time::Instant;

use super::epoch::{Epoch, record};
use super::sparsify::sparsify;
use super::state::{FitState, Snapshot};
use super::{
    EarlyStopping, EarlyStoppingSettings, EpochRecord, FitOutcome, Model, Observer, OwnerRule,
    TaskImages, TrainError,
};
use crate::data::augment::Augmentation;
use crate::optim::OptimizerSpec;

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
    /// How training images are changed; validation images never are.
    pub augmentation: Augmentation,
    /// Weight of every task's loss; a task of weight 0 is not computed.
    pub loss_weights: Vec<f32>,
    /// Seed of the run.
    pub seed: u64,
    /// Tells the shuffles of the nets of one run apart.
    pub shuffle_index: u64,
    /// Epochs that the net was trained before, in earlier phases: random streams count on.
    pub epochs_before: usize,
    /// Prunes the tasks, by magnitude, at the beginnings of the first epochs, down to the shares of this
    /// rule: a half-trained net tells better than the initial weights which of them matter. Early
    /// stopping begins when they have those shares. The tasks have owners before, by
    /// [`before_sparsifying`](OwnerRule::before_sparsifying).
    pub sparsify: Option<OwnerRule>,
}

/// Trains a model on one set of images per task and gives it back the weights of its best epoch. The
/// sets of the tasks whose loss has a weight are cut to the same number. Every epoch goes through one
/// joint permutation of the images; the last batch may be short. Losses of an epoch are means over
/// its images.
///
/// # Errors
/// When a loss is not finite, the observer asks to stop, or data and settings do not go together.
pub fn fit(
    model: &mut Model,
    data: &[TaskImages<'_>],
    settings: &FitSettings,
    observer: &mut dyn Observer,
) -> Result<FitOutcome, TrainError> {
    let mut fit = Fit::new(model, data, settings)?;
    while !fit.is_done() {
        fit.epoch(model, observer)?;
    }
    Ok(fit.finish(model))
}

/// A training run between two epochs: what [`fit`] does, step by step.
pub struct Fit<'a> {
    settings: &'a FitSettings,
    active: Vec<usize>,
    train: Vec<TaskImages<'a>>,
    validation: Vec<TaskImages<'a>>,
    state: FitState,
}

impl<'a> Fit<'a> {
    /// Before the first epoch.
    ///
    /// # Errors
    /// When data and settings do not go together, or not with the model.
    pub fn new(
        model: &Model,
        data: &[TaskImages<'a>],
        settings: &'a FitSettings,
    ) -> Result<Self, TrainError> {
        let state = FitState {
            optimizer: model.optimizer(settings.optimizer),
            stopping: EarlyStopping::new(settings.early_stopping),
            best: Snapshot::default(),
            history: Vec::new(),
            stopped_early: false,
            seconds: 0.0,
        };
        Self::resume(model, data, settings, state)
    }

    /// After the epochs of this state; the model has the weights of the last of them.
    ///
    /// # Errors
    /// When data and settings do not go together, or not with the model.
    pub fn resume(
        model: &Model,
        data: &[TaskImages<'a>],
        settings: &'a FitSettings,
        state: FitState,
    ) -> Result<Self, TrainError> {
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
        Ok(Self {
            settings,
            active,
            train,
            validation,
            state,
        })
    }

    /// The same run, to whose time this many seconds before it count.
    pub fn with_seconds_before(mut self, seconds: f64) -> Self {
        self.state.seconds += seconds;
        self
    }

    /// Whether early stopping or the limit of epochs has ended the run.
    pub fn is_done(&self) -> bool {
        self.state.stopped_early || self.state.history.len() >= self.settings.epochs
    }

    /// Trains and validates one epoch.
    ///
    /// # Errors
    /// When a loss is not finite, or the observer asks to stop.
    pub fn epoch(
        &mut self,
        model: &mut Model,
        observer: &mut dyn Observer,
    ) -> Result<&EpochRecord, TrainError> {
        let start = Instant::now();
        let (settings, state) = (self.settings, &mut self.state);
        let epoch = state.history.len() + 1;
        let factor = settings.learning_rate_decay.powi(epoch as i32 - 1);
        state.optimizer.set_learning_rate_factor(factor);
        if sparsify(model, &self.active, (settings, epoch), &mut state.optimizer)? {
            state.stopping.restart();
        }
        let mut run = Epoch {
            model,
            settings,
            active: &self.active,
            epoch,
            observer,
        };
        let trained = run.train(&self.train, &mut state.optimizer)?;
        let validated = run.validate(&self.validation)?;
        let record = record(&trained, &validated, settings, epoch, start);
        let verdict = state.stopping.observe(record.val_loss);
        if verdict.best {
            state.best.take(model, &self.active);
        }
        state.stopped_early = verdict.stop;
        state.seconds += start.elapsed().as_secs_f64();
        observer.epoch(&record);
        state.history.push(record);
        Ok(&state.history[epoch - 1])
    }

    /// Where the run stands.
    pub fn state(&self) -> &FitState {
        &self.state
    }

    /// Gives the model the weights of the best epoch.
    pub fn finish(self, model: &mut Model) -> FitOutcome {
        let state = self.state;
        state.best.restore(model, &self.active);
        FitOutcome {
            restored_epoch: state.stopping.best_epoch() + 1,
            history: state.history,
            stopped_early: state.stopped_early,
            seconds: state.seconds,
        }
    }
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
    for (task, images) in data.iter().enumerate() {
        model.check_images(task, images)?;
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
    for &task in &active {
        let size = model.tasks()[task].spec().input;
        let augmentation = &settings.augmentation;
        augmentation
            .validate(size.height, size.width)
            .or_else(|error| match augmentation.is_none() {
                true => Ok(()),
                false => Err(TrainError::Data(error.to_string())),
            })?;
    }
    Ok(active)
}
