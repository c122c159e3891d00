//! Nets that take images for what they are, and images that change from epoch to epoch.

use taskweave::data::augment::Augmentation;
use taskweave::nn::{ImageSize, Initializer, LayerSpec, NetSpec};
use taskweave::optim::OptimizerSpec;
use taskweave::random::{Purpose, Stream};
use taskweave::train::{EarlyStoppingSettings, FitSettings, Model, Silent, TaskRecord, fit};

use super::{CLASSES, Data, model, settings, weights};

/// The same data as images of 3×4 pixels, so that there is something to mirror.
fn image_model() -> Model {
    let net = NetSpec {
        input: ImageSize {
            height: 3,
            width: 4,
            channels: 1,
        },
        layers: vec![
            LayerSpec::conv2d(4, [2, 2]),
            LayerSpec::batch_norm(),
            LayerSpec::Dropout { rate: 0.2 },
            LayerSpec::Dense {
                units: CLASSES,
                relu: false,
            },
        ],
    };
    let mut stream = Stream::new(0, Purpose::DedicatedWeights, 0, 0);
    let weights = net.parameters();
    let weights = weights
        .iter()
        .map(|spec| Initializer::GlorotUniform.draw(spec, &mut stream));
    let mut model = Model::new(32, 255.0).with_seed(3, 0);
    model
        .add_task("images", net.clone(), weights.collect())
        .unwrap();
    model
}

fn states(model: &Model) -> Vec<Vec<f32>> {
    model.states(0).map(|value| value.data().to_vec()).collect()
}

#[test]
fn moving_averages_come_back_with_the_best_weights() {
    let data = Data::new(300, 23);
    let trained = |epochs, min_delta| {
        let mut model = image_model();
        let settings = FitSettings {
            epochs,
            early_stopping: EarlyStoppingSettings {
                min_delta,
                patience: 100,
            },
            ..settings(1)
        };
        fit(&mut model, &[data.images()], &settings, &mut Silent).unwrap();
        (weights(&model, 0), states(&model))
    };
    let first = trained(1, 0.0);
    assert_eq!(trained(3, 1e9), first);
    let untrained = states(&image_model());
    assert_eq!(untrained, [vec![0.0; 4], vec![1.0; 4]]);
    assert_ne!(first.1, untrained);
}

#[test]
fn training_images_are_changed_and_validation_images_are_not() {
    let data = Data::new(300, 24);
    let history = |flip_probability, learning_rate| {
        let settings = FitSettings {
            optimizer: OptimizerSpec::Sgd {
                learning_rate,
                momentum: 0.0,
                nesterov: false,
            },
            epochs: 2,
            augmentation: Augmentation {
                flip_probability,
                ..Augmentation::default()
            },
            ..settings(1)
        };
        let outcome = fit(&mut model(1), &[data.images()], &settings, &mut Silent);
        let history = outcome.unwrap().history;
        history
            .iter()
            .map(|epoch| epoch.tasks[0].unwrap())
            .collect()
    };
    let trained: Vec<TaskRecord> = history(0.5, 0.01);
    assert_eq!(history(0.5, 0.01), trained);
    // At a learning rate of zero only the images make a difference.
    let (plain, mirrored) = (history(0.0, 0.0), history(1.0, 0.0));
    assert_ne!(plain[0].loss, mirrored[0].loss);
    assert_eq!(plain[0].val_loss, mirrored[0].val_loss);
    let some = history(0.5, 0.0);
    assert!(
        (some[0].loss - some[1].loss).abs() > 1e-6,
        "other images in every epoch"
    );
}

#[test]
fn an_augmentation_that_images_are_too_small_for_is_refused() {
    let data = Data::new(300, 25);
    let cut = FitSettings {
        augmentation: Augmentation {
            cutout: Some(4),
            ..Augmentation::default()
        },
        ..settings(1)
    };
    let error = fit(&mut image_model(), &[data.images()], &cut, &mut Silent).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("cutout of 4x4 pixels"), "{message}");
}
