//! The built-in experiments.

use std::f64::consts::SQRT_2;

use super::{
    Experiment, ExperimentError, ModelKind, OwnerSettings, Protocol, ReportSection, Source, Task,
    Training,
};
use crate::data::augment::Augmentation;
use crate::nn::{ImageSize, Initializer, LayerSpec, NetSpec};
use crate::optim::{AdamSettings, OptimizerSpec};
use crate::train::{EarlyStoppingSettings, Importance, OwnerRule};

const DIGIT: Task = Task {
    name: "Digit",
    dataset: "mnist",
    resized: None,
};

const FASHION: Task = Task {
    name: "Fashion",
    dataset: "fashion-mnist",
    resized: None,
};

const CIFAR: Task = Task {
    name: "CIFAR",
    dataset: "cifar-10",
    resized: Some([28, 28]),
};

/// Grey images as MNIST has them.
const GREY_28: ImageSize = ImageSize {
    height: 28,
    width: 28,
    channels: 1,
};

const fn report(model: ModelKind, task: usize, blank_lines_after: usize) -> ReportSection {
    ReportSection {
        model,
        task,
        blank_lines_after,
    }
}

/// Both dedicated reports, then both multitask ones, spaced as in the published text.
const DIGIT_AND_FASHION_REPORTS: &[ReportSection] = &[
    report(ModelKind::Dedicated, 0, 0),
    report(ModelKind::Dedicated, 1, 0),
    report(ModelKind::Multitask, 0, 2),
    report(ModelKind::Multitask, 1, 0),
];

/// Of the three tasks only the first has a dedicated net; spaced as in the published text.
const CIFAR_REPORTS: &[ReportSection] = &[
    report(ModelKind::Dedicated, 0, 2),
    report(ModelKind::Multitask, 0, 2),
    report(ModelKind::Multitask, 1, 0),
    report(ModelKind::Multitask, 2, 0),
];

/// Two tasks at once.
const TOGETHER: &[&[f32]] = &[&[1.0, 1.0]];

/// The first of three tasks, then the two others.
const CIFAR_FIRST: &[&[f32]] = &[&[1.0, 0.0, 0.0], &[0.0, 1.0, 1.0]];

