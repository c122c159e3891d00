//! What an experiment's nets are made of: layers, parameters, who will own how many of them, and by which
//! kernels they are trained.

use std::fmt;

use serde::Serialize;
use taskweave_kernels::{dispatch, sparse};

use super::answer::grouped;
use super::{Experiment, ExperimentError, RunSettings};
use crate::multitask::{Sharer, shared_layers};
use crate::nn::{LayerSpec, NetSpec};

/// The layers of an experiment's nets. Displays as a table.
///
/// ```
/// use taskweave::experiment::{ProtocolName, RunSettings, Summary, find};
/// let settings = RunSettings { protocol: ProtocolName::Reference, ..RunSettings::default() };
/// let summary = Summary::new(&find("digits-fashion-mlp")?, &settings)?;
/// assert_eq!(summary.total.parameters, 5_800_010);
/// // Each task owns a tenth, rounded to whole positions tensor by tensor.
/// assert_eq!(summary.total.owned, [Some(580_001), Some(580_001)]);
/// # Ok::<(), taskweave::experiment::ExperimentError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The experiment.
    pub experiment: &'static str,
    /// The names of its tasks.
    pub tasks: Vec<&'static str>,
    /// The layers. One that some tasks have in another shape occurs once for each.
    pub layers: Vec<SummaryRow>,
    /// The sums: of the multitask net, all tasks' layers together; the multiply-adds are those of the
    /// largest of their nets.
    pub total: SummaryRow,
}

/// One layer, or the sum of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SummaryRow {
    /// "conv2d_0".
    pub name: String,
    /// The shape of one image's values behind it, `[channels, height, width]` or `[features]`.
    pub output: Vec<usize>,
    /// Weights and biases of the one tensor that the tasks share.
    pub parameters: usize,
    /// Multiply-adds of one image's forward pass, which every task takes for itself.
    pub multiply_adds: usize,
    /// Parameters that each task owns in the multitask net; `None` where its net has another layer
    /// in this place.
    pub owned: Vec<Option<usize>>,
    /// The sparse kernels that each task's steps in the multitask net take; `None` where all are dense, or
    /// there is no such layer.
    pub sparse: Vec<Option<SparseKernels>>,
}

/// Which passes of a layer go by sparse kernels.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SparseKernels {
    /// Of "forward", "grad_input" and "grad_weights"; the others go by dense kernels.
    pub passes: Vec<&'static str>,
    /// Whether these are all that the layer has: nobody wants the first one's gradient of its input.
    pub is_whole: bool,
    /// How many times faster than by dense kernels a step is expected to be.
    pub speedup: f64,
}

impl fmt::Display for SparseKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_whole {
            true => write!(f, "sparse {:.1}x", self.speedup),
            false => write!(f, "sparse {} {:.1}x", self.passes.join("+"), self.speedup),
        }
    }
}

impl Summary {
    /// The layers of an experiment, the shares that the percentiles of a run give, and the kernels that
    /// these suit on this machine.
    ///
    /// # Errors
    /// When there is not one percentile for all tasks or one for each, or one is outside 0 to 100.
    pub fn new(experiment: &Experiment, settings: &RunSettings) -> Result<Self, ExperimentError> {
        let rule = experiment.protocol_of(settings).owners.rule;
        let tasks = experiment.tasks.len();
        let mut rows: Vec<(usize, SummaryRow)> = Vec::new();
        let nets: Vec<&NetSpec> = experiment.nets.iter().collect();
        let shares = rule
            .shares(&nets)
            .map_err(|source| ExperimentError::Train {
                model: experiment.name.to_owned(),
                source,
            })?;
        for layer in shared_layers(&nets) {
            let lens = layer.parameters.iter().map(|spec| spec.elements());
            let mut owned = vec![None; tasks];
            let mut sparse = vec![None; tasks];
            for (parameter, len) in lens.clone().enumerate() {
                // What those before have left is all that a late task gets.
                let mut left = len;
                for sharer in &layer.sharers {
                    let share = shares[sharer.task][sharer.first_parameter + parameter].min(left);
                    left -= share;
                    *owned[sharer.task].get_or_insert(0) += share;
                    if parameter == 0 {
                        let net = nets[sharer.task];
                        let density = share as f64 / len as f64;
                        sparse[sharer.task] = sparse_kernels(net, sharer, density);
                    }
                }
            }
            let row = SummaryRow {
                owned,
                sparse,
                ..row(&nets, layer.name, &layer.sharers[0], lens.sum())
            };
            rows.push((layer.sharers[0].layer, row));
        }
        rows.extend(bare_layers(&nets));
        rows.sort_by_key(|(layer, _)| *layer);
        let layers: Vec<SummaryRow> = rows.into_iter().map(|(_, row)| row).collect();
        let owned = |task: usize| layers.iter().filter_map(move |row| row.owned[task]).sum();
        let largest = nets.iter().map(|net| net.multiply_adds().0);
        let total = SummaryRow {
            name: "total".to_owned(),
            output: Vec::new(),
            parameters: layers.iter().map(|row| row.parameters).sum(),
            multiply_adds: largest.max().unwrap_or(0),
            owned: (0..tasks).map(|task| Some(owned(task))).collect(),
            sparse: vec![None; tasks],
        };
        Ok(Self {
            experiment: experiment.name,
            tasks: experiment.tasks.iter().map(|task| task.name).collect(),
            layers,
            total,
        })
    }
}

