//! Training from outside: what a fit does to a model, and what it refuses.

mod images;
mod owners;
mod precision;

use std::borrow::Cow;

use taskweave::data::augment::Augmentation;
use taskweave::nn::{Initializer, NetSpec};
use taskweave::optim::OptimizerSpec;
use taskweave::random::{Purpose, Stream};
use taskweave::train::{
    EarlyStoppingSettings, EpochRecord, FitSettings, Model, Observer, Silent, StepReport,
    TaskImages, TrainError, Warning, dead_layers, fit,
};

const FEATURES: usize = 12;
const CLASSES: usize = 3;

/// Images of which the brightest third of the pixels tells the class.
struct Data {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Data {
    fn new(count: usize, seed: u64) -> Self {
        let mut stream = Stream::new(seed, Purpose::Benchmark, 0, 0);
        let labels: Vec<u8> = (0..count).map(|_| stream.below(3) as u8).collect();
        let mut pixels = Vec::new();
        for label in &labels {
            for feature in 0..FEATURES {
                let bright = feature / 4 == usize::from(*label);
                pixels.push(stream.below(128) as u8 + if bright { 100 } else { 0 });
            }
        }
        Self { pixels, labels }
    }

    fn images(&self) -> TaskImages<'_> {
        TaskImages::new(&self.pixels, &self.labels, FEATURES, CLASSES).unwrap()
    }
}

fn model(tasks: usize) -> Model {
    let net = NetSpec::mlp(FEATURES, &[20, 20], CLASSES);
    let mut model = Model::new(32, 255.0);
    for task in 0..tasks {
        let mut stream = Stream::new(task as u64, Purpose::DedicatedWeights, 0, 0);
        let weights = net.parameters();
        let weights = weights
            .iter()
            .map(|spec| Initializer::HeNormal.draw(spec, &mut stream));
        model
            .add_task(
                ["first", "second", "third"][task],
                net.clone(),
                weights.collect(),
            )
            .unwrap();
    }
    model
}

fn settings(tasks: usize) -> FitSettings {
    FitSettings {
        optimizer: OptimizerSpec::adam(),
        epochs: 8,
        validation_split: 0.2,
        learning_rate_decay: 1.0,
        early_stopping: EarlyStoppingSettings {
            min_delta: 0.0,
            patience: 100,
        },
        augmentation: Augmentation::default(),
        loss_weights: vec![1.0; tasks],
        seed: 0,
        shuffle_index: 0,
        epochs_before: 0,
        sparsify: None,
    }
}

fn weights(model: &Model, task: usize) -> Vec<Vec<f32>> {
    model.parameters(task).map(Cow::into_owned).collect()
}

/// Counts what an onlooker is told.
#[derive(Default)]
struct Counter {
    steps: Vec<usize>,
    losses: Vec<f64>,
    epochs: usize,
    stop_after: Option<usize>,
}

impl Observer for Counter {
    fn step(&mut self, report: &StepReport<'_>) {
        self.steps.push(report.images_done);
        self.losses.push(report.loss);
        assert!(report.loss.is_finite());
    }

    fn epoch(&mut self, _record: &EpochRecord) {
        self.epochs += 1;
    }

    fn interrupted(&self) -> bool {
        self.stop_after
            .is_some_and(|steps| self.steps.len() >= steps)
    }
}

#[test]
fn a_net_learns_and_its_validation_set_is_the_end() {
    let data = Data::new(500, 1);
    let mut model = model(1);
    let mut counter = Counter::default();
    let outcome = fit(&mut model, &[data.images()], &settings(1), &mut counter).unwrap();
    let last = outcome.history.last().unwrap().tasks[0].unwrap();
    assert!(last.val_accuracy > 0.9, "{last:?}");
    assert!(last.loss < outcome.history[0].tasks[0].unwrap().loss);
    // 400 images in batches of 32: twelve whole ones and one of 16.
    assert_eq!(counter.epochs, 8);
    assert_eq!(counter.steps.len(), 8 * 13);
    assert_eq!(counter.steps[11..13], [384, 400]);
    let predictions = model.predict(0, &data.images()).unwrap();
    let right = predictions
        .iter()
        .zip(&data.labels)
        .filter(|(p, l)| **p == u32::from(**l));
    assert!(right.count() > 450);
}

