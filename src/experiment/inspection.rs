//! What a model file holds: layers, owners, sizes and costs.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::answer::grouped;
use super::model_file::{self, Description};
use super::{ExperimentError, ModelKind, ProtocolName};
use crate::files::size_text;
use crate::nn::ParameterKind;
use crate::ops::Precision;

/// What a model file holds. Displays as two tables.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// The experiment that trained it.
    pub experiment: String,
    /// Dedicated or multitask.
    pub model: ModelKind,
    /// The seed of its training.
    pub seed: u64,
    /// The protocol of its training.
    pub protocol: ProtocolName,
    /// The precision of products in its training.
    pub precision: Precision,
    /// The version of the program that wrote it.
    pub program_version: String,
    /// The tasks, in order.
    pub tasks: Vec<TaskInspection>,
    /// The layers that have parameters. One that some tasks have in another shape occurs once for each.
    pub layers: Vec<LayerInspection>,
    /// Parameters of one tensor per layer, shared or not.
    pub parameters: usize,
    /// Bytes of all parameters of one dense net: 4 each.
    pub bytes_one_dense: usize,
    /// Bytes of a dense net for every task.
    pub bytes_dense: usize,
    /// Bytes of the owned weights of every task, each with its position in 4 bytes.
    pub bytes_sparse: usize,
    /// Bytes of the woven weights with their owners; of a dedicated net those of its weights.
    pub bytes_woven: usize,
    /// Bytes of the file.
    pub bytes_file: usize,
}

/// One task of a model file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TaskInspection {
    /// Its name.
    pub name: String,
    /// The dataset that it was trained on.
    pub dataset: String,
    /// What its classes are called.
    pub class_names: Vec<String>,
    /// The images that it takes: `[channels, height, width]`.
    pub input: [usize; 3],
    /// Weights and biases that it owns.
    pub owned: usize,
    /// Multiply-adds of one image's forward pass by the whole net.
    pub multiply_adds_dense: usize,
    /// The same by the owned weights alone.
    pub multiply_adds_owned: usize,
}

/// One layer of a model file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LayerInspection {
    /// "conv2d_0".
    pub name: String,
    /// Its weights and biases.
    pub parameters: usize,
    /// Parameters that each task owns; `None` where its net has no such layer.
    pub owned: Vec<Option<usize>>,
}

impl LayerInspection {
    /// The share of its parameters that have an owner, from 0 to 1.
    pub fn density(&self) -> f64 {
        let owned: usize = self.owned.iter().flatten().sum();
        owned as f64 / self.parameters.max(1) as f64
    }
}

impl Inspection {
    /// Looks into a model file, which is mapped into memory; of its weights nothing but their number is
    /// read.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or is no model file of this version.
    pub fn open(path: &Path) -> Result<Self, ExperimentError> {
        model_file::read(path, Self::of)
    }

    fn of(bytes: &[u8]) -> Result<Self, String> {
        let (file, text) = model_file::parse(bytes)?;
        let description = Description::parse(&text)?;
        let mut tasks: Vec<TaskInspection> = description
            .tasks
            .iter()
            .map(|task| TaskInspection {
                name: task.name.clone(),
                dataset: task.dataset.clone(),
                class_names: task.class_names.clone(),
                input: task.net.input.dims(),
                owned: 0,
                multiply_adds_dense: task.net.multiply_adds().0,
                multiply_adds_owned: 0,
            })
            .collect();
        let mut layers = Vec::new();
        let mut bytes_woven = 0;
        for layer in description.layers() {
            let counts = model_file::owned_counts(&file, &description, &layer)?;
            let mut owned = vec![None; tasks.len()];
            for (at, sharer) in layer.sharers.iter().enumerate() {
                let task = &mut tasks[sharer.task];
                let all: usize = counts.iter().map(|(counts, _)| counts[at]).sum();
                owned[sharer.task] = Some(all);
                task.owned += all;
                let by_layer = description.tasks[sharer.task].net.multiply_adds_by_layer();
                for ((counts, _), spec) in counts.iter().zip(&layer.parameters) {
                    if spec.kind == ParameterKind::Kernel {
                        // Every weight takes part as often as every other.
                        let times = by_layer[sharer.layer] / spec.elements().max(1);
                        task.multiply_adds_owned += times * counts[at];
                    }
                }
            }
            bytes_woven += counts.iter().map(|(_, bytes)| bytes).sum::<usize>();
            let parameters = layer.parameters.iter().map(|spec| spec.elements()).sum();
            layers.push(LayerInspection {
                name: layer.name,
                parameters,
                owned,
            });
        }
        let nets = description.tasks.iter().map(|task| &task.net);
        let dense = nets.map(|net| 4 * net.parameter_count());
        Ok(Self {
            experiment: description.experiment.clone(),
            model: description.model,
            seed: description.seed,
            protocol: description.protocol,
            precision: description.precision,
            program_version: description.program_version.clone(),
            parameters: layers.iter().map(|layer| layer.parameters).sum(),
            bytes_one_dense: dense.clone().max().unwrap_or(0),
            bytes_dense: dense.sum(),
            bytes_sparse: tasks.iter().map(|task| 8 * task.owned).sum(),
            bytes_woven,
            bytes_file: bytes.len(),
            tasks,
            layers,
        })
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.tasks.iter().map(|task| &task.name[..]).collect();
        writeln!(
            f,
            "{} model of {} for {}: {} protocol, seed {}, {}, taskweave {}",
            self.model.title(),
            self.experiment,
            names.join(", "),
            self.protocol,
            self.seed,
            self.precision,
            self.program_version
        )?;
        write!(f, "\n{:<24}{:>13}", "layer", "parameters")?;
        for name in &names {
            write!(f, "{:>15}", format!("{name} owns"))?;
        }
        writeln!(f, "{:>10}", "density")?;
        let owned = self.tasks.iter().map(|task| Some(task.owned)).collect();
        let total = LayerInspection {
            name: "total".to_owned(),
            parameters: self.parameters,
            owned,
        };
        for layer in self.layers.iter().chain([&total]) {
            let parameters = grouped(layer.parameters);
            write!(f, "{:<24}{parameters:>13}", layer.name)?;
            for owned in &layer.owned {
                write!(f, "{:>15}", owned.map_or("-".to_owned(), grouped))?;
            }
            writeln!(f, "{:>10.4}", layer.density())?;
        }
        writeln!(f)?;
        for (what, bytes) in [
            ("one dense net", self.bytes_one_dense),
            ("a dense net per task", self.bytes_dense),
            ("sparse, with positions", self.bytes_sparse),
            ("as stored", self.bytes_woven),
        ] {
            writeln!(
                f,
                "{what:<24}{:>13}{:>15}",
                size_text(bytes as u64),
                format!(
                    "{:.4} of one",
                    bytes as f64 / self.bytes_one_dense.max(1) as f64
                )
            )?;
        }
        for task in &self.tasks {
            write!(
                f,
                "\n{}: {} of {} multiply-adds per image, {} classes of {}",
                task.name,
                grouped(task.multiply_adds_owned),
                grouped(task.multiply_adds_dense),
                task.class_names.len(),
                task.dataset
            )?;
        }
        Ok(())
    }
}
