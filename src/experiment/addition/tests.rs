use super::*;
use crate::experiment::test_models::{bits, stored};
use crate::train::{Silent, TaskImages};

const CLASSES: usize = 3;

/// Images whose brightest quarter tells their class.
struct Noise {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Noise {
    fn new(count: usize, seed: u64) -> Self {
        let mut stream = Stream::new(seed, Purpose::Benchmark, 0, 0);
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let label = stream.below(CLASSES as u32) as u8;
            labels.push(label);
            for place in 0..784 {
                let bright = u32::from(place / 196 == usize::from(label)) * 128;
                pixels.push((stream.below(128) + bright) as u8);
            }
        }
        Self { pixels, labels }
    }

    fn images(&self) -> TaskImages<'_> {
        TaskImages::new(&self.pixels, &self.labels, 784, CLASSES).unwrap()
    }
}

fn new_task<'a>(name: &'a str, train: &'a Noise, test: &'a Noise) -> NewTask<'a> {
    NewTask {
        name,
        dataset: "noise",
        class_names: ["one", "two", "three"].map(str::to_owned).to_vec(),
        channels: 1,
        data: TaskData {
            train: train.images(),
            test: test.images(),
        },
    }
}

#[test]
fn a_third_task_learns_and_leaves_the_others_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = stored(folder.path(), 16);
    let (train, test) = (Noise::new(600, 1), Noise::new(100, 2));
    let before: Vec<_> = (0..2)
        .map(|task| {
            (
                bits(model.model(), task),
                model.predict(task, &test.pixels).unwrap(),
            )
        })
        .collect();
    let settings = AddSettings {
        epochs: Some(6),
        percentile: Some(70.0),
        ..AddSettings::default()
    };
    let added = model
        .add_task(&new_task("Third", &train, &test), &settings, &mut Silent)
        .unwrap();
    assert!(added.outcome.accuracy > 0.9, "{}", added.outcome.accuracy);
    let path = folder.path().join("three.safetensors");
    model.save(&path).unwrap();
    let mut found = StoredModel::open(&path, 16).unwrap();
    assert_eq!(
        found.tasks().collect::<Vec<_>>(),
        ["Digit", "Fashion", "Third"]
    );
    assert_eq!(found.class_names(2), ["one", "two", "three"]);
    for (task, (weights, predictions)) in before.iter().enumerate() {
        assert_eq!(weights, &bits(found.model(), task));
        assert_eq!(predictions, &found.predict(task, &test.pixels).unwrap());
    }
    let predictions = found.predict(2, &test.pixels).unwrap();
    let pairs = predictions.labels.iter().zip(&test.labels);
    let right = pairs
        .filter(|(found, label)| **found == u32::from(**label))
        .count();
    assert_eq!(right as f64 / 100.0, added.outcome.accuracy);
    // Of the kernel of the first convolution, 144 weights, a third was free, and 144 - ⌈143 · 0.7⌉ are its share.
    let owned = found.model().tasks()[2].owned().unwrap();
    assert_eq!(owned[0].iter().filter(|&&owned| owned == 1).count(), 43);
}

#[test]
fn a_seed_gives_the_same_file_and_another_seed_another() {
    let folder = tempfile::tempdir().unwrap();
    let (train, test) = (Noise::new(200, 1), Noise::new(50, 2));
    let files = [0, 0, 1].map(|seed| {
        let mut model = stored(folder.path(), 16);
        let settings = AddSettings {
            seed,
            epochs: Some(1),
            percentile: None,
        };
        let new = new_task("Third", &train, &test);
        model.add_task(&new, &settings, &mut Silent).unwrap();
        let path = folder.path().join("added.safetensors");
        model.save(&path).unwrap();
        std::fs::read(&path).unwrap()
    });
    assert!(files[0] == files[1] && files[0] != files[2]);
}

#[test]
fn what_cannot_join_is_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let (train, test) = (Noise::new(200, 1), Noise::new(50, 2));
    let settings = AddSettings {
        epochs: Some(1),
        percentile: Some(0.0),
        ..AddSettings::default()
    };
    let mut model = stored(folder.path(), 16);
    for (name, reason) in [
        ("Digit", "the model has a task of this name"),
        ("a/b", "a name is made of letters"),
        (" ", "a name is made of letters"),
    ] {
        let error = model.add_task(&new_task(name, &train, &test), &settings, &mut Silent);
        let message = error.unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
    }
    let mut alone = new_task("Third", &train, &test);
    alone.class_names.truncate(1);
    let message = model.add_task(&alone, &settings, &mut Silent).unwrap_err();
    assert!(
        message.to_string().contains("2 to 256 classes"),
        "{message}"
    );
    // The third takes all that is left, and the fourth finds nothing.
    model
        .add_task(&new_task("Third", &train, &test), &settings, &mut Silent)
        .unwrap();
    let error = model.add_task(&new_task("Fourth", &train, &test), &settings, &mut Silent);
    let message = error.unwrap_err().to_string();
    assert!(
        message.contains("own all 144 positions of conv2d_0/kernel"),
        "{message}"
    );
    assert_eq!(model.tasks().count(), 3);
}
