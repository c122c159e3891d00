//! The tape: what is computed, what is not, and what a replay changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use taskweave::autograd::{Backward, Forward, Learner, Op, Tape, Var};
use taskweave::ops::{self, Add, Dense, Mul, Pack, SoftmaxCrossEntropy, Sum};
use taskweave::tensor::{Tensor, TensorError, TensorSpec};
use taskweave_kernels::update::{Step, Update};

fn vector(values: &[f32]) -> Tensor {
    Tensor::from_vec(values.to_vec(), [values.len()]).unwrap()
}

fn sum(tape: &mut Tape, var: Var) -> Var {
    tape.apply(Sum::all(), &[var]).unwrap()
}

fn grad(tape: &Tape, var: Var) -> &[f32] {
    tape.grad(var).expect("a gradient").data()
}

#[test]
fn an_input_used_twice_in_one_operation_gets_both_gradients() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[3.0, -4.0]));
    let square = tape.apply(Mul, &[x, x]).unwrap();
    let loss = sum(&mut tape, square);
    for _ in 0..2 {
        tape.backward(&[(loss, 1.0)]).unwrap();
        assert_eq!(grad(&tape, x), [6.0, -8.0]);
    }
}

/// y = x², z = y · x + x: dz/dx = 3x² + 1.
#[test]
fn an_input_used_across_operations_gets_the_sum() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[2.0, -1.0]));
    let square = tape.apply(Mul, &[x, x]).unwrap();
    let cube = tape.apply(Mul, &[square, x]).unwrap();
    let z = tape.apply(Add, &[cube, x]).unwrap();
    let loss = sum(&mut tape, z);
    for _ in 0..2 {
        tape.backward(&[(loss, 1.0)]).unwrap();
        assert_eq!(grad(&tape, x), [13.0, 4.0]);
    }
}

/// x -> (2x, 3x) -> product -> with the left arm again: 6x² + 2x, gradient 12x + 2.
#[test]
fn a_diamond_adds_its_arms() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0, 5.0]));
    let two = tape.leaf(Tensor::scalar(2.0));
    let three = tape.leaf(Tensor::scalar(3.0));
    let left = tape.apply(Mul, &[x, two]).unwrap();
    let right = tape.apply(Mul, &[three, x]).unwrap();
    let product = tape.apply(Mul, &[left, right]).unwrap();
    let total = tape.apply(Add, &[product, left]).unwrap();
    let loss = sum(&mut tape, total);
    tape.backward(&[(loss, 1.0)]).unwrap();
    assert_eq!(tape.value(loss).item().unwrap(), 168.0);
    assert_eq!(grad(&tape, x), [14.0, 62.0]);
    assert!(tape.grad(two).is_none());
}

/// Adds its inputs; counts forward passes, and panics when asked for the gradient of its second.
#[derive(Default)]
struct Watched {
    forwards: Arc<AtomicUsize>,
    backwards: Arc<AtomicUsize>,
}

impl Op for Watched {
    fn name(&self) -> &'static str {
        "Watched"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        Add.output_spec(inputs)
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        self.forwards.fetch_add(1, Ordering::Relaxed);
        Add.forward(pass)
    }

    fn backward(&self, pass: Backward<'_>) {
        self.backwards.fetch_add(1, Ordering::Relaxed);
        assert!(pass.grad_inputs[1].is_none(), "nobody needs this gradient");
        Add.backward(pass);
    }
}

impl Watched {
    fn counts(&self) -> (Arc<AtomicUsize>, Arc<AtomicUsize>) {
        (self.forwards.clone(), self.backwards.clone())
    }
}

#[test]
fn gradients_are_asked_for_only_where_they_are_needed() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0]));
    let data = tape.leaf(vector(&[2.0]));
    // Computed, but from data alone: no gradient either.
    let computed = tape.apply(Mul, &[data, data]).unwrap();
    let y = tape.apply(Watched::default(), &[x, computed]).unwrap();
    let loss = sum(&mut tape, y);
    tape.backward(&[(loss, 1.0)]).unwrap();
    assert_eq!(grad(&tape, x), [1.0]);
}