#[test]
fn the_best_epoch_comes_back() {
    let data = Data::new(300, 2);
    let mut patient = model(1);
    let stopping = EarlyStoppingSettings {
        min_delta: 1e9,
        patience: 3,
    };
    let impossible = FitSettings {
        early_stopping: stopping,
        ..settings(1)
    };
    let outcome = fit(&mut patient, &[data.images()], &impossible, &mut Silent).unwrap();
    assert!(outcome.stopped_early);
    assert_eq!((outcome.history.len(), outcome.restored_epoch), (4, 1));
    let mut one_epoch = model(1);
    let one = FitSettings {
        epochs: 1,
        ..settings(1)
    };
    fit(&mut one_epoch, &[data.images()], &one, &mut Silent).unwrap();
    assert_eq!(weights(&patient, 0), weights(&one_epoch, 0));
}

#[test]
fn a_task_without_weight_is_not_touched() {
    let (first, second) = (Data::new(200, 3), Data::new(200, 4));
    let data = [first.images(), second.images()];
    let mut model = model(2);
    let before = weights(&model, 1);
    let only_first = FitSettings {
        loss_weights: vec![1.0, 0.0],
        ..settings(2)
    };
    let outcome = fit(&mut model, &data, &only_first, &mut Silent).unwrap();
    assert_eq!(weights(&model, 1), before);
    assert!(outcome.history[0].tasks[0].is_some());
    assert!(outcome.history[0].tasks[1].is_none());
    assert_ne!(weights(&model, 0), before);
}

#[test]
fn tasks_that_share_nothing_train_as_if_alone() {
    let (first, second) = (Data::new(200, 5), Data::new(200, 6));
    let one_epoch = |tasks| FitSettings {
        epochs: 1,
        ..settings(tasks)
    };
    let mut together = model(2);
    let data = [first.images(), second.images()];
    fit(&mut together, &data, &one_epoch(2), &mut Silent).unwrap();
    let mut alone = model(1);
    fit(&mut alone, &data[..1], &one_epoch(1), &mut Silent).unwrap();
    assert_eq!(weights(&together, 0), weights(&alone, 0));
}

#[test]
fn tasks_side_by_side_train_as_one_after_the_other() {
    let trained = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let sets = [5, 6, 7].map(|seed| Data::new(200, seed));
            let data: Vec<TaskImages<'_>> = sets.iter().map(Data::images).collect();
            let mut model = model(3);
            let outcome = fit(&mut model, &data, &settings(3), &mut Silent).unwrap();
            let losses: Vec<f64> = outcome.history.iter().map(|epoch| epoch.val_loss).collect();
            (losses, [0, 1, 2].map(|task| weights(&model, task)))
        })
    };
    let alone = trained(1);
    for threads in [2, 3, 8] {
        assert!(trained(threads) == alone, "{threads} threads");
    }
}

#[test]
fn gradients_are_those_of_the_last_pass_alone() {
    let mut model = model(2);
    let data = Data::new(10, 5);
    let all: Vec<usize> = (0..10).collect();
    for task in 0..2 {
        model.set_batch(task, &data.images(), &all);
    }
    model.forward(&[0, 1]).unwrap();
    model.backward(&[(0, 1.0), (1, 1.0)]).unwrap();
    let first = |model: &Model, task| model.gradients(task).next().unwrap().map(Cow::into_owned);
    let (once, other) = (first(&model, 0).unwrap(), first(&model, 1));
    assert!(other.is_some());
    model.backward(&[(0, 1.0), (0, 1.0)]).unwrap();
    let twice: Vec<f32> = once.iter().map(|value| 2.0 * value).collect();
    assert_eq!(first(&model, 0), Some(twice));
    assert!(model.gradients(1).all(|gradient| gradient.is_none()));
}

