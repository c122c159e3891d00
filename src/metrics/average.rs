//! Averages to the last bit as NumPy takes them.

/// Sum in NumPy's order: eight running sums over blocks of at most 128, and halves above that.
fn pairwise_sum(values: &[f64]) -> f64 {
    const LANES: usize = 8;
    const BLOCK: usize = 128;
    if values.len() > BLOCK {
        let half = values.len() / 2;
        let (first, second) = values.split_at(half - half % LANES);
        return pairwise_sum(first) + pairwise_sum(second);
    }
    let (eights, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for eight in eights {
        for (sum, value) in sums.iter_mut().zip(eight) {
            *sum += value;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    let start = ((a + b) + (c + d)) + ((e + f) + (g + h));
    rest.iter().fold(start, |sum, value| sum + value)
}

/// Mean of the values that are numbers; NaN if none is.
pub(super) fn mean(values: &[f64]) -> f64 {
    let numbers = values.iter().filter(|value| !value.is_nan()).count();
    // The others stay as zeros: they decide which numbers are added first.
    let zeroed: Vec<f64> = values
        .iter()
        .map(|&value| if value.is_nan() { 0.0 } else { value })
        .collect();
    pairwise_sum(&zeroed) / numbers as f64
}

/// Mean of the values that are numbers, weighted; unweighted where all their weights are zero.
pub(super) fn weighted_mean(values: &[f64], weights: &[u64]) -> f64 {
    let (values, weights): (Vec<f64>, Vec<u64>) = values
        .iter()
        .zip(weights)
        .filter(|(value, _)| !value.is_nan())
        .unzip();
    let total: u64 = weights.iter().sum();
    if total == 0 {
        return mean(&values);
    }
    let products: Vec<f64> = values
        .iter()
        .zip(weights)
        .map(|(value, weight)| value * weight as f64)
        .collect();
    pairwise_sum(&products) / total as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_leave_out_what_is_not_a_number() {
        assert_eq!(mean(&[1.0, f64::NAN, 2.0]), 1.5);
        assert!(mean(&[f64::NAN]).is_nan());
        assert!(mean(&[]).is_nan());
        assert_eq!(weighted_mean(&[1.0, f64::NAN, 4.0], &[2, 7, 1]), 2.0);
        assert_eq!(weighted_mean(&[1.0, f64::NAN, 4.0], &[0, 7, 0]), 2.5);
        assert!(weighted_mean(&[f64::NAN], &[1]).is_nan());
    }

    #[test]
    fn sums_in_the_order_of_numpy() {
        let values =
            |count: u32| -> Vec<f64> { (1..=count).map(|at| 1.0 / f64::from(at)).collect() };
        // numpy.sum(1 / numpy.arange(1, count + 1)), NumPy 2.4.
        for (count, sum) in SUMS {
            assert_eq!(
                pairwise_sum(&values(count)).to_bits(),
                f64::to_bits(sum),
                "{count}"
            );
        }
    }

    const SUMS: [(u32, f64); 13] = [
        (0, 0.0),
        (1, 1.0),
        (7, 2.5928571428571425),
        (8, 2.7178571428571425),
        (9, 2.8289682539682537),
        (100, 5.187377517639621),
        (127, 5.425334592589172),
        (128, 5.433147092589173),
        (129, 5.440899030573669),
        (136, 5.493542515771517),
        (137, 5.50084178584451),
        (1000, 7.485470860550345),
        (1003, 7.4884648745144435),
    ];
}
