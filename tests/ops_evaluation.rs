//! An evaluation: the values of a forward pass without what a backward pass would need.

use taskweave::autograd::{Tape, Var};
use taskweave::ops::{MaxPool, Mul, Pack, Relu, SoftmaxCrossEntropy, Sum, Unpack};
use taskweave::tensor::Tensor;
use taskweave_kernels::check::noise;
use taskweave_kernels::window::{Padding, Window};

struct Recorded {
    tape: Tape,
    images: Var,
    /// Read by two operations.
    rectified: Var,
    pooled: Var,
    squared: Var,
    total: Var,
}

fn recorded() -> Recorded {
    let mut tape = Tape::new();
    let images = Tensor::from_vec(noise(1, 20 * 3 * 4 * 4), [20, 3, 4, 4]).unwrap();
    let images = tape.parameter(images);
    let packed = tape.record(Pack, &[images]).unwrap();
    let rectified = tape.record(Relu, &[packed]).unwrap();
    let window = Window {
        kernel: [2, 2],
        stride: [2, 2],
        padding: Padding::Valid,
    };
    let pooled = tape.record(MaxPool { window }, &[rectified]).unwrap();
    let [rows, pooled_rows] = [rectified, pooled].map(|var| tape.record(Unpack, &[var]).unwrap());
    let squared = tape.record(Mul, &[rows, rows]).unwrap();
    let pooled_sum = tape.record(Sum::all(), &[pooled_rows]).unwrap();
    let squared_sum = tape.record(Sum::all(), &[squared]).unwrap();
    let total = tape.record(Mul, &[pooled_sum, squared_sum]).unwrap();
    Recorded {
        tape,
        images,
        rectified,
        pooled,
        squared,
        total,
    }
}

fn values(tape: &Tape, var: Var) -> Vec<u32> {
    tape.value(var)
        .data()
        .iter()
        .map(|value| value.to_bits())
        .collect()
}

#[test]
fn values_are_those_of_a_forward_pass() {
    let mut forward = recorded();
    let targets = [forward.total, forward.squared];
    forward.tape.forward(&targets).unwrap();
    let mut evaluated = recorded();
    for _ in 0..2 {
        evaluated.tape.evaluate(&targets).unwrap();
        for target in targets {
            let found = values(&evaluated.tape, target);
            assert_eq!(found, values(&forward.tape, target));
        }
    }
}

#[test]
fn what_lies_between_gives_its_memory_away_and_nothing_is_saved() {
    let mut evaluated = recorded();
    evaluated.tape.evaluate(&[evaluated.total]).unwrap();
    for between in [evaluated.rectified, evaluated.pooled, evaluated.squared] {
        assert!(evaluated.tape.value(between).data().is_empty());
    }
    assert!(!evaluated.tape.value(evaluated.images).data().is_empty());
    assert!(evaluated.tape.saved(evaluated.pooled).is_empty());
}

#[test]
fn a_backward_pass_is_refused_until_a_forward_pass() {
    let mut evaluated = recorded();
    let losses = [(evaluated.total, 1.0)];
    evaluated.tape.evaluate(&[evaluated.total]).unwrap();
    let error = evaluated.tape.backward(&losses).unwrap_err().to_string();
    assert!(error.contains("the last pass was an evaluation"), "{error}");
    assert!(evaluated.tape.grad(evaluated.images).is_none());
    evaluated.tape.forward(&[evaluated.total]).unwrap();
    evaluated.tape.backward(&losses).unwrap();

    let mut forward = recorded();
    forward.tape.forward(&[forward.total]).unwrap();
    forward.tape.backward(&losses).unwrap();
    let grad = |recorded: &Recorded| recorded.tape.grad(recorded.images).unwrap().data().to_vec();
    assert_eq!(grad(&evaluated), grad(&forward));
}

#[test]
fn a_loss_is_the_same_without_its_gradient() {
    let loss = |evaluates: bool| {
        let mut tape = Tape::new();
        let logits = Tensor::from_vec(noise(2, 60), [20, 3]).unwrap();
        let logits = tape.parameter(logits);
        let logits = tape.record(Pack, &[logits]).unwrap();
        let labels = (0..20).map(|image| (image % 3) as f32).collect();
        let labels = tape.leaf(Tensor::from_vec(labels, [20]).unwrap());
        let loss = tape.record(SoftmaxCrossEntropy, &[logits, labels]).unwrap();
        match evaluates {
            true => tape.evaluate(&[loss]).unwrap(),
            false => tape.forward(&[loss]).unwrap(),
        }
        (values(&tape, loss), tape.saved(loss).len())
    };
    let ((evaluated, saved), (forward, _)) = (loss(true), loss(false));
    assert_eq!((evaluated, saved), (forward, 0));
}