#[test]
#[should_panic(expected = "nobody needs this gradient")]
fn the_watched_operation_does_watch() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0]));
    let y = tape.apply(Watched::default(), &[x, x]).unwrap();
    let loss = sum(&mut tape, y);
    tape.backward(&[(loss, 1.0)]).unwrap();
}

#[test]
fn an_operation_on_data_alone_is_never_run_backward() {
    let mut tape = Tape::new();
    let data = tape.leaf(vector(&[2.0]));
    let x = tape.parameter(vector(&[1.0]));
    let watched = Watched::default();
    let (_, backwards) = watched.counts();
    let constant = tape.apply(watched, &[data, data]).unwrap();
    let y = tape.apply(Mul, &[constant, x]).unwrap();
    let loss = sum(&mut tape, y);
    tape.backward(&[(loss, 1.0)]).unwrap();
    assert_eq!(grad(&tape, x), [4.0]);
    assert_eq!(backwards.load(Ordering::Relaxed), 0);
}

#[test]
fn what_no_target_depends_on_is_not_computed() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0]));
    let zero = tape.leaf(vector(&[0.0]));
    let watched = [Watched::default(), Watched::default()];
    let [(first, _), (second, _)] = [watched[0].counts(), watched[1].counts()];
    let [a, b] = watched.map(|op| tape.record(op, &[x, zero]).unwrap());
    assert_eq!(
        first.load(Ordering::Relaxed),
        0,
        "recording computes nothing"
    );
    tape.forward(&[a]).unwrap();
    tape.forward(&[a]).unwrap();
    assert_eq!(first.load(Ordering::Relaxed), 2);
    assert_eq!(second.load(Ordering::Relaxed), 0);
    tape.forward(&[a, b]).unwrap();
    assert_eq!(second.load(Ordering::Relaxed), 1);
}

#[test]
fn a_loss_that_is_not_asked_for_is_not_run_backward() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[3.0]));
    let zero = tape.leaf(vector(&[0.0]));
    let watched = Watched::default();
    let (_, backwards) = watched.counts();
    let squared = tape.apply(Mul, &[x, x]).unwrap();
    let other = tape.apply(watched, &[x, zero]).unwrap();
    let [loss, other] = [squared, other].map(|var| sum(&mut tape, var));
    tape.backward(&[(loss, 1.0)]).unwrap();
    assert_eq!(grad(&tape, x), [6.0]);
    assert_eq!(backwards.load(Ordering::Relaxed), 0);
    tape.backward(&[(other, 1.0)]).unwrap();
    assert_eq!(grad(&tape, x), [1.0]);
    assert_eq!(backwards.load(Ordering::Relaxed), 1);
}

#[test]
fn losses_are_weighted_and_may_repeat() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[2.0, 5.0]));
    let squared = tape.apply(Mul, &[x, x]).unwrap();
    let squares = sum(&mut tape, squared);
    let total = sum(&mut tape, x);
    tape.backward(&[(squares, 0.5), (total, -3.0)]).unwrap();
    assert_eq!(grad(&tape, x), [-1.0, 2.0]);
    // The second loss depends on the first.
    let doubled = tape.apply(Add, &[squares, squares]).unwrap();
    tape.backward(&[(squares, 1.0), (doubled, 1.0), (squares, 1.0)])
        .unwrap();
    assert_eq!(grad(&tape, x), [16.0, 40.0]);
    // A parameter may be a loss itself.
    let scalar = tape.parameter(Tensor::scalar(7.0));
    tape.backward(&[(scalar, 0.25)]).unwrap();
    assert_eq!(grad(&tape, scalar), [0.25]);
    assert!(tape.grad(x).is_none());
}

