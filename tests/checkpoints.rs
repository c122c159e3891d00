//! Runs that break off and go on: to the very same end, or not at all.

use std::fs;
use std::path::Path;

use taskweave::data::augment::Augmentation;
use taskweave::experiment::{
    Checkpoints, Experiment, ExperimentError, ModelKind, ModelOutcome, OutputFolder, OwnerChoices,
    OwnerSettings, Protocol, ReportSection, RunObserver, RunSettings, Source, Task, TaskData,
    Training, find, run,
};
use taskweave::nn::{ImageSize, Initializer, LayerSpec, NetSpec};
use taskweave::optim::OptimizerSpec;
use taskweave::random::{Purpose, Stream};
use taskweave::train::{
    EarlyStoppingSettings, EpochRecord, Importance, Observer, OwnerRule, TaskImages, TrainError,
};

const EPOCHS: usize = 3;
/// One dedicated net, then a multitask net in two phases.
const ALL_EPOCHS: usize = 3 * EPOCHS;
const MODELS: [&str; 2] = ["dedicated-colour.safetensors", "multitask.safetensors"];

const fn task(name: &'static str) -> Task {
    Task {
        name,
        dataset: "none",
        resized: None,
    }
}

const fn report(model: ModelKind, task: usize) -> ReportSection {
    ReportSection {
        model,
        task,
        blank_lines_after: 0,
    }
}

const TASKS: &[Task] = &[task("Colour"), task("Grey"), task("Silver")];

const REPORTS: &[ReportSection] = &[
    report(ModelKind::Dedicated, 0),
    report(ModelKind::Multitask, 0),
    report(ModelKind::Multitask, 1),
    report(ModelKind::Multitask, 2),
];

fn net(channels: usize) -> NetSpec {
    NetSpec {
        input: ImageSize {
            height: 5,
            width: 4,
            channels,
        },
        layers: vec![
            LayerSpec::conv2d(4, [3, 3]),
            LayerSpec::max_pool([2, 2], [1, 1]),
            LayerSpec::batch_norm(),
            LayerSpec::Relu,
            LayerSpec::Dropout { rate: 0.1 },
            LayerSpec::Flatten,
            LayerSpec::Dense {
                units: 3,
                relu: false,
            },
        ],
    }
}

/// Everything that a run carries from epoch to epoch, on a small scale.
fn experiment() -> Experiment {
    let protocol = Protocol {
        dedicated_optimizer: OptimizerSpec::adam(),
        multitask_optimizer: OptimizerSpec::sgd(),
        dedicated_weights: Initializer::GlorotUniform,
        multitask_weights: Initializer::HeNormal,
        owners: OwnerSettings {
            rule: OwnerRule::new(Importance::Gradient, 70.0),
            selection_images: 50,
        },
        training: Training {
            batch: 16,
            epochs: EPOCHS,
            validation_split: 0.2,
            learning_rate_decay: 0.9,
            // Only the first epoch is ever best, so that the weights at the end are not the last.
            early_stopping: EarlyStoppingSettings {
                min_delta: 1e9,
                patience: 100,
            },
            augmentation: Augmentation {
                flip_probability: 0.5,
                ..Augmentation::default()
            },
            normalise: true,
            phases: &[&[1.0, 0.0, 0.0], &[0.0, 1.0, 0.5]],
        },
    };
    Experiment {
        name: "small",
        summary: "a small experiment",
        source: Source::Embedded,
        tasks: TASKS,
        nets: [3, 1, 1].map(net).into(),
        pixel_divisor: 255.0,
        default: protocol.clone(),
        reference: protocol,
        reports: REPORTS,
    }
}

/// The pixels and labels of three tasks; the first has fewer images.
struct Images(Vec<(Vec<u8>, Vec<u8>, usize)>);

impl Images {
    fn new(seed: u64) -> Self {
        let sets = [(60, 60), (80, 20), (80, 20)];
        let set = |(task, (count, features)): (usize, (usize, usize))| {
            let mut stream = Stream::new(seed, Purpose::Benchmark, 0, task as u64);
            let pixels = (0..count * features)
                .map(|_| stream.below(256) as u8)
                .collect();
            let labels = (0..count).map(|_| stream.below(3) as u8).collect();
            (pixels, labels, features)
        };
        Self(sets.into_iter().enumerate().map(set).collect())
    }

