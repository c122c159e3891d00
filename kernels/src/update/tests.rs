use proptest::prelude::*;

use super::*;
use crate::check::{Tolerance, assert_close_each, noise};
use crate::dispatch;
use crate::naive;

const LENGTHS: [usize; 9] = [0, 1, 15, 16, 17, 33, CHUNK - 1, CHUNK, CHUNK + 17];

const ADAM: AdamStep = AdamStep {
    learning_rate: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-7,
    weight_decay: 0.0,
    step: 3,
};

/// Half the distance from 1 to the next f32, in f64.
const ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

/// A problem: weights, gradients, and two states of which the second is never negative.
#[derive(Clone, Debug)]
struct Problem {
    weights: Vec<f32>,
    grad: Vec<f32>,
    state: [Vec<f32>; 2],
}

impl Problem {
    fn new(seed: u64, len: usize) -> Self {
        Self {
            weights: noise(seed, len),
            grad: noise(seed + 1, len),
            state: [
                noise(seed + 2, len),
                noise(seed + 3, len)
                    .iter()
                    .map(|value| value.abs())
                    .collect(),
            ],
        }
    }

    fn parameters(&mut self) -> (Parameters<'_>, [&mut [f32]; 2]) {
        let parameters = Parameters {
            weights: &mut self.weights,
            grad: &self.grad,
            owned: None,
        };
        (parameters, self.state.each_mut().map(Vec::as_mut_slice))
    }
}

/// The bound of values that come from a handful of roundings of terms of these magnitudes.
fn bound(terms: &[&[f32]]) -> impl Fn(usize) -> Tolerance + use<> {
    let len = terms[0].len();
    let magnitude =
        |index: usize| -> f64 { terms.iter().map(|term| f64::from(term[index].abs())).sum() };
    let magnitudes: Vec<f64> = (0..len).map(magnitude).collect();
    move |index| Tolerance::absolute(8.0 * ROUNDOFF * magnitudes[index])
}

fn check_sgd(problem: &Problem, learning_rate: f64) {
    let mut expected: Vec<f64> = naive::convert(&problem.weights);
    let grad: Vec<f64> = naive::convert(&problem.grad);
    naive::sgd(learning_rate, &mut expected, &grad);
    for &set in dispatch::all() {
        let mut actual = problem.clone();
        sgd(set, learning_rate, actual.parameters().0);
        let allowed = bound(&[&problem.weights, &problem.grad]);
        assert_close_each(&actual.weights, &expected, allowed);
    }
}

fn check_momentum(problem: &Problem, step: &MomentumStep) {
    let mut weights: Vec<f64> = naive::convert(&problem.weights);
    let mut velocity: Vec<f64> = naive::convert(&problem.state[0]);
    let grad: Vec<f64> = naive::convert(&problem.grad);
    naive::momentum(step, &mut weights, &grad, &mut velocity);
    for &set in dispatch::all() {
        let mut actual = problem.clone();
        let (parameters, [velocities, _]) = actual.parameters();
        momentum(set, step, parameters, velocities);
        let allowed = bound(&[&problem.weights, &problem.grad, &problem.state[0]]);
        assert_close_each(&actual.weights, &weights, &allowed);
        assert_close_each(&actual.state[0], &velocity, &allowed);
    }
}

fn check_adam(problem: &Problem, step: &AdamStep) {
    let mut weights: Vec<f64> = naive::convert(&problem.weights);
    let mut first: Vec<f64> = naive::convert(&problem.state[0]);
    let mut second: Vec<f64> = naive::convert(&problem.state[1]);
    let grad: Vec<f64> = naive::convert(&problem.grad);
    naive::adam(step, &mut weights, &grad, &mut first, &mut second);
    for &set in dispatch::all() {
        let mut actual = problem.clone();
        let (parameters, [firsts, seconds]) = actual.parameters();
        adam(set, step, parameters, firsts, seconds);
        let first_bound = bound(&[&problem.grad, &problem.state[0]]);
        assert_close_each(&actual.state[0], &first, &first_bound);
        // Both terms of the second moment are positive: nothing cancels.
        assert_close_each(&actual.state[1], &second, |_| Tolerance::roundings(8));
        // The move inherits the first moment's error, times its own factor.
        let weight_bound = bound(&[&problem.weights]);
        assert_close_each(&actual.weights, &weights, |index| {
            let factor = step.learning_rate * (1.0 - step.beta2.powf(step.step as f64)).sqrt()
                / (1.0 - step.beta1.powf(step.step as f64))
                / (second[index].sqrt() + step.epsilon);
            let moments = f64::from(problem.grad[index].abs() + problem.state[0][index].abs());
            weight_bound(index).plus(Tolerance::absolute(24.0 * ROUNDOFF * moments * factor))
        });
    }
}