/// The sparse kernels that suit a layer of this density, if any do.
fn sparse_kernels(net: &NetSpec, sharer: &Sharer, density: f64) -> Option<SparseKernels> {
    let layer = sharer.layer;
    let before = match layer.checked_sub(1) {
        Some(before) => net.shapes().ok()?.get(before)?.clone(),
        None => net.input.dims().to_vec(),
    };
    let is_pooled = matches!(net.layers.get(layer + 1), Some(LayerSpec::MaxPool { .. }));
    let is_first = sharer.first_parameter == 0;
    let layer = match net.layers[layer] {
        LayerSpec::Dense { units, .. } => sparse::Layer::Dense {
            features: [before.iter().product(), units],
            is_first,
        },
        LayerSpec::Conv2d {
            filters, window, ..
        } => sparse::Layer::Conv2d {
            window,
            channels: [before[0], filters],
            is_pooled,
            is_first,
        },
        _ => return None,
    };
    let set = dispatch::active();
    let passes = sparse::choose(set, layer, density);
    passes.any().then(|| SparseKernels {
        passes: passes.names().collect(),
        is_whole: passes == layer.passes(),
        speedup: sparse::expected_speedup(set, layer, passes, density),
    })
}

fn row(nets: &[&NetSpec], name: String, sharer: &Sharer, parameters: usize) -> SummaryRow {
    let net = nets[sharer.task];
    let shapes = net.shapes().unwrap_or_default();
    SummaryRow {
        name,
        output: shapes.get(sharer.layer).cloned().unwrap_or_default(),
        parameters,
        multiply_adds: net.multiply_adds_by_layer()[sharer.layer],
        owned: vec![Some(0); nets.len()],
        sparse: vec![None; nets.len()],
    }
}

/// The layers without parameters, as the first net has them.
fn bare_layers(nets: &[&NetSpec]) -> Vec<(usize, SummaryRow)> {
    let Some(net) = nets.first() else {
        return Vec::new();
    };
    let named = net.layer_names().into_iter().zip(net.parameters_by_layer());
    named
        .enumerate()
        .filter(|(_, (_, parameters))| parameters.is_empty())
        .map(|(layer, (name, _))| {
            let sharer = Sharer {
                task: 0,
                layer,
                first_parameter: 0,
            };
            (layer, row(nets, name, &sharer, 0))
        })
        .collect()
}

