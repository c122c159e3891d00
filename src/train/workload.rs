//! Training steps and predictions on random images: what benchmarks time.

use super::epoch::Epoch;
use super::{
    EarlyStoppingSettings, FitSettings, Importance, Model, OwnerRule, Silent, TaskImages,
    TrainError, select_owners,
};
use crate::data::augment::Augmentation;
use crate::nn::{Initializer, NetSpec};
use crate::ops::Precision;
use crate::optim::{Optimizer, OptimizerSpec};
use crate::random::{Purpose, Stream};

/// What a [`Workload`] is made of.
#[derive(Clone, Debug)]
pub struct WorkloadSettings {
    /// The net of every task.
    pub net: NetSpec,
    /// Of the products of dense layers and of 1×1 convolutions.
    pub precision: Precision,
    /// Images in a batch.
    pub batch: usize,
    /// Tasks, each with a batch of its own in a step.
    pub tasks: usize,
    /// Percentile of the weights' magnitudes, 0 to 100, below which a task owns nothing; `None`
    /// where every task owns all of its net.
    pub percentile: Option<f64>,
}

/// A model with its optimiser and one batch of random images per task.
///
/// ```
/// use taskweave::{nn::NetSpec, ops::Precision};
/// use taskweave::train::{Workload, WorkloadSettings};
/// let net = NetSpec::mlp(4, &[8], 3);
/// let mut workload = Workload::new(&WorkloadSettings {
///     net,
///     precision: Precision::F32,
///     batch: 5,
///     tasks: 1,
///     percentile: None,
/// })?;
/// assert!(workload.step()?.is_finite());
/// assert_eq!(workload.predict(0)?.len(), 5);
/// # Ok::<(), taskweave::train::TrainError>(())
/// ```
pub struct Workload {
    model: Model,
    optimizer: Optimizer,
    settings: FitSettings,
    batches: Vec<RandomImages>,
    steps: usize,
}

/// Labelled images of noise.
struct RandomImages {
    pixels: Vec<u8>,
    labels: Vec<u8>,
    features: usize,
    classes: usize,
}

impl RandomImages {
    fn new(net: &NetSpec, classes: usize, count: usize, task: usize) -> Self {
        let mut stream = Stream::new(0, Purpose::Benchmark, 0, task as u64);
        let features = net.input.features();
        let pixels = (0..count * features).map(|_| stream.below(256) as u8);
        Self {
            pixels: pixels.collect(),
            labels: (0..count)
                .map(|_| stream.below(classes as u32) as u8)
                .collect(),
            features,
            classes,
        }
    }

    fn images(&self) -> Result<TaskImages<'_>, TrainError> {
        TaskImages::new(&self.pixels, &self.labels, self.features, self.classes)
    }
}

impl Workload {
    /// Initial weights by Glorot, pixels divided by 255, Adam.
    ///
    /// # Errors
    /// When the batch holds no image, or the percentile is outside 0 to 100.
    ///
    /// # Panics
    /// If the net does not [fit together](NetSpec::check), or has more than 256 classes.
    pub fn new(settings: &WorkloadSettings) -> Result<Self, TrainError> {
        let WorkloadSettings {
            net, batch, tasks, ..
        } = settings;
        let parameters = net.parameters();
        let mut model = Model::new(*batch, 255.0).with_precision(settings.precision);
        let mut batches = Vec::with_capacity(*tasks);
        for task in 0..*tasks {
            let draw = |(index, parameter)| {
                let stream = (task * parameters.len() + index) as u64;
                let mut stream = Stream::new(0, Purpose::DedicatedWeights, 0, stream);
                Initializer::GlorotUniform.draw(parameter, &mut stream)
            };
            let weights = parameters.iter().enumerate().map(draw).collect();
            model.add_task(&format!("task {task}"), net.clone(), weights)?;
            let classes = model.logits(task).spec().features();
            assert!(classes <= 256, "{classes} classes, where a label is a byte");
            batches.push(RandomImages::new(net, classes, *batch, task));
        }
        if let Some(percentile) = settings.percentile {
            let rule = OwnerRule::new(Importance::Magnitude, percentile);
            let owners = select_owners(&mut model, &[], &rule, 0, &Silent)?;
            for (task, owned) in owners.into_iter().enumerate() {
                model.set_owned(task, owned);
            }
        }
        let settings = FitSettings {
            optimizer: OptimizerSpec::adam(),
            epochs: 1,
            validation_split: 0.0,
            learning_rate_decay: 1.0,
            early_stopping: EarlyStoppingSettings {
                min_delta: 0.0,
                patience: 0,
            },
            augmentation: Augmentation::default(),
            loss_weights: vec![1.0; *tasks],
            seed: 0,
            shuffle_index: 0,
            epochs_before: 0,
            sparsify: None,
        };
        Ok(Self {
            optimizer: model.optimizer(settings.optimizer),
            model,
            settings,
            batches,
            steps: 0,
        })
    }

