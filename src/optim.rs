//! Optimisers: settings as data, and the state they keep per parameter.
//!
//! Formulas and defaults are Keras's (3.x): Adam adds ε to the square root of the uncorrected second
//! moment, and AdamW decays the weights before the step, by `learning_rate · weight_decay`.

use std::ops::Range;

use serde::Serialize;
use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::dispatch;
use taskweave_kernels::update::{AdamStep, MomentumStep, Step, Update};

/// An optimiser and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "snake_case")]
pub enum OptimizerSpec {
    /// Stochastic gradient descent, with momentum where that is not zero.
    Sgd {
        /// Step size.
        learning_rate: f64,
        /// Share of the velocity that is kept from step to step.
        momentum: f64,
        /// Whether the step looks ahead along the velocity (Y. Nesterov, 1983).
        nesterov: bool,
    },
    /// Adam (D. P. Kingma, J. Ba, 2015).
    Adam(AdamSettings),
    /// Adam with decoupled weight decay (I. Loshchilov, F. Hutter, 2019).
    AdamW {
        /// The settings it shares with Adam.
        #[serde(flatten)]
        adam: AdamSettings,
        /// Share of the weight that a step of learning rate 1 takes away.
        weight_decay: f64,
    },
}

/// The settings of Adam.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AdamSettings {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the mean of the gradients.
    pub beta_1: f64,
    /// Decay of the mean of their squares.
    pub beta_2: f64,
    /// Keeps the step finite where the gradient vanishes.
    pub epsilon: f64,
}

impl Default for AdamSettings {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-7,
        }
    }
}

impl OptimizerSpec {
    /// Plain gradient descent at Keras's default learning rate.
    pub fn sgd() -> Self {
        Self::Sgd {
            learning_rate: 0.01,
            momentum: 0.0,
            nesterov: false,
        }
    }

    /// Adam with Keras's defaults.
    pub fn adam() -> Self {
        Self::Adam(AdamSettings::default())
    }

    /// AdamW with Keras's defaults.
    pub fn adamw() -> Self {
        Self::AdamW {
            adam: AdamSettings::default(),
            weight_decay: 0.004,
        }
    }

    /// Buffers of a parameter's size that the optimiser keeps for it.
    pub fn state_buffers(&self) -> usize {
        match self {
            Self::Sgd { momentum: 0.0, .. } => 0,
            Self::Sgd { .. } => 1,
            Self::Adam(_) | Self::AdamW { .. } => 2,
        }
    }
}

/// An optimiser with the state of every parameter.
///
/// Memory for the state of a parameter is taken when that is updated for the first time.
pub struct Optimizer {
    rule: StepRule,
    state: Vec<[Buffer; 2]>,
}

impl Optimizer {
    /// A fresh optimiser for so many parameters.
    pub fn new(spec: OptimizerSpec, parameters: usize) -> Self {
        Self {
            rule: StepRule {
                spec,
                learning_rate_factor: 1.0,
                step: 0,
            },
            state: (0..parameters).map(|_| Default::default()).collect(),
        }
    }

    /// The settings.
    pub fn spec(&self) -> OptimizerSpec {
        self.rule.spec
    }

    /// Steps begun so far.
    pub fn step(&self) -> u64 {
        self.rule.step
    }

    /// Carries on after so many steps.
    pub fn set_step(&mut self, step: u64) {
        self.rule.step = step;
    }

    /// From the next step on, the learning rate is that of the settings times this.
    pub fn set_learning_rate_factor(&mut self, factor: f64) {
        self.rule.learning_rate_factor = factor;
    }

    /// Begins the next step: every parameter is updated at most once until the next call.
    pub fn begin_step(&mut self) {
        self.rule.step += 1;
    }

    /// The parameters at these slots.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn part(&mut self, slots: Range<usize>) -> OptimizerPart<'_> {
        OptimizerPart {
            rule: self.rule,
            state: &mut self.state[slots],
        }
    }

    /// Updates the parameter at `slot` in place by its gradient: see [`OptimizerPart::step_of`].
    ///
    /// # Panics
    /// If there is no such parameter, or the slices differ in length.
    pub fn update(&mut self, slot: usize, weights: &mut [f32], grad: &[f32], owned: Option<&[u8]>) {
        let mut part = self.part(slot..slot + 1);
        let update = part.step_of(0, weights, owned);
        update.apply(dispatch::active(), grad);
    }

    /// What the optimiser keeps for the parameter at `slot`: velocity, or first and second moment;
    /// empty where it keeps nothing, and before the first update.
    pub fn state(&self, slot: usize) -> [&[f32]; 2] {
        self.state[slot].each_ref().map(|buffer| &buffer[..])
    }

    /// Gives back what [`state`](Self::state) told.
    pub fn set_state(&mut self, slot: usize, state: [&[f32]; 2]) {
        self.state[slot] = state.map(Buffer::from_slice);
    }
}

