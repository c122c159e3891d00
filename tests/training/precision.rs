//! Training with products in bf16, beside the same in f32.

use taskweave::data;
use taskweave::nn::{ImageSize, Initializer, LayerSpec, NetSpec};
use taskweave::ops::Precision;
use taskweave::random::{Purpose, Stream};
use taskweave::train::{FitSettings, Model, Silent, TaskImages, fit};

use super::{CLASSES, Data, settings, weights};

fn model(net: &NetSpec, precision: Precision) -> Model {
    let mut stream = Stream::new(0, Purpose::DedicatedWeights, 0, 0);
    let parameters = net.parameters();
    let weights = parameters
        .iter()
        .map(|spec| Initializer::HeNormal.draw(spec, &mut stream));
    let mut model = Model::new(64, 255.0).with_precision(precision);
    model
        .add_task("task", net.clone(), weights.collect())
        .unwrap();
    model
}

#[test]
fn an_mlp_learns_digits_as_well_in_bf16() {
    let datasets = data::quickstart().unwrap();
    let digits = &datasets[0];
    let images = |set: &'_ data::ImageSet| -> (Vec<u8>, Vec<u8>) {
        (set.pixels().to_vec(), set.labels().to_vec())
    };
    let (train, test) = (images(&digits.train), images(&digits.test));
    let train = TaskImages::new(&train.0, &train.1, 784, 10).unwrap();
    let test = TaskImages::new(&test.0, &test.1, 784, 10).unwrap();
    let net = NetSpec::mlp(784, &[48, 48], 10);
    let [plain, rounded] = [Precision::F32, Precision::Bf16].map(|precision| {
        let mut model = model(&net, precision);
        let settings = FitSettings {
            epochs: 3,
            ..settings(1)
        };
        fit(&mut model, &[train], &settings, &mut Silent).unwrap();
        let predictions = model.predict(0, &test).unwrap();
        let pairs = predictions.iter().zip(test.labels());
        let right = pairs.filter(|(found, label)| **found == u32::from(**label));
        (right.count() as f64 / test.len() as f64, weights(&model, 0))
    });
    assert!(plain.1 != rounded.1, "nothing was rounded");
    assert!(plain.0 > 0.85, "{}", plain.0);
    // Twice the deviation of such a share of 1,000 images.
    assert!(
        (plain.0 - rounded.0).abs() < 0.02,
        "{} and {}",
        plain.0,
        rounded.0
    );
}

/// A convolution of single pixels has its products in bf16 though a pooling follows, which in f32 is
/// part of it.
#[test]
fn a_pooled_convolution_of_single_pixels_is_rounded_alone() {
    let net = NetSpec {
        input: ImageSize {
            height: 3,
            width: 4,
            channels: 1,
        },
        layers: vec![
            LayerSpec::conv2d(6, [1, 1]),
            LayerSpec::max_pool([2, 2], [1, 1]),
            LayerSpec::Flatten,
            LayerSpec::Dense {
                units: CLASSES,
                relu: false,
            },
        ],
    };
    let data = Data::new(64, 3);
    let all: Vec<usize> = (0..64).collect();
    let [plain, rounded] = [Precision::F32, Precision::Bf16].map(|precision| {
        let mut model = model(&net, precision);
        model.set_batch(0, &data.images(), &all);
        model.forward(&[0]).unwrap();
        model.backward(&[(0, 1.0)]).unwrap();
        let hidden: Vec<Vec<f32>> = model
            .hidden(0)
            .map(|value| value.to_row_major().data().to_vec())
            .collect();
        let gradients = model.gradients(0).map(|grad| grad.unwrap().into_owned());
        let gradients: Vec<Vec<f32>> = gradients.collect();
        (hidden, gradients)
    });
    assert_eq!(plain.0.len(), 1);
    let pairs = [
        (&plain.0[0], &rounded.0[0]),
        (&plain.1[0], &rounded.1[0]),
        (&plain.1[2], &rounded.1[2]),
    ];
    for (plain, rounded) in pairs {
        assert_eq!(plain.len(), rounded.len());
        assert!(plain != rounded, "nothing was rounded");
        let largest = plain
            .iter()
            .fold(0.0, |most: f32, value| most.max(value.abs()));
        for (plain, rounded) in plain.iter().zip(rounded) {
            // Some roundings of 1/256 in a row, of sums whose terms are about as large as they.
            let off = (plain - rounded).abs();
            assert!(
                off < 0.05 * largest,
                "{rounded} beside {plain}, of {largest}"
            );
        }
    }
}
