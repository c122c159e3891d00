//! bf16, the upper half of an f32: rounding to it, and the sum of products of pairs.
//!
//! Two neighbours of the summed dimension ride in one 32-bit lane, the first in the low half. What
//! the AVX-512 instructions `VCVTNE2PS2BF16` and `VDPBF16PS` do to them is defined in Intel's
//! *64 and IA-32 Architectures Software Developer's Manual*, volume 2. The functions here do the same
//! bit for bit (the payload of NaN after arithmetic aside), for sets that lack the instructions:
//!
//! - Subnormal numbers, of f32 or bf16, count as zeros with their sign, wherever they come from and
//!   whatever the processor is set to.
//! - Products are exact. The one of the high halves is added to the sum first, and that is rounded to
//!   nearest, halves to even; then the one of the low halves.
//! - A sum that rounds to less than the smallest normal number becomes zero with its sign.

use super::Isa;
use crate::lanes::LANES;

/// The high half of a pair, which is the bits of an f32.
const HIGH: u32 = 0xffff_0000;

/// Sums below this round to less than the smallest normal number: 2^-126 - 2^-151.
const UNDERFLOW: f64 = f32::MIN_POSITIVE as f64 * (1.0 - 1.0 / (1 << 25) as f64);

/// The nearest bf16, as bits: halves to the even one, infinity beyond the largest, zero for
/// subnormal values. NaN stays NaN, made quiet and cut off.
///
/// ```
/// use taskweave_kernels::isa::bf16::{round, widen};
/// assert_eq!(widen(round(1.0 + 1.0 / 256.0)), 1.0);
/// assert_eq!(widen(round(1.0 + 3.0 / 256.0)), 1.0 + 1.0 / 64.0);
/// assert_eq!(widen(round(f32::MAX)), f32::INFINITY);
/// assert!(widen(round(f32::NAN)).is_nan());
/// ```
#[inline(always)]
pub fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    let quiet = bits >> 16 | 0x40;
    let zero = bits >> 16 & 0x8000;
    let normal = if value.is_nan() { quiet } else { rounded };
    (if value.abs() < f32::MIN_POSITIVE {
        zero
    } else {
        normal
    }) as u16
}

/// The value of a bf16.
#[inline(always)]
pub fn widen(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// `sum + a · b`, rounded once, where `a` and `b` have the precision of bf16 and subnormal numbers, the
/// result included, are zeros.
///
/// In f64 the product is exact, and rounding the sum twice, to 53 bits and then to 24, gives what
/// rounding it once would (S. A. Figueroa, *When is double rounding innocuous?*, 1995: 53 is at least
/// twice 24 and two more).
#[inline(always)]
pub fn multiply_add(sum: f32, a: f32, b: f32) -> f32 {
    let [sum, a, b] = [sum, a, b].map(|value| f64::from(flushed(value)));
    let exact = a * b + sum;
    let rounded = exact as f32;
    if exact.abs() < UNDERFLOW {
        0.0_f32.copysign(rounded)
    } else {
        rounded
    }
}

/// The value, or a zero with its sign if it is subnormal.
#[inline(always)]
fn flushed(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE {
        0.0_f32.copysign(value)
    } else {
        value
    }
}

/// [`Isa::pair_bf16`] lane by lane.
#[inline(always)]
pub(super) fn pair<I: Isa>(isa: I, even: I::F32, odd: I::F32) -> I::F32 {
    isa.load(&pair_lanes(&isa.to_array(even), &isa.to_array(odd)))
}

/// [`Isa::dot_bf16`] lane by lane.
#[inline(always)]
pub(super) fn dot<I: Isa>(isa: I, sums: I::F32, a: I::F32, b: I::F32) -> I::F32 {
    let mut sums = isa.to_array(sums);
    dot_lanes(&mut sums, &isa.to_array(a), &isa.to_array(b));
    isa.load(&sums)
}

// What follows is compiled once, for the baseline processor: repeated for every register of every
// tile it would be most of this crate's code.

#[inline(never)]
fn pair_lanes(even: &[f32; LANES], odd: &[f32; LANES]) -> [f32; LANES] {
    let mut pairs = [0.0; LANES];
    for (pair, (even, odd)) in pairs.iter_mut().zip(even.iter().zip(odd)) {
        *pair = f32::from_bits(u32::from(round(*odd)) << 16 | u32::from(round(*even)));
    }
    pairs
}

#[inline(never)]
fn dot_lanes(sums: &mut [f32; LANES], a: &[f32; LANES], b: &[f32; LANES]) {
    for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
        let [a, b] = [a.to_bits(), b.to_bits()];
        let [high_a, high_b] = [a, b].map(|bits| f32::from_bits(bits & HIGH));
        let [low_a, low_b] = [a, b].map(|bits| f32::from_bits(bits << 16));
        *sum = multiply_add(multiply_add(*sum, high_a, high_b), low_a, low_b);
    }
}

#[cfg(test)]
mod tests;