    /// One step as the fit loop does it, an epoch of one batch per task: pixels packed into lanes,
    /// forward, backward, update. The sum of the tasks' losses before the update.
    ///
    /// # Errors
    /// When a loss is not finite.
    pub fn step(&mut self) -> Result<f64, TrainError> {
        self.steps += 1;
        let data: Vec<TaskImages<'_>> = self
            .batches
            .iter()
            .map(RandomImages::images)
            .collect::<Result<_, _>>()?;
        let active: Vec<usize> = (0..data.len()).collect();
        let mut epoch = Epoch {
            model: &mut self.model,
            settings: &self.settings,
            active: &active,
            epoch: self.steps,
            observer: &mut Silent,
        };
        let totals = epoch.train(&data, &mut self.optimizer)?;
        Ok(totals.iter().map(|totals| totals.mean_loss()).sum())
    }

    /// The class predicted for every image of a task's batch: pixels packed into lanes, forward as in
    /// inference, the largest logit.
    ///
    /// # Errors
    /// Never for a workload that was made.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn predict(&mut self, task: usize) -> Result<Vec<u32>, TrainError> {
        self.model.predict(task, &self.batches[task].images()?)
    }

    /// The classes of a task's images.
    ///
    /// # Panics
    /// If there is no such task.
    pub fn labels(&self, task: usize) -> &[u8] {
        &self.batches[task].labels
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(tasks: usize, percentile: Option<f64>) -> Result<Workload, TrainError> {
        Workload::new(&WorkloadSettings {
            net: NetSpec::mlp(30, &[40, 40], 10),
            precision: Precision::F32,
            batch: 17,
            tasks,
            percentile,
        })
    }

    #[test]
    fn a_batch_is_learnt_by_heart() {
        let mut workload = workload(1, None).unwrap();
        let first = workload.step().unwrap();
        let losses: Vec<f64> = (0..1_000).map(|_| workload.step().unwrap()).collect();
        assert!(losses[999] < 0.1 * first, "{first} to {}", losses[999]);
        let labels: Vec<u32> = workload
            .labels(0)
            .iter()
            .map(|&label| u32::from(label))
            .collect();
        assert_eq!(workload.predict(0).unwrap(), labels);
    }

    #[test]
    fn the_tasks_of_a_step_learn_within_what_they_own() {
        let mut workload = workload(3, Some(60.0)).unwrap();
        for _ in 0..3 {
            workload.step().unwrap();
        }
        let model = workload.model();
        assert_eq!(model.tasks().len(), 3);
        for (place, spec) in model.tasks()[0].spec().parameters().iter().enumerate() {
            let mut owners = vec![0; spec.elements()];
            for (task, net) in model.tasks().iter().enumerate() {
                let owned = &net.owned().unwrap()[place];
                let value = model.parameters(task).nth(place).unwrap();
                for (position, &value) in value.iter().enumerate() {
                    owners[position] += owned[position];
                    assert!(owned[position] == 1 || value == 0.0);
                }
            }
            // Two tasks take their 40 % each, the third what is left.
            assert!(owners.iter().all(|&owners| owners == 1), "{}", spec.name);
        }
    }

    #[test]
    fn every_task_has_images_and_weights_of_its_own() {
        let workload = workload(2, None).unwrap();
        assert_ne!(workload.batches[0].pixels, workload.batches[1].pixels);
        let model = workload.model();
        let first = |task| model.parameters(task).next().unwrap().into_owned();
        assert_ne!(first(0), first(1));
    }

    #[test]
    fn a_percentile_that_is_none_is_refused() {
        let error = workload(2, Some(101.0)).err().unwrap().to_string();
        assert!(error.contains("between 0 and 100, but 101"), "{error}");
    }
}
