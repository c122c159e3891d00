//! `taskweave run`.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::progress::{EpochProgress, Style};
use super::story::tell;
use super::{Failure, data as data_command, thread_count, with_threads};
use crate::data::{self, Dataset, ImageSet};
use crate::experiment::{
    self, Answer, Estimate, Experiment, ExperimentError, ModelOutcome, OutputFolder, ProtocolName,
    ReportSection, RunObserver, RunSettings, Source, TaskData,
};
use crate::train::{Observer, TaskImages};

/// The arguments of `taskweave run`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave run quickstart\n  taskweave run digits-fashion-mlp --out results --seed 1\n\n`taskweave list` names the experiments. Missing data is downloaded first."
)]
pub(super) struct RunArgs {
    /// Which experiment
    experiment: String,
    /// Folder that has, or gets, the datasets [default: TASKWEAVE_HOME, then the user's cache]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Threads to compute on; the results are the same for any number [default: all]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// Most epochs per net [default: the experiment's]
    #[arg(long, value_name = "N", value_parser = epoch_count)]
    epochs: Option<usize>,
    /// How to train
    #[arg(long, value_enum, default_value_t = ProtocolArg::Default)]
    protocol: ProtocolArg,
    /// Folder to keep models, reports, metrics and history in
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// No progress, no summary: only warnings and errors on stderr
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ProtocolArg {
    /// The dependable one
    Default,
    /// The published one, which loses a class on some seeds
    Reference,
}

fn epoch_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(epochs @ 1..=100_000) => Ok(epochs),
        _ => Err("a number of epochs from 1 to 100000 is wanted".to_owned()),
    }
}

pub(super) fn run(args: &RunArgs, out: &mut (impl Write + Send)) -> Result<(), Failure> {
    let experiment = experiment::find(&args.experiment)?;
    let folder = args.out.as_deref().map(OutputFolder::create).transpose()?;
    let settings = RunSettings {
        seed: args.seed,
        epochs: args.epochs,
        protocol: match args.protocol {
            ProtocolArg::Default => ProtocolName::Default,
            ProtocolArg::Reference => ProtocolName::Reference,
        },
    };
    let datasets = load(&experiment, args)?;
    with_threads(args.threads, || {
        let style = Style::of(args.quiet);
        let data = task_data(&datasets, &experiment)?;
        if !args.quiet {
            announce(&experiment, &settings, &data);
        }
        let mut printer = Printer {
            experiment: &experiment,
            progress: EpochProgress::new(style),
            quiet: args.quiet,
            report: String::new(),
            out,
            kept: folder.is_some(),
            reader_gone: false,
            write_error: None,
        };
        let outcomes = experiment::run(&experiment, &settings, &data, &mut printer);
        if let Some(error) = printer.write_error {
            return Err(error.into());
        }
        let (outcomes, report) = (outcomes?, printer.report);
        if let Some(folder) = &folder {
            folder.write(&experiment, &settings, &outcomes, &report)?;
        }
        for warning in outcomes.iter().flat_map(|outcome| &outcome.warnings) {
            tell!("warning: {warning}");
        }
        if !args.quiet {
            tell!("\n{}", Answer::new(&outcomes));
            if let Some(folder) = &args.out {
                tell!("Kept in {}.", folder.display());
            }
        }
        Ok(())
    })
}

fn load(experiment: &Experiment, args: &RunArgs) -> Result<Vec<Dataset>, Failure> {
    match experiment.source {
        Source::Embedded => Ok(data::quickstart()
            .map_err(|error| Failure::error(error.to_string()))?
            .into()),
        Source::DataFolder => {
            let names = experiment.tasks.iter().map(|task| task.dataset);
            data_command::load_or_fetch(names, args.data_dir.as_deref(), args.quiet)
        }
    }
}

