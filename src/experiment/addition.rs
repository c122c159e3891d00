//! A task that joins a trained model, in the positions that nobody owns.
//!
//! It is trained as the run that made the model trained its multitask net, but alone, and owns its share
//! of what is free. No weight of an earlier task is touched, so their predictions stay as they are.

use std::path::Path;

use super::model_file::{self, Addition, TaskDescription};
use super::runner::initial_weights;
use super::testing::Tested;
use super::{
    Experiment, ExperimentError, ModelKind, Protocol, RunSettings, StoredModel, TaskData,
    TaskOutcome, find,
};
use crate::files::write_whole;
use crate::multitask::Owned;
use crate::nn::{LayerSpec, NetSpec, ParameterKind};
use crate::random::{Purpose, Stream};
use crate::train::{
    FitOutcome, Model, Observer, TrainError, Warning, fit, importances, owners_of_newcomer,
    taken_positions,
};

/// A task that is to join a model.
#[derive(Clone, Debug)]
pub struct NewTask<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where its images come from: a dataset or a file.
    pub dataset: &'a str,
    /// What its classes are called, at least two.
    pub class_names: Vec<String>,
    /// Planes of its images, whose rows and columns are those of
    /// [`StoredModel::size_for`](StoredModel::size_for).
    pub channels: usize,
    /// The images.
    pub data: TaskData<'a>,
}

/// What an addition may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AddSettings {
    /// The seed.
    pub seed: u64,
    /// Another limit of epochs than that of the protocol.
    pub epochs: Option<usize>,
    /// Another percentile than that of the protocol.
    pub percentile: Option<f64>,
}

/// What came of an addition.
#[derive(Debug)]
pub struct AddedTask {
    /// How training went.
    pub fit: FitOutcome,
    /// How the task does on its test set.
    pub outcome: TaskOutcome,
    /// What a reader must know.
    pub warnings: Vec<Warning>,
}

impl StoredModel {
    /// Trains a new task in the positions that nobody owns, and adds it to the model in memory.
    ///
    /// # Errors
    /// When the model is a dedicated one, has a task of this name or no free position in a layer, the
    /// experiment that made it is unknown, the images do not fit, or the observer asks to stop.
    pub fn add_task(
        &mut self,
        new: &NewTask<'_>,
        settings: &AddSettings,
        observer: &mut dyn Observer,
    ) -> Result<AddedTask, ExperimentError> {
        self.check_newcomer(new)?;
        let experiment = find(&self.description.experiment)?;
        let addition = Newcomer {
            stored: self,
            new,
            settings: RunSettings {
                seed: settings.seed,
                epochs: settings.epochs,
                protocol: self.description.protocol,
                precision: self.description.precision,
                ..RunSettings::default()
            },
            protocol: experiment.protocol(self.description.protocol).clone(),
            net: self.net_for(new.channels, new.class_names.len()),
        };
        let (mut model, fit) = addition.trained(&experiment, settings.percentile, observer)?;
        let place = self.description.tasks.len();
        let tested = Tested {
            task: place,
            name: new.name,
            title: &format!("{} Model {}", ModelKind::Multitask.title(), new.name),
            images: &new.data.test,
        };
        let (outcome, warnings) = tested.outcome(&mut model, 0)?;
        self.join(new, settings, &model)?;
        Ok(AddedTask {
            fit,
            outcome,
            warnings,
        })
    }

    /// Writes the model to a file, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ExperimentError> {
        let bytes = model_file::to_bytes(&self.description, &self.model).map_err(|reason| {
            ExperimentError::Store {
                model: path.display().to_string(),
                reason,
            }
        })?;
        write_whole(path, |file| std::io::Write::write_all(file, &bytes)).map_err(|source| {
            ExperimentError::Write {
                path: path.to_owned(),
                source,
            }
        })
    }

    /// Rows and columns that images of so many planes are to have, to join this model.
    pub fn size_for(&self, channels: usize) -> [usize; 2] {
        let input = self.like(channels).input;
        [input.height, input.width]
    }

    /// The net of the first task over images of so many planes, or else of the first of all.
    fn like(&self, channels: usize) -> &NetSpec {
        let mut nets = self.description.tasks.iter().map(|task| &task.net);
        let same = nets.find(|net| net.input.channels == channels);
        same.unwrap_or(&self.description.tasks[0].net)
    }

    /// The net of a task over images of so many planes in so many classes.
    fn net_for(&self, channels: usize, classes: usize) -> NetSpec {
        let mut net = self.like(channels).clone();
        net.input.channels = channels;
        if let Some(LayerSpec::Dense { units, .. }) = net.layers.last_mut() {
            *units = classes;
        }
        net
    }

    /// Whether a task of this name could join, before its data are there.
    ///
    /// # Errors
    /// When the model is a dedicated one, has a task of this name, or it is no name.
    pub fn check_new_name(&self, name: &str) -> Result<(), ExperimentError> {
        let refuse = |reason: String| {
            Err(ExperimentError::Addition {
                task: name.to_owned(),
                reason,
            })
        };
        if self.description.model == ModelKind::Dedicated {
            return refuse(format!(
                "every weight of a dedicated model belongs to its task, {}: only a multitask model has \
                 some that nobody owns",
                self.description.tasks[0].name
            ));
        }
        if self.tasks().any(|task| task == name) {
            return refuse("the model has a task of this name".to_owned());
        }
        let is_fine = |c: char| c.is_alphanumeric() || "-_. ".contains(c);
        if name.trim().is_empty() || !name.chars().all(is_fine) {
            return refuse("a name is made of letters, digits, spaces, - _ and .".to_owned());
        }
        Ok(())
    }

    fn check_newcomer(&self, new: &NewTask<'_>) -> Result<(), ExperimentError> {
        self.check_new_name(new.name)?;
        if !(2..=256).contains(&new.class_names.len()) {
            return Err(ExperimentError::Addition {
                task: new.name.to_owned(),
                reason: format!(
                    "a task has 2 to 256 classes, and this one has {}",
                    new.class_names.len()
                ),
            });
        }
        Ok(())
    }

    /// Gives this model the trained task, the only one of `trained`.
    fn join(
        &mut self,
        new: &NewTask<'_>,
        settings: &AddSettings,
        trained: &Model,
    ) -> Result<(), ExperimentError> {
        self.take(trained, 0)
            .map_err(|source| ExperimentError::Train {
                model: new.name.to_owned(),
                source,
            })?;
        let net = &self.model.tasks()[self.model.tasks().len() - 1];
        self.description.tasks.push(TaskDescription::new(
            net,
            new.dataset.to_owned(),
            new.class_names.clone(),
            Some(Addition::new(settings.seed)),
        ));
        Ok(())
    }
}

