//! `taskweave bench`: how fast this machine runs the kernels, beside its own limit.

use std::io::Write;
use std::time::Instant;

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
use taskweave_kernels::dispatch;
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};
use taskweave_kernels::{lanes, peak};

use super::{Failure, thread_count, with_threads};
use crate::nn::{Initializer, NetSpec};
use crate::optim::OptimizerSpec;
use crate::random::{Purpose, Stream};
use crate::train::{Model, TaskImages};

/// Repetitions before any is counted.
const WARM_UPS: usize = 3;
/// Repetitions that are counted.
const REPETITIONS: usize = 25;

/// The arguments of `taskweave bench`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave bench gemm\n  taskweave bench step --net mlp --batch 512 --json\n\nSet TASKWEAVE_ISA=portable|avx2|avx512 to measure another instruction set."
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
    /// One training step: forward, backward and Adam
    #[command(after_help = "Example:\n  taskweave bench step --net mlp --json")]
    Step {
        #[command(flatten)]
        common: Common,
        /// Which net
        #[arg(long, value_enum, default_value_t = Net::Mlp)]
        net: Net,
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
    let (Work::Gemm(common) | Work::Step { common, .. }) = &args.work;
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
                print(row_major([common.batch, 1_000, 1_000], common.batch))?;
                print(row_major([1_024; 3], common.batch))?;
                for measurement in dense_layer(common.batch) {
                    print(measurement)?;
                }
                Ok(())
            }
            Work::Step { common, net } => print(step(*net, common.batch)?),
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

fn row_major([m, k, n]: [usize; 3], batch: usize) -> Measurement {
    let (a, b, mut c) = (noise(m * k, 0), noise(k * n, 1), noise(m * n, 2));
    measure(
        format!("gemm {m}x{k}x{n}, row-major"),
        batch,
        m * k * n,
        || {
            let product = Gemm {
                m,
                n,
                k,
                alpha: 1.0,
                a: Matrix::row_major(&a, k),
                b: Matrix::row_major(&b, n),
                beta: 0.0,
            };
            gemm(dispatch::active(), &product, &mut c, [n, 1]);
        },
    )
}

/// The three products of a dense layer of 1,000 inputs and outputs, in lanes.
fn dense_layer(images: usize) -> Vec<Measurement> {
    let shape = DenseShape {
        images,
        inputs: 1_000,
        outputs: 1_000,
    };
    let set = dispatch::active();
    let len = lanes::lanes_len(images, 1_000);
    let packed = |index| {
        let mut buffer = Buffer::zeroed(len);
        lanes::pack(
            set,
            images,
            1_000,
            &noise(images * 1_000, index),
            &mut buffer,
        );
        buffer
    };
    let (x, grad_output) = (packed(0), packed(1));
    let (weights, bias) = (noise(1_000 * 1_000, 2), noise(1_000, 3));
    let (mut y, mut grad_weights) = (noise(len, 4), noise(1_000 * 1_000, 5));
    let work = images * 1_000 * 1_000;
    let name = |pass: &str| format!("dense {images}x1000x1000, {pass}");
    vec![
        measure(name("forward"), images, work, || {
            let layer = Affine {
                weights: &weights,
                bias: Some(&bias),
                activation: Activation::Relu,
            };
            dense::forward(set, shape, layer, &x, &mut y);
        }),
        measure(name("grad input"), images, work, || {
            dense::grad_input(set, shape, &grad_output, &weights, &mut y);
        }),
        measure(name("grad weights"), images, work, || {
            dense::grad_weights(set, shape, &x, &grad_output, &mut grad_weights);
        }),
    ]
}

/// Labels and pixels of a benchmark's images.
fn random_images(count: usize, features: usize, classes: u32) -> (Vec<u8>, Vec<u8>) {
    let mut stream = Stream::new(0, Purpose::Benchmark, 0, 0);
    let pixels = (0..count * features)
        .map(|_| stream.below(256) as u8)
        .collect();
    let labels = (0..count).map(|_| stream.below(classes) as u8).collect();
    (pixels, labels)
}

fn step(net: Net, batch: usize) -> Result<Measurement, Failure> {
    let (name, spec) = match net {
        Net::Mlp => ("mlp", NetSpec::mlp(784, &[1_000; 6], 10)),
    };
    let failed = |error: crate::train::TrainError| Failure::error(error.to_string());
    let (pixels, labels) = random_images(batch, spec.inputs, 10);
    let images = TaskImages::new(&pixels, &labels, spec.inputs, 10).map_err(failed)?;
    let parameters = spec.parameters();
    let weights = parameters.iter().enumerate().map(|(index, parameter)| {
        let mut stream = Stream::new(0, Purpose::DedicatedWeights, 0, index as u64);
        Initializer::GlorotUniform.draw(parameter, &mut stream)
    });
    let mut model = Model::new(batch, 255.0);
    model
        .add_task(name, spec.clone(), weights.collect())
        .map_err(failed)?;
    let mut optimizer = model.optimizer(OptimizerSpec::adam());
    let order: Vec<usize> = (0..batch).collect();
    let mut result = Ok(());
    let work = batch * spec.multiply_adds().1;
    let measurement = measure(format!("step {name}, batch {batch}"), batch, work, || {
        model.set_batch(0, &images, &order);
        result = model
            .forward(&[0])
            .and_then(|()| model.backward(&[(0, 1.0)]));
        model.update(&mut optimizer);
    });
    result.map_err(failed)?;
    if !model.loss(0).is_finite() {
        return Err(Failure::error(format!(
            "the step's loss is {}: its time means nothing",
            model.loss(0)
        )));
    }
    Ok(measurement)
}
