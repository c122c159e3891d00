//! Runs an experiment: every dedicated net, then the multitask net.

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoints, Progress};
use super::outcome::ModelOutcome;
use super::plan::{PlannedModel, planned_models};
use super::testing::Tested;
use super::{Experiment, ExperimentError, ModelKind, Protocol, ProtocolName, Training};
use crate::data::Normalisation;
use crate::multitask::Budget;
use crate::nn::{Initializer, NetSpec};
use crate::ops::Precision;
use crate::random::{Purpose, Stream};
use crate::tensor::Tensor;
use crate::train::{
    Fit, FitOutcome, FitSettings, Importance, Model, Observer, TaskImages, TrainError,
    prune_iteratively, select_owners,
};

/// Tells the shuffles of nets that are pruned from those of the models of a run, whose index has eight bits.
const PRUNING_SHUFFLES: u64 = 1 << 8;

/// What a run may choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunSettings {
    /// The seed.
    pub seed: u64,
    /// Another limit of epochs than the protocol's.
    pub epochs: Option<usize>,
    /// The protocol.
    pub protocol: ProtocolName,
    /// The precision of products.
    #[serde(default)]
    pub precision: Precision,
    /// Another way to choose owners than the protocol's.
    #[serde(default)]
    pub owners: OwnerChoices,
}

/// What of an [`OwnerRule`](crate::train::OwnerRule) is another than the protocol's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnerChoices {
    /// What makes a position important.
    pub importance: Option<Importance>,
    /// Percentiles, one for all tasks or one for each.
    pub percentiles: Option<Vec<f64>>,
    /// How positions are spread over the tensors.
    pub budget: Option<Budget>,
}

/// The images of one task.
#[derive(Clone, Copy, Debug)]
pub struct TaskData<'a> {
    /// To train and validate on.
    pub train: TaskImages<'a>,
    /// To report on.
    pub test: TaskImages<'a>,
}

/// A phase of a net's training that begins, or goes on.
#[derive(Clone, Copy, Debug)]
pub struct PhaseStart<'a> {
    /// Which phase, from 1.
    pub phase: usize,
    /// How many there are.
    pub phases: usize,
    /// The tasks that it trains.
    pub tasks: &'a [&'a str],
    /// Epochs of it that were trained in an earlier run.
    pub epochs_before: usize,
}

/// An onlooker of an experiment.
pub trait RunObserver {
    /// A net for these tasks begins: "Dedicated Model Digit".
    fn begins(&mut self, title: &str, tasks: &[&str]);

    /// The net was trained in an earlier run, and is only tested again.
    fn trained_before(&mut self) {}

    /// The owners of the multitask net's weights are being chosen.
    fn choosing_owners(&mut self) {}

    /// The first epoch of a phase begins, or the first one since the run goes on.
    fn phase_begins(&mut self, _start: &PhaseStart<'_>) {}

    /// A phase ended, and the net has the weights of its best epoch.
    fn phase_ends(&mut self, _outcome: &FitOutcome) {}

    /// A checkpoint was written.
    fn checkpoint_kept(&mut self) {}

    /// The onlooker of the training itself.
    fn training(&mut self) -> &mut dyn Observer;

    /// A net is trained and tested.
    ///
    /// # Errors
    /// When its results could not be passed on; the run then ends.
    fn ends(&mut self, outcome: &ModelOutcome) -> Result<(), ExperimentError>;
}

/// Runs an experiment on the data of its tasks, in their order. With checkpoints, it goes on where
/// they end, and keeps one after every epoch.
///
/// # Errors
/// When a net cannot be trained, data does not fit the net, a checkpoint cannot be read or written, or
/// the observer's [`ends`](RunObserver::ends) fails.
///
/// # Panics
/// If there is not data for every task.
pub fn run(
    experiment: &Experiment,
    settings: &RunSettings,
    data: &[TaskData<'_>],
    checkpoints: Option<&mut Checkpoints>,
    observer: &mut dyn RunObserver,
) -> Result<Vec<ModelOutcome>, ExperimentError> {
    let mut runner = Runner {
        experiment,
        protocol: experiment.protocol_of(settings),
        settings,
        data,
        checkpoints,
        observer,
    };
    let planned = planned_models(experiment);
    planned
        .iter()
        .map(|planned| runner.model(planned))
        .collect()
}

struct Runner<'a> {
    experiment: &'a Experiment,
    protocol: Protocol,
    settings: &'a RunSettings,
    data: &'a [TaskData<'a>],
    checkpoints: Option<&'a mut Checkpoints>,
    observer: &'a mut dyn RunObserver,
}

