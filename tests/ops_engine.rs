//! The row-major operations as an engine of their own: small models trained with a user's operation.

use taskweave::autograd::gradient_check::check_gradients;
use taskweave::autograd::{Backward, Forward, Op, Tape, Var};
use taskweave::ops;
use taskweave::tensor::{Tensor, TensorError, TensorSpec};
use taskweave_kernels::check::noise;

/// `y = ln(1 + eˣ)`; ∂L/∂x = ∂L/∂y / (1 + e⁻ˣ).
struct Softplus;

impl Op for Softplus {
    fn name(&self) -> &'static str {
        "Softplus"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        Ok(inputs[0].clone())
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let input = pass.inputs[0].data();
        for (y, x) in pass.output.data_mut().iter_mut().zip(input) {
            *y = x.max(0.0) + (-x.abs()).exp().ln_1p();
        }
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        if let Some(grad_input) = &mut pass.grad_inputs[0] {
            let known = pass.inputs[0].data().iter().zip(pass.grad_output.data());
            for (grad, (x, grad_output)) in grad_input.data_mut().iter_mut().zip(known) {
                *grad = grad_output / (1.0 + (-x).exp());
            }
        }
    }
}

fn descend(tape: &mut Tape, parameters: &[Var], learning_rate: f32) {
    for &parameter in parameters {
        let (value, grad) = tape.value_and_grad(parameter);
        let grad = grad.expect("the loss depends on every parameter").data();
        for (value, grad) in value.data_mut().iter_mut().zip(grad) {
            *value -= learning_rate * grad;
        }
    }
}

#[test]
fn the_users_operation_passes_the_gradient_check() {
    let x = Tensor::from_vec(noise(3, 12), [4, 3]).unwrap();
    let plain = |x: &[Vec<f64>]| x[0].iter().map(|x| x.exp().ln_1p()).collect();
    check_gradients(&Softplus, &[x], &plain).unwrap();
}

/// Logistic regression: the loss of a label of ±1 is softplus(-label · (x · w + b)).
#[test]
fn logistic_regression_separates_what_is_separable() {
    let (count, features) = (60, 3);
    let x = noise(7, count * features);
    let side = |row: &[f32]| (row[0] - 2.0 * row[1] + 0.5 * row[2] + 0.3).signum();
    let labels: Vec<f32> = x.chunks(features).map(side).collect();

    let mut tape = Tape::new();
    let x = tape.leaf(Tensor::from_vec(x, [count, features]).unwrap());
    let minus_labels = labels.iter().map(|label| -label).collect();
    let minus_labels = tape.leaf(Tensor::from_vec(minus_labels, [count, 1]).unwrap());
    let w = tape.parameter(Tensor::zeros_row_major([features, 1]));
    let b = tape.parameter(Tensor::zeros_row_major([1]));
    let scores = tape.apply(ops::MatMul, &[x, w]).unwrap();
    let scores = tape.apply(ops::Add, &[scores, b]).unwrap();
    let against = tape.apply(ops::Mul, &[scores, minus_labels]).unwrap();
    let losses = tape.apply(Softplus, &[against]).unwrap();
    let loss = tape.apply(ops::Mean::all(), &[losses]).unwrap();
    assert!((tape.value(loss).item().unwrap() - 2.0f32.ln()).abs() < 1e-6);

    let mut last = f32::INFINITY;
    for _ in 0..200 {
        tape.forward(&[loss]).unwrap();
        let now = tape.value(loss).item().unwrap();
        assert!(now < last, "the loss went from {last} to {now}");
        last = now;
        tape.backward(&[(loss, 1.0)]).unwrap();
        descend(&mut tape, &[w, b], 1.0);
    }
    let scores = tape.value(scores).data();
    let right = scores.iter().zip(&labels).filter(|(s, l)| *s * *l > 0.0);
    assert!(right.count() >= count * 95 / 100);
    assert!(last < 0.25, "{last}");
}

/// Two layers in lanes learn what no single layer can: exclusive or.
#[test]
fn dense_layers_learn_exclusive_or() {
    let corners = vec![0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let mut tape = Tape::new();
    let x = tape.leaf(Tensor::from_vec(corners, [4, 2]).unwrap());
    let labels = tape.leaf(Tensor::from_vec(vec![0.0, 1.0, 1.0, 0.0], [4]).unwrap());
    let w1 = tape.parameter(Tensor::from_vec(noise(1, 32), [2, 16]).unwrap());
    let b1 = tape.parameter(Tensor::zeros_row_major([16]));
    let w2 = tape.parameter(Tensor::from_vec(noise(2, 32), [16, 2]).unwrap());
    let b2 = tape.parameter(Tensor::zeros_row_major([2]));
    let relu = ops::Dense {
        activation: ops::Activation::Relu,
        precision: ops::Precision::F32,
    };
    let linear = ops::Dense {
        activation: ops::Activation::Linear,
        precision: ops::Precision::F32,
    };
    let packed = tape.apply(ops::Pack, &[x]).unwrap();
    let hidden = tape.apply(relu, &[packed, w1, b1]).unwrap();
    let logits = tape.apply(linear, &[hidden, w2, b2]).unwrap();
    let loss = tape
        .apply(ops::SoftmaxCrossEntropy, &[logits, labels])
        .unwrap();
    for _ in 0..500 {
        tape.forward(&[loss]).unwrap();
        tape.backward(&[(loss, 1.0)]).unwrap();
        descend(&mut tape, &[w1, b1, w2, b2], 0.5);
    }
    let last = tape.value(loss).item().unwrap();
    assert!(last < 0.02, "{last}");
}
