use super::*;

use crate::dispatch::{self, Kernel};

const EDGES: [f32; 16] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    1e30,
    -1e-30,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    f32::MIN_POSITIVE,
    f32::MAX,
];

/// Applies every lane operation to two vectors; the results in a fixed order.
struct Everything {
    a: [f32; 16],
    b: [f32; 16],
}

impl Kernel for Everything {
    type Output = Vec<[f32; 16]>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Self::Output {
        let (a, b) = (isa.load(&self.a), isa.load(&self.b));
        let (yes, no) = (isa.splat(1.0), isa.zero());
        [
            isa.add(a, b),
            isa.sub(a, b),
            isa.mul(a, b),
            isa.div(a, b),
            isa.max(a, b),
            isa.min(a, b),
            isa.sqrt(a),
            isa.neg(a),
            isa.abs(a),
            isa.floor(a),
            isa.round_ties_even(a),
            isa.select(isa.lt(a, b), yes, no),
            isa.select(isa.le(a, b), yes, no),
            isa.select(isa.eq(a, b), yes, no),
            isa.select(isa.exceeds(a, b), yes, no),
            isa.add_where(isa.lt(a, b), isa.abs(a), b),
            isa.select_lt(a, b, b, a),
            isa.select_gt_zero(a, b),
        ]
        .map(|vector| isa.to_array(vector))
        .to_vec()
    }
}

fn expected(a: f32, b: f32) -> [f32; 18] {
    let truth = |value: bool| f32::from(u8::from(value));
    [
        a + b,
        a - b,
        a * b,
        a / b,
        if a > b { a } else { b },
        if a < b { a } else { b },
        a.sqrt(),
        -a,
        a.abs(),
        a.floor(),
        a.round_ties_even(),
        truth(a < b),
        truth(a <= b),
        truth(a == b),
        truth(a > b || a.is_nan() && !b.is_nan()),
        if a < b { a.abs() + b } else { a.abs() },
        if a < b { b } else { a },
        if a > 0.0 { b } else { 0.0 },
    ]
}

fn assert_same(actual: f32, expected: f32, context: &str) {
    assert!(
        actual.to_bits() == expected.to_bits() || actual.is_nan() && expected.is_nan(),
        "{context}: {actual:e} instead of {expected:e}"
    );
}

#[test]
fn lane_operations_match_scalars_bit_for_bit() {
    for &set in dispatch::all() {
        for shift in 0..16 {
            let (a, mut b) = (EDGES, EDGES);
            b.rotate_left(shift);
            let results = set.run(Everything { a, b });
            for (lane, (&a, &b)) in a.iter().zip(&b).enumerate() {
                for (operation, expected) in expected(a, b).into_iter().enumerate() {
                    let context = format!("{set:?}, operation {operation} of {a:e} and {b:e}");
                    assert_same(results[operation][lane], expected, &context);
                }
            }
        }
    }
}

#[test]
fn mul_add_sum_and_bytes() {
    struct Sums;
    impl Kernel for Sums {
        type Output = ([f32; 16], f32, [f32; 16], [f32; 16]);
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Output {
            let mut counting = [0_u8; 16];
            for (lane, byte) in counting.iter_mut().enumerate() {
                *byte = (lane * 17) as u8;
            }
            let bytes = isa.load_u8(&counting);
            let fused = isa.mul_add(bytes, isa.splat(3.0), isa.splat(0.5));
            let uneven = isa.div(bytes, isa.splat(7.0));
            let last = isa.select(isa.eq_u8(&counting, 255), bytes, isa.zero());
            let [fused, bytes, last] = [fused, bytes, last].map(|vector| isa.to_array(vector));
            (fused, isa.sum(uneven), bytes, last)
        }
    }
    let order = {
        let mut lanes: Vec<f32> = (0..16).map(|lane| (lane * 17) as f32 / 7.0).collect();
        while lanes.len() > 1 {
            let (low, high) = lanes.split_at(lanes.len() / 2);
            lanes = low.iter().zip(high).map(|(a, b)| a + b).collect();
        }
        lanes[0]
    };
    for &set in dispatch::all() {
        let (fused, sum, bytes, last) = set.run(Sums);
        for lane in 0..16 {
            assert_eq!(bytes[lane], (lane * 17) as f32, "{set:?}");
            assert_eq!(fused[lane], (lane * 17) as f32 * 3.0 + 0.5, "{set:?}");
            let expected = if lane == 15 { 255.0 } else { 0.0 };
            assert_eq!(last[lane], expected, "{set:?}");
        }
        assert_same(sum, order, "sum");
    }
}

