//! Runs an experiment: every dedicated net, then the multitask net.

use super::outcome::{ModelOutcome, TaskOutcome};
use super::{Experiment, ExperimentError, ModelKind, Protocol, ProtocolName, ReportSection};
use crate::data::augment::Augmentation;
use crate::metrics::{Confusion, Report, ReportOptions};
use crate::nn::Initializer;
use crate::random::{Purpose, Stream};
use crate::tensor::Tensor;
use crate::train::{
    FitOutcome, FitSettings, Model, Observer, TaskImages, TrainError, Warning, dead_layers, fit,
    select_owners,
};

/// Images of every hidden layer that are looked at for signs of life.
const HEALTH_IMAGES: usize = 2_048;

/// What a run may choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunSettings {
    /// The seed.
    pub seed: u64,
    /// Another limit of epochs than the protocol's.
    pub epochs: Option<usize>,
    /// The protocol.
    pub protocol: ProtocolName,
}

/// The images of one task.
#[derive(Clone, Copy, Debug)]
pub struct TaskData<'a> {
    /// To train and validate on.
    pub train: TaskImages<'a>,
    /// To report on.
    pub test: TaskImages<'a>,
}

/// An onlooker of an experiment.
pub trait RunObserver {
    /// A net for these tasks begins: "Dedicated Model Digit".
    fn begins(&mut self, title: &str, tasks: &[&str]);

    /// The owners of the multitask net's weights are being chosen.
    fn choosing_owners(&mut self) {}

    /// The first epoch begins.
    fn fit_begins(&mut self) {}

    /// The onlooker of the training itself.
    fn training(&mut self) -> &mut dyn Observer;

    /// A net is trained and tested.
    ///
    /// # Errors
    /// When its results could not be passed on; the run then ends.
    fn ends(&mut self, outcome: &ModelOutcome) -> Result<(), ExperimentError>;
}

/// Runs an experiment on the data of its tasks, in their order.
///
/// # Errors
/// When a net cannot be trained, data does not fit the net, or the observer's
/// [`ends`](RunObserver::ends) fails.
///
/// # Panics
/// If there is not data for every task.
pub fn run(
    experiment: &Experiment,
    settings: &RunSettings,
    data: &[TaskData<'_>],
    observer: &mut dyn RunObserver,
) -> Result<Vec<ModelOutcome>, ExperimentError> {
    let mut runner = Runner {
        experiment,
        protocol: experiment.protocol(settings.protocol),
        settings,
        data,
        observer,
    };
    let mut outcomes = Vec::new();
    for task in 0..experiment.tasks.len() {
        let reported =
            |section: &ReportSection| section.model == ModelKind::Dedicated && section.task == task;
        if experiment.reports.iter().any(reported) {
            outcomes.push(runner.model(ModelKind::Dedicated, &[task])?);
        }
    }
    let all: Vec<usize> = (0..experiment.tasks.len()).collect();
    outcomes.push(runner.model(ModelKind::Multitask, &all)?);
    Ok(outcomes)
}

struct Runner<'a> {
    experiment: &'a Experiment,
    protocol: &'a Protocol,
    settings: &'a RunSettings,
    data: &'a [TaskData<'a>],
    observer: &'a mut dyn RunObserver,
}