    fn data(&self) -> Vec<TaskData<'_>> {
        let sets = self.0.iter().map(|(pixels, labels, features)| {
            let images = TaskImages::new(pixels, labels, *features, 3).unwrap();
            TaskData {
                train: images,
                test: images,
            }
        });
        sets.collect()
    }
}

/// Ends the run after so many epochs.
#[derive(Default)]
struct Stopper {
    epochs: usize,
    stop_after: Option<usize>,
    checkpoints: usize,
}

impl Observer for Stopper {
    fn epoch(&mut self, _record: &EpochRecord) {
        self.epochs += 1;
    }

    fn interrupted(&self) -> bool {
        self.stop_after.is_some_and(|epochs| self.epochs >= epochs)
    }
}

impl RunObserver for Stopper {
    fn begins(&mut self, _title: &str, _tasks: &[&str]) {}

    fn checkpoint_kept(&mut self) {
        self.checkpoints += 1;
    }

    fn training(&mut self) -> &mut dyn Observer {
        self
    }

    fn ends(&mut self, _outcome: &ModelOutcome) -> Result<(), ExperimentError> {
        Ok(())
    }
}

const SETTINGS: RunSettings = RunSettings {
    owners: OwnerChoices {
        importance: None,
        percentiles: None,
        budget: None,
    },
    seed: 5,
    epochs: None,
    protocol: taskweave::experiment::ProtocolName::Default,
    precision: taskweave::ops::Precision::F32,
};

/// Begins a run, or goes on with it; whether it came to its end.
fn go(folder: &Path, resume: bool, stop_after: Option<usize>) -> (bool, Stopper) {
    go_by(&SETTINGS, folder, resume, stop_after)
}

/// [`go`] by other settings.
fn go_by(
    settings: &RunSettings,
    folder: &Path,
    resume: bool,
    stop_after: Option<usize>,
) -> (bool, Stopper) {
    let (experiment, images) = (experiment(), Images::new(0));
    let data = images.data();
    let out = OutputFolder::create(folder).unwrap();
    let mut checkpoints = if resume {
        let kept = Checkpoints::open(out, &experiment).unwrap();
        assert_eq!(kept.settings(), settings);
        kept.check_data(&experiment, &data).unwrap();
        kept
    } else {
        Checkpoints::begin(out, &experiment, settings, &data)
    };
    let mut stopper = Stopper {
        stop_after,
        ..Stopper::default()
    };
    let kept = Some(&mut checkpoints);
    match run(&experiment, settings, &data, kept, &mut stopper) {
        Ok(outcomes) => {
            checkpoints
                .complete(&experiment, &outcomes, "report")
                .unwrap();
            (true, stopper)
        }
        Err(ExperimentError::Train {
            source: TrainError::Interrupted,
            ..
        }) => (false, stopper),
        Err(other) => panic!("{other}"),
    }
}

/// Everything a run keeps, without its times.
fn results(folder: &Path) -> (Vec<Vec<u8>>, serde_json::Value, Vec<String>) {
    let models = MODELS.map(|model| fs::read(folder.join(model)).unwrap());
    let metrics = fs::read(folder.join("metrics.json")).unwrap();
    let mut metrics: serde_json::Value = serde_json::from_slice(&metrics).unwrap();
    assert!(metrics.as_object_mut().unwrap().remove("times").is_some());
    let history = fs::read_to_string(folder.join("history.csv")).unwrap();
    let history = history.lines().map(|line| {
        let (line, _seconds) = line.rsplit_once(',').unwrap();
        line.to_owned()
    });
    (models.into(), metrics, history.collect())
}

#[test]
fn a_run_goes_on_from_any_epoch_to_the_same_end() {
    let whole = tempfile::tempdir().unwrap();
    let (complete, stopper) = go(whole.path(), false, None);
    assert!(complete);
    assert_eq!(
        (stopper.epochs, stopper.checkpoints),
        (ALL_EPOCHS, ALL_EPOCHS + 2)
    );
    assert!(!whole.path().join("checkpoint.safetensors").exists());
    let expected = results(whole.path());
    let trained: Vec<&str> = expected.2.iter().map(|line| &line[..]).collect();
    // A task and epoch a line: the dedicated net, then one task, then two.
    assert_eq!(trained.len(), 1 + EPOCHS + EPOCHS + 2 * EPOCHS);
    assert!(trained[1 + EPOCHS].starts_with("multitask,Colour,1,1,"));
    assert!(trained[1 + 2 * EPOCHS].starts_with("multitask,Grey,2,1,"));

    for stop_after in 1..=ALL_EPOCHS - 1 {
        let folder = tempfile::tempdir().unwrap();
        let (complete, _) = go(folder.path(), false, Some(stop_after));
        assert!(!complete);
        assert!(folder.path().join("checkpoint.safetensors").exists());
        assert_eq!(folder.path().join(MODELS[0]).exists(), stop_after >= EPOCHS);
        let (complete, stopper) = go(folder.path(), true, None);
        assert!(complete);
        assert_eq!(stopper.epochs, ALL_EPOCHS - stop_after);
        assert!(
            results(folder.path()) == expected,
            "after {stop_after} epochs"
        );
    }
}

