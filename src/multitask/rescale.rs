//! Giving the weights that are left the scale that keeps activations alive.

/// Sets what a task does not own of a kernel `[inputs, outputs]` to zero and scales the rest to the
/// variance that K. He et al. (2015) derived for relu layers, 2 / inputs, where an output unit now
/// has owned/outputs inputs on average: the owned weights' root mean square becomes
/// √(2 · outputs / owned).
///
/// A dense initialiser on a tenth of the inputs shrinks the signal layer by layer, and a choice by
/// magnitude leaves weights larger than the initialiser meant: measuring the scale corrects both.
/// U. Evci et al. ("Gradient Flow in Sparse Neural Networks", 2020) show why sparse nets want it.
///
/// # Panics
/// If `owned` has another length than `kernel`.
pub fn rescale_to_he_variance(kernel: &mut [f32], owned: &[u8], outputs: usize) {
    assert_eq!(kernel.len(), owned.len(), "a mask has a byte for every weight");
    let weights = kernel.iter().zip(owned).filter(|&(_, &owned)| owned == 1);
    let squares: f64 = weights.map(|(weight, _)| f64::from(*weight).powi(2)).sum();
    let scale = if squares > 0.0 {
        ((2 * outputs) as f64 / squares).sqrt() as f32
    } else {
        0.0
    };
    for (weight, owned) in kernel.iter_mut().zip(owned) {
        *weight = if *owned == 1 { *weight * scale } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owned_weights_get_the_variance_of_their_inputs() {
        let mut kernel: Vec<f32> = (0..600).map(|at| at as f32 - 300.0).collect();
        let owned: Vec<u8> = (0..600).map(|at| u8::from(at % 7 == 0)).collect();
        rescale_to_he_variance(&mut kernel, &owned, 3);
        let count = owned.iter().filter(|&&owned| owned == 1).count() as f64;
        let squares: f64 = kernel.iter().map(|w| f64::from(*w).powi(2)).sum();
        let inputs_of_a_unit = count / 3.0;
        assert!((squares / count / (2.0 / inputs_of_a_unit) - 1.0).abs() < 1e-5);
        for (weight, owned) in kernel.iter().zip(&owned) {
            assert!(*owned == 1 || weight.to_bits() == 0);
        }
    }

    #[test]
    fn nothing_owned_or_nothing_but_zeros_stays_zero() {
        let mut kernel = [1.0, -2.0];
        rescale_to_he_variance(&mut kernel, &[0, 0], 1);
        assert_eq!(kernel, [0.0, 0.0]);
        let mut kernel = [0.0, 3.0];
        rescale_to_he_variance(&mut kernel, &[1, 0], 1);
        assert_eq!(kernel, [0.0, 0.0]);
    }
}
