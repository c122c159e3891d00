//! What a run will take, said before it begins.

use std::fmt;

use taskweave_kernels::{dispatch, peak};

use super::plan::{PlannedModel, planned_models};
use super::{Experiment, Protocol, RunSettings};
use crate::files::size_text;
use crate::ops::Precision;
use crate::train::tasks_at_once;

/// Share of the FMA peak that a training run reaches, about, with all that is no multiply-add.
const EFFICIENCY: f64 = 0.6;

/// The same for products that Winograd's method stands for, of which it computes a quarter.
const WINOGRAD_EFFICIENCY: f64 = 1.6;

/// How much faster a run is in bf16, where most of its products are: by tile registers, by instructions
/// for vectors, and emulated.
const BF16_SPEEDS: [f64; 3] = [3.0, 1.0, 0.1];

/// Epochs after which early stopping usually ends a run.
const USUAL_EPOCHS: usize = 15;

/// An estimate of time and memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Seconds for one epoch of every net.
    pub seconds_per_epoch: f64,
    /// Epochs that early stopping usually allows, within the limit.
    pub usual_epochs: usize,
    /// Most epochs.
    pub most_epochs: usize,
    /// Most memory at any time, in bytes.
    pub memory: usize,
}

impl Estimate {
    /// Estimates a run on this many training images of every task, `data_bytes` in memory, from the
    /// machine's FMA peak, which is measured now.
    pub fn new(
        experiment: &Experiment,
        settings: &RunSettings,
        train_images: &[usize],
        data_bytes: usize,
    ) -> Self {
        let protocol = &experiment.protocol_of(settings);
        let training = &protocol.training;
        let threads = rayon::current_num_threads();
        let set = dispatch::active();
        let flops = peak::fma_peak_gflops(set, threads) * 1e9;
        let speed = match settings.precision {
            Precision::F32 => 1.0,
            Precision::Bf16 if set.has_tiles() => BF16_SPEEDS[0],
            Precision::Bf16 if set.has_bf16() => BF16_SPEEDS[1],
            Precision::Bf16 => BF16_SPEEDS[2],
        };
        let epoch_seconds = |task: usize| {
            let net = &experiment.nets[task];
            let images = train_images.get(task).copied().unwrap_or(0) as f64;
            let validation = images * training.validation_split;
            let products = |(forward, train): (usize, usize)| {
                train as f64 * (images - validation) + forward as f64 * validation
            };
            let winograd = products(net.winograd_multiply_adds());
            let plain = products(net.multiply_adds()) - winograd;
            2.0 * (plain / (EFFICIENCY * speed) + winograd / WINOGRAD_EFFICIENCY) / flops
        };
        let planned = planned_models(experiment);
        let nets = planned.iter().flat_map(|model| &model.tasks);
        let most_epochs = settings.epochs.unwrap_or(training.epochs);
        Self {
            seconds_per_epoch: nets.map(|&task| epoch_seconds(task)).sum(),
            usual_epochs: most_epochs.min(USUAL_EPOCHS),
            most_epochs,
            memory: data_bytes + size_of::<f32>() * most_floats(experiment, protocol, &planned),
        }
    }
}

/// The most floats in memory at a time: what is kept of the models before, and the one in training.
fn most_floats(experiment: &Experiment, protocol: &Protocol, planned: &[PlannedModel]) -> usize {
    let weights = |model: &PlannedModel| -> usize {
        let tasks = model.tasks.iter();
        tasks
            .map(|&task| experiment.nets[task].parameter_count())
            .sum()
    };
    let mut before = 0;
    let mut most = 0;
    for model in planned {
        // Weights, their best values, and what the optimiser keeps; gradients and activations are
        // those of one task at a time, or of several small ones.
        let kept = weights(model) * (2 + protocol.optimizer(model.kind).state_buffers());
        let sizes = model.tasks.iter().map(|&task| {
            let net = &experiment.nets[task];
            let mut values = net.activations();
            let sum: usize = values.iter().sum();
            values.sort_unstable();
            // Beside every value the gradients on both sides of a layer, and memory of a value's size
            // that happens to be too small for what is wanted next.
            let gradients: usize = values.iter().rev().take(3).sum();
            let batch = protocol.training.batch;
            let floats = net.parameter_count() + batch * (sum + gradients);
            (floats, batch * sum)
        });
        let (mut floats, values): (Vec<usize>, Vec<usize>) = sizes.unzip();
        let at_once = tasks_at_once(values.into_iter().max().unwrap_or(0));
        floats.sort_unstable();
        let shared: usize = floats.iter().rev().take(at_once).sum();
        most = most.max(before + kept + shared);
        before += weights(model);
    }
    most
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "about {} (usually {} epochs, at most {}) and {} of memory",
            duration(self.seconds_per_epoch * self.usual_epochs as f64),
            self.usual_epochs,
            self.most_epochs,
            size_text(self.memory as u64)
        )
    }
}

/// A duration in the unit that suits it.
fn duration(seconds: f64) -> String {
    match seconds {
        ..90.0 => format!("{} s", seconds.ceil()),
        90.0..5_400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_take_the_unit_that_suits() {
        for (seconds, text) in [
            (0.2, "1 s"),
            (89.0, "89 s"),
            (600.0, "10 min"),
            (7_200.0, "2.0 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn the_published_mlp_takes_minutes_not_hours() {
        let experiment = super::super::find("digits-fashion-mlp").unwrap();
        let estimate = Estimate::new(
            &experiment,
            &RunSettings::default(),
            &[60_000; 2],
            94_000_000,
        );
        assert!(estimate.seconds_per_epoch > 0.1 && estimate.seconds_per_epoch < 3_600.0);
        assert!(estimate.memory > 300_000_000 && estimate.memory < 900_000_000);
        assert_eq!(estimate.most_epochs, 100);
    }

    #[test]
    fn three_tasks_share_the_memory_of_activations() {
        let experiment = super::super::find("cifar-digits-fashion-conv").unwrap();
        let settings = RunSettings::default();
        let estimate = Estimate::new(&experiment, &settings, &[50_000, 60_000, 60_000], 0);
        // One task's activations at a batch of 512 are some 320 MB, its weights 45 MB.
        assert!(estimate.memory > 800_000_000 && estimate.memory < 1_400_000_000);
    }
}