#[test]
fn a_run_may_break_off_again_and_again() {
    let (whole, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(go(whole.path(), false, None).0);
    assert!(!go(folder.path(), false, Some(1)).0);
    while !go(folder.path(), true, Some(1)).0 {}
    assert!(results(folder.path()) == results(whole.path()));
}

#[test]
fn tasks_that_are_pruned_while_training_go_on_too() {
    let settings = RunSettings {
        owners: OwnerChoices {
            importance: Some(Importance::Active),
            ..OwnerChoices::default()
        },
        ..SETTINGS
    };
    let whole = tempfile::tempdir().unwrap();
    assert!(go_by(&settings, whole.path(), false, None).0);
    let expected = results(whole.path());
    // Nothing is best before all are as sparse as the rule says.
    let restored = &expected.1["models"][1]["phases"];
    assert_eq!(restored[0]["restored_epoch"], EPOCHS, "{restored}");
    for stop_after in EPOCHS..ALL_EPOCHS {
        let folder = tempfile::tempdir().unwrap();
        assert!(!go_by(&settings, folder.path(), false, Some(stop_after)).0);
        assert!(go_by(&settings, folder.path(), true, None).0);
        assert!(
            results(folder.path()) == expected,
            "after {stop_after} epochs"
        );
    }
}

fn refusal(folder: &Path, experiment: &Experiment) -> String {
    let out = OutputFolder::create(folder).unwrap();
    match Checkpoints::open(out, experiment) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was opened"),
    }
}

#[test]
fn what_a_run_cannot_go_on_from_gets_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let message = refusal(folder.path(), &experiment());
    assert!(message.contains("there is none"), "{message}");

    assert!(!go(folder.path(), false, Some(EPOCHS + 1)).0);
    let whole = fs::read(&path).unwrap();
    let message = refusal(folder.path(), &find("quickstart").unwrap());
    assert!(
        message.contains("of the experiment small, not of quickstart"),
        "{message}"
    );
    let mut other = experiment();
    other.default.training.batch = 17;
    let message = refusal(folder.path(), &other);
    assert!(message.contains("made by another taskweave"), "{message}");

    for len in [0, 7, 100, whole.len() - 1] {
        fs::write(&path, &whole[..len]).unwrap();
        let message = refusal(folder.path(), &experiment());
        assert!(message.contains("cannot go on from"), "{message}");
    }
    let text = b"format_version\\\":1";
    let at = whole.windows(text.len()).position(|window| window == text);
    let mut later = whole.clone();
    later[at.unwrap() + text.len() - 1] = b'7';
    fs::write(&path, later).unwrap();
    let message = refusal(folder.path(), &experiment());
    assert!(message.contains("format version 7"), "{message}");
}

#[test]
fn other_images_and_damaged_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    assert!(!go(folder.path(), false, Some(EPOCHS + 1)).0);
    let experiment = experiment();
    let open = || {
        let out = OutputFolder::create(folder.path()).unwrap();
        Checkpoints::open(out, &experiment).unwrap()
    };
    let other = Images::new(1);
    let message = open()
        .check_data(&experiment, &other.data())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("the images of Colour are not those"),
        "{message}"
    );

    let model = folder.path().join(MODELS[0]);
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..bytes.len() - 4]).unwrap();
    let images = Images::new(0);
    let mut kept = open();
    let mut stopper = Stopper::default();
    let failed = run(
        &experiment,
        &SETTINGS,
        &images.data(),
        Some(&mut kept),
        &mut stopper,
    );
    let message = failed.err().unwrap().to_string();
    assert!(
        message.contains("dedicated-colour.safetensors"),
        "{message}"
    );
}
