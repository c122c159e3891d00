//! Operations with deliberate mistakes: the gradient check must catch each.

use taskweave::autograd::gradient_check::{GradientCheck, GradientCheckError, check_gradients};
use taskweave::autograd::{Backward, Forward, Op};
use taskweave::tensor::{Layout, Tensor, TensorError, TensorSpec};

/// What is wrong with a [`Product`].
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mistake {
    None,
    WrongScale,
    WrongSignInOneElement,
    MissingBroadcastSum,
    Nan,
    NanInForward,
    AddsToTheGradient,
    AddsToTheOutput,
    GradientOnlyWhenBothAreWanted,
    UsesUpWhatItSaved,
    ForgetsTheGradientOfTheOutput,
    DropsTheGradient,
    GarbageInEmptyLanes,
    ReadsEmptyLanes,
}

/// `y = x · s` with x of `[N, F]`, s of `[F]`; its layout is that of x.
struct Product(Mistake);

impl Op for Product {
    fn name(&self) -> &'static str {
        "Product"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        Ok(inputs[0].clone())
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let features = pass.inputs[1].data();
        pass.saved.resize(features.len());
        pass.saved.copy_from_slice(features);
        let spec = pass.output.spec().clone();
        let input = pass.inputs[0].data();
        for (place, output) in pass.output.data_mut().iter_mut().enumerate() {
            let product = input[place] * features[feature(place, &spec)];
            match self.0 {
                Mistake::AddsToTheOutput => *output += product,
                _ => *output = product,
            }
        }
        if self.0 == Mistake::NanInForward {
            pass.output.data_mut()[3] = f32::NAN;
        }
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let spec = pass.inputs[0].spec();
        let (x, grad) = (pass.inputs[0].data(), pass.grad_output.data());
        let both = pass.grad_inputs.iter().all(Option::is_some);
        if self.0 == Mistake::GradientOnlyWhenBothAreWanted && !both {
            return;
        }
        if let Some(grad_x) = &mut pass.grad_inputs[0] {
            for (place, target) in grad_x.data_mut().iter_mut().enumerate() {
                let value = grad[place] * pass.saved[feature(place, spec)];
                match self.0 {
                    Mistake::WrongScale => *target = 1.001 * value,
                    Mistake::WrongSignInOneElement if place == 4 => *target = -value,
                    Mistake::Nan if place == 4 => *target = f32::NAN,
                    Mistake::AddsToTheGradient => *target += value,
                    Mistake::ForgetsTheGradientOfTheOutput => {
                        *target = pass.saved[feature(place, spec)];
                    }
                    _ => *target = value,
                }
            }
            if self.0 == Mistake::GarbageInEmptyLanes {
                *grad_x.data_mut().last_mut().unwrap() = 1.0;
            }
        }
        if self.0 == Mistake::DropsTheGradient {
            pass.grad_inputs[0] = None;
        }
        if let Some(grad_s) = &mut pass.grad_inputs[1] {
            let grad_s = grad_s.data_mut();
            grad_s.fill(0.0);
            for (place, (&x, &grad)) in x.iter().zip(grad).enumerate() {
                let target = &mut grad_s[feature(place, spec)];
                match self.0 {
                    Mistake::MissingBroadcastSum => *target = x * grad,
                    Mistake::ReadsEmptyLanes => *target += x * (grad + f32::EPSILON * 1e4),
                    _ => *target += x * grad,
                }
            }
        }
        if self.0 == Mistake::UsesUpWhatItSaved {
            pass.saved.fill(f32::NAN);
        }
    }
}

/// Which feature of an image lies at a place of the storage.
fn feature(place: usize, spec: &TensorSpec) -> usize {
    match spec.layout {
        Layout::RowMajor => place % spec.features(),
        Layout::Lanes => place / 16 % spec.features(),
    }
}

