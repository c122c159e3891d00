//! What an experiment's nets are made of: layers, parameters, and who will own how many of them.

use std::fmt;

use serde::Serialize;

use super::answer::grouped;
use super::{Experiment, ProtocolName};
use crate::multitask::{Sharer, share, shared_layers};
use crate::nn::NetSpec;

/// The layers of an experiment's nets. Displays as a table.
///
/// ```
/// use taskweave::experiment::{ProtocolName, Summary, find};
/// let summary = Summary::new(&find("digits-fashion-mlp")?, ProtocolName::Reference);
/// assert_eq!(summary.total.parameters, 5_800_010);
/// // Each task owns a tenth, rounded to whole positions tensor by tensor.
/// assert_eq!(summary.total.owned, [Some(580_001), Some(580_001)]);
/// # Ok::<(), taskweave::experiment::ExperimentError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
}

impl Summary {
    /// The layers of an experiment, and the shares that a protocol's percentile gives.
    pub fn new(experiment: &Experiment, protocol: ProtocolName) -> Self {
        let percentile = experiment.protocol(protocol).owners.percentile;
        let tasks = experiment.tasks.len();
        let mut rows: Vec<(usize, SummaryRow)> = Vec::new();
        let nets: Vec<&NetSpec> = experiment.nets.iter().collect();
        for layer in shared_layers(&nets) {
            let lens: Vec<usize> = layer
                .parameters
                .iter()
                .map(|spec| spec.elements())
                .collect();
            let mut owned = vec![None; tasks];
            for (place, sharer) in layer.sharers.iter().enumerate() {
                let shares = lens.iter().map(|&len| owned_by(place, len, percentile));
                owned[sharer.task] = Some(shares.sum());
            }
            let row = row(
                &nets,
                layer.name,
                &layer.sharers[0],
                lens.iter().sum(),
                owned,
            );
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
        };
        Self {
            experiment: experiment.name,
            tasks: experiment.tasks.iter().map(|task| task.name).collect(),
            layers,
            total,
        }
    }
}

/// What the sharer at this place gets of a tensor: its share, or what those before have left.
fn owned_by(place: usize, len: usize, percentile: f64) -> usize {
    let share = share(len, percentile);
    share.min(len.saturating_sub(place * share))
}

fn row(
    nets: &[&NetSpec],
    name: String,
    sharer: &Sharer,
    parameters: usize,
    owned: Vec<Option<usize>>,
) -> SummaryRow {
    let net = nets[sharer.task];
    let shapes = net.shapes().unwrap_or_default();
    SummaryRow {
        name,
        output: shapes.get(sharer.layer).cloned().unwrap_or_default(),
        parameters,
        multiply_adds: net.multiply_adds_by_layer()[sharer.layer],
        owned,
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
            (
                layer,
                row(nets, name, &sharer, 0, vec![Some(0); nets.len()]),
            )
        })
        .collect()
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
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::find;

    #[test]
    fn a_layer_in_two_shapes_has_two_rows() {
        let experiment = find("cifar-digits-fashion-conv").unwrap();
        let summary = Summary::new(&experiment, ProtocolName::Reference);
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
        assert_eq!([0, 1, 2].map(|place| owned_by(place, 10, 50.0)), [5, 5, 0]);
        assert_eq!([0, 1, 2].map(|place| owned_by(place, 10, 60.0)), [4, 4, 2]);
    }
}
