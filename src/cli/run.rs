//! `taskweave run`.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::owner_args::OwnerArgs;
use super::progress::{EpochProgress, Style};
use super::story::tell;
use super::{Failure, data as data_command, interrupt, seed, thread_count, with_threads};
use crate::data::{self, Dataset, ImageSet};
use crate::experiment::{
    self, Answer, Checkpoints, Estimate, Experiment, ExperimentError, ModelOutcome, OutputFolder,
    OwnerChoices, PhaseStart, ProtocolName, ReportSection, RunObserver, RunSettings, Source, Task,
    TaskData,
};
use crate::ops::Precision;
use crate::train::{FitOutcome, Importance, Observer, TaskImages};

/// The arguments of `taskweave run`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave run quickstart\n  taskweave run digits-fashion-mlp --out results --seed 1\n  taskweave run digits-fashion-mlp --resume results\n\n`taskweave list` names the experiments. Missing data is downloaded first."
)]
pub(super) struct RunArgs {
    /// Which experiment
    experiment: String,
    /// Folder that has, or gets, the datasets [default: TASKWEAVE_HOME, then the user's cache]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Seed of all random choices [default: 0]
    #[arg(long, value_name = "N", value_parser = seed)]
    seed: Option<u64>,
    /// Threads to compute on; the results are the same for any number [default: all]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// Most epochs per net, or per phase where its training has several [default: the experiment's]
    #[arg(long, value_name = "N", value_parser = epoch_count)]
    epochs: Option<usize>,
    /// How to train [default: default]
    #[arg(long, value_enum)]
    protocol: Option<ProtocolArg>,
    /// Precision of the products of dense layers and of 1×1 convolutions; everything else is f32
    /// [default: f32]
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,
    #[command(flatten)]
    owners: OwnerArgs,
    /// Folder to keep models, reports, metrics and history in, and a checkpoint after every epoch
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the unfinished run whose checkpoint is in this folder
    #[arg(long, value_name = "DIR")]
    resume: Option<PathBuf>,
    /// No progress, no summary: only warnings and errors on stderr
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ProtocolArg {
    /// The dependable one
    Default,
    /// The published one, which loses a class on some seeds
    Reference,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(super) enum PrecisionArg {
    /// 32-bit floats
    #[default]
    F32,
    /// Operands rounded to 16 bits, summed in f32
    Bf16,
}

impl From<PrecisionArg> for Precision {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Bf16 => Self::Bf16,
        }
    }
}

pub(super) fn epoch_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(epochs @ 1..=100_000) => Ok(epochs),
        _ => Err("a number of epochs from 1 to 100000 is wanted".to_owned()),
    }
}

pub(super) fn run(args: &RunArgs, out: &mut (impl Write + Send)) -> Result<(), Failure> {
    let experiment = experiment::find(&args.experiment)?;
    let mut resumed = resumed(args, &experiment)?;
    let folder = match &args.out {
        Some(path) => Some(new_folder(path, resumed.is_some())?),
        None => None,
    };
    let settings = match &resumed {
        Some(kept) => kept.settings().clone(),
        None => settings(args, &experiment)?,
    };
    let datasets = load(&experiment, args)?;
    with_threads(args.threads, || {
        let data = task_data(&datasets, &experiment)?;
        if !args.quiet {
            announce(&experiment, &settings, &data);
        }
        if settings.precision == Precision::Bf16 {
            warn_of_emulation();
        }
        if let Some(kept) = &resumed {
            kept.check_data(&experiment, &data)?;
            warn_of_changed_kernels(kept);
        }
        let mut checkpoints = match (resumed.take(), folder) {
            (Some(kept), _) => Some(kept),
            (None, Some(folder)) => Some(Checkpoints::begin(folder, &experiment, &settings, &data)),
            (None, None) => None,
        };
        let mut printer = Printer {
            experiment: &experiment,
            progress: EpochProgress::new(Style::of(args.quiet)),
            quiet: args.quiet,
            report: String::new(),
            out,
            kept_in: args.folder(),
            data_dir: args.data_dir.as_deref(),
            reader_gone: false,
            write_error: None,
        };
        let kept = checkpoints.as_mut();
        let outcomes = experiment::run(&experiment, &settings, &data, kept, &mut printer);
        if let Some(error) = printer.write_error {
            return Err(error.into());
        }
        let (outcomes, report) = (outcomes?, printer.report);
        if let Some(kept) = &checkpoints {
            kept.complete(&experiment, &outcomes, &report)?;
        }
        for warning in outcomes.iter().flat_map(|outcome| &outcome.warnings) {
            tell!("warning: {warning}");
        }
        if !args.quiet {
            tell!("\n{}", Answer::new(&outcomes));
            if let Some(folder) = args.folder() {
                tell!("Kept in {}.", folder.display());
            }
        }
        Ok(())
    })
}

