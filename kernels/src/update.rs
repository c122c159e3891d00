//! Optimiser steps over parameters: SGD, momentum, Nesterov, Adam and AdamW in Keras 3's formulas.
//!
//! A step is bound by memory (Adam moves 28 bytes per parameter for a dozen operations), so it reads
//! and writes everything once. Factors that all parameters share, the bias correction among them,
//! are computed in f64 and rounded once.
//!
//! With a mask of owned positions, what is not owned keeps its bits, weight and state alike, whatever
//! its gradient holds, NaN included: what starts at zero stays exactly zero.

use crate::chunks::{CHUNK, Split, for_each_chunk, padded};
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::{LANES, check};

mod rule;

use rule::{Adam, Momentum, Sgd};
pub(crate) use rule::{Few, Place, Rule, step_few, step_sixteen};

/// A step of gradient descent with momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MomentumStep {
    /// Step size.
    pub learning_rate: f64,
    /// Share of the velocity that stays from step to step.
    pub momentum: f64,
    /// Nesterov's form: the weight moves to where the next velocity would carry it.
    pub nesterov: bool,
}

/// A step of Adam; with a weight decay, of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment, which is not bias-corrected.
    pub epsilon: f64,
    /// Share of the weight taken away per unit of learning rate, before the step; 0 in plain Adam.
    pub weight_decay: f64,
    /// Steps taken, this one included: 1 for the first.
    pub step: u64,
}

/// A step of any optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// See [`sgd`].
    Sgd {
        /// Step size.
        learning_rate: f64,
    },
    /// See [`momentum`].
    Momentum(MomentumStep),
    /// See [`adam`].
    Adam(AdamStep),
}

/// A step and what it changes: slices of one length, but those of state empty where the step keeps
/// none.
#[derive(Debug)]
pub struct Update<'a> {
    /// The step.
    pub step: Step,
    /// The weights, updated in place.
    pub weights: &'a mut [f32],
    /// A byte per weight: 0 where weight and state must stay as they are. Absent: all are owned.
    pub owned: Option<&'a [u8]>,
    /// The velocity, or Adam's first moment.
    pub first: &'a mut [f32],
    /// Adam's second moment.
    pub second: &'a mut [f32],
}

/// Code for whichever formula an [`Update`] takes.
pub(crate) trait WithRule {
    fn run<R: Rule>(self, rule: R, update: Update<'_>);
}

impl Update<'_> {
    /// Takes the step by this gradient.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn apply(self, set: InstructionSet, grad: &[f32]) {
        struct Apply<'a>(InstructionSet, &'a [f32]);
        impl WithRule for Apply<'_> {
            fn run<R: Rule>(self, rule: R, update: Update<'_>) {
                let Self(set, grad) = self;
                update.check::<R>();
                check("grad", grad.len(), update.weights.len());
                for_each_chunk(Part { update, grad }, CHUNK, &|part: Part| {
                    set.run(StepPart { rule, part });
                });
            }
        }
        self.with_rule(Apply(set, grad));
    }

    /// Holds the slices to one length.
    ///
    /// # Panics
    /// If they differ.
    pub(crate) fn check<R: Rule>(&self) {
        let len = self.weights.len();
        if let Some(owned) = self.owned {
            check("owned", owned.len(), len);
        }
        for state in [&self.first, &self.second].into_iter().take(R::STATES) {
            check("optimiser state", state.len(), len);
        }
    }

    /// Runs code for the formula of the step.
    pub(crate) fn with_rule(self, code: impl WithRule) {
        match self.step {
            Step::Sgd { learning_rate } => code.run(Sgd::new(learning_rate), self),
            Step::Momentum(step) => code.run(Momentum::new(&step), self),
            Step::Adam(step) => code.run(Adam::new(&step), self),
        }
    }
}

/// What a step changes and by what: slices of one length.
#[derive(Debug)]
pub struct Parameters<'a> {
    /// The weights, updated in place.
    pub weights: &'a mut [f32],
    /// The gradient of the loss by each weight.
    pub grad: &'a [f32],
    /// A byte per weight: 0 where weight and state must stay as they are. Absent: all are owned.
    pub owned: Option<&'a [u8]>,
}

impl Parameters<'_> {
    /// Takes a step; a state that it has no use for is empty.
    fn take(self, set: InstructionSet, step: Step, [first, second]: [&mut [f32]; 2]) {
        let update = Update {
            step,
            weights: self.weights,
            owned: self.owned,
            first,
            second,
        };
        update.apply(set, self.grad);
    }
}