/// A task on its way into a model.
struct Newcomer<'a> {
    stored: &'a StoredModel,
    new: &'a NewTask<'a>,
    settings: RunSettings,
    protocol: Protocol,
    net: NetSpec,
}

impl Newcomer<'_> {
    /// A model of the new task alone, trained in its own positions.
    fn trained(
        &self,
        experiment: &Experiment,
        percentile: Option<f64>,
        observer: &mut dyn Observer,
    ) -> Result<(Model, FitOutcome), ExperimentError> {
        let place = self.stored.description.tasks.len();
        let failed = |source| ExperimentError::Train {
            model: self.new.name.to_owned(),
            source,
        };
        let mut model = self.untrained(experiment, place).map_err(failed)?;
        let owned = self.choose(&mut model, percentile, observer)?;
        model.set_owned(0, owned);
        let index = place as u64;
        let settings = self
            .protocol
            .fit_settings(&self.settings, ModelKind::Multitask, index);
        let train = [self.new.data.train];
        let outcome = fit(&mut model, &train, &settings, observer).map_err(failed)?;
        Ok((model, outcome))
    }

    fn untrained(&self, experiment: &Experiment, place: usize) -> Result<Model, TrainError> {
        let training = &self.protocol.training;
        let mut model = Model::new(training.batch, experiment.pixel_divisor)
            .with_seed(self.settings.seed, u8::try_from(place).unwrap_or(u8::MAX))
            .with_precision(self.settings.precision);
        let stream = |number| Stream::new(self.settings.seed, Purpose::MultitaskWeights, 0, number);
        let weights = initial_weights(&self.net, self.protocol.multitask_weights, stream, place);
        let train = &self.new.data.train;
        training.add_task(
            &mut model,
            self.new.name,
            (self.net.clone(), weights),
            train,
        )?;
        Ok(model)
    }

    /// Chooses the task's share of what is free.
    fn choose(
        &self,
        model: &mut Model,
        percentile: Option<f64>,
        observer: &dyn Observer,
    ) -> Result<Vec<Owned>, ExperimentError> {
        let failed = |source| ExperimentError::Train {
            model: self.new.name.to_owned(),
            source,
        };
        let mut rule = self.protocol.owners.rule.clone();
        // Of percentiles task by task, none is the newcomer's.
        let last = rule.percentiles.last().copied();
        rule.percentiles = percentile.or(last).into_iter().collect();
        let train = self.new.data.train;
        let images = train.len().min(self.protocol.owners.selection_images);
        let selection = [train.slice(0..images)];
        let importance =
            importances(model, &selection, rule.importance, observer).map_err(failed)?;
        let tasks = self.stored.description.tasks.iter();
        let nets: Vec<&NetSpec> = tasks.map(|task| &task.net).chain([&self.net]).collect();
        let owned = owners_of_newcomer(
            &nets,
            &importance[0],
            &rule,
            self.settings.seed,
            |layer, parameter| {
                let model = &self.stored.model;
                taken_positions(model, layer, parameter, model.tasks().len())
            },
        )
        .map_err(failed)?;
        for (spec, owned) in self.net.parameters().iter().zip(&owned) {
            if spec.kind == ParameterKind::Kernel && !owned.contains(&1) {
                return Err(ExperimentError::Addition {
                    task: self.new.name.to_owned(),
                    reason: format!(
                        "the model's tasks own all {} positions of {}: none is left",
                        spec.elements(),
                        spec.name
                    ),
                });
            }
        }
        Ok(owned)
    }
}

#[cfg(test)]
mod tests;
