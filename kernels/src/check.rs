//! The comparator of every test: two slices agree within a stated tolerance, and NaN never passes.
//!
//! A tolerance is derived from the arithmetic, not guessed: a sum of k products computed in f32, in
//! whatever order, differs from the exact one by at most about `k · ε · Σ|a·b|` (Higham, *Accuracy
//! and Stability of Numerical Algorithms*, section 3.1), which [`Tolerance::dot`] is.

use thiserror::Error;

use crate::naive::Float;

/// The unit roundoff of f32, half the distance from 1 to the next number.
const ROUNDOFF: f64 = f32::EPSILON as f64 / 2.0;

/// How far a value may lie from the expected one: `absolute + relative · |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    absolute: f64,
    relative: f64,
    nan_equals_nan: bool,
}

impl Tolerance {
    /// Equal values only.
    pub const EXACT: Self = Self::absolute(0.0);

    /// At most `bound` away.
    pub const fn absolute(bound: f64) -> Self {
        Self {
            absolute: bound,
            relative: 0.0,
            nan_equals_nan: false,
        }
    }

    /// At most `share` of the expected value away.
    pub const fn relative(share: f64) -> Self {
        Self {
            absolute: 0.0,
            relative: share,
            nan_equals_nan: false,
        }
    }

    /// The bound of a sum of `terms` f32 products whose absolute values sum to `magnitude`.
    ///
    /// Two roundings more than the sum has are granted: an epilogue (bias, alpha, beta) makes them.
    pub fn dot(terms: usize, magnitude: f64) -> Self {
        Self::absolute((terms + 2) as f64 * ROUNDOFF * magnitude)
    }

    /// The bound of `operations` f32 roundings in a row that do not cancel.
    pub fn roundings(operations: usize) -> Self {
        Self::relative(operations as f64 * ROUNDOFF)
    }

    /// The sum of both bounds.
    pub fn plus(self, other: Self) -> Self {
        Self {
            absolute: self.absolute + other.absolute,
            relative: self.relative + other.relative,
            nan_equals_nan: self.nan_equals_nan || other.nan_equals_nan,
        }
    }

    /// Both bounds multiplied by `factor`.
    pub fn times(self, factor: f64) -> Self {
        Self {
            absolute: self.absolute * factor,
            relative: self.relative * factor,
            ..self
        }
    }

    /// Also accepts NaN where NaN is expected.
    pub fn nan_equals_nan(self) -> Self {
        Self {
            nan_equals_nan: true,
            ..self
        }
    }

    fn accepts(&self, actual: f64, expected: f64) -> bool {
        if actual.is_nan() || expected.is_nan() {
            return self.nan_equals_nan && actual.is_nan() && expected.is_nan();
        }
        if actual.is_infinite() || expected.is_infinite() {
            return actual == expected;
        }
        let allowed = self.allowed(expected);
        allowed.is_finite() && (actual - expected).abs() <= allowed
    }

    fn allowed(&self, expected: f64) -> f64 {
        self.absolute + self.relative * expected.abs()
    }
}

/// Why two slices do not agree.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum Mismatch {
    /// They are not equally long.
    #[error("{actual} values where {expected} were expected")]
    Length {
        /// Values there are.
        actual: usize,
        /// Values there should be.
        expected: usize,
    },
    /// A value lies too far off, or is NaN; the first of them is described.
    #[error(
        "value {index} is {actual:e} where {expected:e} ± {allowed:e} was expected \
         ({wrong} of {of} values are wrong)"
    )]
    Value {
        /// Where the first wrong value is.
        index: usize,
        /// What it is.
        actual: f64,
        /// What it should be.
        expected: f64,
        /// How far it might lie off.
        allowed: f64,
        /// Number of wrong values.
        wrong: usize,
        /// Number of values.
        of: usize,
    },
}

/// Compares every value of `actual` with the one of `expected` under one tolerance.
///
/// # Errors
/// [`Mismatch`] if the lengths differ, a value lies farther off than allowed, or either is NaN.
pub fn compare<A: Float, E: Float>(
    actual: &[A],
    expected: &[E],
    tolerance: Tolerance,
) -> Result<(), Mismatch> {
    compare_each(actual, expected, |_| tolerance)
}

/// Compares with a tolerance for each index: for sums whose magnitudes differ.
///
/// # Errors
/// As [`compare`].
pub fn compare_each<A: Float, E: Float>(
    actual: &[A],
    expected: &[E],
    tolerance: impl Fn(usize) -> Tolerance,
) -> Result<(), Mismatch> {
    if actual.len() != expected.len() {
        return Err(Mismatch::Length {
            actual: actual.len(),
            expected: expected.len(),
        });
    }
    let mut wrong = (0..actual.len())
        .filter(|&index| {
            !tolerance(index).accepts(actual[index].to_f64(), expected[index].to_f64())
        })
        .peekable();
    match wrong.peek().copied() {
        None => Ok(()),
        Some(index) => Err(Mismatch::Value {
            index,
            actual: actual[index].to_f64(),
            expected: expected[index].to_f64(),
            allowed: tolerance(index).allowed(expected[index].to_f64()),
            wrong: wrong.count(),
            of: actual.len(),
        }),
    }
}

/// [`compare`] for a test.
///
/// # Panics
/// With the [`Mismatch`], if there is one.
#[track_caller]
pub fn assert_close<A: Float, E: Float>(actual: &[A], expected: &[E], tolerance: Tolerance) {
    if let Err(mismatch) = compare(actual, expected, tolerance) {
        panic!("{mismatch}");
    }
}

