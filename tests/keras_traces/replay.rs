//! Training the recorded steps, and comparing what comes of them.

use taskweave::autograd::Mode;
use taskweave::nn::NetSpec;
use taskweave::optim::OptimizerSpec;
use taskweave::tensor::Tensor;
use taskweave::train::Model;

use crate::trace::{BATCH, Place, STEPS, Trace};

const LOSS_TOLERANCE: f32 = 5e-6;
const WEIGHT_TOLERANCE: f32 = 1e-5;

/// Fails where a value is further off than allowed, or not a number.
fn assert_within(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let close = (found - expected).abs() <= tolerance;
        assert!(
            close,
            "{what}, position {at}: {found} instead of {expected}"
        );
    }
}

/// The net of every task, and where its parameters stand in the trace.
pub(crate) type Tasks = Vec<(NetSpec, Vec<Place>)>;

/// Steps that are trained with these loss weights and an optimiser of their own.
pub(crate) struct Phase {
    pub(crate) steps: usize,
    pub(crate) loss_weights: Vec<f32>,
}

/// Trains the recorded steps, phase after phase and task after task, and compares losses, first
/// gradients, last weights and predictions.
pub(crate) fn replay(
    trace: &mut Trace,
    model: &mut Model,
    tasks: &Tasks,
    optimizer: OptimizerSpec,
    phases: &[Phase],
) {
    assert_eq!(phases.iter().map(|phase| phase.steps).sum::<usize>(), STEPS);
    let mut step = 0;
    for phase in phases {
        let mut optimizer = model.optimizer(optimizer);
        for _ in 0..phase.steps {
            optimizer.begin_step();
            for (task, &weight) in phase.loss_weights.iter().enumerate() {
                let mode = Mode::Training { step: step as u64 };
                forward(trace, model, tasks, (task, step), mode);
                if weight != 0.0 {
                    if step == 0 {
                        model.backward(&[(task, weight)]).unwrap();
                        compare_gradients(trace, model, tasks, task);
                        forward(trace, model, tasks, (task, step), mode);
                    }
                    model.learn(task, weight, &mut optimizer).unwrap();
                }
                model.release(task);
            }
            step += 1;
        }
    }
    for (task, (net, places)) in tasks.iter().enumerate() {
        let expected = trace.parameters("w1", "", net, places);
        for ((value, expected), place) in model.parameters(task).zip(&expected).zip(places) {
            let what = format!("{}/{} of task {task}", place.layer, place.part);
            assert_within(&what, &value, expected, WEIGHT_TOLERANCE);
        }
        let (x, y) = trace.batch(task, 0, net);
        model.set_mode(Mode::Inference);
        model.set_values(task, &x, &y);
        model.forward(&[task]).unwrap();
        let (_, probabilities) = trace.array(&format!("p{task}"));
        let found = softmax(model.logits(task));
        assert_within("probabilities", &found, &probabilities, 1e-5);
    }
}

/// Computes the loss of a recorded batch and compares it.
fn forward(
    trace: &mut Trace,
    model: &mut Model,
    tasks: &Tasks,
    (task, step): (usize, usize),
    mode: Mode,
) {
    let (x, y) = trace.batch(task, step, &tasks[task].0);
    model.set_mode(mode);
    model.set_values(task, &x, &y);
    model.forward(&[task]).unwrap();
    let (_, losses) = trace.array("losses");
    let expected = losses[step * tasks.len() + task];
    let what = format!("loss of task {task} in step {step}");
    assert_within(&what, &[model.loss(task)], &[expected], LOSS_TOLERANCE);
}

fn compare_gradients(trace: &mut Trace, model: &Model, tasks: &Tasks, task: usize) {
    let (net, places) = &tasks[task];
    let expected = trace.parameters("g0", "", net, places);
    for (index, (grad, expected)) in model.gradients(task).zip(&expected).enumerate() {
        let mut grad = grad.unwrap().into_owned();
        if let Some(owned) = model.tasks()[task].owned() {
            for (grad, owned) in grad.iter_mut().zip(&owned[index]) {
                *grad *= f32::from(*owned);
            }
        }
        let what = format!("gradient of {}/{}", places[index].layer, places[index].part);
        assert_within(&what, &grad, expected, 2e-6);
    }
}

/// Softmax of logits in lanes `[20, 5]`, row-major.
fn softmax(logits: &Tensor) -> Vec<f32> {
    let mut rows = vec![0.0; BATCH * 5];
    let set = taskweave_kernels::dispatch::active();
    taskweave_kernels::lanes::unpack(set, BATCH, 5, logits.data(), &mut rows);
    for row in rows.chunks_exact_mut(5) {
        let total: f32 = row.iter().map(|logit| logit.exp()).sum();
        row.iter_mut()
            .for_each(|logit| *logit = logit.exp() / total);
    }
    rows
}