#[test]
fn longer_sets_are_cut_to_the_shortest() {
    let (long, short) = (Data::new(400, 7), Data::new(200, 8));
    let mut counter = Counter::default();
    let data = [long.images(), short.images()];
    fit(&mut model(2), &data, &settings(2), &mut counter).unwrap();
    assert_eq!(counter.steps[4], 160);
}

#[test]
fn sets_of_tasks_that_are_not_trained_cut_nothing() {
    let (long, short) = (Data::new(400, 7), Data::new(200, 8));
    let data = [long.images(), short.images()];
    for (loss_weights, images) in [([1.0, 0.0], 320), ([0.0, 1.0], 160)] {
        let mut counter = Counter::default();
        let one_task = FitSettings {
            loss_weights: loss_weights.to_vec(),
            epochs: 1,
            ..settings(2)
        };
        fit(&mut model(2), &data, &one_task, &mut counter).unwrap();
        assert_eq!(counter.steps.last(), Some(&images));
    }
}

#[test]
fn the_loss_is_weighted() {
    let (first, second) = (Data::new(200, 9), Data::new(200, 10));
    let weighted = FitSettings {
        loss_weights: vec![0.25, 2.0],
        epochs: 1,
        ..settings(2)
    };
    let data = [first.images(), second.images()];
    let outcome = fit(&mut model(2), &data, &weighted, &mut Silent).unwrap();
    let epoch = &outcome.history[0];
    let [first, second] = [0, 1].map(|task| epoch.tasks[task].unwrap().val_loss);
    assert!((epoch.val_loss - (0.25 * first + 2.0 * second)).abs() < 1e-12);
}

/// Gradient descent by half the loss is gradient descent at half the rate, to the bit.
#[test]
fn the_weight_of_a_loss_scales_its_gradient() {
    let data = Data::new(200, 20);
    let trained = |weight: f32, learning_rate: f64| {
        let mut model = model(1);
        let settings = FitSettings {
            optimizer: OptimizerSpec::Sgd {
                learning_rate,
                momentum: 0.0,
                nesterov: false,
            },
            loss_weights: vec![weight],
            epochs: 2,
            ..settings(1)
        };
        fit(&mut model, &[data.images()], &settings, &mut Silent).unwrap();
        weights(&model, 0)
    };
    assert_eq!(trained(0.5, 0.25), trained(1.0, 0.125));
    assert_ne!(trained(0.5, 0.25), trained(1.0, 0.25));
}

/// At a learning rate of zero the losses of the steps tell which images they saw.
#[test]
fn every_epoch_has_an_order_of_its_own() {
    let data = Data::new(200, 21);
    let losses = |seed, shuffle_index| {
        let mut counter = Counter::default();
        let still = FitSettings {
            optimizer: OptimizerSpec::Sgd {
                learning_rate: 0.0,
                momentum: 0.0,
                nesterov: false,
            },
            epochs: 2,
            seed,
            shuffle_index,
            ..settings(1)
        };
        fit(&mut model(1), &[data.images()], &still, &mut counter).unwrap();
        counter.losses
    };
    let base = losses(0, 0);
    let (first, second) = base.split_at(5);
    assert_ne!(first[..4], second[..4]);
    assert!((first[4] - second[4]).abs() < 1e-6, "the same images");
    assert_eq!(losses(0, 0), base);
    assert_ne!(losses(1, 0)[..4], base[..4]);
    assert_ne!(losses(0, 1)[..4], base[..4]);
}

/// Two tasks of the same images and weights see them in the same order.
#[test]
fn tasks_share_one_order() {
    let data = Data::new(200, 22);
    let mut model = model(2);
    for (parameter, values) in weights(&model, 0).iter().enumerate() {
        model.edit_parameter(1, parameter, |twin| twin.copy_from_slice(values));
    }
    let both = [data.images(), data.images()];
    fit(&mut model, &both, &settings(2), &mut Silent).unwrap();
    assert_eq!(weights(&model, 0), weights(&model, 1));
}

