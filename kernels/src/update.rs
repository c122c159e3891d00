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

/// `w -= lr · g`.
///
/// # Panics
/// If the slices differ in length.
pub fn sgd(set: InstructionSet, learning_rate: f64, parameters: Parameters<'_>) {
    let rule = Sgd {
        learning_rate: learning_rate as f32,
    };
    run(set, rule, parameters, [&mut [], &mut []]);
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
    let rule = Momentum {
        learning_rate: step.learning_rate as f32,
        momentum: step.momentum as f32,
        nesterov: step.nesterov,
    };
    run(set, rule, parameters, [velocity, &mut []]);
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
    let unbiased = |beta: f64| 1.0 - beta.powf(step.step as f64);
    let alpha = step.learning_rate * unbiased(step.beta2).sqrt() / unbiased(step.beta1);
    let rule = Adam {
        alpha: alpha as f32,
        gain1: (1.0 - step.beta1) as f32,
        gain2: (1.0 - step.beta2) as f32,
        epsilon: step.epsilon as f32,
        decay: (step.weight_decay * step.learning_rate) as f32,
    };
    run(set, rule, parameters, [first, second]);
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

/// Runs `rule` over all parameters; a state that it has no use for is empty.
fn run<R: Rule>(set: InstructionSet, rule: R, parameters: Parameters<'_>, state: [&mut [f32]; 2]) {
    let len = parameters.weights.len();
    check("grad", parameters.grad.len(), len);
    if let Some(owned) = parameters.owned {
        check("owned", owned.len(), len);
    }
    for state in &state[..R::STATES] {
        check("optimiser state", state.len(), len);
    }
    let [first, second] = state;
    let part = Part {
        parameters,
        first,
        second,
    };
    for_each_chunk(part, CHUNK, &|part: Part| set.run(Step { rule, part }));
}

/// Some parameters with their state.
struct Part<'a> {
    parameters: Parameters<'a>,
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl Split for Part<'_> {
    fn len(&self) -> usize {
        self.parameters.weights.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Parameters {
            weights,
            grad,
            owned,
        } = self.parameters;
        let (weights, weights_right) = weights.split_at_mut(mid);
        let (grad, grad_right) = grad.split_at(mid);
        let (owned, owned_right) = owned.map(|owned| owned.split_at(mid)).unzip();
        let (first, first_right) = self.first.split_at_mut(mid.min(self.first.len()));
        let (second, second_right) = self.second.split_at_mut(mid.min(self.second.len()));
        let part = |weights, grad, owned, first, second| Self {
            parameters: Parameters {
                weights,
                grad,
                owned,
            },
            first,
            second,
        };
        (
            part(weights, grad, owned, first, second),
            part(
                weights_right,
                grad_right,
                owned_right,
                first_right,
                second_right,
            ),
        )
    }
}

/// The formula of an optimiser for sixteen parameters.
trait Rule: Copy + Send + Sync {
    /// How many of the two states it uses.
    const STATES: usize;

    /// The new weights and states from the old ones and the gradient.
    fn apply<I: Isa>(self, isa: I, old: Sixteen<I>, grad: I::F32) -> Sixteen<I>;
}

/// Sixteen weights with their state; a state that the rule has no use for is zero.
struct Sixteen<I: Isa> {
    weights: I::F32,
    first: I::F32,
    second: I::F32,
}

/// Where sixteen parameters lie in memory.
struct Place<'a> {
    weights: &'a mut [f32; LANES],
    grad: &'a [f32; LANES],
    owned: Option<&'a [u8; LANES]>,
    first: Option<&'a mut [f32; LANES]>,
    second: Option<&'a mut [f32; LANES]>,
}

struct Step<'a, R> {
    rule: R,
    part: Part<'a>,
}