fn check(mistake: Mistake, in_lanes: bool) -> Result<(), GradientCheckError> {
    let rows = Tensor::from_vec((1..=6).map(|i| i as f32 * 0.5).collect(), [2, 3])?;
    let x = if in_lanes { rows.to_lanes()? } else { rows };
    let s = Tensor::from_vec(vec![2.0, -1.0, 0.5], [3])?;
    let reference = |v: &[Vec<f64>]| {
        let element = |(i, x): (usize, &f64)| x * v[1][i % 3];
        v[0].iter().enumerate().map(element).collect()
    };
    check_gradients(&Product(mistake), &[x, s], &reference)
}

#[test]
fn what_is_right_passes() {
    for in_lanes in [false, true] {
        check(Mistake::None, in_lanes).unwrap();
        // Every backward pass has a forward pass of its own.
        check(Mistake::UsesUpWhatItSaved, in_lanes).unwrap();
    }
}

#[test]
fn a_wrong_gradient_is_caught() {
    for mistake in [
        Mistake::WrongScale,
        Mistake::WrongSignInOneElement,
        Mistake::MissingBroadcastSum,
        Mistake::Nan,
        Mistake::AddsToTheGradient,
        Mistake::GradientOnlyWhenBothAreWanted,
        Mistake::ForgetsTheGradientOfTheOutput,
    ] {
        let error = check(mistake, false).expect_err(&format!("{mistake:?} was not caught"));
        let gradient = matches!(error, GradientCheckError::Gradient { .. });
        assert!(gradient, "{mistake:?}: {error}");
    }
}

#[test]
fn a_wrong_value_is_caught() {
    for mistake in [Mistake::NanInForward, Mistake::AddsToTheOutput] {
        let error = check(mistake, false).expect_err(&format!("{mistake:?} was not caught"));
        let forward = matches!(error, GradientCheckError::Forward { .. });
        assert!(forward, "{mistake:?}: {error}");
    }
}

#[test]
fn empty_lanes_are_watched() {
    let garbage = check(Mistake::GarbageInEmptyLanes, true).unwrap_err();
    assert_eq!(
        garbage.to_string(),
        "Product: an empty lane of the gradient of input 0 holds 1; it must be zero"
    );
    let reads = check(Mistake::ReadsEmptyLanes, true).unwrap_err();
    assert!(matches!(
        reads,
        GradientCheckError::Gradient { input: 1, .. }
    ));
}

#[test]
fn a_gradient_that_goes_missing_is_caught() {
    let error = check(Mistake::DropsTheGradient, false).unwrap_err();
    assert!(matches!(
        error,
        GradientCheckError::GradientTensor { input: 0, .. }
    ));
}

#[test]
fn the_message_names_operation_input_place_and_both_values() {
    let error = check(Mistake::WrongSignInOneElement, false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Product: the gradient of input 0 at [1, 1] is 1, but central differences give -1 \
         (gradients wanted of inputs [0])"
    );
}

#[test]
fn a_reference_of_another_length_or_not_finite_is_caught() {
    let x = Tensor::from_vec(vec![1.0, 2.0], [1, 2]).unwrap();
    let s = Tensor::from_vec(vec![1.0, 1.0], [2]).unwrap();
    let inputs = [x, s];
    let short = check_gradients(&Product(Mistake::None), &inputs, &|_| vec![0.0]).unwrap_err();
    assert_eq!(
        short.to_string(),
        "Product: the output holds 2 values, but the reference returned 1"
    );
    let nan = check_gradients(&Product(Mistake::None), &inputs, &|_| vec![f64::NAN; 2]);
    assert!(nan.is_err());
}

/// The gradient of s is wrong, but nobody asks for it.
#[test]
fn constants_are_left_out() {
    let x = Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2]).unwrap();
    let s = Tensor::from_vec(vec![1.0, -1.0], [2]).unwrap();
    let inputs = [x, s];
    let op = Product(Mistake::MissingBroadcastSum);
    let reference = |v: &[Vec<f64>]| {
        let element = |(i, x): (usize, &f64)| x * v[1][i % 2];
        v[0].iter().enumerate().map(element).collect()
    };
    assert!(GradientCheck::new(&op, &inputs, &reference).run().is_err());
    let without = GradientCheck::new(&op, &inputs, &reference).constant(1);
    without.run().unwrap();
}
