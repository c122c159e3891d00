//! One training step of a net.

use super::{Failure, Measurement, Net, measure};
use crate::nn::{Initializer, NetSpec};
use crate::ops::Precision;
use crate::optim::OptimizerSpec;
use crate::random::{Purpose, Stream};
use crate::train::{Model, TaskImages};

/// Labels and pixels of a benchmark's images.
fn random_images(count: usize, features: usize, classes: u32) -> (Vec<u8>, Vec<u8>) {
    let mut stream = Stream::new(0, Purpose::Benchmark, 0, 0);
    let pixels = (0..count * features)
        .map(|_| stream.below(256) as u8)
        .collect();
    let labels = (0..count).map(|_| stream.below(classes) as u8).collect();
    (pixels, labels)
}

/// Forward, backward and Adam.
pub(super) fn step(net: Net, batch: usize, precision: Precision) -> Result<Measurement, Failure> {
    let (name, spec) = match net {
        Net::Mlp => ("mlp", NetSpec::mlp(784, &[1_000; 6], 10)),
        Net::Convnet => ("convnet", NetSpec::convnet(1)),
    };
    let failed = |error: crate::train::TrainError| Failure::error(error.to_string());
    let (pixels, labels) = random_images(batch, spec.input.features(), 10);
    let images = TaskImages::new(&pixels, &labels, spec.input.features(), 10).map_err(failed)?;
    let parameters = spec.parameters();
    let weights = parameters.iter().enumerate().map(|(index, parameter)| {
        let mut stream = Stream::new(0, Purpose::DedicatedWeights, 0, index as u64);
        Initializer::GlorotUniform.draw(parameter, &mut stream)
    });
    let mut model = Model::new(batch, 255.0).with_precision(precision);
    model
        .add_task(name, spec.clone(), weights.collect())
        .map_err(failed)?;
    let mut optimizer = model.optimizer(OptimizerSpec::adam());
    let order: Vec<usize> = (0..batch).collect();
    let (mut result, mut loss) = (Ok(()), 0.0);
    let work = batch * spec.multiply_adds().1;
    let name = match precision {
        Precision::F32 => format!("step {name}, batch {batch}"),
        Precision::Bf16 => format!("step {name}, batch {batch}, bf16"),
    };
    let measurement = measure(name, batch, work, || {
        model.set_batch(0, &images, &order);
        optimizer.begin_step();
        result = model.forward(&[0]).and_then(|()| {
            loss = model.loss(0);
            model.learn(0, 1.0, &mut optimizer)
        });
        model.release(0);
    });
    result.map_err(failed)?;
    if !loss.is_finite() {
        return Err(Failure::error(format!(
            "the step's loss is {loss}: its time means nothing"
        )));
    }
    Ok(measurement)
}