fn task_data<'a>(
    datasets: &'a [Dataset],
    experiment: &Experiment,
) -> Result<Vec<TaskData<'a>>, Failure> {
    let images = |set: &'a ImageSet| {
        let features = set.height() * set.width() * set.channels();
        TaskImages::new(set.pixels(), set.labels(), features, set.classes())
            .map_err(|error| Failure::error(error.to_string()))
    };
    let mut data = Vec::new();
    for task in experiment.tasks {
        let found = datasets.iter().find(|dataset| dataset.name == task.dataset);
        let dataset = found.ok_or_else(|| {
            Failure::error(format!("the images of {} were not loaded", task.dataset))
        })?;
        data.push(TaskData {
            train: images(&dataset.train)?,
            test: images(&dataset.test)?,
        });
    }
    Ok(data)
}

fn announce(experiment: &Experiment, settings: &RunSettings, data: &[TaskData<'_>]) {
    let images = data.iter().map(|task| task.train.len()).max().unwrap_or(0);
    let bytes = data
        .iter()
        .map(|task| task.train.pixels().len() + task.test.pixels().len())
        .sum();
    tell!("{}: {}", experiment.name, experiment.summary);
    let threads = rayon::current_num_threads();
    tell!(
        "{threads} {}, {}, seed {}; {}",
        if threads == 1 { "thread" } else { "threads" },
        taskweave_kernels::dispatch::active().name(),
        settings.seed,
        Estimate::new(experiment, settings, images, bytes)
    );
}

/// Prints the reports as soon as their turn has come, and tells of the progress.
struct Printer<'a, W> {
    experiment: &'a Experiment,
    progress: EpochProgress,
    quiet: bool,
    report: String,
    out: &'a mut W,
    /// The results are kept in a folder, so that they matter even if nobody reads stdout.
    kept: bool,
    reader_gone: bool,
    write_error: Option<std::io::Error>,
}

impl<W: Write> Printer<'_, W> {
    fn print(&mut self, section: &ReportSection, text: &str) -> std::io::Result<()> {
        let title = self.experiment.report_title(section);
        let blank_lines = "\n".repeat(section.blank_lines_after);
        let section = format!("{title}\n{text}{blank_lines}");
        self.report.push_str(&section);
        if self.reader_gone {
            return Ok(());
        }
        let written = self.out.write_all(section.as_bytes());
        match written.and_then(|()| self.out.flush()) {
            Err(error) if self.kept && error.kind() == ErrorKind::BrokenPipe => {
                self.reader_gone = true;
                Ok(())
            }
            written => written,
        }
    }
}

impl<W: Write> RunObserver for Printer<'_, W> {
    fn begins(&mut self, title: &str, tasks: &[&str]) {
        self.progress
            .begin(tasks.iter().map(|&task| task.to_owned()).collect());
        if !self.quiet {
            tell!("{title}");
        }
    }

    fn choosing_owners(&mut self) {
        if !self.quiet {
            tell!("  choosing which task owns which weight");
        }
    }

    fn fit_begins(&mut self) {
        self.progress.restart();
    }

    fn training(&mut self) -> &mut dyn Observer {
        &mut self.progress
    }

    fn ends(&mut self, outcome: &ModelOutcome) -> Result<(), ExperimentError> {
        if !self.quiet {
            let fit = &outcome.fit;
            let why = if fit.stopped_early {
                "stopped early"
            } else {
                "reached the limit"
            };
            tell!(
                "  {why} after {} epochs and {:.1} s; restored the weights of epoch {}",
                fit.history.len(),
                fit.seconds,
                fit.restored_epoch
            );
        }
        let experiment = self.experiment;
        for section in experiment
            .reports
            .iter()
            .filter(|s| s.model == outcome.kind)
        {
            let Some(task) = outcome.tasks.iter().find(|task| task.task == section.task) else {
                continue;
            };
            if let Err(error) = self.print(section, &task.text()) {
                self.write_error = Some(error);
                return Err(ExperimentError::Interrupted);
            }
        }
        Ok(())
    }
}
