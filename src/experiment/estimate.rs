//! What a run will take, said before it begins.

use std::fmt;

use taskweave_kernels::{dispatch, peak};

use super::{Experiment, ModelKind, RunSettings};
use crate::files::size_text;

/// Share of the FMA peak that a whole training run reaches, about.
const TRAINING_EFFICIENCY: f64 = 0.6;

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
    /// Estimates a run on sets of `train_images` images, `data_bytes` in memory, from the machine's
    /// FMA peak, which is measured now.
    pub fn new(
        experiment: &Experiment,
        settings: &RunSettings,
        train_images: usize,
        data_bytes: usize,
    ) -> Self {
        let training = &experiment.protocol(settings.protocol).training;
        let threads = rayon::current_num_threads();
        let flops = peak::fma_peak_gflops(dispatch::active(), threads) * 1e9;
        let (forward, train) = experiment.net.multiply_adds();
        let validation = train_images as f64 * training.validation_split;
        let per_net =
            2.0 * (train as f64 * (train_images as f64 - validation) + forward as f64 * validation);
        let dedicated = |task: &usize| {
            let reports = experiment.reports.iter();
            reports
                .clone()
                .any(|r| r.model == ModelKind::Dedicated && r.task == *task)
        };
        let tasks = experiment.tasks.len();
        let nets = tasks + (0..tasks).filter(dedicated).count();
        let most_epochs = settings.epochs.unwrap_or(training.epochs);

        // Every dedicated model is kept, weights only; the multitask one trains beside them.
        let buffers = 3 + training.optimizer.state_buffers();
        let parameters = experiment.net.parameter_count();
        let activations = 2 * training.batch * experiment.net.activations().iter().sum::<usize>();
        let floats = (nets - tasks) * (parameters * 2 + activations)
            + tasks * (parameters * buffers + activations);
        Self {
            seconds_per_epoch: nets as f64 * per_net / (flops * TRAINING_EFFICIENCY),
            usual_epochs: most_epochs.min(USUAL_EPOCHS),
            most_epochs,
            memory: data_bytes + size_of::<f32>() * floats,
        }
    }
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
        let estimate = Estimate::new(&experiment, &RunSettings::default(), 60_000, 94_000_000);
        assert!(estimate.seconds_per_epoch > 0.1 && estimate.seconds_per_epoch < 3_600.0);
        assert!(estimate.memory > 300_000_000 && estimate.memory < 900_000_000);
        assert_eq!(estimate.most_epochs, 100);
    }
}