/// What the next step of every parameter depends on.
#[derive(Clone, Copy)]
struct StepRule {
    spec: OptimizerSpec,
    learning_rate_factor: f64,
    step: u64,
}

impl StepRule {
    fn step(self) -> Step {
        let factor = self.learning_rate_factor;
        match self.spec {
            OptimizerSpec::Sgd {
                learning_rate,
                momentum: 0.0,
                ..
            } => Step::Sgd {
                learning_rate: learning_rate * factor,
            },
            OptimizerSpec::Sgd {
                learning_rate,
                momentum,
                nesterov,
            } => Step::Momentum(MomentumStep {
                learning_rate: learning_rate * factor,
                momentum,
                nesterov,
            }),
            OptimizerSpec::Adam(adam) => Step::Adam(adam.step(self.step, factor, 0.0)),
            OptimizerSpec::AdamW { adam, weight_decay } => {
                Step::Adam(adam.step(self.step, factor, weight_decay))
            }
        }
    }
}

/// Some parameters of an [`Optimizer`], which may take their steps while others take theirs.
pub struct OptimizerPart<'a> {
    rule: StepRule,
    state: &'a mut [[Buffer; 2]],
}

impl<'a> OptimizerPart<'a> {
    /// Splits off the first parameters, so many of them.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn split_off(&mut self, count: usize) -> Self {
        let (state, rest) = std::mem::take(&mut self.state).split_at_mut(count);
        self.state = rest;
        Self {
            rule: self.rule,
            state,
        }
    }

    /// The step of the parameter at `slot` of this part, whose values are these. Where `owned` is 0, weight
    /// and state will stay exactly as they are.
    ///
    /// # Panics
    /// If there is no such parameter.
    pub fn step_of<'b>(
        &'b mut self,
        slot: usize,
        weights: &'b mut [f32],
        owned: Option<&'b [u8]>,
    ) -> Update<'b> {
        let state = &mut self.state[slot];
        let used = self.rule.spec.state_buffers();
        for buffer in &mut state[..used] {
            if buffer.is_empty() {
                *buffer = Buffer::zeroed(weights.len());
            }
        }
        let [first, second] = state;
        Update {
            step: self.rule.step(),
            weights,
            owned,
            first,
            second,
        }
    }
}

impl AdamSettings {
    fn step(self, step: u64, factor: f64, weight_decay: f64) -> AdamStep {
        AdamStep {
            learning_rate: self.learning_rate * factor,
            beta1: self.beta_1,
            beta2: self.beta_2,
            epsilon: self.epsilon,
            weight_decay,
            step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unowned_weights_and_their_state_stay_zero() {
        for spec in [
            OptimizerSpec::Sgd {
                learning_rate: 0.1,
                momentum: 0.9,
                nesterov: true,
            },
            OptimizerSpec::adam(),
            OptimizerSpec::adamw(),
        ] {
            let mut optimizer = Optimizer::new(spec, 1);
            let mut weights = [0.0, 0.5, 0.0];
            for grad in [[1.0, 1.0, f32::NAN], [-2.0, 0.5, f32::INFINITY]] {
                optimizer.begin_step();
                optimizer.update(0, &mut weights, &grad, Some(&[0, 1, 0]));
            }
            assert!(weights[1] != 0.5 && weights[1].is_finite(), "{spec:?}");
            for values in [&weights[..]].iter().chain(&optimizer.state(0)) {
                for at in [0, 2].into_iter().filter(|&at| at < values.len()) {
                    assert_eq!(values[at].to_bits(), 0, "{spec:?}");
                }
            }
        }
    }

    #[test]
    fn the_first_step_of_adam_is_the_learning_rate() {
        let mut optimizer = Optimizer::new(OptimizerSpec::adam(), 1);
        let mut weights = [1.0, 1.0];
        optimizer.begin_step();
        optimizer.update(0, &mut weights, &[0.3, -7.0], None);
        assert!((weights[0] - 0.999).abs() < 1e-6 && (weights[1] - 1.001).abs() < 1e-6);
    }
}
