//! Whole nets: a training step, a prediction.

use std::io::Write;

use super::{Bench, Failure, Load, Net};
use crate::nn::NetSpec;
use crate::ops::Precision;
use crate::train::{TrainError, Workload, WorkloadSettings};

/// Percentile of the weights below which a task owns nothing, where none is given.
pub(super) const PERCENTILE: f64 = 80.0;

impl Net {
    pub(super) fn name(self) -> &'static str {
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

/// One task that owns all of its net.
pub(super) fn settings(net: Net, precision: Precision, batch: usize) -> WorkloadSettings {
    WorkloadSettings {
        net: net.spec(),
        precision,
        batch,
        tasks: 1,
        percentile: None,
    }
}

/// What stands behind the name of a net.
fn in_words(settings: &WorkloadSettings) -> String {
    let shared = match settings.percentile {
        None => String::new(),
        Some(percentile) if settings.tasks == 1 => format!(" at {percentile} %"),
        Some(percentile) => format!(", {} tasks at {percentile} %", settings.tasks),
    };
    let precision = match settings.precision {
        Precision::F32 => String::new(),
        precision => format!(", {precision}"),
    };
    format!("{shared}, batch {}{precision}", settings.batch)
}

/// Forward, backward and Adam for every task. The multiply-adds are those of dense kernels: what a
/// task does not own counts.
pub(super) fn step<W: Write>(
    net: &str,
    settings: &WorkloadSettings,
    bench: &mut Bench<'_, W>,
) -> Result<(), Failure> {
    let images = settings.tasks * settings.batch;
    let load = Load::MultiplyAdds(images * settings.net.multiply_adds().1);
    let mut workload = Workload::new(settings).map_err(failed)?;
    let name = format!("step {net}{}", in_words(settings));
    bench.try_time(name, load, || workload.step().map(drop).map_err(failed))
}

/// Pixels packed into lanes, forward, the largest logit.
pub(super) fn infer<W: Write>(
    net: &str,
    settings: &WorkloadSettings,
    bench: &mut Bench<'_, W>,
) -> Result<(), Failure> {
    let load = Load::MultiplyAdds(settings.batch * settings.net.multiply_adds().0);
    let mut workload = Workload::new(settings).map_err(failed)?;
    let name = format!("infer {net}{}", in_words(settings));
    bench.try_time(name, load, || workload.predict(0).map(drop).map_err(failed))
}