#[test]
fn a_loss_of_several_elements_is_refused() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[2.0, 5.0]));
    let message = tape.backward(&[(x, 1.0)]).unwrap_err().to_string();
    assert_eq!(
        message,
        "a single value was wanted of a tensor of shape [2]"
    );
}

#[test]
fn a_backward_pass_after_an_update_replaces_the_gradients() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0, 2.0]));
    let squared = tape.apply(Mul, &[x, x]).unwrap();
    let loss = sum(&mut tape, squared);
    tape.backward(&[(loss, 1.0)]).unwrap();
    assert_eq!(grad(&tape, x), [2.0, 4.0]);
    tape.value_mut(x).data_mut().copy_from_slice(&[-1.0, 10.0]);
    tape.forward(&[loss]).unwrap();
    tape.backward(&[(loss, 1.0)]).unwrap();
    assert_eq!(tape.value(loss).item().unwrap(), 101.0);
    assert_eq!(grad(&tape, x), [-2.0, 20.0]);
}

#[test]
fn a_parameter_that_is_not_reached_has_no_stale_gradient() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0]));
    let y = tape.parameter(vector(&[2.0]));
    let [by_x, by_y] = [x, y].map(|var| sum(&mut tape, var));
    tape.backward(&[(by_x, 1.0), (by_y, 1.0)]).unwrap();
    assert_eq!((grad(&tape, x), grad(&tape, y)), (&[1.0][..], &[1.0][..]));
    tape.backward(&[(by_y, 2.0)]).unwrap();
    assert!(tape.grad(x).is_none());
    assert_eq!(grad(&tape, y), [2.0]);
    tape.backward(&[]).unwrap();
    assert!(tape.grad(y).is_none());
}

/// A classifier's tape; the gradients of a replay equal those of a tape made for that batch.
/// What is left of them after a backward pass has no meaning.
#[test]
fn computed_values_and_data_have_no_gradient() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0, 2.0]));
    let data = tape.leaf(vector(&[3.0, 4.0]));
    let product = tape.apply(Mul, &[x, data]).unwrap();
    let loss = sum(&mut tape, product);
    tape.backward(&[(loss, 1.0)]).unwrap();
    assert_eq!(grad(&tape, x), [3.0, 4.0]);
    for var in [data, product, loss] {
        assert!(tape.grad(var).is_none());
        assert!(tape.value_and_grad(var).1.is_none());
    }
}

#[test]
fn a_replay_takes_another_batch_size() {
    let rows = |images: usize| {
        let values = (0..images * 3).map(|i| (i as f32 * 0.7).sin()).collect();
        Tensor::from_vec(values, [images, 3]).unwrap()
    };
    let labels = |images: usize| {
        let values = (0..images).map(|i| (i % 2) as f32).collect();
        Tensor::from_vec(values, [images]).unwrap()
    };
    let record = |images: usize| {
        let mut tape = Tape::new();
        let [x, labels] = [rows(images), labels(images)].map(|value| tape.leaf(value));
        let w = Tensor::from_vec(vec![0.1, -0.2, 0.3, 0.4, 0.5, -0.6], [3, 2]).unwrap();
        let w = tape.parameter(w);
        let b = tape.parameter(vector(&[0.1, 0.2]));
        let packed = tape.apply(Pack, &[x]).unwrap();
        let relu = Dense {
            activation: ops::Activation::Relu,
            precision: ops::Precision::F32,
        };
        let logits = tape.apply(relu, &[packed, w, b]).unwrap();
        let loss = tape.apply(SoftmaxCrossEntropy, &[logits, labels]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        (tape, [x, labels, w, b, logits, loss])
    };
    let (mut tape, [x, label, w, b, logits, loss]) = record(40);
    for images in [17, 40, 1, 64, 16] {
        let (fresh, _) = record(images);
        tape.value_mut(x).copy_from(&rows(images));
        tape.value_mut(label).copy_from(&labels(images));
        tape.forward(&[loss]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        assert_eq!(tape.value(logits).shape().dims(), [images, 2]);
        assert_eq!(tape.value(loss).data(), fresh.value(loss).data());
        assert_eq!(grad(&tape, w), grad(&fresh, w));
        assert_eq!(grad(&tape, b), grad(&fresh, b));
    }
}

/// The same through the path on which gradients of several consumers are added.
#[test]
fn a_replay_of_another_size_adds_gradients_of_that_size() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0, 2.0, 3.0]));
    let squared = tape.apply(Mul, &[x, x]).unwrap();
    let both = tape.apply(Add, &[squared, x]).unwrap();
    let loss = sum(&mut tape, both);
    tape.backward(&[(loss, 1.0)]).unwrap();
    assert_eq!(grad(&tape, x), [3.0, 5.0, 7.0]);
    for values in [&[4.0][..], &[1.0, -1.0, 0.5, 2.0, 0.0]] {
        tape.value_mut(x).copy_from(&vector(values));
        tape.forward(&[loss]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        let expected: Vec<f32> = values.iter().map(|x| 2.0 * x + 1.0).collect();
        assert_eq!(grad(&tape, x), expected);
    }
}