#[test]
fn eight_sums_are_those_of_each_vector() {
    struct Eight([[f32; 16]; 8]);
    impl Kernel for Eight {
        type Output = ([f32; 8], [f32; 8]);
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Output {
            let vectors = self.0.map(|lanes| isa.load(&lanes));
            (
                isa.sum_eight(vectors),
                vectors.map(|vector| isa.sum(vector)),
            )
        }
    }
    for &set in dispatch::all() {
        let uneven = |at: usize| 1.0 / (3.0 + at as f32) - 0.02 * (at % 7) as f32;
        let vectors =
            std::array::from_fn(|row| std::array::from_fn(|lane| uneven(16 * row + lane)));
        let (together, each) = set.run(Eight(vectors));
        assert_eq!(
            together.map(f32::to_bits),
            each.map(f32::to_bits),
            "{set:?}"
        );
    }
}

#[test]
fn every_byte_survives_as_a_float() {
    struct Copied<'a>(&'a [u8; 16]);
    impl Kernel for Copied<'_> {
        type Output = [u8; 16];
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [u8; 16] {
            let mut target = [0xaa; 16];
            isa.store_u8(&mut target, isa.load_u8(self.0));
            target
        }
    }
    for &set in dispatch::all() {
        for first in (0..=255).step_by(16) {
            let source = std::array::from_fn(|lane| first + (lane as u8 * 7) % 16);
            assert_eq!(set.run(Copied(&source)), source, "{set:?}");
        }
    }
}

#[test]
fn streamed_vectors_are_written_whole() {
    #[repr(align(64))]
    struct Aligned([f32; 48]);
    struct Streamed<'a>(&'a mut Aligned);
    impl Kernel for Streamed<'_> {
        type Output = ();
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) {
            // SAFETY: the middle of three vectors, aligned to 64 bytes.
            unsafe { isa.stream_ptr(self.0.0[16..].as_mut_ptr(), isa.load(&EDGES)) };
            isa.fence();
        }
    }
    for &set in dispatch::all() {
        let mut target = Aligned([-7.0; 48]);
        set.run(Streamed(&mut target));
        for (lane, &value) in target.0.iter().enumerate() {
            let expected = if (16..32).contains(&lane) {
                EDGES[lane - 16]
            } else {
                -7.0
            };
            assert_same(value, expected, "streamed");
        }
    }
}

#[test]
fn partial_loads_and_stores_touch_only_the_first_lanes() {
    struct Partial<'a> {
        source: &'a [f32],
        target: &'a mut [f32; 16],
    }
    impl Kernel for Partial<'_> {
        type Output = [f32; 16];
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [f32; 16] {
            let count = self.source.len();
            // SAFETY: both slices hold at least `count` floats.
            unsafe {
                let loaded = isa.load_first_ptr(self.source.as_ptr(), count);
                isa.store_first_ptr(self.target.as_mut_ptr(), loaded, count);
                isa.to_array(loaded)
            }
        }
    }
    for &set in dispatch::all() {
        for count in 0..=16 {
            let source: Vec<f32> = (0..count).map(|lane| lane as f32 + 1.0).collect();
            let mut target = [-1.0; 16];
            let loaded = set.run(Partial {
                source: &source,
                target: &mut target,
            });
            for lane in 0..16 {
                let value = lane as f32 + 1.0;
                assert_eq!(loaded[lane], if lane < count { value } else { 0.0 });
                assert_eq!(target[lane], if lane < count { value } else { -1.0 });
            }
        }
    }
}