impl RunArgs {
    /// The folder of the results.
    fn folder(&self) -> Option<&Path> {
        self.resume.as_deref().or(self.out.as_deref())
    }
}

impl From<ProtocolArg> for ProtocolName {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Default => Self::Default,
            ProtocolArg::Reference => Self::Reference,
        }
    }
}

/// The folder for a run's results, which must not hold an unfinished run unless that goes on.
fn new_folder(path: &Path, resumes: bool) -> Result<OutputFolder, Failure> {
    let folder = OutputFolder::create(path)?;
    if !resumes && Checkpoints::stand_in(&folder) {
        return Err(Failure::error(format!(
            "{path} holds a run that did not end: go on with it by --resume {path}, give --out \
             another folder, or remove the checkpoint.safetensors there",
            path = path.display()
        )));
    }
    Ok(folder)
}

fn settings(args: &RunArgs, experiment: &Experiment) -> Result<RunSettings, Failure> {
    Ok(RunSettings {
        seed: args.seed.unwrap_or(0),
        epochs: args.epochs,
        protocol: args.protocol.map_or_else(ProtocolName::default, Into::into),
        precision: args.precision.map_or_else(Precision::default, Into::into),
        owners: args.owners.choices(experiment)?,
    })
}

/// The run to go on with, if one is asked for. It keeps its settings: others are refused.
fn resumed(args: &RunArgs, experiment: &Experiment) -> Result<Option<Checkpoints>, Failure> {
    let Some(path) = &args.resume else {
        return Ok(None);
    };
    let refuse = |option: &str, found: String, begun: String| {
        Err(Failure::usage(format!(
            "the run in {} was begun with {begun}, not with {option} {found}; leave {option} out to \
             go on with it",
            path.display()
        )))
    };
    if let Some(out) = args.out.as_ref().filter(|out| *out != path) {
        return Err(Failure::usage(format!(
            "a run that goes on is kept where it was begun, in {}, not in {}; leave --out out",
            path.display(),
            out.display()
        )));
    }
    if !path.is_dir() {
        return Err(Failure::error(format!(
            "cannot go on from {}: it is no folder",
            path.display()
        )));
    }
    let kept = Checkpoints::open(OutputFolder::create(path)?, experiment)?;
    let begun = kept.settings();
    if let Some(seed) = args.seed.filter(|seed| *seed != begun.seed) {
        return refuse("--seed", seed.to_string(), begun.seed.to_string());
    }
    if let Some(epochs) = args.epochs.filter(|epochs| Some(*epochs) != begun.epochs) {
        let limit = begun
            .epochs
            .map_or("the experiment's limit".to_owned(), |limit| {
                limit.to_string()
            });
        return refuse("--epochs", epochs.to_string(), limit);
    }
    if let Some(protocol) = args.protocol.map(ProtocolName::from)
        && protocol != begun.protocol
    {
        return refuse(
            "--protocol",
            protocol.to_string(),
            begun.protocol.to_string(),
        );
    }
    if let Some(precision) = args.precision.map(Precision::from)
        && precision != begun.precision
    {
        return refuse(
            "--precision",
            precision.to_string(),
            begun.precision.to_string(),
        );
    }
    let (owners, begun) = (args.owners.choices(experiment)?, &kept.settings().owners);
    if owners != OwnerChoices::default() && owners != *begun {
        return Err(Failure::usage(format!(
            "the run in {} chose its owners in another way; leave --owners, --percentile and --budget \
             out to go on with it",
            path.display()
        )));
    }
    Ok(Some(kept))
}

fn warn_of_changed_kernels(kept: &Checkpoints) {
    if let Some([begun, active]) = kept.changed_kernels() {
        tell!(
            "warning: the run was begun on {begun} and goes on with {active}: the last bits may \
             differ from those of a run on one of them"
        );
    }
}

/// Says so where bf16 gains nothing.
fn warn_of_emulation() {
    let set = taskweave_kernels::dispatch::active();
    if !set.has_bf16() {
        tell!(
            "warning: {} here has no instructions for bf16: they are emulated, to the same results \
             but several times slower than f32",
            set.name()
        );
    }
}

fn load(experiment: &Experiment, args: &RunArgs) -> Result<Vec<Dataset>, Failure> {
    match experiment.source {
        Source::Embedded => Ok(data::quickstart()
            .map_err(|error| Failure::error(error.to_string()))?
            .into()),
        Source::DataFolder => {
            let names = experiment.tasks.iter().map(|task| task.dataset);
            let mut datasets =
                data_command::load_or_fetch(names, args.data_dir.as_deref(), args.quiet)?;
            for task in experiment.tasks {
                let found = datasets
                    .iter_mut()
                    .find(|dataset| dataset.name == task.dataset);
                if let (Some(dataset), Some(size)) = (found, task.resized) {
                    resize(dataset, size)?;
                }
            }
            Ok(datasets)
        }
    }
}

