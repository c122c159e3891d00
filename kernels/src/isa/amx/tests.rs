use proptest::prelude::*;

use super::*;
use crate::dispatch;
use crate::isa::bf16::{multiply_add, round, widen};
use crate::lanes::LANES;

/// Operands as pairs of bits, and the sums of their products.
struct Multiply<'a> {
    a: &'a [u32],
    b: &'a [u32],
    sums: &'a mut [f32],
}

impl TiledKernel for Multiply<'_> {
    #[inline(always)]
    fn run<I: Isa>(self, _: I, tiles: &Tiles) {
        let [a, b]: [Vec<f32>; 2] =
            [self.a, self.b].map(|pairs| pairs.iter().map(|&pair| f32::from_bits(pair)).collect());
        let mut sums = Sums([f32::NAN; SIDE * SIDE]);
        tiles.multiply(&a, &b, &mut sums);
        self.sums.copy_from_slice(&sums.0);
    }
}

/// What the manual says, on one sum: `pairs` of each block of 32 steps.
fn expected(blocks: &[Vec<[u32; 2]>]) -> f32 {
    let halves = |pair: u32| [pair & 0xffff, pair >> 16].map(|half| widen(half as u16));
    blocks.iter().fold(0.0, |sum, pairs| {
        let [even, odd] = [0, 1].map(|half| {
            pairs.iter().fold(0.0, |sum, &[a, b]| {
                multiply_add(sum, halves(a)[half], halves(b)[half])
            })
        });
        // Factors of one make it a sum of subnormal numbers flushed to zero.
        multiply_add(sum, multiply_add(even, odd, 1.0), 1.0)
    })
}

fn check(blocks: usize, a: &[u32], b: &[u32]) {
    let Some(unit) = dispatch::all().last().and_then(|set| set.tiles()) else {
        return;
    };
    let mut sums = vec![f32::NAN; SIDE * SIDE];
    unit.run(Multiply {
        a,
        b,
        sums: &mut sums,
    });
    for row in 0..SIDE {
        for column in 0..SIDE {
            let tile = |block: usize, at: usize| (2 * block + at / LANES) * TILE;
            let pairs: Vec<Vec<_>> = (0..blocks)
                .map(|block| {
                    let pair = |pair: usize| {
                        [
                            a[tile(block, row) + row % LANES * LANES + pair],
                            b[tile(block, column) + pair * LANES + column % LANES],
                        ]
                    };
                    (0..LANES).map(pair).collect()
                })
                .collect();
            let (actual, expected) = (sums[row * SIDE + column], expected(&pairs));
            assert!(
                actual.to_bits() == expected.to_bits() || actual.is_nan() && expected.is_nan(),
                "({row}, {column}): {actual:e} instead of {expected:e}"
            );
        }
    }
}

/// Pairs of usual numbers, of any bits, or of such as make sums about the smallest normal number.
fn pairs(count: usize) -> impl Strategy<Value = Vec<u32>> {
    let half = |range: std::ops::Range<f32>| range.prop_map(|value| u32::from(round(value)));
    let usual = (half(-2.0..2.0), half(-2.0..2.0));
    let small = (half(-1e-19..1e-19), half(-1e-19..1e-19));
    let pair = prop_oneof![
        20 => usual.prop_map(|(low, high)| low | high << 16),
        20 => small.prop_map(|(low, high)| low | high << 16),
        1 => any::<u32>(),
    ];
    proptest::collection::vec(pair, count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn sums_are_those_of_the_manual(
        (blocks, a, b) in (0_usize..4).prop_flat_map(|blocks| {
            (Just(blocks), pairs(blocks * 2 * TILE), pairs(blocks * 2 * TILE))
        }),
    ) {
        check(blocks, &a, &b);
    }

    #[test]
    fn small_sums_are_flushed(
        a in proptest::collection::vec(0x1f00_1f00_u32..0x2080_2080, 2 * TILE),
        b in proptest::collection::vec(0x1f00_1f00_u32..0x2080_2080, 2 * TILE),
    ) {
        check(1, &a, &b);
    }
}