/// [`compare_each`] for a test.
///
/// # Panics
/// With the [`Mismatch`], if there is one.
#[track_caller]
pub fn assert_close_each<A: Float, E: Float>(
    actual: &[A],
    expected: &[E],
    tolerance: impl Fn(usize) -> Tolerance,
) {
    if let Err(mismatch) = compare_each(actual, expected, tolerance) {
        panic!("{mismatch}");
    }
}

/// `len` repeatable values spread evenly over [-1, 1), for tests and benchmarks: SplitMix64 of the
/// seed and the index (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number Generators*).
pub fn noise(seed: u64, len: usize) -> Vec<f32> {
    let value = |index: usize| {
        let mut bits = (seed << 40 ^ (index as u64 + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_spread_over_its_range_and_differs_by_seed() {
        let values = noise(1, 10_000);
        assert!(values.iter().all(|value| (-1.0..1.0).contains(value)));
        let mean = values.iter().sum::<f32>() / 10_000.0;
        let variance = values.iter().map(|value| value * value).sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((variance - 1.0 / 3.0).abs() < 0.02, "{variance}");
        assert_eq!(values, noise(1, 10_000));
        assert_ne!(values, noise(2, 10_000));
    }

    const EXPECTED: [f64; 3] = [1.0, -2.0, 4.0];

    #[test]
    fn accepts_what_is_within_the_tolerance() {
        assert_close(&[1.0_f32, -2.0, 4.0], &EXPECTED, Tolerance::EXACT);
        assert_close(&[1.1, -2.1, 3.9], &EXPECTED, Tolerance::absolute(0.11));
        assert_close(&[1.02, -2.04, 3.92], &EXPECTED, Tolerance::relative(0.021));
        assert_close::<f32, f64>(&[], &[], Tolerance::EXACT);
    }

    #[test]
    fn refuses_a_wrong_value_and_says_which() {
        let error = compare(&[1.0, -2.0, 4.5], &EXPECTED, Tolerance::absolute(0.25)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "value 2 is 4.5e0 where 4e0 ± 2.5e-1 was expected (1 of 3 values are wrong)"
        );
        assert!(compare(&[1.0, 2.0, 4.0], &EXPECTED, Tolerance::relative(0.1)).is_err());
    }

    #[test]
    fn refuses_zeros() {
        let error = compare(&[0.0_f32; 3], &EXPECTED, Tolerance::relative(0.5)).unwrap_err();
        assert!(matches!(
            error,
            Mismatch::Value {
                index: 0,
                wrong: 3,
                ..
            }
        ));
    }

    #[test]
    fn refuses_nan_on_either_side_and_on_both() {
        let loose = Tolerance::absolute(1e300);
        assert!(compare(&[f32::NAN], &[1.0_f32], loose).is_err());
        assert!(compare(&[1.0_f32], &[f32::NAN], loose).is_err());
        assert!(compare(&[f32::NAN], &[f32::NAN], loose).is_err());
        assert!(compare(&[f32::NAN], &[f32::NAN], loose.nan_equals_nan()).is_ok());
        assert!(compare(&[f32::NAN], &[1.0_f32], loose.nan_equals_nan()).is_err());
        assert!(compare(&[1.0_f32], &[f32::NAN], loose.nan_equals_nan()).is_err());
    }

    #[test]
    fn refuses_infinity_unless_it_is_expected() {
        let loose = Tolerance::relative(0.5);
        assert!(compare(&[f64::INFINITY], &[1.0], loose).is_err());
        assert!(compare(&[1.0], &[f64::INFINITY], loose).is_err());
        assert!(compare(&[f64::NEG_INFINITY], &[f64::INFINITY], loose).is_err());
        assert!(compare(&[f64::INFINITY], &[f64::INFINITY], loose).is_ok());
    }

    #[test]
    fn refuses_another_length() {
        let error = compare(&[1.0, -2.0], &EXPECTED, Tolerance::absolute(9.0)).unwrap_err();
        assert_eq!(
            error,
            Mismatch::Length {
                actual: 2,
                expected: 3
            }
        );
    }

    #[test]
    fn refuses_a_tolerance_that_is_no_number() {
        assert!(compare(&[1.0], &[2.0], Tolerance::absolute(f64::NAN)).is_err());
        assert!(compare(&[1.0], &[2.0], Tolerance::absolute(f64::INFINITY)).is_err());
    }

    #[test]
    fn each_index_has_its_own_tolerance() {
        let tolerance = |index| Tolerance::absolute([0.0, 0.0, 1.0][index]);
        assert!(compare_each(&[1.0, -2.0, 5.0], &EXPECTED, tolerance).is_ok());
        assert!(compare_each(&[2.0, -2.0, 5.0], &EXPECTED, tolerance).is_err());
    }

    #[test]
    #[should_panic(expected = "value 0 is 2e0 where 1e0")]
    fn assert_close_panics() {
        assert_close(&[2.0], &[1.0], Tolerance::absolute(0.5));
    }

    #[test]
    fn a_dot_product_in_f32_stays_within_its_bound_and_not_far_below() {
        let terms: Vec<f32> = (1..=1000).map(|n| 1.0 / n as f32).collect();
        let sum: f32 = terms.iter().map(|x| x * x).sum();
        let exact: f64 = terms.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        assert_close(&[sum], &[exact], Tolerance::dot(terms.len(), exact));
        assert!(compare(&[sum * 1.001], &[exact], Tolerance::dot(terms.len(), exact)).is_err());
    }
}