/// All built-in experiments.
pub fn built_in() -> Vec<Experiment> {
    vec![
        quickstart(),
        quickstart_conv(),
        digits_fashion_mlp(),
        digits_fashion_conv(),
        cifar_digits_fashion_conv(),
    ]
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

/// The protocol of the published runs, with the owners of the net of dense layers.
fn reference_protocol() -> Protocol {
    Protocol {
        dedicated_weights: Initializer::GlorotUniform,
        multitask_weights: Initializer::Normal {
            standard_deviation: 0.05,
        },
        owners: OwnerSettings {
            rule: OwnerRule::new(Importance::Gradient, 90.0),
            selection_images: 60_000,
        },
        dedicated_optimizer: OptimizerSpec::adam(),
        multitask_optimizer: OptimizerSpec::adam(),
        training: Training {
            batch: 512,
            epochs: 100,
            validation_split: 0.2,
            learning_rate_decay: 1.0,
            early_stopping: EarlyStoppingSettings {
                min_delta: 0.01,
                patience: 3,
            },
            augmentation: Augmentation::default(),
            normalise: false,
            phases: TOGETHER,
        },
    }
}

/// What makes the published protocol dependable.
fn default_protocol() -> Protocol {
    let reference = reference_protocol();
    Protocol {
        owners: OwnerSettings {
            rule: OwnerRule::new(Importance::Magnitude, 80.0),
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

/// A protocol with another percentile, and gradients taken over another number of images.
fn with_owners(protocol: Protocol, percentile: f64, selection_images: usize) -> Protocol {
    Protocol {
        owners: OwnerSettings {
            rule: OwnerRule::new(protocol.owners.rule.importance, percentile),
            selection_images,
        },
        ..protocol
    }
}

fn digits_fashion_mlp() -> Experiment {
    Experiment {
        name: "digits-fashion-mlp",
        summary: "MNIST and Fashion-MNIST with six dense layers of 1,000 units, 70,000 images each",
        source: Source::DataFolder,
        tasks: &[DIGIT, FASHION],
        nets: vec![NetSpec::mlp(GREY_28, &[1_000; 6], 10); 2],
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
        nets: vec![NetSpec::mlp(GREY_28, &[800; 3], 10); 2],
        default: small(default_protocol()),
        reference: small(reference_protocol()),
        ..digits_fashion_mlp()
    }
}

fn quickstart_conv() -> Experiment {
    let quickstart = quickstart();
    // Nets as small as this need half of the positions for a task, at a scale that makes up for it.
    let with_halves = |protocol: Protocol| Protocol {
        multitask_weights: Initializer::HeNormalTimes { gain: SQRT_2 },
        owners: OwnerSettings {
            rule: OwnerRule::new(protocol.owners.rule.importance, 50.0),
            ..protocol.owners
        },
        ..protocol
    };
    Experiment {
        name: "quickstart-conv",
        summary: "quickstart with a small convolutional net: offline, in seconds, too",
        nets: vec![small_convnet(); 2],
        default: with_halves(quickstart.default),
        ..quickstart
    }
}

/// Two convolutions, each pooled to half its size, and a layer of 64.
fn small_convnet() -> NetSpec {
    let dense = |units, relu| LayerSpec::Dense { units, relu };
    let mut layers = Vec::new();
    for filters in [16, 32] {
        layers.push(LayerSpec::conv2d(filters, [3, 3]));
        layers.push(LayerSpec::max_pool([2, 2], [2, 2]));
    }
    layers.extend([LayerSpec::Flatten, dense(64, true), dense(10, false)]);
    NetSpec {
        input: GREY_28,
        layers,
    }
}

fn digits_fashion_conv() -> Experiment {
    Experiment {
        name: "digits-fashion-conv",
        summary: "MNIST and Fashion-MNIST with four convolutions and two dense layers of 256 units",
        nets: vec![NetSpec::convnet(1); 2],
        default: Protocol {
            multitask_weights: Initializer::HeNormal,
            ..default_protocol()
        },
        reference: with_owners(reference_protocol(), 80.0, 10_000),
        ..digits_fashion_mlp()
    }
}

fn cifar_digits_fashion_conv() -> Experiment {
    let in_phases = |protocol: Protocol| Protocol {
        training: Training {
            phases: CIFAR_FIRST,
            ..protocol.training
        },
        ..protocol
    };
    // Of pixels up to 255, steps of the reference's rate are too long for the dedicated net, and logits
    // of a shared net at full scale would begin in the hundreds: seven layers by a half undo that.
    let for_large_pixels = |protocol: Protocol| Protocol {
        dedicated_optimizer: OptimizerSpec::Adam(AdamSettings {
            learning_rate: 3e-4,
            ..AdamSettings::default()
        }),
        multitask_weights: Initializer::HeNormalTimes { gain: 0.5 },
        ..protocol
    };
    Experiment {
        name: "cifar-digits-fashion-conv",
        summary: "CIFAR-10 first, then MNIST and Fashion-MNIST, in one convolutional net for colour and grey",
        tasks: &[CIFAR, DIGIT, FASHION],
        nets: [3, 1, 1].map(NetSpec::convnet).into(),
        pixel_divisor: 1.0,
        default: for_large_pixels(in_phases(default_protocol())),
        reference: in_phases(with_owners(reference_protocol(), 90.0, 10_000)),
        reports: CIFAR_REPORTS,
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
    fn nets_and_phases_are_those_of_the_tasks() {
        for experiment in built_in() {
            assert_eq!(experiment.nets.len(), experiment.tasks.len());
            for net in &experiment.nets {
                net.check().unwrap();
            }
            for protocol in [&experiment.default, &experiment.reference] {
                for weights in protocol.training.phases {
                    assert_eq!(weights.len(), experiment.tasks.len());
                }
            }
        }
    }

    #[test]
    fn the_reference_protocols_are_the_published_ones() {
        for (name, percentile, images) in [
            ("digits-fashion-mlp", 90.0, 60_000),
            ("digits-fashion-conv", 80.0, 10_000),
            ("cifar-digits-fashion-conv", 90.0, 10_000),
        ] {
            let Protocol {
                dedicated_weights,
                multitask_weights,
                dedicated_optimizer,
                multitask_optimizer,
                owners,
                training,
            } = find(name).unwrap().reference;
            assert_eq!(dedicated_weights, Initializer::GlorotUniform);
            let random_normal = Initializer::Normal {
                standard_deviation: 0.05,
            };
            assert_eq!(multitask_weights, random_normal);
            assert_eq!(
                owners.rule,
                OwnerRule::new(Importance::Gradient, percentile)
            );
            assert_eq!(owners.selection_images, images);
            assert_eq!(dedicated_optimizer, OptimizerSpec::adam());
            assert_eq!(multitask_optimizer, OptimizerSpec::adam());
            assert_eq!((training.batch, training.epochs), (512, 100));
            assert_eq!(training.learning_rate_decay, 1.0);
            let stopping = training.early_stopping;
            assert_eq!((stopping.min_delta, stopping.patience), (0.01, 3));
            assert!(training.augmentation.is_none() && !training.normalise);
        }
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
