//! The built-in experiments.

use super::{
    Experiment, ExperimentError, ModelKind, OwnerSettings, Protocol, ReportSection, Source, Task,
    Training,
};
use crate::nn::{Initializer, NetSpec};
use crate::optim::OptimizerSpec;
use crate::train::{EarlyStoppingSettings, Importance};

const DIGIT_AND_FASHION: &[Task] = &[
    Task {
        name: "Digit",
        dataset: "mnist",
    },
    Task {
        name: "Fashion",
        dataset: "fashion-mnist",
    },
];

/// Both dedicated reports, then both multitask ones, spaced as in the published text.
const DIGIT_AND_FASHION_REPORTS: &[ReportSection] = &[
    ReportSection {
        model: ModelKind::Dedicated,
        task: 0,
        blank_lines_after: 0,
    },
    ReportSection {
        model: ModelKind::Dedicated,
        task: 1,
        blank_lines_after: 0,
    },
    ReportSection {
        model: ModelKind::Multitask,
        task: 0,
        blank_lines_after: 2,
    },
    ReportSection {
        model: ModelKind::Multitask,
        task: 1,
        blank_lines_after: 0,
    },
];

/// All built-in experiments.
pub fn built_in() -> Vec<Experiment> {
    vec![quickstart(), digits_fashion_mlp()]
}

/// The built-in experiment of this name.
///
/// # Errors
/// When there is none; the error names the most similar one.
pub fn find(name: &str) -> Result<Experiment, ExperimentError> {
    let experiments = built_in();
    if let Some(found) = experiments
        .iter()
        .find(|experiment| experiment.name == name)
    {
        return Ok(found.clone());
    }
    let names: Vec<&str> = experiments
        .iter()
        .map(|experiment| experiment.name)
        .collect();
    let similarity = |candidate: &str| strsim::jaro_winkler(&name.to_lowercase(), candidate);
    let suggestion = names
        .iter()
        .filter(|candidate| similarity(candidate) > 0.6)
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    Err(ExperimentError::Unknown {
        name: name.to_owned(),
        suggestion: suggestion.map(|&name| name.to_owned()),
        available: names.join(", "),
    })
}

/// The protocol of the published runs, for a net of dense layers.
fn reference_protocol() -> Protocol {
    Protocol {
        dedicated_weights: Initializer::GlorotUniform,
        multitask_weights: Initializer::Normal {
            standard_deviation: 0.05,
        },
        owners: OwnerSettings {
            importance: Importance::Gradient,
            percentile: 90.0,
            selection_images: 60_000,
        },
        training: Training {
            optimizer: OptimizerSpec::adam(),
            batch: 512,
            epochs: 100,
            validation_split: 0.2,
            learning_rate_decay: 1.0,
            early_stopping: EarlyStoppingSettings {
                min_delta: 0.01,
                patience: 3,
            },
        },
    }
}

/// What makes the published protocol dependable.
fn default_protocol() -> Protocol {
    let reference = reference_protocol();
    Protocol {
        owners: OwnerSettings {
            importance: Importance::Magnitude,
            percentile: 80.0,
            ..reference.owners
        },
        training: Training {
            learning_rate_decay: 0.8,
            early_stopping: EarlyStoppingSettings {
                min_delta: 0.001,
                patience: 3,
            },
            ..reference.training
        },
        ..reference
    }
}

fn digits_fashion_mlp() -> Experiment {
    Experiment {
        name: "digits-fashion-mlp",
        summary: "MNIST and Fashion-MNIST with six dense layers of 1,000 units, 70,000 images each",
        source: Source::DataFolder,
        tasks: DIGIT_AND_FASHION,
        net: NetSpec::mlp(784, &[1_000; 6], 10),
        pixel_divisor: 255.0,
        default: default_protocol(),
        reference: reference_protocol(),
        reports: DIGIT_AND_FASHION_REPORTS,
    }
}

fn quickstart() -> Experiment {
    let small = |protocol: Protocol| Protocol {
        training: Training {
            batch: 128,
            ..protocol.training
        },
        ..protocol
    };
    Experiment {
        name: "quickstart",
        summary: "the same question on 6,000 images of each set that come with the program: offline, in seconds",
        source: Source::Embedded,
        net: NetSpec::mlp(784, &[800; 3], 10),
        default: small(default_protocol()),
        reference: small(reference_protocol()),
        ..digits_fashion_mlp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_found() {
        for experiment in built_in() {
            assert_eq!(find(experiment.name).unwrap().name, experiment.name);
        }
    }

    #[test]
    fn a_slip_of_the_finger_gets_a_suggestion() {
        let error = find("quikstart").unwrap_err().to_string();
        assert!(error.contains("did you mean \"quickstart\"?"), "{error}");
        let error = find("zzz").unwrap_err().to_string();
        assert!(!error.contains("did you mean"), "{error}");
        assert!(error.contains("digits-fashion-mlp"), "{error}");
    }

    #[test]
    fn every_report_is_of_a_task_of_the_experiment() {
        for experiment in built_in() {
            for section in experiment.reports {
                assert!(section.task < experiment.tasks.len());
            }
        }
    }
}
