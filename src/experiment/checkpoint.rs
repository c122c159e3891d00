//! Checkpoints: where a run stands after an epoch, kept so that it can go on from there to the very
//! same end.
//!
//! `checkpoint.safetensors` holds the model in training, what the optimiser keeps for it, its weights
//! at the best epoch, and as metadata what else a run carries from epoch to epoch. Models that are
//! trained stand beside it in files of their own, the final ones. A complete run leaves no checkpoint.

mod tensors;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use taskweave_kernels::{conv2d, dispatch, sparse};

use super::model_file::{self, StoredTensor};
use super::outcome::ModelOutcome;
use super::plan::PlannedModel;
use super::{Experiment, ExperimentError, OutputFolder, RunSettings, TaskData};
use crate::data::MappedBytes;
use crate::ops::Precision;
use crate::optim::OptimizerSpec;
use crate::train::{EarlyStopping, FitOutcome, FitState, Model};
use tensors::{restore_model, restore_state, stored_tensors};

/// Version of the layout of checkpoints.
const FORMAT_VERSION: u32 = 1;

const FILE_NAME: &str = "checkpoint.safetensors";

/// What goes into a checkpoint besides tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Header {
    format_version: u32,
    program_version: String,
    instruction_set: String,
    /// The way to convolve that was forced, if one was.
    #[serde(default)]
    convolution: Option<String>,
    /// Whether sparse kernels were forced, or dense ones.
    #[serde(default)]
    sparse: Option<String>,
    experiment: String,
    settings: RunSettings,
    /// The experiment as it is run, to be held to the program's own.
    definition: serde_json::Value,
    /// SHA-256 of every task's images and labels.
    data: Vec<String>,
    /// The models that are trained, in order.
    finished: Vec<FinishedModel>,
    current: Option<CurrentModel>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FinishedModel {
    name: String,
    phases: Vec<TimedOutcome>,
}

/// The model in training.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct CurrentModel {
    name: String,
    /// The phases before.
    phases: Vec<TimedOutcome>,
    optimizer_step: u64,
    stopping: EarlyStopping,
    /// The phase so far; the restored epoch is not known yet.
    fit: TimedOutcome,
}

/// An outcome with its times, which its own form leaves out.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct TimedOutcome {
    outcome: FitOutcome,
    seconds: f64,
    epoch_seconds: Vec<f64>,
}

impl TimedOutcome {
    fn new(outcome: &FitOutcome) -> Self {
        Self {
            outcome: outcome.clone(),
            seconds: outcome.seconds,
            epoch_seconds: outcome.history.iter().map(|epoch| epoch.seconds).collect(),
        }
    }

    fn restored(&self) -> FitOutcome {
        let mut outcome = self.outcome.clone();
        outcome.seconds = self.seconds;
        for (epoch, seconds) in outcome.history.iter_mut().zip(&self.epoch_seconds) {
            epoch.seconds = *seconds;
        }
        outcome
    }
}

/// Where a model in training stands.
pub(super) struct Progress<'a> {
    pub(super) planned: &'a PlannedModel,
    pub(super) model: &'a Model,
    /// The phases before.
    pub(super) phases: &'a [FitOutcome],
    pub(super) state: &'a FitState,
}

/// A model in training as a checkpoint has it.
pub(super) struct Resumed {
    /// The phases before.
    pub(super) phases: Vec<FitOutcome>,
    pub(super) state: FitState,
}

/// The checkpoints of a run, in the folder of its results.
pub struct Checkpoints {
    folder: OutputFolder,
    header: Header,
    /// The file that the run goes on from, until it has.
    resumed: Option<MappedBytes>,
}

/// The instruction set that decides to which bits a run of this precision comes.
fn set_of(precision: Precision) -> &'static str {
    let set = dispatch::active();
    match precision {
        Precision::F32 => set.of_f32().name(),
        Precision::Bf16 => set.name(),
    }
}

/// The way to convolve that the environment forces, if it does.
fn forced_convolution() -> Option<&'static str> {
    let method = conv2d::method_from_env().ok().flatten();
    method.map(conv2d::Method::name)
}

/// The choice between sparse kernels and dense ones that the environment forces, if it does.
fn forced_sparse() -> Option<&'static str> {
    let choice = sparse::choice_from_env().ok().flatten();
    choice.map(sparse::Choice::name)
}

impl Checkpoints {
    /// Whether a folder holds the checkpoint of an unfinished run.
    pub fn stand_in(folder: &OutputFolder) -> bool {
        folder.file(FILE_NAME).exists()
    }

