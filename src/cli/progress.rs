//! What the person at the terminal sees of a training run: a bar per epoch, or plain lines where
//! stderr is not a terminal.

use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle};

use super::interrupt;
use super::story::tell;
use crate::train::{EpochRecord, Observer, StepReport, TaskRecord};

/// Between two plain lines within an epoch.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// How the progress of a training run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Quiet,
    Plain,
    Bars,
}

impl Style {
    pub(super) fn of(quiet: bool) -> Self {
        match (quiet, stderr().is_terminal()) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bars,
            (false, false) => Self::Plain,
        }
    }
}

/// Shows the epochs of one net.
pub(super) struct EpochProgress {
    style: Style,
    names: Vec<String>,
    bar: Option<ProgressBar>,
    epoch_start: Instant,
    last_line: Instant,
}

impl EpochProgress {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            names: Vec::new(),
            bar: None,
            epoch_start: Instant::now(),
            last_line: Instant::now(),
        }
    }

    /// The next net begins.
    pub(super) fn begin(&mut self, names: Vec<String>) {
        self.names = names;
        self.restart();
    }

    /// The clock of the first epoch starts now.
    pub(super) fn restart(&mut self) {
        self.epoch_start = Instant::now();
        self.last_line = self.epoch_start;
    }

    fn status(&self, report: &StepReport<'_>) -> String {
        let mut status = format!("loss {:.4}", report.loss);
        for (name, accuracy) in self.names.iter().zip(report.accuracies) {
            if let Some(accuracy) = accuracy {
                status.push_str(&format!(", {name} {accuracy:.4}"));
            }
        }
        status
    }
}

impl Observer for EpochProgress {
    fn step(&mut self, report: &StepReport<'_>) {
        match self.style {
            Style::Quiet => {}
            Style::Bars => {
                let bar = self.bar.get_or_insert_with(|| epoch_bar(report));
                bar.set_position(report.images_done as u64);
                let status = self.status(report);
                if let Some(bar) = &self.bar {
                    bar.set_message(status);
                }
            }
            Style::Plain => {
                if self.last_line.elapsed() >= PLAIN_INTERVAL {
                    self.last_line = Instant::now();
                    let seconds = self.epoch_start.elapsed().as_secs_f64();
                    let rate = report.images_done as f64 / seconds;
                    tell!(
                        "  epoch {:>3}: {} of {} images, {rate:.0} images/s, {:.0} s left, {}",
                        report.epoch,
                        report.images_done,
                        report.images,
                        (report.images - report.images_done) as f64 / rate,
                        self.status(report)
                    );
                }
            }
        }
    }

    fn epoch(&mut self, record: &EpochRecord) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        if self.style != Style::Quiet {
            tell!("{}", epoch_line(record, &self.names));
        }
        self.restart();
    }

    fn interrupted(&self) -> bool {
        interrupt::requested()
    }
}

fn epoch_bar(report: &StepReport<'_>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(
        Some(report.images as u64),
        ProgressDrawTarget::stderr_with_hz(10),
    )
    .with_finish(ProgressFinish::AndClear);
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        // A bar that cannot be drawn is no failure of the run.
        let _ = write!(out, "{:.0} images/s", state.per_sec());
    };
    let template = "  epoch {prefix:>3} [{bar:24}] {pos}/{len} images, {rate}, {eta} left, {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
    }
    bar.set_prefix(report.epoch.to_string());
    bar
}

fn epoch_line(record: &EpochRecord, names: &[String]) -> String {
    let mut line = format!(
        "  epoch {:>3}: {:.1} s, {:.0} images/s",
        record.epoch,
        record.seconds,
        record.images as f64 / record.seconds
    );
    for (name, task) in names.iter().zip(&record.tasks) {
        if let Some(TaskRecord {
            loss,
            accuracy,
            val_loss,
            val_accuracy,
        }) = task
        {
            line.push_str(&format!(
                "; {name}: loss {loss:.4}, accuracy {accuracy:.4}, \
                 validation {val_loss:.4}, {val_accuracy:.4}"
            ));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_epoch_names_the_tasks_that_trained() {
        let task = TaskRecord {
            loss: 0.5,
            accuracy: 0.8,
            val_loss: 0.25,
            val_accuracy: 0.9,
        };
        let record = EpochRecord {
            epoch: 3,
            tasks: vec![Some(task), None],
            val_loss: 0.25,
            images: 3_000,
            seconds: 2.0,
        };
        assert_eq!(
            epoch_line(&record, &["Digit".to_owned(), "Fashion".to_owned()]),
            "  epoch   3: 2.0 s, 1500 images/s; Digit: loss 0.5000, accuracy 0.8000, validation 0.2500, 0.9000"
        );
    }
}
