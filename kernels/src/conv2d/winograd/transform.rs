//! The transforms of one axis.
//!
//! `y = Aᵀ · ((G · g) ⊙ (Bᵀ · d))` are the `OUTPUTS` sums of a kernel `g` of three taps over the
//! `POINTS` places `d`. The matrices follow from the points at which the polynomials behind them
//! are evaluated and interpolated (Toom and Cook): row `i` of `G` is `[1, p, p²] / Π (p - q)` over
//! the other points `q`, row `i` of `Bᵀ` holds the coefficients of `Π (t - q)`, row `k` of `Aᵀ` is
//! `pᵏ`.
//!
//! The points 0, ±1, ½ and -2 round to a lower error than the usual 0, ±1 and ±2: they keep powers
//! small, and as -2 = -1/½ they still share sums (Barabasz, Anderson, Soodhalter and Gregg, *Error
//! Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks*, 2020).

use crate::isa::Isa;

/// Points of the largest transform.
pub const MOST_POINTS: usize = 6;

/// The index of the point 1.
pub const ONE: usize = 1;

/// Values along one axis of a tile; a smaller transform leaves the last ones alone.
pub type Line<V> = [V; MOST_POINTS];

/// The transforms of one axis: see the module above.
///
/// Each takes and returns as many values as its matrix has columns and rows, from the front of a
/// [`Line`]; what follows is neither read nor meant.
pub trait Transform: Copy + Send + Sync + 'static {
    /// Outputs of a tile on one axis.
    const OUTPUTS: usize;
    /// Inputs of a tile on one axis: two more than outputs.
    const POINTS: usize = Self::OUTPUTS + 2;

    /// `Bᵀ · d`, for the input.
    fn input<I: Isa>(isa: I, d: Line<I::F32>) -> Line<I::F32>;

    /// `G · g`, for the three taps of the weights.
    fn weights<I: Isa>(isa: I, g: Line<I::F32>) -> Line<I::F32>;

    /// `Aᵀ · m`, for the output.
    fn output<I: Isa>(isa: I, m: Line<I::F32>) -> Line<I::F32>;

    /// `A · y`, for the gradient of the output: the transpose of [`output`](Transform::output). At the
    /// point [`ONE`] it is the sum of all values.
    fn grad_output<I: Isa>(isa: I, y: Line<I::F32>) -> Line<I::F32>;

    /// `Gᵀ · m`, for the gradient of the weights: the transpose of [`weights`](Transform::weights).
    fn grad_weights<I: Isa>(isa: I, m: Line<I::F32>) -> Line<I::F32>;
}

/// F(2, 3) over the points 0, 1, -1 and infinity: 2.25 times fewer products, hardly any error.
#[derive(Clone, Copy, Debug)]
pub struct F2;

impl Transform for F2 {
    const OUTPUTS: usize = 2;