impl Runner<'_> {
    fn model(&mut self, planned: &PlannedModel) -> Result<ModelOutcome, ExperimentError> {
        let names = self.names(&planned.tasks);
        self.observer.begins(&planned.title, &names);
        let mut model = self.untrained(planned).map_err(in_model(planned))?;
        let finished = match &self.checkpoints {
            Some(kept) => kept.finished(self.experiment, planned, &mut model)?,
            None => None,
        };
        let phases = match finished {
            Some(phases) => {
                self.observer.trained_before();
                phases
            }
            None => {
                let phases = self.train(planned, &mut model)?;
                if let Some(kept) = &mut self.checkpoints {
                    kept.finish(self.experiment, planned, &model, &phases)?;
                    self.observer.checkpoint_kept();
                }
                phases
            }
        };
        let outcome = self.tested(planned, model, phases)?;
        self.observer.ends(&outcome)?;
        Ok(outcome)
    }

    fn names(&self, tasks: &[usize]) -> Vec<&'static str> {
        tasks
            .iter()
            .map(|&task| self.experiment.tasks[task].name)
            .collect()
    }

    /// A model with its initial weights.
    fn untrained(&self, planned: &PlannedModel) -> Result<Model, TrainError> {
        let training = &self.protocol.training;
        let mut model = Model::new(training.batch, self.experiment.pixel_divisor)
            .with_seed(self.settings.seed, planned.index)
            .with_precision(self.settings.precision);
        for &task in &planned.tasks {
            let weights = self.initial_weights(planned.kind, task);
            let net = self.experiment.nets[task].clone();
            let name = self.experiment.tasks[task].name;
            training.add_task(&mut model, name, (net, weights), &self.data[task].train)?;
        }
        Ok(model)
    }

    /// Trains a model, phase after phase, from the beginning or from where a checkpoint has it.
    fn train(
        &mut self,
        planned: &PlannedModel,
        model: &mut Model,
    ) -> Result<Vec<FitOutcome>, ExperimentError> {
        let tasks = planned.tasks.iter();
        let train: Vec<TaskImages<'_>> = tasks.map(|&task| self.data[task].train).collect();
        let resumed = match &mut self.checkpoints {
            Some(kept) => kept.resume(planned, self.protocol.optimizer(planned.kind), model)?,
            None => None,
        };
        // Choosing owners counts to the time of the first phase.
        let mut seconds_before = 0.0;
        let (mut phases, mut state) = match resumed {
            Some(resumed) => (resumed.phases, Some(resumed.state)),
            None => {
                if planned.is_shared() {
                    self.observer.choosing_owners();
                    let start = Instant::now();
                    self.share_out(model, &train).map_err(in_model(planned))?;
                    seconds_before = start.elapsed().as_secs_f64();
                }
                (Vec::new(), None)
            }
        };
        let loss_weights = planned.phases(self.protocol.training.phases);
        for (phase, weights) in loss_weights.iter().enumerate().skip(phases.len()) {
            let settings = self.fit_settings(planned, weights, &phases);
            let fit = match state.take() {
                Some(state) => Fit::resume(model, &train, &settings, state),
                None => Fit::new(model, &train, &settings),
            };
            let fit = fit.map_err(in_model(planned))?;
            let mut fit = fit.with_seconds_before(std::mem::take(&mut seconds_before));
            let active = planned.tasks.iter().zip(weights);
            let active: Vec<usize> = active
                .filter(|&(_, &weight)| weight != 0.0)
                .map(|(&task, _)| task)
                .collect();
            self.observer.phase_begins(&PhaseStart {
                phase: phase + 1,
                phases: loss_weights.len(),
                tasks: &self.names(&active),
                epochs_before: fit.state().history.len(),
            });
            while !fit.is_done() {
                fit.epoch(model, self.observer.training())
                    .map_err(in_model(planned))?;
                if let Some(kept) = &mut self.checkpoints {
                    kept.keep(&Progress {
                        planned,
                        model,
                        phases: &phases,
                        state: fit.state(),
                    })?;
                    self.observer.checkpoint_kept();
                }
            }
            let outcome = fit.finish(model);
            self.observer.phase_ends(&outcome);
            phases.push(outcome);
        }
        Ok(phases)
    }

    fn fit_settings(
        &self,
        planned: &PlannedModel,
        loss_weights: &[f32],
        phases_before: &[FitOutcome],
    ) -> FitSettings {
        let rule = &self.protocol.owners.rule;
        FitSettings {
            loss_weights: loss_weights.to_vec(),
            epochs_before: phases_before.iter().map(|phase| phase.history.len()).sum(),
            sparsify: (planned.is_shared() && rule.importance == Importance::Active)
                .then(|| rule.clone()),
            ..self
                .protocol
                .fit_settings(self.settings, planned.kind, u64::from(planned.index))
        }
    }

    /// How a trained model does on the test sets.
    fn tested(
        &self,
        planned: &PlannedModel,
        mut model: Model,
        phases: Vec<FitOutcome>,
    ) -> Result<ModelOutcome, ExperimentError> {
        let mut results = Vec::new();
        let mut warnings = Vec::new();
        for (slot, &task) in planned.tasks.iter().enumerate() {
            let name = self.experiment.tasks[task].name;
            let tested = Tested {
                task,
                name,
                title: &format!("{} Model {name}", planned.kind.title()),
                images: &self.data[task].test,
            };
            let (result, of_task) = tested.outcome(&mut model, slot)?;
            results.push(result);
            warnings.extend(of_task);
        }
        // The model is kept, while others are trained.
        model.trim();
        Ok(ModelOutcome {
            kind: planned.kind,
            name: planned.name.clone(),
            model,
            phases,
            tasks: results,
            warnings,
        })
    }

    fn initial_weights(&self, kind: ModelKind, task: usize) -> Vec<Tensor> {
        let (initializer, purpose) = match kind {
            ModelKind::Dedicated => (self.protocol.dedicated_weights, Purpose::DedicatedWeights),
            ModelKind::Multitask => (self.protocol.multitask_weights, Purpose::MultitaskWeights),
        };
        let net = &self.experiment.nets[task];
        initial_weights(
            net,
            initializer,
            |stream| Stream::new(self.settings.seed, purpose, 0, stream),
            task,
        )
    }

    /// Chooses the owners of a multitask model's weights and gives each task its own.
    fn share_out(&mut self, model: &mut Model, train: &[TaskImages<'_>]) -> Result<(), TrainError> {
        let settings = &self.protocol.owners;
        if settings.rule.importance == Importance::Iterative {
            let fit =
                self.protocol
                    .fit_settings(self.settings, ModelKind::Multitask, PRUNING_SHUFFLES);
            let observer = self.observer.training();
            return prune_iteratively(model, train, &settings.rule, &fit, observer);
        }
        let selection: Vec<TaskImages<'_>> = train
            .iter()
            .map(|images| images.slice(0..images.len().min(settings.selection_images)))
            .collect();
        let rule = match settings.rule.importance {
            Importance::Active => settings.rule.before_sparsifying(train.len()),
            _ => settings.rule.clone(),
        };
        let owners = select_owners(
            model,
            &selection,
            &rule,
            self.settings.seed,
            self.observer.training(),
        )?;
        for (task, owned) in owners.into_iter().enumerate() {
            model.set_owned(task, owned);
        }
        Ok(())
    }
}

