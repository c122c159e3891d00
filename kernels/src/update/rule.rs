//! The formulas of the optimisers, sixteen parameters at a time.

use crate::chunks::padded;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::update::{AdamStep, MomentumStep};

/// The formula of an optimiser for sixteen parameters.
pub(crate) trait Rule: Copy + Send + Sync {
    /// How many of the two states it uses.
    const STATES: usize;

    /// The new weights and states from the old ones and the gradient.
    fn apply<I: Isa>(self, isa: I, old: Sixteen<I>, grad: I::F32) -> Sixteen<I>;
}

/// Sixteen weights with their state; a state that the rule has no use for is zero.
pub(crate) struct Sixteen<I: Isa> {
    pub(crate) weights: I::F32,
    pub(crate) first: I::F32,
    pub(crate) second: I::F32,
}

/// Where sixteen parameters lie in memory; without a state where the rule has no use for it.
pub(crate) struct Place<'a> {
    pub(crate) weights: &'a mut [f32; LANES],
    pub(crate) owned: Option<&'a [u8; LANES]>,
    pub(crate) first: Option<&'a mut [f32; LANES]>,
    pub(crate) second: Option<&'a mut [f32; LANES]>,
}

/// Takes one step of sixteen parameters by this gradient.
#[inline(always)]
pub(crate) fn step_sixteen<I: Isa, R: Rule>(isa: I, rule: R, place: Place<'_>, grad: I::F32) {
    let weights = isa.load(place.weights);
    let first = load_or_zero(isa, &place.first);
    let second = load_or_zero(isa, &place.second);
    let old = Sixteen {
        weights,
        first,
        second,
    };
    let mut new = rule.apply(isa, old, grad);
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

/// Fewer than sixteen parameters.
pub(crate) struct Few<'a> {
    pub(crate) weights: &'a mut [f32],
    pub(crate) owned: Option<&'a [u8]>,
    pub(crate) first: &'a mut [f32],
    pub(crate) second: &'a mut [f32],
}

/// Takes one step of fewer than sixteen parameters by the first lanes of this gradient.
#[inline(always)]
pub(crate) fn step_few<I: Isa, R: Rule>(isa: I, rule: R, few: Few<'_>, grad: I::F32) {
    let owned = few.owned.map(padded);
    let mut weights = padded(few.weights);
    let mut first = padded(few.first);
    let mut second = padded(few.second);
    let place = Place {
        weights: &mut weights,
        owned: owned.as_ref(),
        first: Some(&mut first),
        second: Some(&mut second),
    };
    step_sixteen(isa, rule, place, grad);
    few.weights.copy_from_slice(&weights[..few.weights.len()]);
    few.first.copy_from_slice(&first[..few.first.len()]);
    few.second.copy_from_slice(&second[..few.second.len()]);
}

#[derive(Clone, Copy)]
pub(crate) struct Sgd {
    learning_rate: f32,
}

impl Sgd {
    pub(crate) fn new(learning_rate: f64) -> Self {
        Self {
            learning_rate: learning_rate as f32,
        }
    }
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
pub(crate) struct Momentum {
    learning_rate: f32,
    momentum: f32,
    nesterov: bool,
}

impl Momentum {
    pub(crate) fn new(step: &MomentumStep) -> Self {
        Self {
            learning_rate: step.learning_rate as f32,
            momentum: step.momentum as f32,
            nesterov: step.nesterov,
        }
    }
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
pub(crate) struct Adam {
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

impl Adam {
    pub(crate) fn new(step: &AdamStep) -> Self {
        let unbiased = |beta: f64| 1.0 - beta.powf(step.step as f64);
        let alpha = step.learning_rate * unbiased(step.beta2).sqrt() / unbiased(step.beta1);
        Self {
            alpha: alpha as f32,
            gain1: (1.0 - step.beta1) as f32,
            gain2: (1.0 - step.beta2) as f32,
            epsilon: step.epsilon as f32,
            decay: (step.weight_decay * step.learning_rate) as f32,
        }
    }
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
