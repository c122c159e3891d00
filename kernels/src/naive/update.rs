//! Optimiser steps in Keras 3's formulas.

use super::Float;
use crate::update::{AdamStep, MomentumStep};

/// `w -= lr · g`.
pub fn sgd<T: Float>(learning_rate: f64, weights: &mut [T], grad: &[T]) {
    let learning_rate = T::from_f64(learning_rate);
    for (index, weight) in weights.iter_mut().enumerate() {
        *weight -= learning_rate * grad[index];
    }
}

/// `v = m · v - lr · g`, then `w += v`, or Nesterov's `w += m · v - lr · g`.
pub fn momentum<T: Float>(step: &MomentumStep, weights: &mut [T], grad: &[T], velocity: &mut [T]) {
    let (learning_rate, momentum) = (T::from_f64(step.learning_rate), T::from_f64(step.momentum));
    for (index, weight) in weights.iter_mut().enumerate() {
        let pull = learning_rate * grad[index];
        velocity[index] = momentum * velocity[index] - pull;
        *weight += if step.nesterov {
            momentum * velocity[index] - pull
        } else {
            velocity[index]
        };
    }
}

/// `w -= w · decay · lr`, then with `α = lr · √(1 - β₂ᵗ) / (1 - β₁ᵗ)`:
/// `m += (g - m)(1 - β₁)`, `v += (g² - v)(1 - β₂)`, `w -= α · m / (√v + ε)`.
pub fn adam<T: Float>(
    step: &AdamStep,
    weights: &mut [T],
    grad: &[T],
    first: &mut [T],
    second: &mut [T],
) {
    let unbiased = |beta: f64| 1.0 - beta.powf(step.step as f64);
    let alpha = step.learning_rate * unbiased(step.beta2).sqrt() / unbiased(step.beta1);
    let [alpha, gain1, gain2, epsilon, decay, learning_rate] = [
        alpha,
        1.0 - step.beta1,
        1.0 - step.beta2,
        step.epsilon,
        step.weight_decay,
        step.learning_rate,
    ]
    .map(T::from_f64);
    for (index, weight) in weights.iter_mut().enumerate() {
        let g = grad[index];
        *weight -= *weight * decay * learning_rate;
        first[index] += (g - first[index]) * gain1;
        second[index] += (g * g - second[index]) * gain2;
        *weight -= alpha * first[index] / (second[index].sqrt() + epsilon);
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
