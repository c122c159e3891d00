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
    /// The tasks that both kinds of model have: only these are compared.
    compared: Vec<String>,
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
                    seconds: alone.then_some(outcome.seconds()),
                });
            }
        }
        let seconds = |model| {
            let trained = outcomes.iter().filter(|outcome| outcome.kind == model);
            trained.map(ModelOutcome::seconds).sum()
        };
        Self::of_rows(rows, seconds)
    }

    /// The answer from a row per task and model, and the time that the models of a kind took.
    fn of_rows(mut rows: Vec<Row>, seconds: impl Fn(ModelKind) -> f64) -> Self {
        let mut tasks: Vec<String> = Vec::new();
        for row in &rows {
            if !tasks.contains(&row.task) {
                tasks.push(row.task.clone());
            }
        }
        rows.sort_by_key(|row| {
            let place = tasks.iter().position(|task| *task == row.task);
            (place, row.model == ModelKind::Multitask)
        });
        let compared: Vec<String> = tasks
            .iter()
            .filter(|&task| rows.iter().filter(|row| row.task == *task).count() == 2)
            .cloned()
            .collect();
        let all = compared.len() == tasks.len();
        let total = |model| {
            let of_kind = rows.iter().filter(|row| row.model == model);
            let of_kind: Vec<&Row> = of_kind.filter(|row| compared.contains(&row.task)).collect();
            Row {
                task: if all {
                    "all (mean, sums)"
                } else {
                    "compared (sums)"
                }
                .to_owned(),
                model,
                accuracy: of_kind.iter().map(|row| row.accuracy).sum::<f64>()
                    / of_kind.len() as f64,
                parameters: of_kind.iter().map(|row| row.parameters).sum(),
                bytes: of_kind.iter().map(|row| row.bytes).sum(),
                seconds: all.then(|| seconds(model)),
            }
        };
        let totals = match compared.len() {
            0 => Vec::new(),
            _ => vec![total(ModelKind::Dedicated), total(ModelKind::Multitask)],
        };
        Self {
            rows,
            compared,
            totals,
        }
    }

    /// The tasks that have no dedicated model to be compared with.
    fn not_compared(&self) -> Vec<&str> {
        let others = self.rows.iter().map(|row| &row.task[..]);
        others
            .filter(|task| !self.compared.iter().any(|compared| compared == task))
            .collect()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = ["accuracy", "parameters", "bytes", "training"];
        writeln!(
            f,
            "{:<18}{:<11}{:>9}{:>13}{:>12}{:>11}",
            "task", "model", heads[0], heads[1], heads[2], heads[3]
        )?;
        // The sums over one task are its own row.
        let totals = match self.compared.len() {
            1 => &[][..],
            _ => &self.totals[..],
        };
        for row in self.rows.iter().chain(totals) {
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
        let [dedicated, multitask] = &self.totals[..] else {
            return Ok(());
        };
        let where_compared = match (&self.not_compared()[..], &self.compared[..]) {
            ([], _) => "on average".to_owned(),
            (_, [task]) => format!("on {task}"),
            (_, tasks) => format!("on average over {}", tasks.join(", ")),
        };
        write!(
            f,
            "One network for all tasks: {:+.2} points of accuracy {where_compared}, with {:.1} % of \
             the parameters.",
            100.0 * (multitask.accuracy - dedicated.accuracy),
            100.0 * multitask.parameters as f64 / dedicated.parameters as f64
        )?;
        match &self.not_compared()[..] {
            [] => Ok(()),
            [task] => write!(f, " {task} has no dedicated model to compare with."),
            tasks => write!(
                f,
                " {} have no dedicated model to compare with.",
                tasks.join(" and ")
            ),
        }
    }
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: usize) -> String {
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

    fn row(task: &str, model: ModelKind, accuracy: f64, parameters: usize) -> Row {
        Row {
            task: task.to_owned(),
            model,
            accuracy,
            parameters,
            bytes: 4 * parameters,
            seconds: None,
        }
    }

    #[test]
    fn only_tasks_that_both_kinds_have_are_compared() {
        use ModelKind::{Dedicated, Multitask};
        let rows = vec![
            row("CIFAR", Dedicated, 0.5, 1_000),
            row("CIFAR", Multitask, 0.6, 100),
            row("Digit", Multitask, 0.99, 100),
            row("Fashion", Multitask, 0.9, 100),
        ];
        let text = Answer::of_rows(rows, |_| 1.0).to_string();
        let end = "One network for all tasks: +10.00 points of accuracy on CIFAR, with 10.0 % of the \
                   parameters. Digit and Fashion have no dedicated model to compare with.";
        assert!(text.ends_with(end), "{text}");
        assert_eq!(text.lines().count(), 6, "{text}");
        let rows = vec![
            row("Digit", Dedicated, 0.5, 1_000),
            row("Fashion", Dedicated, 0.7, 1_000),
            row("Digit", Multitask, 0.6, 100),
            row("Fashion", Multitask, 0.7, 100),
        ];
        let text = Answer::of_rows(rows, |_| 1.0).to_string();
        let end = "One network for all tasks: +5.00 points of accuracy on average, with 10.0 % of the \
                   parameters.";
        assert!(text.ends_with(end), "{text}");
        assert_eq!(text.matches("all (mean, sums)").count(), 2);
    }

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
