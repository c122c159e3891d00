//! What the metadata of a model file says.

use serde::{Deserialize, Serialize};
use taskweave_kernels::lanes::PixelScale;

use super::FORMAT_VERSION;
use crate::data::registry;
use crate::experiment::plan::PlannedModel;
use crate::experiment::{Experiment, ModelKind, ProtocolName, RunSettings};
use crate::multitask::{SharedLayer, shared_layers};
use crate::nn::NetSpec;
use crate::ops::Precision;
use crate::train::{Model, TaskNet};

/// What the metadata of a model file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::experiment) struct Description {
    format_version: u32,
    pub(in crate::experiment) experiment: String,
    pub(in crate::experiment) model: ModelKind,
    pub(in crate::experiment) tasks: Vec<TaskDescription>,
    pub(in crate::experiment) seed: u64,
    pub(in crate::experiment) protocol: ProtocolName,
    pub(in crate::experiment) precision: Precision,
    pub(in crate::experiment) program_version: String,
}

/// What a model file says of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::experiment) struct TaskDescription {
    pub(in crate::experiment) name: String,
    pub(in crate::experiment) dataset: String,
    pub(in crate::experiment) class_names: Vec<String>,
    pub(in crate::experiment) net: NetSpec,
    /// What the net is given instead of a pixel from 0 to 255, one for every channel or one for all.
    pub(in crate::experiment) pixel_scales: Vec<ScaleForm>,
    /// Where the task came later than the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::experiment) added: Option<Addition>,
}

/// How a task joined a trained model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::experiment) struct Addition {
    seed: u64,
    program_version: String,
}

impl Addition {
    /// An addition by this program.
    pub(in crate::experiment) fn new(seed: u64) -> Self {
        Self {
            seed,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl TaskDescription {
    pub(in crate::experiment) fn new(
        net: &TaskNet,
        dataset: String,
        class_names: Vec<String>,
        added: Option<Addition>,
    ) -> Self {
        let scales = net.scales().iter();
        Self {
            name: net.name().to_owned(),
            dataset,
            class_names,
            net: net.spec().clone(),
            pixel_scales: scales
                .map(|scale| ScaleForm {
                    mean: scale.mean,
                    divisor: scale.divisor,
                })
                .collect(),
            added,
        }
    }
}

/// `(pixel - mean) / divisor`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::experiment) struct ScaleForm {
    mean: f32,
    divisor: f32,
}

impl From<ScaleForm> for PixelScale {
    fn from(scale: ScaleForm) -> Self {
        let ScaleForm { mean, divisor } = scale;
        Self { mean, divisor }
    }
}

impl Description {
    pub(super) fn new(
        experiment: &Experiment,
        settings: &RunSettings,
        planned: &PlannedModel,
        model: &Model,
    ) -> Self {
        let task = |(&task, net): (&usize, &TaskNet)| {
            let dataset = experiment.tasks[task].dataset;
            let class_names = registry::dataset(dataset).map_or(&[][..], |info| info.class_names);
            let class_names = class_names.iter().map(|&name| name.to_owned()).collect();
            TaskDescription::new(net, dataset.to_owned(), class_names, None)
        };
        Self {
            format_version: FORMAT_VERSION,
            experiment: experiment.name.to_owned(),
            model: planned.kind,
            tasks: planned.tasks.iter().zip(model.tasks()).map(task).collect(),
            seed: settings.seed,
            protocol: settings.protocol,
            precision: settings.precision,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// What the text of a file's metadata says, held to what this program reads.
    pub(in crate::experiment) fn parse(text: &str) -> Result<Self, String> {
        let damaged = |error: serde_json::Error| format!("its description is damaged: {error}");
        let plain: serde_json::Value = serde_json::from_str(text).map_err(damaged)?;
        match &plain["format_version"] {
            serde_json::Value::Null => {
                return Err("its description has no format version".to_owned());
            }
            version if *version != FORMAT_VERSION => {
                return Err(format!(
                    "it has format version {version}, and this program reads {FORMAT_VERSION}"
                ));
            }
            _ => {}
        }
        let description: Self = serde_json::from_value(plain).map_err(damaged)?;
        if description.tasks.is_empty() {
            return Err("its description names no task".to_owned());
        }
        for (index, task) in description.tasks.iter().enumerate() {
            let same = |other: &TaskDescription| other.name == task.name;
            if description.tasks[..index].iter().any(same) {
                return Err(format!("it has two tasks called {:?}", task.name));
            }
            let check = task.net.check();
            check.map_err(|error| format!("the net of {} is not whole: {error}", task.name))?;
            let scales = &task.pixel_scales;
            let is_usable = |scale: &ScaleForm| scale.mean.is_finite() && scale.divisor.is_normal();
            if ![1, task.net.input.channels].contains(&scales.len())
                || !scales.iter().all(is_usable)
            {
                return Err(format!("the pixels of {} have no usable scale", task.name));
            }
        }
        Ok(description)
    }

    /// The layers of all tasks' nets.
    pub(in crate::experiment) fn layers(&self) -> Vec<SharedLayer> {
        let nets: Vec<&NetSpec> = self.tasks.iter().map(|task| &task.net).collect();
        shared_layers(&nets)
    }

    /// The names of the tasks.
    pub(super) fn names(&self) -> Vec<&str> {
        self.tasks.iter().map(|task| &task.name[..]).collect()
    }
}
