//! Whole nets: a training step, a prediction.

use std::io::Write;

use super::{Bench, Failure, Load, Net};
use crate::nn::NetSpec;
use crate::train::{TrainError, Workload, WorkloadSettings};

/// Percentile of the weights below which a task owns nothing, where none is given.
const PERCENTILE: f64 = 80.0;

impl Net {
    fn name(self) -> &'static str {
        match self {
            Self::Mlp => "mlp",
            Self::Convnet => "convnet",
        }
    }

    fn spec(self) -> NetSpec {
        match self {
            Self::Mlp => NetSpec::mlp(784, &[1_000; 6], 10),
            Self::Convnet => NetSpec::convnet(1),
        }
    }
}

fn failed(error: TrainError) -> Failure {
    Failure::error(error.to_string())
}

/// Forward, backward and Adam for every task. The multiply-adds are those of dense kernels: what a
/// task does not own counts.
pub(super) fn step<W: Write>(
    net: Net,
    tasks: usize,
    percentile: Option<f64>,
    bench: &mut Bench<'_, W>,
) -> Result<(), Failure> {
    let (spec, batch) = (net.spec(), bench.batch());
    let load = Load::MultiplyAdds(tasks * batch * spec.multiply_adds().1);
    let percentile = (tasks > 1).then(|| percentile.unwrap_or(PERCENTILE));
    let shared = match percentile {
        None => String::new(),
        Some(percentile) => format!(", {tasks} tasks at {percentile} %"),
    };
    let mut workload = Workload::new(&WorkloadSettings {
        net: spec,
        batch,
        tasks,
        percentile,
    })
    .map_err(failed)?;
    let name = format!("step {}{shared}, batch {batch}", net.name());
    bench.try_time(name, load, || workload.step().map(drop).map_err(failed))
}

/// Pixels packed into lanes, forward, the largest logit.
pub(super) fn infer<W: Write>(net: Net, bench: &mut Bench<'_, W>) -> Result<(), Failure> {
    let (spec, batch) = (net.spec(), bench.batch());
    let load = Load::MultiplyAdds(batch * spec.multiply_adds().0);
    let mut workload = Workload::new(&WorkloadSettings {
        net: spec,
        batch,
        tasks: 1,
        percentile: None,
    })
    .map_err(failed)?;
    let name = format!("infer {}, batch {batch}", net.name());
    bench.try_time(name, load, || workload.predict(0).map(drop).map_err(failed))
}
