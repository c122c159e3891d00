use proptest::prelude::*;

use super::*;
use crate::dispatch::{self, InstructionSet, Kernel};

/// Sixteen lanes as bits.
type Bits = [u32; LANES];

struct Pair(Bits, Bits);

impl Kernel for Pair {
    type Output = Bits;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Bits {
        let [even, odd] = [self.0, self.1].map(|bits| isa.load(&bits.map(f32::from_bits)));
        isa.to_array(isa.pair_bf16(even, odd)).map(f32::to_bits)
    }
}

struct Dot {
    sums: Bits,
    a: Bits,
    b: Bits,
}

impl Kernel for Dot {
    type Output = [f32; LANES];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f32; LANES] {
        let [sums, a, b] =
            [self.sums, self.a, self.b].map(|bits| isa.load(&bits.map(f32::from_bits)));
        isa.to_array(isa.dot_bf16(sums, a, b))
    }
}

/// Every way to run a kernel here: each set without its instructions for bf16 and, where there are
/// such, with them.
fn ways() -> Vec<(InstructionSet, bool)> {
    let sets = dispatch::all().iter();
    sets.flat_map(|&set| [(set, false), (set, true)])
        .filter(|(set, native)| !native || set.has_bf16())
        .collect()
}

fn run<K: Kernel>((set, native): (InstructionSet, bool), kernel: K) -> K::Output {
    if native {
        set.run_bf16(kernel)
    } else {
        set.run(kernel)
    }
}

/// The two steps of the instruction, in its order, on one lane.
fn expected_dot(sum: u32, a: u32, b: u32) -> f32 {
    let [a, b] = [a, b].map(|pair| [pair >> 16, pair & 0xffff].map(|half| widen(half as u16)));
    let sum = multiply_add(f32::from_bits(sum), a[0], b[0]);
    multiply_add(sum, a[1], b[1])
}

fn assert_dots(dot: [Bits; 3]) {
    let [sums, a, b] = dot;
    for way in ways() {
        let results = run(way, Dot { sums, a, b });
        for lane in 0..LANES {
            let (sum, a, b) = (sums[lane], a[lane], b[lane]);
            let (actual, expected) = (results[lane], expected_dot(sum, a, b));
            assert!(
                actual.to_bits() == expected.to_bits() || actual.is_nan() && expected.is_nan(),
                "{way:?}: {sum:08x} + {a:08x} · {b:08x} is {:08x} instead of {:08x}",
                actual.to_bits(),
                expected.to_bits()
            );
        }
    }
}

