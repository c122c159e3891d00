//! `taskweave bench`: how fast this machine runs the kernels, beside its own limit.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};

use super::owner_args::percentile;
use super::run::PrecisionArg;
use super::{Failure, thread_count, with_threads};
use crate::train::WorkloadSettings;

mod conv2d;
mod every_set;
mod gemm;
mod measurement;
mod model;
mod operands;
mod pool;
mod sparse;

use measurement::{Bench, Load};

/// The arguments of `taskweave bench`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave bench gemm\n  taskweave bench conv2d --all-isas\n  taskweave bench step --net mlp --batch 512 --json\n\nSet TASKWEAVE_ISA=portable|avx2|avx512|amx to measure another instruction set, TASKWEAVE_CONV=direct|winograd\nto measure another way to convolve, TASKWEAVE_SPARSE=never|always to measure masked weights by dense or\nsparse kernels."
)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Matrix products: row-major, and the three of a dense layer
    #[command(
        after_help = "Examples:\n  taskweave bench gemm --batch 512 --threads 2\n  taskweave bench gemm --all-isas --json"
    )]
    Gemm(Common),
    /// The 3×3 convolutions of the convolutional net, forward and both gradients
    #[command(
        after_help = "Examples:\n  taskweave bench conv2d --batch 512 --threads 2\n  TASKWEAVE_CONV=direct taskweave bench conv2d"
    )]
    Conv2d(Common),
    /// The poolings of the convolutional net, by maximum and by average, forward and gradient
    #[command(
        after_help = "Example:\n  taskweave bench pool --all-isas\n\nPooling is bound by memory: its rate is in bytes read and written."
    )]
    Pool(Common),
    /// Sparse kernels: dense layers and convolutions by the largest of their weights, forward and gradients
    #[command(
        after_help = "Examples:\n  taskweave bench sparse\n  taskweave bench sparse --percentile 95 --json\n\nRates are in multiply-adds of the weights that there are."
    )]
    Sparse {
        #[command(flatten)]
        common: Common,
        /// Percentile of the weights' magnitudes below which they are not there
        #[arg(long, value_name = "P", default_value_t = 90.0, value_parser = percentile)]
        percentile: f64,
    },
    /// One training step: forward, backward and Adam
    #[command(
        after_help = "Examples:\n  taskweave bench step --net mlp --json\n  taskweave bench step --net convnet --tasks 2 --percentile 80\n\nWith several tasks, each has a batch of its own and owns the weights of largest magnitude that no\ntask before it took, as many as lie above the percentile."
    )]
    Step {
        #[command(flatten)]
        common: Common,
        /// Which net
        #[arg(long, value_enum, default_value_t = Net::Mlp)]
        net: Net,
        /// Precision of the products of dense layers and of 1×1 convolutions
        #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
        precision: PrecisionArg,
        /// Tasks that share the net, each with a batch of its own
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = task_count)]
        tasks: usize,
        /// Percentile of the weights below which a task owns nothing, with several tasks [default: 80]
        #[arg(long, value_name = "P", value_parser = percentile)]
        percentile: Option<f64>,
    },
    /// The prediction of a batch: pixels packed, forward, the largest logit
    #[command(
        after_help = "Examples:\n  taskweave bench infer --net convnet --batch 512\n  taskweave bench infer --net mlp --batch 1 --percentile 90 --repetitions 200"
    )]
    Infer {
        #[command(flatten)]
        common: Common,
        /// Which net
        #[arg(long, value_enum, default_value_t = Net::Mlp)]
        net: Net,
        /// Precision of the products of dense layers and of 1×1 convolutions
        #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
        precision: PrecisionArg,
        /// Percentile of the weights below which they are not there [default: all are]
        #[arg(long, value_name = "P", value_parser = percentile)]
        percentile: Option<f64>,
    },
}

#[derive(Args, Debug)]
struct Common {
    /// Images in a batch: rows of the left matrix
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = batch_size)]
    batch: usize,
    /// Threads to compute on [default: all]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// Repetitions that count, after some that do not
    #[arg(long, value_name = "N", default_value_t = 25, value_parser = repetition_count)]
    repetitions: usize,
    /// Measure every instruction set of this machine, one after the other
    #[arg(long)]
    all_isas: bool,
    /// Print a JSON object per line, for scripts
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Net {
    /// The net of digits-fashion-mlp: 784, six layers of 1,000, 10
    Mlp,
    /// The net of digits-fashion-conv: four convolutions, two poolings, three dense layers
    Convnet,
}

fn batch_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(batch @ 1..=8_192) => Ok(batch),
        _ => Err("a batch of 1 to 8192 images is wanted".to_owned()),
    }
}

fn repetition_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(repetitions @ 1..=100_000) => Ok(repetitions),
        _ => Err("a number of repetitions from 1 to 100000 is wanted".to_owned()),
    }
}

fn task_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(tasks @ 1..=64) => Ok(tasks),
        _ => Err("a number of tasks from 1 to 64 is wanted".to_owned()),
    }
}

impl Work {
    fn common(&self) -> &Common {
        match self {
            Self::Gemm(common) | Self::Conv2d(common) | Self::Pool(common) => common,
            Self::Step { common, .. }
            | Self::Infer { common, .. }
            | Self::Sparse { common, .. } => common,
        }
    }

    /// Refuses what does not go together.
    fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Step {
                tasks: 1,
                percentile: Some(percentile),
                ..
            } => Err(Failure::usage(format!(
                "--percentile {percentile} shares the weights out between tasks, but there is one: \
                 give --tasks 2 or more"
            ))),
            _ => Ok(()),
        }
    }
}

pub(super) fn run(args: &BenchArgs, out: &mut (impl Write + Send)) -> Result<(), Failure> {
    args.work.check()?;
    let common = args.work.common();
    if common.all_isas {
        return every_set::run(common.json, out);
    }
    with_threads(common.threads, || {
        let mut bench = Bench::new(common, out);
        match &args.work {
            Work::Gemm(_) => gemm::products(&mut bench),
            Work::Conv2d(_) => conv2d::layers(&mut bench),
            Work::Pool(_) => pool::layers(&mut bench),
            Work::Step {
                net,
                precision,
                tasks,
                percentile,
                ..
            } => {
                let percentile = (*tasks > 1).then(|| percentile.unwrap_or(model::PERCENTILE));
                let settings = model::settings(*net, (*precision).into(), bench.batch());
                let settings = WorkloadSettings {
                    tasks: *tasks,
                    percentile,
                    ..settings
                };
                model::step(net.name(), &settings, &mut bench)
            }
            Work::Sparse { percentile, .. } => sparse::layers(*percentile, &mut bench),
            Work::Infer {
                net,
                precision,
                percentile,
                ..
            } => {
                let settings = model::settings(*net, (*precision).into(), bench.batch());
                let settings = WorkloadSettings {
                    percentile: *percentile,
                    ..settings
                };
                model::infer(net.name(), &settings, &mut bench)
            }
        }
    })
}