#[test]
fn every_place_of_a_table_is_picked() {
    struct Pick<'a>(&'a [f32; TABLE], [u8; 16]);
    impl Kernel for Pick<'_> {
        type Output = [f32; 16];
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [f32; 16] {
            // SAFETY: the table is whole, and places lie within it or are none.
            isa.to_array(unsafe { isa.pick_ptr(self.0.as_ptr(), &self.1) })
        }
    }
    let mut table: [f32; TABLE] = std::array::from_fn(|place| place as f32 + 1.0);
    for &set in dispatch::all() {
        for first in 0..TABLE {
            let mut places: [u8; 16] =
                std::array::from_fn(|lane| ((first + 5 * lane) % TABLE) as u8);
            places[first % 16] = NO_PLACE;
            // What is not picked is not looked at.
            table[0] = f32::NAN;
            let expected = places.map(|place| match place {
                NO_PLACE => 0.0,
                place => table[place as usize],
            });
            let picked = set.run(Pick(&table, places));
            assert_eq!(
                picked.map(f32::to_bits),
                expected.map(f32::to_bits),
                "{set:?}"
            );
        }
    }
}

#[test]
fn transpose_moves_every_element() {
    struct Transpose([[f32; 16]; 16]);
    impl Kernel for Transpose {
        type Output = [[f32; 16]; 16];
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Output {
            let mut rows = [isa.zero(); 16];
            for (row, values) in rows.iter_mut().zip(&self.0) {
                *row = isa.load(values);
            }
            isa.transpose(rows).map(|column| isa.to_array(column))
        }
    }
    let matrix: [[f32; 16]; 16] =
        std::array::from_fn(|r| std::array::from_fn(|c| (16 * r + c) as f32));
    for &set in dispatch::all() {
        let transposed = set.run(Transpose(matrix));
        for r in 0..16 {
            for c in 0..16 {
                assert_eq!(transposed[c][r], matrix[r][c], "{set:?} at {r}, {c}");
            }
        }
    }
}

/// What the documentation of `exp` states.
const EXP_ULPS: f64 = 1.25;

struct Exp([f32; 16]);

impl Kernel for Exp {
    type Output = [f32; 16];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [f32; 16] {
        isa.to_array(exp(isa, isa.load(&self.0)))
    }
}

/// Distance from the exact value in units of the last place of its nearest f32.
fn ulps(actual: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    let unit = f64::from(nearest.next_up()) - f64::from(nearest);
    (f64::from(actual) - exact).abs() / unit
}

#[test]
fn exp_is_within_the_stated_error() {
    for &set in dispatch::all() {
        let mut worst = (0.0, 0.0);
        let mut x = -104.0_f32;
        while x < 88.7 {
            let inputs = std::array::from_fn(|lane| x + lane as f32 * 1.7e-4);
            for (input, output) in inputs.into_iter().zip(set.run(Exp(inputs))) {
                let error = ulps(output, f64::from(input).exp());
                if error > worst.0 || error.is_nan() {
                    worst = (error, input);
                }
            }
            x += 16.0 * 1.7e-4;
        }
        assert!(
            worst.0 <= EXP_ULPS,
            "{set:?}: {} ulp at {}",
            worst.0,
            worst.1
        );
    }
}

#[test]
fn exp_at_the_ends_of_the_range() {
    let inputs = [
        0.0,
        -0.0,
        f32::NEG_INFINITY,
        -1e30,
        -104.0,
        -88.0,
        88.72,
        88.73,
        1e30,
        f32::INFINITY,
        f32::NAN,
        1e-30,
        1.0,
        -1.0,
        0.5,
        -0.5,
    ];
    for &set in dispatch::all() {
        let outputs = set.run(Exp(inputs));
        for (input, output) in inputs.into_iter().zip(outputs) {
            let exact = f64::from(input).exp();
            if input.is_nan() {
                assert!(output.is_nan(), "{set:?}: exp(NaN) = {output}");
            } else if exact == 0.0 || exact > f64::from(f32::MAX) || exact == 1.0 {
                assert_eq!(output, exact as f32, "{set:?}: exp({input})");
            } else {
                assert!(
                    ulps(output, exact) <= EXP_ULPS,
                    "{set:?}: exp({input}) = {output:e}"
                );
            }
        }
    }
}