/// A value that was a vector becomes the loss when the batch shrinks to one.
#[test]
fn a_seed_has_the_shape_of_its_loss() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0, 2.0, 3.0]));
    let squared = tape.apply(Mul, &[x, x]).unwrap();
    let loss = sum(&mut tape, squared);
    tape.backward(&[(loss, 1.0)]).unwrap();
    tape.value_mut(x).copy_from(&vector(&[5.0]));
    tape.forward(&[squared]).unwrap();
    tape.backward(&[(squared, 1.0)]).unwrap();
    assert_eq!(grad(&tape, x), [10.0]);
}

#[test]
fn a_shape_that_no_longer_fits_is_an_error() {
    let mut tape = Tape::new();
    let x = tape.parameter(vector(&[1.0, 2.0]));
    let y = tape.leaf(vector(&[1.0, 2.0]));
    let total = tape.apply(Add, &[x, y]).unwrap();
    tape.value_mut(y).copy_from(&vector(&[1.0, 2.0, 3.0]));
    let message = tape.forward(&[total]).unwrap_err().to_string();
    assert!(
        message.starts_with("Add: shapes [2] and [3] do not fit"),
        "{message}"
    );
}

#[test]
fn branches_that_are_released_share_their_memory() {
    let mut tape = Tape::new();
    let mut losses = Vec::new();
    let mut parameters = Vec::new();
    for scale in [1.0, 2.0] {
        let x = tape.parameter(Tensor::from_vec(vec![scale; 64], [64]).unwrap());
        let squares = tape.record(ops::Mul, &[x, x]).unwrap();
        losses.push(tape.record(ops::Sum::all(), &[squares]).unwrap());
        parameters.push((x, squares));
    }
    tape.release(&losses);
    let mut places = Vec::new();
    for (&loss, &(x, squares)) in losses.iter().zip(&parameters) {
        tape.forward(&[loss]).unwrap();
        places.push(tape.value(squares).data().as_ptr());
        tape.backward(&[(loss, 1.0)]).unwrap();
        let twice: Vec<f32> = tape.value(x).data().iter().map(|x| 2.0 * x).collect();
        assert_eq!(tape.grad(x).unwrap().data(), twice);
        tape.release(&[loss]);
        assert!(tape.grad(x).is_none() && tape.value(squares).data().is_empty());
    }
    assert_eq!(places[0], places[1]);
}

