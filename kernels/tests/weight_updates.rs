//! Steps of an optimiser at the end of a weight gradient: bit for bit those from a stored gradient.

use proptest::prelude::*;
use taskweave_kernels::check::noise;
use taskweave_kernels::dense::{self, DenseShape, bf16};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::in_place::InPlace;
use taskweave_kernels::lanes::{lanes_len, pack};
use taskweave_kernels::naive;
use taskweave_kernels::update::{AdamStep, MomentumStep, Step, Update};

const ADAM: Step = Step::Adam(AdamStep {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    epsilon: 1e-7,
    weight_decay: 0.01,
    step: 2,
});

/// Every step, with the number of states that it keeps.
const STEPS: [(Step, usize); 3] = [
    (
        Step::Sgd {
            learning_rate: 0.25,
        },
        0,
    ),
    (
        Step::Momentum(MomentumStep {
            learning_rate: 0.25,
            momentum: 0.9,
            nesterov: true,
        }),
        1,
    ),
    (ADAM, 2),
];

/// Weights and what an optimiser keeps for them.
#[derive(Clone)]
struct Learned {
    weights: Vec<f32>,
    state: [Vec<f32>; 2],
}

impl Learned {
    fn new(len: usize, states: usize) -> Self {
        let state = |index: usize| {
            let values = noise(10 + index as u64, len).into_iter().map(f32::abs);
            values.take(if index < states { len } else { 0 }).collect()
        };
        Self {
            weights: noise(9, len),
            state: [state(0), state(1)],
        }
    }

    fn update<'a>(&'a mut self, step: Step, owned: Option<&'a [u8]>) -> Update<'a> {
        let [first, second] = &mut self.state;
        Update {
            step,
            weights: &mut self.weights,
            owned,
            first,
            second,
        }
    }

    fn bits(&self) -> Vec<u32> {
        let all = [&self.weights, &self.state[0], &self.state[1]];
        all.into_iter().flatten().map(|v| v.to_bits()).collect()
    }
}

fn check_update(set: InstructionSet, shape: DenseShape, (step, states): (Step, usize)) {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    let lanes = |seed: u64, features: usize| {
        let mut lanes = vec![0.0; lanes_len(images, features)];
        let rows = noise(seed, images * features);
        pack(set, images, features, &rows, &mut lanes);
        lanes
    };
    let (x, grad_output) = (lanes(1, inputs), lanes(2, outputs));
    let owned: Vec<u8> = noise(3, inputs * outputs)
        .iter()
        .map(|value| u8::from(*value > 0.0))
        .collect();
    for rounded in [false, true] {
        let mut grad = vec![f32::NAN; inputs * outputs];
        if rounded {
            bf16::grad_weights(set, shape.into(), &x, &grad_output, &mut grad);
        } else {
            dense::grad_weights(set, shape, &x, &grad_output, &mut grad);
        }
        for owned in [None, Some(owned.as_slice())] {
            let before = Learned::new(grad.len(), states);
            let (mut expected, mut fused) = (before.clone(), before.clone());
            expected.update(step, owned).apply(set, &grad);
            let update = fused.update(step, owned);
            if rounded {
                bf16::update_weights(set, shape.into(), &x, &grad_output, update);
            } else {
                dense::update_weights(set, shape, &x, &grad_output, update);
            }
            assert_eq!(fused.bits(), expected.bits(), "{set:?} {shape:?} {step:?}");
            let moves = images > 0 && grad.len() > 8;
            assert!(!moves || fused.bits() != before.bits(), "a step moves");
            if rounded || images > 512 {
                continue;
            }
            let mut grad_x = vec![f32::NAN; x.len()];
            dense::grad_input(set, shape, &grad_output, &before.weights, &mut grad_x);
            for rectified in [false, true] {
                let (mut in_place, mut stepped) = (x.clone(), before.clone());
                let input = InPlace {
                    x: &mut in_place,
                    rectified,
                };
                let update = stepped.update(step, owned);
                dense::backward_in_place(set, shape, input, &grad_output, update);
                assert_eq!(
                    stepped.bits(),
                    expected.bits(),
                    "{set:?} {shape:?} {step:?}"
                );
                let expected = if rectified {
                    naive::relu_backward(&x, &grad_x)
                } else {
                    grad_x.clone()
                };
                assert_eq!(in_place, expected, "{set:?} {shape:?}");
            }
        }
    }
}

#[test]
fn around_every_edge_of_tiles_tasks_and_blocks() {
    let sizes = [0, 1, 2, 6, 13, 14, 15, 16, 17, 31, 33, 129, 300];
    let images = [0, 1, 15, 16, 17, 33, 511, 512, 513, 1025];
    for &set in dispatch::all() {
        let around = |images, inputs, outputs| DenseShape {
            images,
            inputs,
            outputs,
        };
        for step in STEPS {
            for size in sizes {
                check_update(set, around(18, size, 35), step);
                check_update(set, around(18, 19, size), step);
            }
            for images in images {
                check_update(set, around(images, 15, 33), step);
            }
        }
    }
}

#[test]
#[should_panic(expected = "optimiser state")]
fn a_state_that_is_too_short_is_refused() {
    let shape = DenseShape {
        images: 1,
        inputs: 2,
        outputs: 2,
    };
    let mut learned = Learned::new(4, 1);
    let update = learned.update(ADAM, None);
    let set = dispatch::active();
    dense::update_weights(set, shape, &[0.0; 32], &[0.0; 32], update);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_shape(images in 0..80_usize, inputs in 0..60_usize, outputs in 0..70_usize, step in 0..3_usize) {
        for &set in dispatch::all() {
            check_update(set, DenseShape { images, inputs, outputs }, STEPS[step]);
        }
    }
}