impl Protocol {
    /// How one task is trained alone; `shuffle_index` tells its shuffles from those of other nets.
    pub(super) fn fit_settings(
        &self,
        settings: &RunSettings,
        kind: ModelKind,
        shuffle_index: u64,
    ) -> FitSettings {
        let training = &self.training;
        FitSettings {
            optimizer: self.optimizer(kind),
            epochs: settings.epochs.unwrap_or(training.epochs),
            validation_split: training.validation_split,
            early_stopping: training.early_stopping,
            learning_rate_decay: training.learning_rate_decay,
            augmentation: training.augmentation,
            loss_weights: vec![1.0],
            seed: settings.seed,
            shuffle_index,
            epochs_before: 0,
            sparsify: None,
        }
    }
}

impl Training {
    /// Adds a task with its initial weights, whose pixels are scaled as the training says.
    pub(super) fn add_task(
        &self,
        model: &mut Model,
        name: &str,
        (net, weights): (NetSpec, Vec<Tensor>),
        train: &TaskImages<'_>,
    ) -> Result<(), TrainError> {
        let [channels, height, width] = net.input.dims();
        model.add_task(name, net, weights)?;
        if self.normalise {
            let normalisation = Normalisation::of_pixels(train.pixels(), channels, height * width);
            model.set_scales(model.tasks().len() - 1, normalisation.scales())?;
        }
        Ok(())
    }
}

/// The initial weights of a task's net, each tensor out of its own stream.
pub(super) fn initial_weights(
    net: &NetSpec,
    initializer: Initializer,
    stream: impl Fn(u64) -> Stream,
    task: usize,
) -> Vec<Tensor> {
    let specs = net.parameters();
    let draw = |(index, spec)| {
        let number = (task * specs.len() + index) as u64;
        initializer.draw(spec, &mut stream(number))
    };
    specs.iter().enumerate().map(draw).collect()
}

/// An error of training, with the net's name.
fn in_model(planned: &PlannedModel) -> impl Fn(TrainError) -> ExperimentError + use<> {
    let model = planned.title.clone();
    move |source| ExperimentError::Train {
        model: model.clone(),
        source,
    }
}