impl SummaryRow {
    /// "dense", "sparse 3.0x": by which kernels each task computes the layer, once if they are alike.
    fn kernels(&self) -> String {
        if self.multiply_adds == 0 || self.output.is_empty() {
            return String::new();
        }
        let pairs = self.owned.iter().zip(&self.sparse);
        let mut kernels: Vec<String> = pairs
            .filter(|(owned, _)| owned.is_some())
            .map(|(_, sparse)| match sparse {
                Some(sparse) => sparse.to_string(),
                None => "dense".to_owned(),
            })
            .collect();
        kernels.dedup();
        kernels.join(", ")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<24}{:>12}{:>13}{:>15}",
            "layer", "output", "parameters", "multiply-adds"
        )?;
        for task in &self.tasks {
            write!(f, "{:>13}", format!("{task} owns"))?;
        }
        write!(f, "  kernels of a task's step")?;
        for row in self.layers.iter().chain([&self.total]) {
            let output: Vec<String> = row.output.iter().map(usize::to_string).collect();
            write!(
                f,
                "\n{:<24}{:>12}{:>13}{:>15}",
                row.name,
                output.join("x"),
                grouped(row.parameters),
                grouped(row.multiply_adds)
            )?;
            for owned in &row.owned {
                write!(f, "{:>13}", owned.map_or("-".to_owned(), grouped))?;
            }
            let kernels = row.kernels();
            if !kernels.is_empty() {
                write!(f, "  {kernels}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::{OwnerChoices, ProtocolName, find};

    #[test]
    fn a_layer_in_two_shapes_has_two_rows() {
        let experiment = find("cifar-digits-fashion-conv").unwrap();
        let settings = RunSettings {
            protocol: ProtocolName::Reference,
            ..RunSettings::default()
        };
        let summary = Summary::new(&experiment, &settings).unwrap();
        let [colour, grey] = &summary.layers[..2] else {
            panic!("{summary}")
        };
        assert_eq!(
            (colour.parameters, grey.parameters),
            (27 * 32 + 32, 9 * 32 + 32)
        );
        // 864 - ⌈863 · 0.9⌉ = 87 weights and 32 - ⌈31 · 0.9⌉ = 4 biases.
        assert_eq!(colour.owned, [Some(91), None, None]);
        assert_eq!(grey.owned, [None, Some(29 + 4), Some(29 + 4)]);
        assert_eq!(summary.layers.len(), 11);
        let parameters: usize = 3 * 3 * 32 * 32 + 32;
        assert_eq!(summary.layers[2].parameters, parameters);
        let first_of_grey = 9 * 32 * 28 * 28;
        let columns = summary.layers.iter().map(|row| row.multiply_adds);
        assert_eq!(
            columns.sum::<usize>(),
            summary.total.multiply_adds + first_of_grey
        );
        let text = summary.to_string();
        assert_eq!(text.lines().count(), 13, "{text}");
        assert!(text.contains("64x26x26"), "{text}");
    }

    #[test]
    fn what_is_left_is_all_that_a_late_task_gets() {
        let experiment = find("cifar-digits-fashion-conv").unwrap();
        let owners = OwnerChoices {
            percentiles: Some(vec![60.0]),
            ..OwnerChoices::default()
        };
        let settings = RunSettings {
            owners,
            ..RunSettings::default()
        };
        let summary = Summary::new(&experiment, &settings).unwrap();
        let weights = 3 * 3 * 32 * 32;
        let [a, b, c] = summary.layers[2].owned[..] else {
            panic!("{summary}")
        };
        assert_eq!(a, b);
        assert!(c.unwrap() < a.unwrap() * 6 / 10);
        assert_eq!([a, b, c].iter().flatten().sum::<usize>(), weights + 32);
    }

    #[test]
    fn few_weights_are_met_by_sparse_kernels() {
        if sparse::choice_from_env() != Ok(None) {
            return;
        }
        let settings = RunSettings {
            protocol: ProtocolName::Reference,
            ..RunSettings::default()
        };
        let summary = Summary::new(&find("digits-fashion-mlp").unwrap(), &settings).unwrap();
        let [first, second] = &summary.layers[0].sparse[..] else {
            panic!("{summary}")
        };
        assert_eq!(first, second);
        assert!(first.as_ref().unwrap().speedup > 1.2, "{summary}");
        let settings = RunSettings {
            owners: OwnerChoices {
                percentiles: Some(vec![95.0, 10.0]),
                ..OwnerChoices::default()
            },
            ..settings
        };
        let summary = Summary::new(&find("digits-fashion-mlp").unwrap(), &settings).unwrap();
        let [first, second] = &summary.layers[0].sparse[..] else {
            panic!("{summary}")
        };
        assert!(first.is_some() && second.is_none(), "{summary}");
        assert!(summary.to_string().contains("x, dense"), "{summary}");
    }

    #[test]
    fn passes_by_sparse_kernels_are_named_where_not_all_are() {
        let mut kernels = SparseKernels {
            passes: vec!["grad_input", "grad_weights"],
            is_whole: false,
            speedup: 1.24,
        };
        assert_eq!(kernels.to_string(), "sparse grad_input+grad_weights 1.2x");
        kernels.is_whole = true;
        assert_eq!(kernels.to_string(), "sparse 1.2x");
    }
}