impl Runner<'_> {
    fn model(&mut self, kind: ModelKind, tasks: &[usize]) -> Result<ModelOutcome, ExperimentError> {
        let title = match (kind, tasks) {
            (ModelKind::Dedicated, [task]) => {
                format!("Dedicated Model {}", self.experiment.tasks[*task].name)
            }
            _ => "Multitask Model".to_owned(),
        };
        let names: Vec<&str> = tasks
            .iter()
            .map(|&task| self.experiment.tasks[task].name)
            .collect();
        self.observer.begins(&title, &names);
        let outcome = self
            .train(kind, tasks)
            .map_err(|source| ExperimentError::Train {
                model: title.clone(),
                source,
            });
        let (mut model, fit) = outcome?;
        let mut results = Vec::new();
        let mut warnings = Vec::new();
        for (slot, &task) in tasks.iter().enumerate() {
            let name = self.experiment.tasks[task].name;
            let test = &self.data[task].test;
            let in_model = |source| ExperimentError::Train {
                model: title.clone(),
                source,
            };
            let predictions = model.predict(slot, test).map_err(in_model)?;
            let title = format!("{} Model {name}", kind.title());
            warnings.extend(Warning::of_predictions(&title, test.labels(), &predictions));
            let seen = test.slice(0..test.len().min(HEALTH_IMAGES));
            let layers = dead_layers(&mut model, slot, &seen).map_err(in_model)?;
            if !layers.is_empty() {
                warnings.push(Warning::DeadLayers {
                    model: title,
                    layers,
                });
            }
            results.push(self.task_outcome(
                task,
                &predictions,
                model.tasks()[slot].owned_count(),
            )?);
        }
        let outcome = ModelOutcome {
            kind,
            name: match kind {
                ModelKind::Dedicated => {
                    format!("dedicated-{}", results[0].name.to_lowercase())
                }
                ModelKind::Multitask => "multitask".to_owned(),
            },
            model,
            fit,
            tasks: results,
            warnings,
        };
        self.observer.ends(&outcome)?;
        Ok(outcome)
    }

    fn train(
        &mut self,
        kind: ModelKind,
        tasks: &[usize],
    ) -> Result<(Model, FitOutcome), TrainError> {
        let training = &self.protocol.training;
        let mut model = Model::new(training.batch, self.experiment.pixel_divisor);
        for &task in tasks {
            let weights = self.initial_weights(kind, task);
            model.add_task(
                self.experiment.tasks[task].name,
                self.experiment.net.clone(),
                weights,
            )?;
        }
        let train: Vec<TaskImages<'_>> = tasks.iter().map(|&task| self.data[task].train).collect();
        if kind == ModelKind::Multitask {
            self.observer.choosing_owners();
            self.share_out(&mut model, &train)?;
        }
        let settings = FitSettings {
            optimizer: training.optimizer,
            epochs: self.settings.epochs.unwrap_or(training.epochs),
            validation_split: training.validation_split,
            early_stopping: training.early_stopping,
            learning_rate_decay: training.learning_rate_decay,
            augmentation: Augmentation::default(),
            loss_weights: vec![1.0; tasks.len()],
            seed: self.settings.seed,
            shuffle_index: match kind {
                ModelKind::Dedicated => tasks[0] as u64,
                ModelKind::Multitask => self.experiment.tasks.len() as u64,
            },
            epochs_before: 0,
        };
        self.observer.fit_begins();
        let outcome = fit(&mut model, &train, &settings, self.observer.training())?;
        Ok((model, outcome))
    }

    fn initial_weights(&self, kind: ModelKind, task: usize) -> Vec<Tensor> {
        let (initializer, purpose): (Initializer, _) = match kind {
            ModelKind::Dedicated => (self.protocol.dedicated_weights, Purpose::DedicatedWeights),
            ModelKind::Multitask => (self.protocol.multitask_weights, Purpose::MultitaskWeights),
        };
        let specs = self.experiment.net.parameters();
        let draw = |(index, spec)| {
            let stream = (task * specs.len() + index) as u64;
            initializer.draw(
                spec,
                &mut Stream::new(self.settings.seed, purpose, 0, stream),
            )
        };
        specs.iter().enumerate().map(draw).collect()
    }

    /// Chooses the owners of a multitask model's weights and gives each task its own.
    fn share_out(&mut self, model: &mut Model, train: &[TaskImages<'_>]) -> Result<(), TrainError> {
        let settings = &self.protocol.owners;
        let selection: Vec<TaskImages<'_>> = train
            .iter()
            .map(|images| images.slice(0..images.len().min(settings.selection_images)))
            .collect();
        let owners = select_owners(
            model,
            &selection,
            settings.percentile,
            settings.importance,
            self.settings.seed,
            self.observer.training(),
        )?;
        for (task, owned) in owners.into_iter().enumerate() {
            model.set_owned(task, owned);
        }
        Ok(())
    }

    fn task_outcome(
        &self,
        task: usize,
        predictions: &[u32],
        parameters_owned: usize,
    ) -> Result<TaskOutcome, ExperimentError> {
        let confusion = Confusion::from_labels(self.data[task].test.labels(), predictions, None)?;
        Ok(TaskOutcome {
            task,
            name: self.experiment.tasks[task].name.to_owned(),
            report: Report::new(&confusion, &ReportOptions::default())?,
            accuracy: confusion.accuracy(),
            confusion,
            parameters_owned,
        })
    }
}