    #[inline(always)]
    fn input<I: Isa>(isa: I, d: Line<I::F32>) -> Line<I::F32> {
        let zero = isa.zero();
        [
            isa.sub(d[0], d[2]),
            isa.add(d[1], d[2]),
            isa.sub(d[2], d[1]),
            isa.sub(d[3], d[1]),
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn weights<I: Isa>(isa: I, g: Line<I::F32>) -> Line<I::F32> {
        let (zero, half) = (isa.zero(), isa.splat(0.5));
        let even = isa.mul(half, isa.add(g[0], g[2]));
        [
            g[0],
            isa.mul_add(half, g[1], even),
            isa.mul_add(isa.neg(half), g[1], even),
            g[2],
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn output<I: Isa>(isa: I, m: Line<I::F32>) -> Line<I::F32> {
        let zero = isa.zero();
        [
            isa.add(isa.add(m[0], m[1]), m[2]),
            isa.add(isa.sub(m[1], m[2]), m[3]),
            zero,
            zero,
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn grad_output<I: Isa>(isa: I, y: Line<I::F32>) -> Line<I::F32> {
        let zero = isa.zero();
        [
            y[0],
            isa.add(y[0], y[1]),
            isa.sub(y[0], y[1]),
            y[1],
            zero,
            zero,
        ]
    }

    #[inline(always)]
    fn grad_weights<I: Isa>(isa: I, m: Line<I::F32>) -> Line<I::F32> {
        let (zero, half) = (isa.zero(), isa.splat(0.5));
        let even = isa.mul(half, isa.add(m[1], m[2]));
        [
            isa.add(m[0], even),
            isa.mul(half, isa.sub(m[1], m[2])),
            isa.add(even, m[3]),
            zero,
            zero,
            zero,
        ]
    }
}

/// F(4, 3) over the points 0, 1, -1, ½, -2 and infinity: 4 times fewer products.
#[derive(Clone, Copy, Debug)]
pub struct F4;

impl Transform for F4 {
    const OUTPUTS: usize = 4;

    #[inline(always)]
    fn input<I: Isa>(isa: I, d: Line<I::F32>) -> Line<I::F32> {
        let (half, three_halves) = (isa.splat(0.5), isa.splat(1.5));
        let even = isa.sub(d[4], d[2]);
        let odd = isa.sub(d[3], d[1]);
        let low = isa.mul_add(three_halves, d[3], even);
        let high = isa.mul_add(three_halves, d[2], odd);
        [
            isa.mul_add(three_halves, odd, isa.add(isa.sub(d[0], d[2]), even)),
            isa.add(low, high),
            isa.sub(low, high),
            isa.mul_add(isa.splat(2.0), odd, even),
            isa.mul_add(isa.neg(half), odd, even),
            isa.mul_add(three_halves, even, isa.sub(isa.sub(d[5], d[3]), odd)),
        ]
    }

    #[inline(always)]
    fn weights<I: Isa>(isa: I, g: Line<I::F32>) -> Line<I::F32> {
        let third = isa.splat(1.0 / 3.0);
        let ends = isa.add(g[0], g[2]);
        // (g0 + ½ g1 + ¼ g2) · -16/15 and (g0 - 2 g1 + 4 g2) / 15.
        let at_half = isa.mul_add(isa.splat(0.5), g[1], g[0]);
        let at_half = isa.mul_add(isa.splat(0.25), g[2], at_half);
        let at_two = isa.mul_add(isa.splat(-2.0), g[1], g[0]);
        let at_two = isa.mul_add(isa.splat(4.0), g[2], at_two);
        [
            g[0],
            isa.mul(third, isa.add(ends, g[1])),
            isa.mul(third, isa.sub(g[1], ends)),
            isa.mul(isa.splat(-16.0 / 15.0), at_half),
            isa.mul(isa.splat(1.0 / 15.0), at_two),
            g[2],
        ]
    }

    #[inline(always)]
    fn output<I: Isa>(isa: I, m: Line<I::F32>) -> Line<I::F32> {
        let sum = isa.add(m[1], m[2]);
        let difference = isa.sub(m[1], m[2]);
        let pair = [m[3], m[4]];
        [
            isa.add(isa.add(m[0], sum), isa.add(m[3], m[4])),
            add_scaled(isa, pair, [0.5, -2.0], difference),
            add_scaled(isa, pair, [0.25, 4.0], sum),
            add_scaled(isa, pair, [0.125, -8.0], isa.add(difference, m[5])),
            isa.zero(),
            isa.zero(),
        ]
    }

    #[inline(always)]
    fn grad_output<I: Isa>(isa: I, y: Line<I::F32>) -> Line<I::F32> {
        let even = isa.add(y[0], y[2]);
        let odd = isa.add(y[1], y[3]);
        let at_half = add_scaled(isa, [y[1], y[2]], [0.5, 0.25], y[0]);
        let at_two = add_scaled(isa, [y[1], y[2]], [-2.0, 4.0], y[0]);
        [
            y[0],
            isa.add(even, odd),
            isa.sub(even, odd),
            isa.mul_add(isa.splat(0.125), y[3], at_half),
            isa.mul_add(isa.splat(-8.0), y[3], at_two),
            y[3],
        ]
    }

    #[inline(always)]
    fn grad_weights<I: Isa>(isa: I, m: Line<I::F32>) -> Line<I::F32> {
        let third = isa.splat(1.0 / 3.0);
        let sum = isa.mul(third, isa.add(m[1], m[2]));
        let difference = isa.mul(third, isa.sub(m[1], m[2]));
        let at_half = isa.mul(isa.splat(-16.0 / 15.0), m[3]);
        let at_two = isa.mul(isa.splat(1.0 / 15.0), m[4]);
        let pair = [at_half, at_two];
        let zero = isa.zero();
        [
            isa.add(isa.add(m[0], difference), isa.add(at_half, at_two)),
            add_scaled(isa, pair, [0.5, -2.0], sum),
            add_scaled(isa, pair, [0.25, 4.0], isa.add(difference, m[5])),
            zero,
            zero,
            zero,
        ]
    }
}

/// `term + Σ values · factors`.
#[inline(always)]
fn add_scaled<I: Isa>(isa: I, values: [I::F32; 2], factors: [f32; 2], term: I::F32) -> I::F32 {
    let term = isa.mul_add(isa.splat(factors[0]), values[0], term);
    isa.mul_add(isa.splat(factors[1]), values[1], term)
}