/// The images of a set as a net takes them.
pub(super) fn task_images(set: &ImageSet) -> Result<TaskImages<'_>, Failure> {
    let features = set.height() * set.width() * set.channels();
    TaskImages::new(set.pixels(), set.labels(), features, set.classes())
        .map_err(|error| Failure::error(error.to_string()))
}

/// The images of every task, in the order of the tasks and of their size.
fn task_data<'a>(
    datasets: &'a [Dataset],
    experiment: &Experiment,
) -> Result<Vec<TaskData<'a>>, Failure> {
    let mut data = Vec::new();
    for task in experiment.tasks {
        let found = datasets.iter().find(|dataset| dataset.name == task.dataset);
        let dataset = found.ok_or_else(|| not_loaded(task))?;
        data.push(TaskData {
            train: task_images(&dataset.train)?,
            test: task_images(&dataset.test)?,
        });
    }
    Ok(data)
}

fn not_loaded(task: &Task) -> Failure {
    Failure::error(format!("the images of {} were not loaded", task.dataset))
}

/// Brings the images of a task to the size that it wants them in.
fn resize(dataset: &mut Dataset, [height, width]: [usize; 2]) -> Result<(), Failure> {
    for set in [&mut dataset.train, &mut dataset.test] {
        *set = set
            .resized(height, width)
            .map_err(|error| Failure::error(error.to_string()))?;
    }
    Ok(())
}

fn announce(experiment: &Experiment, settings: &RunSettings, data: &[TaskData<'_>]) {
    let images: Vec<usize> = data.iter().map(|task| task.train.len()).collect();
    let bytes = data
        .iter()
        .map(|task| task.train.pixels().len() + task.test.pixels().len())
        .sum();
    tell!("{}: {}", experiment.name, experiment.summary);
    let (threads, set) = (
        rayon::current_num_threads(),
        taskweave_kernels::dispatch::active(),
    );
    tell!(
        "{threads} {}, {}{}, seed {}; {}",
        if threads == 1 { "thread" } else { "threads" },
        set.name(),
        match settings.precision {
            Precision::F32 => "",
            Precision::Bf16 => ", bf16",
        },
        settings.seed,
        Estimate::new(experiment, settings, &images, bytes)
    );
    if experiment.protocol_of(settings).owners.rule.importance == Importance::Iterative {
        tell!("and what it takes to train and prune each task alone first, to choose the owners");
    }
}

/// Prints the reports as soon as their turn has come, and tells of the progress.
struct Printer<'a, W> {
    experiment: &'a Experiment,
    progress: EpochProgress,
    quiet: bool,
    report: String,
    out: &'a mut W,
    /// The folder that keeps the results, so that they matter even if nobody reads stdout.
    kept_in: Option<&'a Path>,
    data_dir: Option<&'a Path>,
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
            Err(error) if self.kept_in.is_some() && error.kind() == ErrorKind::BrokenPipe => {
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

    fn trained_before(&mut self) {
        if !self.quiet {
            tell!("  trained before");
        }
    }

    fn phase_begins(&mut self, start: &PhaseStart<'_>) {
        if !self.quiet && start.phases > 1 {
            let (phase, phases) = (start.phase, start.phases);
            tell!("  phase {phase} of {phases}: {}", start.tasks.join(", "));
        }
        if !self.quiet && start.epochs_before > 0 {
            tell!("  goes on after epoch {}", start.epochs_before);
        }
        self.progress.restart();
    }

    fn phase_ends(&mut self, outcome: &FitOutcome) {
        if self.quiet {
            return;
        }
        let why = if outcome.stopped_early {
            "stopped early"
        } else {
            "reached the limit"
        };
        tell!(
            "  {why} after {} epochs and {:.1} s; restored the weights of epoch {}",
            outcome.history.len(),
            outcome.seconds,
            outcome.restored_epoch
        );
    }

    fn checkpoint_kept(&mut self) {
        if let Some(folder) = self.kept_in {
            let mut how = format!(
                "taskweave run {} --resume {}",
                self.experiment.name,
                folder.display()
            );
            if let Some(data_dir) = self.data_dir {
                how.push_str(&format!(" --data-dir {}", data_dir.display()));
            }
            interrupt::advise(how);
        }
    }

    fn training(&mut self) -> &mut dyn Observer {
        &mut self.progress
    }

    fn ends(&mut self, outcome: &ModelOutcome) -> Result<(), ExperimentError> {
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