/// `w -= lr · g`.
///
/// # Panics
/// If the slices differ in length.
pub fn sgd(set: InstructionSet, learning_rate: f64, parameters: Parameters<'_>) {
    let step = Step::Sgd { learning_rate };
    parameters.take(set, step, [&mut [], &mut []]);
}

/// `v = m · v - lr · g`, then `w += v`, or Nesterov's `w += m · v - lr · g`.
///
/// # Panics
/// If the slices differ in length.
pub fn momentum(
    set: InstructionSet,
    step: &MomentumStep,
    parameters: Parameters<'_>,
    velocity: &mut [f32],
) {
    let step = Step::Momentum(*step);
    parameters.take(set, step, [velocity, &mut []]);
}

/// `w -= w · decay · lr`, then with `α = lr · √(1 - β₂ᵗ) / (1 - β₁ᵗ)`:
/// `m += (g - m)(1 - β₁)`, `v += (g² - v)(1 - β₂)`, `w -= α · m / (√v + ε)`.
///
/// Source: Kingma and Ba, *Adam*, section 2, in the form with ε not corrected; the decay is that of
/// Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, in Keras's order.
///
/// # Panics
/// If the slices differ in length.
pub fn adam(
    set: InstructionSet,
    step: &AdamStep,
    parameters: Parameters<'_>,
    first: &mut [f32],
    second: &mut [f32],
) {
    parameters.take(set, Step::Adam(*step), [first, second]);
}

/// Zeroes `values` where `owned` holds 0.
///
/// # Panics
/// If the slices differ in length.
pub fn mask(set: InstructionSet, values: &mut [f32], owned: &[u8]) {
    check("owned", owned.len(), values.len());
    for_each_chunk((values, owned), CHUNK, &|(values, owned)| {
        set.run(Mask { values, owned });
    });
}

impl Split for Update<'_> {
    fn len(&self) -> usize {
        self.weights.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (weights, weights_right) = self.weights.split_at_mut(mid);
        let (owned, owned_right) = self.owned.map(|owned| owned.split_at(mid)).unzip();
        let (first, first_right) = self.first.split_at_mut(mid.min(self.first.len()));
        let (second, second_right) = self.second.split_at_mut(mid.min(self.second.len()));
        let step = self.step;
        (
            Self {
                step,
                weights,
                owned,
                first,
                second,
            },
            Self {
                step,
                weights: weights_right,
                owned: owned_right,
                first: first_right,
                second: second_right,
            },
        )
    }
}

/// Some parameters with their gradient.
struct Part<'a> {
    update: Update<'a>,
    grad: &'a [f32],
}

impl Split for Part<'_> {
    fn len(&self) -> usize {
        self.grad.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (update, update_right) = self.update.split_at(mid);
        let (grad, grad_right) = self.grad.split_at(mid);
        let right = Self {
            update: update_right,
            grad: grad_right,
        };
        (Self { update, grad }, right)
    }
}

struct StepPart<'a, R> {
    rule: R,
    part: Part<'a>,
}

impl<R: Rule> Kernel for StepPart<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { update, grad } = self.part;
        let Update {
            weights,
            owned,
            first,
            second,
            ..
        } = update;
        let (weights, weights_rest) = weights.as_chunks_mut::<LANES>();
        let (grad, grad_rest) = grad.as_chunks::<LANES>();
        let (owned, owned_rest) = owned.map(<[u8]>::as_chunks::<LANES>).unzip();
        let (first, first_rest) = first.as_chunks_mut::<LANES>();
        let (second, second_rest) = second.as_chunks_mut::<LANES>();
        for (index, weights) in weights.iter_mut().enumerate() {
            let place = Place {
                weights,
                owned: owned.map(|owned| &owned[index]),
                first: (R::STATES > 0).then(|| &mut first[index]),
                second: (R::STATES > 1).then(|| &mut second[index]),
            };
            step_sixteen(isa, self.rule, place, isa.load(&grad[index]));
        }
        if weights_rest.is_empty() {
            return;
        }
        let few = Few {
            weights: weights_rest,
            owned: owned_rest,
            first: first_rest,
            second: second_rest,
        };
        step_few(isa, self.rule, few, isa.load(&padded(grad_rest)));
    }
}

struct Mask<'a> {
    values: &'a mut [f32],
    owned: &'a [u8],
}

impl Kernel for Mask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (values, values_rest) = self.values.as_chunks_mut::<LANES>();
        let (owned, owned_rest) = self.owned.as_chunks::<LANES>();
        for (values, owned) in values.iter_mut().zip(owned) {
            let kept = isa.select_gt_zero(isa.load_u8(owned), isa.load(values));
            isa.store(values, kept);
        }
        for (value, &owned) in values_rest.iter_mut().zip(owned_rest) {
            if owned == 0 {
                *value = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests;
