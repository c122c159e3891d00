//! The answer: one net per task, or one for all?

use std::fmt;

use serde::Serialize;

use super::{ModelKind, ModelOutcome};
use crate::files::size_text;

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
    /// `None` where tasks train together and only their sum was measured.
    #[serde(skip)]
    seconds: Option<f64>,
}

impl Answer {
    /// The answer that these outcomes give.
    pub fn new(outcomes: &[ModelOutcome]) -> Self {
        let mut rows = Vec::new();
        for outcome in outcomes {
            let alone = outcome.tasks.len() == 1;
            for task in &outcome.tasks {
                rows.push(Row {
                    task: task.name.clone(),
                    model: outcome.kind,
                    accuracy: task.accuracy,
                    parameters: task.parameters_owned,
                    bytes: task.parameters_owned * BYTES_PER_PARAMETER,
                    seconds: alone.then_some(outcome.fit.seconds),
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
            .filter_map(|model| total(outcomes, &rows, model))
            .collect();
        Self { rows, totals }
    }
}

/// Mean accuracy and sums over all tasks of a kind of model.
fn total(outcomes: &[ModelOutcome], rows: &[Row], model: ModelKind) -> Option<Row> {
    let trained = outcomes.iter().filter(|outcome| outcome.kind == model);
    let of_kind: Vec<&Row> = rows.iter().filter(|row| row.model == model).collect();
    let count = of_kind.len();
    (count > 0).then(|| Row {
        task: "all (mean, sums)".to_owned(),
        model,
        accuracy: of_kind.iter().map(|row| row.accuracy).sum::<f64>() / count as f64,
        parameters: of_kind.iter().map(|row| row.parameters).sum(),
        bytes: of_kind.iter().map(|row| row.bytes).sum(),
        seconds: Some(trained.map(|outcome| outcome.fit.seconds).sum()),
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
            let training = match row.seconds {
                Some(seconds) => format!("{seconds:.1} s"),
                None => "together".to_owned(),
            };
            writeln!(
                f,
                "{:<18}{:<11}{:>9.4}{:>13}{:>12}{training:>11}",
                row.task,
                row.model.title().to_lowercase(),
                row.accuracy,
                grouped(row.parameters),
                size_text(row.bytes as u64),
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
}
