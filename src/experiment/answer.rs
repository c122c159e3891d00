//! The answer: one net per task, or one for all?

use std::fmt;

use serde::Serialize;

use super::{ModelKind, ModelOutcome};

/// Bytes of an f32.
const BYTES_PER_PARAMETER: usize = 4;

/// Dedicated against multitask, task by task. Displays as a small table.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    rows: Vec<Row>,
    totals: Vec<Row>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    task: String,
    model: ModelKind,
    accuracy: f64,
    parameters: usize,
    bytes: usize,
    #[serde(skip)]
    seconds: f64,
}

impl Answer {
    /// The answer that these outcomes give. The tasks of a multitask model train together: each has
    /// an equal share of the training time.
    pub fn new(outcomes: &[ModelOutcome]) -> Self {
        let mut rows = Vec::new();
        for outcome in outcomes {
            for task in &outcome.tasks {
                rows.push(Row {
                    task: task.name.clone(),
                    model: outcome.kind,
                    accuracy: task.accuracy,
                    parameters: task.parameters_owned,
                    bytes: task.parameters_owned * BYTES_PER_PARAMETER,
                    seconds: outcome.fit.seconds / outcome.tasks.len() as f64,
                });
            }
        }
        let mut order: Vec<String> = Vec::new();
        for row in &rows {
            if !order.contains(&row.task) {
                order.push(row.task.clone());
            }
        }
        rows.sort_by_key(|row| {
            let place = order.iter().position(|task| *task == row.task);
            (place, row.model == ModelKind::Multitask)
        });
        let totals = [ModelKind::Dedicated, ModelKind::Multitask]
            .into_iter()
            .filter_map(|model| total(&rows, model))
            .collect();
        Self { rows, totals }
    }
}

/// Mean accuracy and sums over all tasks of a kind of model.
fn total(rows: &[Row], model: ModelKind) -> Option<Row> {
    let of_kind: Vec<&Row> = rows.iter().filter(|row| row.model == model).collect();
    let count = of_kind.len();
    (count > 0).then(|| Row {
        task: "all (mean, sums)".to_owned(),
        model,
        accuracy: of_kind.iter().map(|row| row.accuracy).sum::<f64>() / count as f64,
        parameters: of_kind.iter().map(|row| row.parameters).sum(),
        bytes: of_kind.iter().map(|row| row.bytes).sum(),
        seconds: of_kind.iter().map(|row| row.seconds).sum(),
    })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["accuracy", "parameters", "bytes", "training"];
        writeln!(
            f,
            "{:<18}{:<11}{:>9}{:>13}{:>12}{:>11}",
            "task", "model", heads[0], heads[1], heads[2], heads[3]
        )?;
        for row in self.rows.iter().chain(&self.totals) {
            writeln!(
                f,
                "{:<18}{:<11}{:>9.4}{:>13}{:>12}{:>9.1} s",
                row.task,
                row.model.title().to_lowercase(),
                row.accuracy,
                grouped(row.parameters),
                bytes(row.bytes),
                row.seconds
            )?;
        }
        if let [dedicated, multitask] = &self.totals[..] {
            let difference = 100.0 * (multitask.accuracy - dedicated.accuracy);
            write!(
                f,
                "One network for all tasks: {difference:+.2} points of accuracy on average, \
                 with {:.1} % of the parameters.",
                100.0 * multitask.parameters as f64 / dedicated.parameters as f64
            )?;
        }
        Ok(())
    }
}

/// `1234567` as `1,234,567`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

/// A number of bytes in the unit that suits it.
pub(super) fn bytes(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (5_800_010, "5,800,010"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn bytes_take_the_unit_that_suits() {
        for (number, text) in [(40, "40 B"), (4_000, "4.0 kB"), (23_200_040, "23.2 MB")] {
            assert_eq!(bytes(number), text);
        }
    }
}