#[test]
fn a_decaying_learning_rate_slows_the_later_epochs() {
    let data = Data::new(200, 15);
    let run = |learning_rate_decay| {
        let mut model = model(1);
        let settings = FitSettings {
            learning_rate_decay,
            epochs: 3,
            ..settings(1)
        };
        fit(&mut model, &[data.images()], &settings, &mut Silent)
            .unwrap()
            .history
    };
    let (constant, halved) = (run(1.0), run(0.5));
    assert_eq!(constant[0].tasks, halved[0].tasks);
    assert_ne!(constant[1].tasks, halved[1].tasks);
}

#[test]
fn a_loss_that_is_not_finite_stops_with_a_sentence() {
    let data = Data::new(200, 16);
    let mut model = model(1);
    model.edit_parameter(0, 0, |kernel| kernel[0] = f32::NAN);
    let error = fit(&mut model, &[data.images()], &settings(1), &mut Silent).unwrap_err();
    let message = error.to_string();
    assert!(
        matches!(
            error,
            TrainError::NotFinite {
                epoch: 1,
                step: 1,
                ..
            }
        ),
        "{message}"
    );
    assert!(
        message.contains("first became NaN in epoch 1, training step 1"),
        "{message}"
    );
}

/// So large a step leaves weights that the next loss cannot be computed from.
#[test]
fn a_divergence_in_the_last_step_is_seen_by_the_validation() {
    let data = Data::new(40, 16);
    let wild = FitSettings {
        optimizer: OptimizerSpec::Sgd {
            learning_rate: 1e38,
            momentum: 0.0,
            nesterov: false,
        },
        ..settings(1)
    };
    let error = fit(&mut model(1), &[data.images()], &wild, &mut Silent).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("epoch 1, validation step 1"), "{message}");
}

#[test]
fn an_interruption_ends_the_run() {
    let data = Data::new(200, 17);
    let mut counter = Counter {
        stop_after: Some(2),
        ..Counter::default()
    };
    let error = fit(&mut model(1), &[data.images()], &settings(1), &mut counter).unwrap_err();
    assert!(matches!(error, TrainError::Interrupted));
    assert_eq!(counter.steps.len(), 2);
}

#[test]
fn what_does_not_fit_is_refused() {
    let data = Data::new(200, 18);
    let refuse = |images: &[TaskImages<'_>], settings: &FitSettings, part: &str| {
        let error = fit(&mut model(1), images, settings, &mut Silent).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    refuse(&[], &settings(1), "as many sets of images");
    refuse(&[data.images()], &settings(2), "loss weights");
    refuse(&[data.images().slice(0..1)], &settings(1), "too few");
    let no_epochs = FitSettings {
        epochs: 0,
        ..settings(1)
    };
    refuse(&[data.images()], &no_epochs, "at least one epoch");
    for validation_split in [-0.1, 0.0, 1.0, f64::NAN] {
        let split = FitSettings {
            validation_split,
            ..settings(1)
        };
        refuse(&[data.images()], &split, "between 0 and 1 is wanted");
    }
    let narrow = TaskImages::new(&data.pixels[..2_000], &data.labels, 10, CLASSES).unwrap();
    refuse(
        &[narrow],
        &settings(1),
        "takes 12 pixels per image, but its images have 10",
    );
}

#[test]
fn dead_layers_and_constant_answers_are_called_out() {
    let data = Data::new(200, 19);
    let mut model = model(1);
    assert!(
        dead_layers(&mut model, 0, &data.images())
            .unwrap()
            .is_empty()
    );
    // A bias far below zero keeps the second relu layer silent.
    model.edit_parameter(0, 3, |bias| bias.fill(-1e6));
    assert_eq!(dead_layers(&mut model, 0, &data.images()).unwrap(), [1]);
    // 200 images leave eight lanes empty, for which this layer would be alive.
    model.edit_parameter(0, 0, |kernel| kernel.fill(-1.0));
    model.edit_parameter(0, 1, |bias| bias.fill(1e-3));
    assert_eq!(dead_layers(&mut model, 0, &data.images()).unwrap(), [0, 1]);
    let predictions = model.predict(0, &data.images()).unwrap();
    let warning = Warning::of_predictions("Model", &data.labels, &predictions);
    assert!(
        matches!(warning, Some(Warning::ConstantPredictor { .. })),
        "{warning:?}"
    );
}
