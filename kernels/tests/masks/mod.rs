//! What tests of masked weights share.

/// Weights, zero where the mask is.
pub(crate) fn masked(weights: &[f32], owned: &[u8]) -> Vec<f32> {
    let pairs = weights.iter().zip(owned);
    pairs
        .map(|(weight, owned)| weight * f32::from(*owned))
        .collect()
}

/// Absolute values: what the error of a sum is measured by.
pub(crate) fn magnitudes(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value.abs())).collect()
}