/// A bf16 of any sign and fraction whose exponent lies in a range.
fn half(exponents: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = u32> {
    (0..2_u32, exponents, 0..128_u32)
        .prop_map(|(sign, exponent, fraction)| sign << 15 | exponent << 7 | fraction)
}

/// An f32 whose fraction is any, zero or all ones.
fn float(exponents: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = u32> {
    let fraction = prop_oneof![any::<u32>(), Just(0), Just(u32::MAX), 0_u32..4];
    (0..2_u32, exponents, fraction)
        .prop_map(|(sign, exponent, fraction)| sign << 31 | exponent << 23 | fraction & 0x7f_ffff)
}

/// The operands of one lane.
fn operands(
    sums: std::ops::RangeInclusive<u32>,
    a: std::ops::RangeInclusive<u32>,
    b: std::ops::RangeInclusive<u32>,
) -> impl Strategy<Value = [u32; 3]> {
    (
        float(sums),
        [half(a.clone()), half(a)],
        [half(b.clone()), half(b)],
    )
        .prop_map(|(sum, a, b)| [sum, a[0] | a[1] << 16, b[0] | b[1] << 16])
}

/// A lane of what happens, and of what happens at the ends of the range.
fn lane() -> impl Strategy<Value = [u32; 3]> {
    prop_oneof![
        // Usual numbers, of like size, so that they cancel.
        operands(120..=134, 124..=130, 124..=130),
        // Any bits: infinities, NaN and subnormal numbers among them.
        operands(0..=255, 0..=255, 0..=255),
        // Sums about the smallest normal number, products as small.
        operands(0..=3, 50..=78, 50..=76),
        // The smallest normal number less a product in its last places.
        operands(1..=1, 52..=60, 44..=52),
        // Sums that overflow, or would but for what follows.
        operands(250..=255, 188..=194, 186..=192),
        // Subnormal factors.
        operands(0..=200, 0..=1, 0..=255),
        // The first product cancels the sum but for a few units.
        (operands(120..=134, 124..=130, 60..=130), 0_u32..5).prop_map(|([_, a, b], units)| {
            let product = widen((a >> 16) as u16) * widen((b >> 16) as u16);
            [
                (-product).to_bits().wrapping_add(units).wrapping_sub(2),
                a,
                b,
            ]
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn emulation_and_instruction_agree(lanes in proptest::array::uniform16(lane())) {
        assert_dots([0, 1, 2].map(|operand| lanes.map(|lane| lane[operand])));
    }

    #[test]
    fn emulation_and_instruction_agree_on_any_bits(
        sums in any::<Bits>(),
        a in any::<Bits>(),
        b in any::<Bits>(),
    ) {
        assert_dots([sums, a, b]);
    }

    #[test]
    fn pairs_are_rounded_alike(even in any::<Bits>(), odd in any::<Bits>()) {
        for way in ways() {
            let pairs = run(way, Pair(even, odd));
            for lane in 0..LANES {
                let [even, odd] = [even[lane], odd[lane]].map(|bits| round(f32::from_bits(bits)));
                let expected = u32::from(even) | u32::from(odd) << 16;
                assert_eq!(pairs[lane], expected, "{way:?}, {:08x}", pairs[lane]);
            }
        }
    }

    /// Against the fused multiply-add of the standard library, where no subnormal number occurs.
    #[test]
    fn multiply_add_rounds_once([sum, a, b] in operands(90..=160, 100..=150, 100..=150)) {
        let [sum, a, b] = [f32::from_bits(sum), widen(a as u16), widen(b as u16)];
        let expected = a.mul_add(b, sum);
        assert_eq!(multiply_add(sum, a, b).to_bits(), expected.to_bits(), "{sum:e} + {a:e} · {b:e}");
    }
}

/// Every bf16, and what lies between it and the next one away from zero.
#[test]
fn round_takes_the_nearest_and_of_two_the_even_one() {
    for high in 0..=u16::MAX {
        let below = widen(high);
        for low in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let value = f32::from_bits(u32::from(high) << 16 | low);
            let rounded = round(value);
            if value.is_nan() {
                assert!(widen(rounded).is_nan());
                assert_eq!(rounded, high | 0x40);
            } else if !value.is_normal() {
                let expected = if value.is_infinite() {
                    value
                } else {
                    0.0_f32.copysign(value)
                };
                assert_eq!(widen(rounded).to_bits(), expected.to_bits());
            } else {
                // Beyond the largest number lies what would follow it.
                let above = f64::from(below) + (f64::from(below) - f64::from(widen(high - 1)));
                let middle = match below.to_bits() & 0x7f_ffff {
                    // The distance doubles here.
                    0 => f64::from(below) * (1.0 + 1.0 / 256.0),
                    _ => (f64::from(below) + above) / 2.0,
                };
                let exact = f64::from(value);
                let up = exact.abs() > middle.abs() || exact == middle && high & 1 == 1;
                assert_eq!(rounded, high + u16::from(up), "{value:e}");
            }
        }
    }
}

/// By hand, with what the manual says: tiny after rounding becomes zero, and the order counts.
#[test]
fn sums_at_the_edges() {
    let least = f32::MIN_POSITIVE;
    let unit = 2.0_f32.powi(-75);
    // 2^-126 - 2^-150 rounds to no normal number, half of that to the smallest.
    assert_eq!(multiply_add(least, unit, -unit), 0.0);
    assert_eq!(multiply_add(least, unit, -unit / 2.0), least);
    assert_eq!(
        multiply_add(-least, unit, unit).to_bits(),
        (-0.0_f32).to_bits()
    );
    // Subnormal numbers are zeros, as sums and as factors.
    assert_eq!(multiply_add(least / 2.0, 0.0, 0.0), 0.0);
    assert_eq!(multiply_add(1.0, least / 2.0, 1e38), 1.0);
    assert!(multiply_add(1.0, least / 2.0, f32::INFINITY).is_nan());
    // A product beyond the largest number is still exact.
    let huge = 2.0_f32.powi(64);
    assert_eq!(multiply_add(-f32::MAX, huge, huge), 2.0_f32.powi(104));
    assert_eq!(multiply_add(f32::MAX, huge, huge), f32::INFINITY);

    let pair = |low: f32, high: f32| u32::from(round(low)) | u32::from(round(high)) << 16;
    let big = 2.0_f32.powi(30);
    let ones = pair(1.0, 1.0);
    // The high halves first: 1 is lost in 2^30, which the low halves then cancel.
    assert_eq!(expected_dot(1.0_f32.to_bits(), pair(-big, big), ones), 0.0);
    assert_dots([
        [1.0_f32.to_bits(); LANES],
        [pair(-big, big); LANES],
        [ones; LANES],
    ]);
    let numbers = |pair| -> Bits { [pair; LANES] };
    let lost = [numbers(0), numbers(pair(1.0, big)), numbers(pair(1.0, 1.0))];
    assert_dots(lost);
}
