//! The command line: one file per sub-command.
//!
//! Answers go to stdout, progress, warnings and timings to stderr. Exit codes: 0 success, 1 failure,
//! 2 wrong usage, 130 interrupted.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod add;
mod bench;
pub mod data;
mod export;
mod failure;
mod inspect;
mod interrupt;
mod list;
mod owner_args;
mod predict;
mod progress;
pub mod report;
mod run;
mod stored_task;
mod story;
mod summary;
mod weave;

pub use failure::Failure;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use taskweave_kernels::{conv2d, dispatch, sparse};

/// Trains image classifiers on an ordinary CPU, and shows whether one network can do the work of
/// several.
#[derive(Debug, Parser)]
#[command(
    name = "taskweave",
    version,
    after_help = "Start here:\n  taskweave run quickstart\n\nThe results go to stdout, progress to stderr."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run an experiment: train a network per task and one for all, and print their reports
    Run(run::RunArgs),
    /// List the experiments
    List(list::ListArgs),
    /// Print what an experiment's nets are made of
    Summary(summary::SummaryArgs),
    /// Print what a model file holds: layers, owners, sizes and costs
    Inspect(inspect::InspectArgs),
    /// Classify images with a model file
    Predict(predict::PredictArgs),
    /// Train one more task into a multitask model, in the weights that nobody owns
    Add(add::AddArgs),
    /// Weave tasks of model files into one model, or take some out
    Weave(weave::WeaveArgs),
    /// Write a task's net as an ONNX model
    Export(export::ExportArgs),
    /// List, download and check the datasets
    Data(data::DataArgs),
    /// Print the confusion matrix and classification report of label files
    Report(report::ReportArgs),
    /// Measure how fast this machine runs the kernels
    Bench(bench::BenchArgs),
}

/// Runs the program on the arguments of the process.
pub fn main() -> ExitCode {
    let matches = options_take_negative_numbers(Arguments::command()).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match dispatch_command(&arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            failure.exit_code()
        }
    }
}

/// So that what an option says of its values is what is said of `-1`, too.
fn options_take_negative_numbers(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let is_option = arg.get_long().is_some() && arg.get_action().takes_values();
            arg.allow_negative_numbers(is_option)
        })
        .mut_subcommands(options_take_negative_numbers)
}

fn dispatch_command(command: &Command) -> Result<(), Failure> {
    dispatch::from_env().map_err(|error| Failure::usage(error.to_string()))?;
    conv2d::method_from_env().map_err(|error| Failure::usage(error.to_string()))?;
    sparse::choice_from_env().map_err(|error| Failure::usage(error.to_string()))?;
    interrupt::watch();
    let mut out = io::stdout();
    match command {
        Command::Run(args) => run::run(args, &mut out)?,
        Command::List(args) => list::run(args, &mut out)?,
        Command::Summary(args) => summary::run(args, &mut out)?,
        Command::Inspect(args) => inspect::run(args, &mut out)?,
        Command::Predict(args) => predict::run(args, &mut out)?,
        Command::Add(args) => add::run(args, &mut out)?,
        Command::Weave(args) => weave::run(args)?,
        Command::Export(args) => export::run(args)?,
        Command::Data(args) => data::run(args, &mut out)?,
        Command::Report(args) => report::run(args, &mut out)?,
        Command::Bench(args) => bench::run(args, &mut out)?,
    }
    out.flush()?;
    Ok(())
}

/// Runs `work` on a pool of this many threads; without a number, on as many as the machine has.
fn with_threads<T: Send>(
    threads: Option<usize>,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.unwrap_or(0))
        .build()
        .map_err(|error| Failure::error(format!("cannot start the threads: {error}")))?
        .install(work)
}

/// A seed from the command line.
fn seed(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("a whole number from 0 to {} is wanted", u64::MAX))
}

/// A number of threads from the command line.
fn thread_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ 1..=256) => Ok(threads),
        _ => Err("a number of threads from 1 to 256 is wanted".to_owned()),
    }
}