    /// The checkpoints of a run that begins. Nothing is written yet.
    pub fn begin(
        folder: OutputFolder,
        experiment: &Experiment,
        settings: &RunSettings,
        data: &[TaskData<'_>],
    ) -> Self {
        Self {
            folder,
            header: Header {
                format_version: FORMAT_VERSION,
                program_version: env!("CARGO_PKG_VERSION").to_owned(),
                instruction_set: set_of(settings.precision).to_owned(),
                convolution: forced_convolution().map(str::to_owned),
                sparse: forced_sparse().map(str::to_owned),
                experiment: experiment.name.to_owned(),
                settings: settings.clone(),
                definition: definition(experiment, settings),
                data: data.iter().map(fingerprint).collect(),
                finished: Vec::new(),
                current: None,
            },
            resumed: None,
        }
    }

    /// The checkpoint in a folder, of an unfinished run of this experiment.
    ///
    /// # Errors
    /// When there is none, or it is damaged, or of another experiment, or of another version of the
    /// program.
    pub fn open(folder: OutputFolder, experiment: &Experiment) -> Result<Self, ExperimentError> {
        let path = folder.file(FILE_NAME);
        let failed = |reason: String| ExperimentError::Checkpoint {
            path: path.clone(),
            reason,
        };
        let bytes = MappedBytes::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => failed(
                "there is none: a run keeps one from its first epoch until it is complete"
                    .to_owned(),
            ),
            _ => failed(error.to_string()),
        })?;
        let (_, text) = model_file::parse(bytes.as_slice()).map_err(failed)?;
        let header = header(&text, experiment).map_err(failed)?;
        Ok(Self {
            folder,
            header,
            resumed: Some(bytes),
        })
    }

    /// What the run was told to do.
    pub fn settings(&self) -> &RunSettings {
        &self.header.settings
    }

    /// What the run was begun with and what it goes on with, where these are other kernels: then it
    /// does not end the same to the last bit.
    pub fn changed_kernels(&self) -> Option<[String; 2]> {
        let name = |set: &str, convolution: Option<&str>, sparse: Option<&str>| {
            let forced = [(conv2d::ENV, convolution), (sparse::ENV, sparse)];
            let forced = forced
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            forced.fold(set.to_owned(), |kernels, (name, value)| {
                format!("{kernels} and {name}={value}")
            })
        };
        let Header {
            instruction_set,
            convolution,
            sparse,
            ..
        } = &self.header;
        let begun = name(instruction_set, convolution.as_deref(), sparse.as_deref());
        let set = set_of(self.header.settings.precision);
        let active = name(set, forced_convolution(), forced_sparse());
        (begun != active).then_some([begun, active])
    }

    /// Whether these are the images that the run began with.
    ///
    /// # Errors
    /// When they are not.
    pub fn check_data(
        &self,
        experiment: &Experiment,
        data: &[TaskData<'_>],
    ) -> Result<(), ExperimentError> {
        let found: Vec<String> = data.iter().map(fingerprint).collect();
        if found == self.header.data {
            return Ok(());
        }
        let other = found
            .iter()
            .zip(&self.header.data)
            .position(|(a, b)| a != b);
        let name = other.map_or("the tasks", |task| experiment.tasks[task].name);
        Err(self.failed(format!(
            "the images of {name} are not those that the run began with"
        )))
    }

    /// The phases of a model that was trained before, which then gets the weights of its file.
    pub(super) fn finished(
        &self,
        experiment: &Experiment,
        planned: &PlannedModel,
        model: &mut Model,
    ) -> Result<Option<Vec<FitOutcome>>, ExperimentError> {
        let finished = self.header.finished.iter();
        let Some(found) = finished.clone().find(|model| model.name == planned.name) else {
            return Ok(None);
        };
        let path = self.folder.file(&format!("{}.safetensors", planned.name));
        let failed = |reason: String| ExperimentError::Checkpoint {
            path: path.clone(),
            reason,
        };
        let bytes = MappedBytes::open(&path).map_err(|error| failed(error.to_string()))?;
        let settings = &self.header.settings;
        model_file::restore(bytes.as_slice(), experiment, settings, planned, model)
            .map_err(failed)?;
        let phases = found.phases.iter().map(TimedOutcome::restored);
        Ok(Some(phases.collect()))
    }

    /// Where this model's training broke off, if it did; the model then gets the weights of that
    /// point.
    pub(super) fn resume(
        &mut self,
        planned: &PlannedModel,
        optimizer: OptimizerSpec,
        model: &mut Model,
    ) -> Result<Option<Resumed>, ExperimentError> {
        let Some(bytes) = self.resumed.take() else {
            return Ok(None);
        };
        let current = self.header.current.as_ref();
        let Some(current) = current.filter(|current| current.name == planned.name) else {
            return Ok(None);
        };
        let mut restore = || {
            let (file, _) = model_file::parse(bytes.as_slice())?;
            restore_model(&file, planned, model)?;
            restore_state(&file, current, optimizer, model)
        };
        let state = restore().map_err(|reason| self.failed(reason))?;
        Ok(Some(Resumed {
            phases: current.phases.iter().map(TimedOutcome::restored).collect(),
            state,
        }))
    }

    /// Keeps where a model's training stands.
    pub(super) fn keep(&mut self, progress: &Progress<'_>) -> Result<(), ExperimentError> {
        let state = progress.state;
        self.header.current = Some(CurrentModel {
            name: progress.planned.name.clone(),
            phases: progress.phases.iter().map(TimedOutcome::new).collect(),
            optimizer_step: state.optimizer.step(),
            stopping: state.stopping.clone(),
            fit: TimedOutcome::new(&FitOutcome {
                history: state.history.clone(),
                restored_epoch: 0,
                stopped_early: state.stopped_early,
                seconds: state.seconds,
            }),
        });
        self.write(&stored_tensors(progress))
    }

    /// Keeps a trained model.
    pub(super) fn finish(
        &mut self,
        experiment: &Experiment,
        planned: &PlannedModel,
        model: &Model,
        phases: &[FitOutcome],
    ) -> Result<(), ExperimentError> {
        let settings = &self.header.settings;
        let bytes = model_file::serialize(experiment, settings, planned, model)?;
        self.folder
            .write_file(&format!("{}.safetensors", planned.name), &bytes)?;
        self.header.finished.push(FinishedModel {
            name: planned.name.clone(),
            phases: phases.iter().map(TimedOutcome::new).collect(),
        });
        self.header.current = None;
        self.write(&[])
    }

    /// Ends a run that is complete: writes `report.txt`, `metrics.json` and `history.csv` beside the models,
    /// which stand there since each was trained, and removes the checkpoint.
    ///
    /// # Errors
    /// When a file cannot be written, or the checkpoint not removed.
    pub fn complete(
        &self,
        experiment: &Experiment,
        outcomes: &[ModelOutcome],
        report: &str,
    ) -> Result<(), ExperimentError> {
        let settings = &self.header.settings;
        self.folder
            .write_results(experiment, settings, outcomes, report)?;
        let path = self.folder.file(FILE_NAME);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ExperimentError::Write {
                    path,
                    source: error,
                })
            }
            _ => Ok(()),
        }
    }

    fn write(&self, tensors: &[StoredTensor<'_>]) -> Result<(), ExperimentError> {
        let text = serde_json::to_string(&self.header).map_err(|error| ExperimentError::Write {
            path: self.folder.file(FILE_NAME),
            source: error.into(),
        })?;
        self.folder
            .write_tensors(FILE_NAME, tensors, model_file::metadata(text))
    }

    fn failed(&self, reason: String) -> ExperimentError {
        ExperimentError::Checkpoint {
            path: self.folder.file(FILE_NAME),
            reason,
        }
    }
}

