//! How many positions of each tensor a task owns.

use serde::{Deserialize, Serialize};

use super::OwnerError;
use crate::nn::{ParameterKind, ParameterSpec};

/// How a task's positions are spread over the tensors of its net.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Budget {
    /// The same share of every tensor.
    #[default]
    Uniform,
    /// As many kernel weights in all, more densely in small layers: in proportion to the sum of the
    /// kernel's dimensions over their product (D. Mocanu et al., *Scalable Training of Artificial Neural
    /// Networks with Adaptive Sparse Connectivity*, 2018; for convolutions U. Evci et al., *Rigging the
    /// Lottery*, 2020), and nowhere more than leaves every task as much. Other tensors have uniform shares.
    ErdosRenyi,
}

/// Positions that a task owns of `len`, if so many are free: n - ⌈(n-1)·p/100⌉.
pub fn share(len: usize, percentile: f64) -> usize {
    let below = (len.saturating_sub(1) as f64 * percentile / 100.0).ceil();
    len - below as usize
}

/// Positions of each of its net's parameters that a task owns, if so many are free. `sharers` tells for
/// each parameter how many tasks share it.
///
/// # Errors
/// When the percentile is outside 0 to 100.
///
/// # Panics
/// If there is not a number of sharers for every parameter.
///
/// ```
/// use taskweave::multitask::{Budget, shares};
/// use taskweave::nn::NetSpec;
/// let parameters = NetSpec::mlp(100, &[100], 10).parameters();
/// assert_eq!(shares(Budget::Uniform, &parameters, &[2; 4], 90.0)?, [1_000, 10, 100, 1]);
/// // 1,100 weights too, of the small layer 45 %.
/// let sizes = shares(Budget::ErdosRenyi, &parameters, &[2; 4], 90.0)?;
/// assert_eq!(sizes, [710, 10, 390, 1]);
/// # Ok::<(), taskweave::multitask::OwnerError>(())
/// ```
pub fn shares(
    budget: Budget,
    parameters: &[ParameterSpec],
    sharers: &[usize],
    percentile: f64,
) -> Result<Vec<usize>, OwnerError> {
    assert_eq!(parameters.len(), sharers.len());
    if !(0.0..=100.0).contains(&percentile) {
        return Err(OwnerError::Percentile { percentile });
    }
    let uniform = parameters
        .iter()
        .map(|spec| share(spec.elements(), percentile));
    let mut shares: Vec<usize> = uniform.collect();
    if budget == Budget::ErdosRenyi {
        spread(parameters, sharers, &mut shares);
    }
    Ok(shares)
}

/// A kernel among the parameters.
struct Kernel {
    parameter: usize,
    /// Its part of the budget is in proportion to this: the sum of its dimensions.
    weight: f64,
    /// The most positions for one task.
    most: usize,
}

/// Spreads the kernels' shares by Erdős and Rényi; their sum stays, as far as the tensors hold it.
fn spread(parameters: &[ParameterSpec], sharers: &[usize], shares: &mut [usize]) {
    let kernels = parameters.iter().zip(sharers).enumerate();
    let mut open: Vec<Kernel> = kernels
        .filter(|(_, (spec, _))| spec.kind == ParameterKind::Kernel)
        .map(|(parameter, (spec, &sharers))| Kernel {
            parameter,
            weight: spec.shape.iter().sum::<usize>() as f64,
            most: (spec.elements() / sharers.max(1)).max(1),
        })
        .collect();
    let mut left: usize = open.iter().map(|kernel| shares[kernel.parameter]).sum();
    // What would be more than a kernel may have goes to the others, round by round.
    loop {
        let weights: f64 = open.iter().map(|kernel| kernel.weight).sum();
        let part = |kernel: &Kernel| left as f64 * kernel.weight / weights;
        let is_full = |kernel: &Kernel| part(kernel) >= kernel.most as f64;
        let (full, others): (Vec<_>, Vec<_>) = open.into_iter().partition(is_full);
        open = others;
        for kernel in &full {
            shares[kernel.parameter] = kernel.most;
            left = left.saturating_sub(kernel.most);
        }
        if full.is_empty() || open.is_empty() {
            break;
        }
    }
    // Whole numbers that keep the sum: each is the difference of two rounded sums.
    let weights: f64 = open.iter().map(|kernel| kernel.weight).sum();
    let (mut sum, mut given) = (0.0, 0);
    for kernel in &open {
        sum += kernel.weight;
        let end = (left as f64 * sum / weights).round() as usize;
        shares[kernel.parameter] = (end - given).clamp(1, kernel.most);
        given = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::NetSpec;

    #[test]
    fn shares_follow_numpys_percentile() {
        for (len, percentile, expected) in [
            (0, 90.0, 0),
            (1, 90.0, 1),
            (1, 100.0, 1),
            (10, 90.0, 1),
            (11, 90.0, 2),
            (1_000, 90.0, 100),
            (1_000_000, 90.0, 100_000),
            (10, 0.0, 10),
            (10, 100.0, 1),
            (64, 80.0, 13),
        ] {
            assert_eq!(share(len, percentile), expected, "{len} at {percentile}");
        }
    }

    /// Kernel positions of these shares.
    fn kernels(parameters: &[ParameterSpec], shares: &[usize]) -> Vec<usize> {
        let pairs = parameters.iter().zip(shares);
        pairs
            .filter(|(spec, _)| spec.kind == ParameterKind::Kernel)
            .map(|(_, &share)| share)
            .collect()
    }

    #[test]
    fn erdos_renyi_owns_as_many_weights_and_leaves_as_much_for_others() {
        let parameters = NetSpec::convnet(1).parameters();
        for (tasks, percentile) in [(2, 80.0), (3, 90.0), (2, 95.0), (1, 50.0)] {
            let sharers = vec![tasks; parameters.len()];
            let of = |budget| {
                let shares = shares(budget, &parameters, &sharers, percentile).unwrap();
                kernels(&parameters, &shares)
            };
            let (uniform, spread) = (of(Budget::Uniform), of(Budget::ErdosRenyi));
            assert_eq!(uniform.iter().sum::<usize>(), spread.iter().sum::<usize>());
            // The sum of a kernel's dimensions over their product, the share of it, and what one position is.
            let of_kernels = parameters
                .iter()
                .filter(|spec| spec.kind == ParameterKind::Kernel);
            let densities: Vec<[f64; 3]> = of_kernels
                .zip(&spread)
                .map(|(spec, &share)| {
                    assert!(share >= 1 && share * tasks <= spec.elements().max(tasks));
                    let size = spec.elements() as f64;
                    let sum = spec.shape.iter().sum::<usize>() as f64;
                    [sum / size, share as f64 / size, 1.0 / size]
                })
                .collect();
            for [weight, density, one] in &densities {
                for [other, less, other_one] in &densities {
                    assert!(weight < other || density + one + other_one >= *less);
                }
            }
            assert!(spread != uniform);
        }
    }

    #[test]
    fn a_percentile_outside_its_range_is_refused() {
        let parameters = NetSpec::mlp(4, &[3], 2).parameters();
        for percentile in [-1.0, 100.5, f64::NAN] {
            let error = shares(Budget::Uniform, &parameters, &[1; 4], percentile).unwrap_err();
            assert!(matches!(error, OwnerError::Percentile { .. }));
        }
    }
}
