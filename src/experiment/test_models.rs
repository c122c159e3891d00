//! Models for tests.

use std::path::Path;

use super::plan::planned_models;
use super::{Experiment, RunSettings, StoredModel, find, model_file};
use crate::nn::{Initializer, ParameterSpec};
use crate::random::{Purpose, Stream};
use crate::train::Model;

/// A model of quickstart-conv's two tasks, who own every third position each.
pub(super) fn two_tasks(experiment: &Experiment) -> Model {
    let mut model = Model::new(16, experiment.pixel_divisor);
    for (task, net) in experiment.nets.iter().enumerate() {
        let specs = net.parameters();
        let weights = specs.iter().enumerate().map(|(index, spec)| {
            let stream = (task * specs.len() + index) as u64;
            let mut stream = Stream::new(7, Purpose::MultitaskWeights, 0, stream);
            Initializer::HeNormal.draw(spec, &mut stream)
        });
        let name = experiment.tasks[task].name;
        model
            .add_task(name, net.clone(), weights.collect())
            .unwrap();
        let every_third = |spec: &ParameterSpec| {
            let positions = 0..spec.elements();
            positions.map(|at| u8::from(at % 3 == task)).collect()
        };
        model.set_owned(task, specs.iter().map(every_third).collect());
    }
    model
}

/// All of a task's parameters, bit for bit.
pub(super) fn bits(model: &Model, task: usize) -> Vec<u32> {
    let parameters = model.parameters(task);
    parameters
        .flat_map(|values| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
        .collect()
}

/// A stored model of [two tasks](two_tasks), for so many images at once.
pub(super) fn stored(folder: &Path, batch: usize) -> StoredModel {
    let experiment = find("quickstart-conv").unwrap();
    let planned = planned_models(&experiment).pop().unwrap();
    let model = two_tasks(&experiment);
    let settings = RunSettings::default();
    let bytes = model_file::serialize(&experiment, &settings, &planned, &model).unwrap();
    let path = folder.join("multitask.safetensors");
    std::fs::write(&path, bytes).unwrap();
    StoredModel::open(&path, batch).unwrap()
}