impl<R: Rule> Kernel for Step<'_, R> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Parameters {
            weights,
            grad,
            owned,
        } = self.part.parameters;
        let (weights, weights_rest) = weights.as_chunks_mut::<LANES>();
        let (grad, grad_rest) = grad.as_chunks::<LANES>();
        let (owned, owned_rest) = owned.map(<[u8]>::as_chunks::<LANES>).unzip();
        let (first, first_rest) = self.part.first.as_chunks_mut::<LANES>();
        let (second, second_rest) = self.part.second.as_chunks_mut::<LANES>();
        for (index, weights) in weights.iter_mut().enumerate() {
            let place = Place {
                weights,
                grad: &grad[index],
                owned: owned.map(|owned| &owned[index]),
                first: (R::STATES > 0).then(|| &mut first[index]),
                second: (R::STATES > 1).then(|| &mut second[index]),
            };
            step_sixteen(isa, self.rule, place);
        }
        if weights_rest.is_empty() {
            return;
        }
        let padded_owned = owned_rest.map(padded);
        let mut padded_weights = padded(weights_rest);
        let mut padded_first = padded(first_rest);
        let mut padded_second = padded(second_rest);
        let place = Place {
            weights: &mut padded_weights,
            grad: &padded(grad_rest),
            owned: padded_owned.as_ref(),
            first: Some(&mut padded_first),
            second: Some(&mut padded_second),
        };
        step_sixteen(isa, self.rule, place);
        weights_rest.copy_from_slice(&padded_weights[..weights_rest.len()]);
        first_rest.copy_from_slice(&padded_first[..first_rest.len()]);
        second_rest.copy_from_slice(&padded_second[..second_rest.len()]);
    }
}

#[inline(always)]
fn step_sixteen<I: Isa, R: Rule>(isa: I, rule: R, place: Place<'_>) {
    let weights = isa.load(place.weights);
    let first = load_or_zero(isa, &place.first);
    let second = load_or_zero(isa, &place.second);
    let old = Sixteen {
        weights,
        first,
        second,
    };
    let mut new = rule.apply(isa, old, isa.load(place.grad));
    if let Some(owned) = place.owned {
        let owned = isa.lt(isa.zero(), isa.load_u8(owned));
        new.weights = isa.select(owned, new.weights, weights);
        new.first = isa.select(owned, new.first, first);
        new.second = isa.select(owned, new.second, second);
    }
    isa.store(place.weights, new.weights);
    if let Some(state) = place.first {
        isa.store(state, new.first);
    }
    if let Some(state) = place.second {
        isa.store(state, new.second);
    }
}

#[inline(always)]
fn load_or_zero<I: Isa>(isa: I, state: &Option<&mut [f32; LANES]>) -> I::F32 {
    match state {
        Some(state) => isa.load(state),
        None => isa.zero(),
    }
}

#[derive(Clone, Copy)]
struct Sgd {
    learning_rate: f32,
}

impl Rule for Sgd {
    const STATES: usize = 0;

    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: Sixteen<I>, grad: I::F32) -> Sixteen<I> {
        let pull = isa.mul(isa.splat(self.learning_rate), grad);
        Sixteen {
            weights: isa.sub(old.weights, pull),
            ..old
        }
    }
}

#[derive(Clone, Copy)]
struct Momentum {
    learning_rate: f32,
    momentum: f32,
    nesterov: bool,
}

impl Rule for Momentum {
    const STATES: usize = 1;

    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: Sixteen<I>, grad: I::F32) -> Sixteen<I> {
        let momentum = isa.splat(self.momentum);
        let pull = isa.mul(isa.splat(self.learning_rate), grad);
        let velocity = isa.sub(isa.mul(momentum, old.first), pull);
        let change = if self.nesterov {
            isa.sub(isa.mul(momentum, velocity), pull)
        } else {
            velocity
        };
        Sixteen {
            weights: isa.add(old.weights, change),
            first: velocity,
            ..old
        }
    }
}

#[derive(Clone, Copy)]
struct Adam {
    /// lr · √(1 - β₂ᵗ) / (1 - β₁ᵗ).
    alpha: f32,
    /// 1 - β₁.
    gain1: f32,
    /// 1 - β₂.
    gain2: f32,
    epsilon: f32,
    /// Weight decay times learning rate.
    decay: f32,
}

impl Rule for Adam {
    const STATES: usize = 2;

    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, old: Sixteen<I>, grad: I::F32) -> Sixteen<I> {
        let weights = isa.sub(old.weights, isa.mul(old.weights, isa.splat(self.decay)));
        let rise = isa.mul(isa.sub(grad, old.first), isa.splat(self.gain1));
        let first = isa.add(old.first, rise);
        let rise = isa.mul(
            isa.sub(isa.mul(grad, grad), old.second),
            isa.splat(self.gain2),
        );
        let second = isa.add(old.second, rise);
        let root = isa.add(isa.sqrt(second), isa.splat(self.epsilon));
        let change = isa.div(isa.mul(isa.splat(self.alpha), first), root);
        Sixteen {
            weights: isa.sub(weights, change),
            first,
            second,
        }
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