fn check_all(problem: &Problem) {
    check_sgd(problem, 0.01);
    for nesterov in [false, true] {
        let step = MomentumStep {
            learning_rate: 0.01,
            momentum: 0.9,
            nesterov,
        };
        check_momentum(problem, &step);
    }
    for (step, weight_decay) in [(1, 0.0), (2, 0.004), (1_000, 0.0), (10_000_000_000, 0.1)] {
        let step = AdamStep {
            step,
            weight_decay,
            ..ADAM
        };
        check_adam(problem, &step);
    }
}

#[test]
fn matches_naive_at_every_edge() {
    for len in LENGTHS {
        check_all(&Problem::new(len as u64, len));
    }
}

proptest! {
    #[test]
    fn matches_naive(seed in 0..1_000_u64, len in 0..200_usize, shift in -12..12_i32) {
        let mut problem = Problem::new(seed, len);
        problem.grad.iter_mut().for_each(|grad| *grad *= (shift as f32).exp2());
        check_all(&problem);
    }
}

/// Every optimiser, as one function of set, parameters and state.
type Update = fn(InstructionSet, Parameters<'_>, [&mut [f32]; 2]);

const UPDATES: [Update; 4] = [
    |set, parameters, _| sgd(set, 0.1, parameters),
    |set, parameters, [velocity, _]| {
        let step = MomentumStep {
            learning_rate: 0.1,
            momentum: 0.9,
            nesterov: false,
        };
        momentum(set, &step, parameters, velocity);
    },
    |set, parameters, [velocity, _]| {
        let step = MomentumStep {
            learning_rate: 0.1,
            momentum: 0.9,
            nesterov: true,
        };
        momentum(set, &step, parameters, velocity);
    },
    |set, parameters, [first, second]| {
        let step = AdamStep {
            weight_decay: 0.1,
            ..ADAM
        };
        adam(set, &step, parameters, first, second);
    },
];

fn updates() -> impl Iterator<Item = (InstructionSet, Update)> {
    dispatch::all()
        .iter()
        .flat_map(|&set| UPDATES.map(|update| (set, update)))
}

#[test]
fn unowned_positions_keep_their_bits_whatever_the_gradient() {
    for len in LENGTHS {
        let owned: Vec<u8> = (0..len).map(|index| u8::from(index % 3 == 1)).collect();
        for (set, update) in updates() {
            let mut whole = Problem::new(7, len);
            let mut masked = whole.clone();
            for (index, grad) in masked.grad.iter_mut().enumerate() {
                if owned[index] == 0 {
                    *grad = [f32::NAN, f32::INFINITY, 1e38][index % 2];
                }
            }
            let before = masked.clone();
            let (parameters, state) = whole.parameters();
            update(set, parameters, state);
            let (parameters, state) = masked.parameters();
            let parameters = Parameters {
                owned: Some(&owned),
                ..parameters
            };
            update(set, parameters, state);
            let pick = |before: &[f32], whole: &[f32]| -> Vec<u32> {
                let bits = |index: usize| {
                    if owned[index] == 0 {
                        before[index]
                    } else {
                        whole[index]
                    }
                    .to_bits()
                };
                (0..len).map(bits).collect()
            };
            let bits = |values: &[f32]| -> Vec<u32> {
                values.iter().map(|value| value.to_bits()).collect()
            };
            assert_eq!(bits(&masked.weights), pick(&before.weights, &whole.weights));
            for (index, state) in masked.state.iter().enumerate() {
                assert_eq!(bits(state), pick(&before.state[index], &whole.state[index]));
            }
        }
    }
}

#[test]
fn every_update_moves_every_owned_weight() {
    for (set, update) in updates() {
        let before = Problem::new(5, 37);
        let mut after = before.clone();
        let (parameters, state) = after.parameters();
        update(set, parameters, state);
        assert!(
            before
                .weights
                .iter()
                .zip(&after.weights)
                .all(|(before, after)| before != after)
        );
    }
}

#[test]
fn mask_zeroes_what_is_not_owned() {
    for len in LENGTHS {
        let owned: Vec<u8> = (0..len).map(|index| u8::from(index % 5 < 2)).collect();
        for &set in dispatch::all() {
            let mut values = noise(2, len);
            let expected: Vec<u32> = (0..len)
                .map(|index| {
                    if owned[index] == 0 {
                        0
                    } else {
                        values[index].to_bits()
                    }
                })
                .collect();
            for (index, value) in values
                .iter_mut()
                .enumerate()
                .filter(|(index, _)| owned[*index] == 0)
            {
                *value = [f32::NAN, f32::NEG_INFINITY, -1.0][index % 3];
            }
            mask(set, &mut values, &owned);
            let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
            assert_eq!(bits, expected);
        }
    }
}

#[test]
#[should_panic(expected = "grad holds 3 values where the shape demands 4")]
fn a_short_gradient_is_refused() {
    let parameters = Parameters {
        weights: &mut [0.0; 4],
        grad: &[0.0; 3],
        owned: None,
    };
    sgd(dispatch::active(), 0.1, parameters);
}
