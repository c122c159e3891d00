//! `taskweave bench`: how fast this machine runs the kernels, beside its own limit.

use std::io::Write;
use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::{dispatch, lanes, peak};

use super::run::PrecisionArg;
use super::{Failure, thread_count, with_threads};
use crate::random::{Purpose, Stream};

mod conv2d;
mod gemm;
mod step;

/// Repetitions before any is counted.
const WARM_UPS: usize = 3;
/// Repetitions that are counted.
const REPETITIONS: usize = 25;

/// The arguments of `taskweave bench`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave bench gemm\n  taskweave bench step --net mlp --batch 512 --json\n\nSet TASKWEAVE_ISA=portable|avx2|avx512 to measure another instruction set, TASKWEAVE_CONV=direct|winograd\nto measure another way to convolve."
)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Matrix products: row-major, and the three of a dense layer
    #[command(after_help = "Example:\n  taskweave bench gemm --batch 512 --threads 2")]
    Gemm(Common),
    /// The 3×3 convolutions of the convolutional net, forward and both gradients
    #[command(after_help = "Example:\n  taskweave bench conv2d --batch 512 --threads 2")]
    Conv2d(Common),
    /// One training step: forward, backward and Adam
    #[command(after_help = "Example:\n  taskweave bench step --net mlp --json")]
    Step {
        #[command(flatten)]
        common: Common,
        /// Which net
        #[arg(long, value_enum, default_value_t = Net::Mlp)]
        net: Net,
        /// Precision of the products of dense layers and of 1×1 convolutions
        #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
        precision: PrecisionArg,
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

/// One measurement.
#[derive(Serialize)]
struct Measurement {
    name: String,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    gflops: f64,
    fma_peak_gflops: f64,
    share_of_peak: f64,
    isa: &'static str,
    threads: usize,
    batch: usize,
}

pub(super) fn run(args: &BenchArgs, out: &mut (impl Write + Send)) -> Result<(), Failure> {
    let (Work::Gemm(common) | Work::Conv2d(common) | Work::Step { common, .. }) = &args.work;
    with_threads(common.threads, || {
        if !common.json {
            writeln!(
                out,
                "{:<34}{:>10}{:>10}{:>10}{:>10}{:>9}",
                "", "median ms", "min ms", "max ms", "GFLOP/s", "of peak"
            )?;
        }
        let mut print = |measurement: Measurement| print(&measurement, common.json, out);
        match &args.work {
            Work::Gemm(common) => {
                print(gemm::row_major([common.batch, 1_000, 1_000], common.batch))?;
                print(gemm::row_major([1_024; 3], common.batch))?;
                gemm::dense_layer(common.batch, &mut print)
            }
            Work::Conv2d(common) => conv2d::layers(common.batch, &mut print),
            Work::Step {
                common,
                net,
                precision,
            } => print(step::step(*net, common.batch, (*precision).into())?),
        }
    })
}

fn print(measurement: &Measurement, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        let line = serde_json::to_string(measurement)
            .map_err(|error| Failure::error(format!("cannot print the figures: {error}")))?;
        writeln!(out, "{line}")?;
    } else {
        writeln!(
            out,
            "{:<34}{:>10.3}{:>10.3}{:>10.3}{:>10.1}{:>8.1}%",
            measurement.name,
            measurement.median_ms,
            measurement.min_ms,
            measurement.max_ms,
            measurement.gflops,
            100.0 * measurement.share_of_peak
        )?;
    }
    out.flush()?;
    Ok(())
}

/// Times `work` of this many multiply-adds, with the FMA peak measured before and after.
fn measure(
    name: String,
    batch: usize,
    multiply_adds: usize,
    mut work: impl FnMut(),
) -> Measurement {
    let (set, threads) = (dispatch::active(), rayon::current_num_threads());
    for _ in 0..WARM_UPS {
        work();
    }
    let peak_before = peak::fma_peak_gflops(set, threads);
    let mut times: Vec<f64> = (0..REPETITIONS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    let fma_peak_gflops = peak_before.max(peak::fma_peak_gflops(set, threads));
    times.sort_by(f64::total_cmp);
    let median_ms = times[times.len() / 2];
    let gflops = 2.0 * multiply_adds as f64 / median_ms / 1e6;
    Measurement {
        name,
        median_ms,
        min_ms: times[0],
        max_ms: times[times.len() - 1],
        gflops,
        fma_peak_gflops,
        share_of_peak: gflops / fma_peak_gflops,
        isa: set.name(),
        threads,
        batch,
    }
}

fn noise(len: usize, index: u64) -> Buffer {
    let mut stream = Stream::new(0, Purpose::Benchmark, 0, index);
    let mut buffer = Buffer::zeroed(len);
    for value in buffer.iter_mut() {
        *value = stream.uniform() as f32 - 0.5;
    }
    buffer
}

/// Noise of so many images in lanes, empty lanes zero.
fn lanes_of_noise(images: usize, features: usize, index: u64) -> Buffer {
    let mut buffer = Buffer::zeroed(lanes::lanes_len(images, features));
    let rows = noise(images * features, index);
    lanes::pack(dispatch::active(), images, features, &rows, &mut buffer);
    buffer
}