#[test]
fn a_trimmed_tape_computes_the_same_again() {
    let mut tape = Tape::new();
    let x = Tensor::from_vec(vec![0.5, -1.0, 2.0], [1, 3]).unwrap();
    let logits = tape.parameter(x.to_lanes().unwrap());
    let labels = tape.leaf(Tensor::from_vec(vec![2.0], [1]).unwrap());
    let loss = tape
        .record(ops::SoftmaxCrossEntropy, &[logits, labels])
        .unwrap();
    let run = |tape: &mut Tape| {
        tape.forward(&[loss]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        let grad = tape.grad(logits).unwrap().data().to_vec();
        (tape.value(loss).data().to_vec(), grad)
    };
    let before = run(&mut tape);
    tape.release(&[loss]);
    tape.trim();
    assert!(tape.saved(loss).is_empty());
    assert_eq!(run(&mut tape), before);
}

/// Keeps what it is handed, and leaves zeros.
struct Handed(Vec<(Var, Vec<f32>)>);

impl Learner for Handed {
    fn step<'a>(&'a mut self, _: Var, _: &'a mut Tensor) -> Option<Update<'a>> {
        None
    }

    fn learn(&mut self, parameter: Var, value: &mut Tensor, grad: &Tensor) {
        self.0.push((parameter, grad.data().to_vec()));
        value.data_mut().fill(0.0);
    }
}

#[test]
fn gradients_are_handed_over_complete_and_once() {
    let mut tape = Tape::new();
    let x = tape.parameter(Tensor::from_vec(vec![2.0, -3.0], [2]).unwrap());
    let bias = tape.parameter(Tensor::from_vec(vec![1.0, 1.0], [2]).unwrap());
    let unused = tape.parameter(Tensor::scalar(7.0));
    let loss_alone = tape.parameter(Tensor::scalar(5.0));
    let squares = tape.apply(ops::Mul, &[x, x]).unwrap();
    let shifted = tape.apply(ops::Add, &[squares, bias]).unwrap();
    // x is used once more, later than the squares.
    let product = tape.apply(ops::Mul, &[shifted, x]).unwrap();
    let sum = tape.apply(ops::Sum::all(), &[product]).unwrap();
    let losses = [(sum, 1.0), (loss_alone, 0.5)];
    let mut handed = Handed(Vec::new());
    tape.learn(&losses, &mut handed).unwrap();
    // (x² + b) x: 3x² + b by x, and x by b.
    let expected = [
        (bias, vec![2.0, -3.0]),
        (x, vec![13.0, 28.0]),
        (loss_alone, vec![0.5]),
    ];
    assert_eq!(handed.0, expected);
    assert_eq!(tape.value(x).data(), [0.0, 0.0]);
    assert_eq!(tape.value(unused).data(), [7.0]);
    for var in [x, bias, loss_alone] {
        assert!(tape.grad(var).is_none());
    }
}

/// Plain descent on every parameter.
struct Descent;

impl Learner for Descent {
    fn step<'a>(&'a mut self, _: Var, value: &'a mut Tensor) -> Option<Update<'a>> {
        Some(Update {
            step: Step::Sgd { learning_rate: 0.5 },
            weights: value.data_mut(),
            owned: None,
            first: &mut [],
            second: &mut [],
        })
    }
}

#[test]
fn a_learner_steps_once_by_the_gradient_of_its_own_pass() {
    let mut tape = Tape::new();
    let image = Tensor::from_vec(vec![1.0, 2.0], [1, 2]).unwrap();
    let x = tape.leaf(image.to_lanes().unwrap());
    let weights = tape.parameter(Tensor::from_vec(vec![0.5, -1.0], [2, 1]).unwrap());
    let bias = tape.parameter(vector(&[3.0]));
    let linear = Dense {
        activation: ops::Activation::Linear,
        precision: ops::Precision::F32,
    };
    let y = tape.apply(linear, &[x, weights, bias]).unwrap();
    let y = tape.apply(ops::Unpack, &[y]).unwrap();
    let loss = sum(&mut tape, y);
    // Leaves gradients behind, of twice the loss.
    tape.backward(&[(loss, 2.0)]).unwrap();
    tape.learn(&[(loss, 1.0)], &mut Descent).unwrap();
    assert_eq!(tape.value(weights).data(), [0.0, -2.0]);
    assert_eq!(tape.value(bias).data(), [2.5]);
    assert!(tape.value(y).data().is_empty(), "given on");
    assert!(tape.grad(weights).is_none());
}
