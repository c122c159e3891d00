//! Optimiser steps in Keras 3's formulas.

use super::Float;

/// A step of gradient descent with momentum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MomentumStep<T> {
    /// Step size.
    pub learning_rate: T,
    /// Share of the velocity that stays from step to step.
    pub momentum: T,
    /// Nesterov's form: the weight moves to where the next velocity would carry it.
    pub nesterov: bool,
}

/// A step of Adam; with a weight decay, of AdamW.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep<T> {
    /// Step size.
    pub learning_rate: T,
    /// Decay of the first moment.
    pub beta1: T,
    /// Decay of the second moment.
    pub beta2: T,
    /// Added to the root of the second moment, which is not bias-corrected.
    pub epsilon: T,
    /// Share of the weight taken away per unit of learning rate, before the step.
    pub weight_decay: T,
    /// Steps taken, this one included: 1 for the first.
    pub step: u64,
}

/// `w -= lr · g`.
pub fn sgd<T: Float>(learning_rate: T, weights: &mut [T], grad: &[T]) {
    for (index, weight) in weights.iter_mut().enumerate() {
        *weight -= learning_rate * grad[index];
    }
}

/// `v = m · v - lr · g`, then `w += v`, or Nesterov's `w += m · v - lr · g`.
pub fn momentum<T: Float>(
    step: &MomentumStep<T>,
    weights: &mut [T],
    grad: &[T],
    velocity: &mut [T],
) {
    for (index, weight) in weights.iter_mut().enumerate() {
        let pull = step.learning_rate * grad[index];
        velocity[index] = step.momentum * velocity[index] - pull;
        *weight += if step.nesterov {
            step.momentum * velocity[index] - pull
        } else {
            velocity[index]
        };
    }
}

/// `w -= w · decay · lr`, then with `α = lr · √(1 - β₂ᵗ) / (1 - β₁ᵗ)`:
/// `m += (g - m)(1 - β₁)`, `v += (g² - v)(1 - β₂)`, `w -= α · m / (√v + ε)`.
pub fn adam<T: Float>(
    step: &AdamStep<T>,
    weights: &mut [T],
    grad: &[T],
    first: &mut [T],
    second: &mut [T],
) {
    let power = |beta: T| T::from_f64(beta.to_f64().powf(step.step as f64));
    let alpha =
        step.learning_rate * (T::ONE - power(step.beta2)).sqrt() / (T::ONE - power(step.beta1));
    for (index, weight) in weights.iter_mut().enumerate() {
        let g = grad[index];
        *weight -= *weight * step.weight_decay * step.learning_rate;
        first[index] += (g - first[index]) * (T::ONE - step.beta1);
        second[index] += (g * g - second[index]) * (T::ONE - step.beta2);
        *weight -= alpha * first[index] / (second[index].sqrt() + step.epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Tolerance, assert_close};

    #[test]
    fn sgd_and_momentum_by_hand() {
        let mut weights = [1.0];
        sgd(0.5, &mut weights, &[0.5]);
        assert_eq!(weights, [0.75]);

        let mut step = MomentumStep {
            learning_rate: 0.5,
            momentum: 0.5,
            nesterov: false,
        };
        let mut velocity = [1.0];
        momentum(&step, &mut weights, &[1.0], &mut velocity);
        assert_eq!((weights, velocity), ([0.75], [0.0]));
        step.nesterov = true;
        momentum(&step, &mut weights, &[1.0], &mut velocity);
        assert_eq!((weights, velocity), ([0.0], [-0.5]));
    }

    /// Bias correction makes the first step lr · sign(g), whatever the size of g.
    #[test]
    fn first_adam_step_is_the_learning_rate() {
        let step = AdamStep {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 0.0,
            weight_decay: 0.0,
            step: 1,
        };
        let mut weights = [0.0, 0.0];
        let (mut first, mut second) = ([0.0; 2], [0.0; 2]);
        adam(&step, &mut weights, &[3.0, -1e-6], &mut first, &mut second);
        assert_close(&weights, &[-1e-3, 1e-3], Tolerance::relative(1e-12));

        let decayed = AdamStep {
            weight_decay: 0.1,
            ..step
        };
        let mut weights = [2.0];
        adam(&decayed, &mut weights, &[1.0], &mut [0.0], &mut [0.0]);
        assert_close(&weights, &[2.0 - 2e-4 - 1e-3], Tolerance::relative(1e-12));
    }
}