/// The metadata of a checkpoint, if this program can go on from it.
fn header(text: &str, experiment: &Experiment) -> Result<Header, String> {
    let plain: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("it is damaged: {error}"))?;
    if plain["format_version"] != FORMAT_VERSION {
        return Err(format!(
            "it has format version {}, and this program writes and reads {FORMAT_VERSION}",
            plain["format_version"]
        ));
    }
    let header: Header =
        serde_json::from_value(plain).map_err(|error| format!("it is damaged: {error}"))?;
    if header.experiment != experiment.name {
        return Err(format!(
            "it is of the experiment {}, not of {}",
            header.experiment, experiment.name
        ));
    }
    let same_definition = header.definition == definition(experiment, &header.settings);
    if header.program_version != env!("CARGO_PKG_VERSION") || !same_definition {
        return Err(format!(
            "it was made by another taskweave, {}, whose {} is not that of this one, {}; go on with \
             that, or begin anew",
            header.program_version,
            experiment.name,
            env!("CARGO_PKG_VERSION")
        ));
    }
    Ok(header)
}

/// Everything that decides what a run does, besides seed, limit of epochs and data.
fn definition(experiment: &Experiment, settings: &RunSettings) -> serde_json::Value {
    let value = json!({
        "tasks": experiment.tasks,
        "nets": experiment.nets,
        "pixel_divisor": experiment.pixel_divisor,
        "protocol": experiment.protocol_of(settings),
    });
    // As it comes back from a file, where a number may have another form.
    serde_json::from_str(&value.to_string()).unwrap_or(value)
}

fn fingerprint(data: &TaskData<'_>) -> String {
    let mut hash = Sha256::new();
    for images in [&data.train, &data.test] {
        hash.update((images.len() as u64).to_le_bytes());
        hash.update(images.pixels());
        hash.update(images.labels());
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
