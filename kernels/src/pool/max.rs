//! The maximum under a window, one row of outputs at a time.

use std::ops::Range;

use crate::isa::Isa;
use crate::lanes::LANES;
use crate::window::Axis;

/// The rows of an image that lie under a window while it moves along them.
#[derive(Clone, Copy)]
pub(crate) struct WindowRows<'a> {
    /// Each of `columns.input` vectors, from the top; at least one.
    pub(crate) rows: &'a [&'a [[f32; LANES]]],
    /// Which row of the window the first of them is: more than 0 where padding stands above.
    pub(crate) first: usize,
    /// How the window moves along the rows.
    pub(crate) columns: Axis,
}

/// Pools one row of one channel: `columns.output` maxima into `y`, past the caches if that is to be
/// `streamed`, and where `argmax` is given their places in the window. The rules are those of
/// [`max_forward`](super::max_forward). Whoever streams rows ends with a [fence](Isa::fence).
///
/// # Panics
/// If a row is shorter than the window needs, or what is streamed is not aligned to a vector.
#[inline(always)]
pub(crate) fn max_row<I: Isa>(
    isa: I,
    window: WindowRows<'_>,
    (y, streamed): (&mut [[f32; LANES]], bool),
    argmax: Option<&mut [[u8; LANES]]>,
) {
    assert!(!streamed || y.as_ptr().addr().is_multiple_of(size_of::<[f32; LANES]>()));
    let mut target = Target {
        y,
        streamed,
        argmax,
    };
    let whole = window.columns.whole();
    target.fill(isa, window, 0..whole.start);
    // The sizes of the most usual windows are known to the compiler, which unrolls their loops.
    match (window.rows, window.columns.kernel) {
        (&[a, b], 2) => target.fill(isa, Whole::<2, 2>(window, [a, b]), whole.clone()),
        (&[a, b, c], 3) => target.fill(isa, Whole::<3, 3>(window, [a, b, c]), whole.clone()),
        _ => target.fill(isa, window, whole.clone()),
    }
    target.fill(isa, window, whole.end..window.columns.output);
}

/// One row of the output.
struct Target<'a> {
    y: &'a mut [[f32; LANES]],
    streamed: bool,
    argmax: Option<&'a mut [[u8; LANES]]>,
}

impl Target<'_> {
    /// Pools where the window stands at the outputs of a range.
    #[inline(always)]
    fn fill<I: Isa>(&mut self, isa: I, window: impl Largest, range: Range<usize>) {
        let streamed = self.streamed;
        let write = |y: &mut [f32; LANES], value: I::F32| {
            // SAFETY: a vector is borrowed, and `max_row` held what is streamed to its alignment.
            unsafe { isa.write_ptr(y.as_mut_ptr(), value, streamed) }
        };
        let outputs = range.clone().zip(&mut self.y[range.clone()]);
        match &mut self.argmax {
            None => {
                for (at, y) in outputs {
                    write(y, window.largest(isa, at).value);
                }
            }
            Some(argmax) => {
                for ((at, y), argmax) in outputs.zip(&mut argmax[range]) {
                    let best = window.largest(isa, at);
                    write(y, best.value);
                    isa.store_u8(argmax, best.place);
                }
            }
        }
    }
}

/// The largest value of each lane so far and its place in the window.
#[derive(Clone, Copy)]
struct Best<I: Isa> {
    value: I::F32,
    place: I::F32,
}

impl<I: Isa> Best<I> {
    #[inline(always)]
    fn of(isa: I, value: &[f32; LANES], place: usize) -> Self {
        Self {
            value: isa.load(value),
            place: isa.splat(place as f32),
        }
    }

    /// The earlier one unless the later is larger or the first NaN.
    #[inline(always)]
    fn or(self, isa: I, later: Self) -> Self {
        let exceeds = isa.exceeds(later.value, self.value);
        Self {
            value: isa.select(exceeds, later.value, self.value),
            place: isa.select(exceeds, later.place, self.place),
        }
    }
}

/// Rows under a window.
trait Largest {
    /// The largest values where the window stands at output `at`.
    fn largest<I: Isa>(&self, isa: I, at: usize) -> Best<I>;
}

impl Largest for WindowRows<'_> {
    #[inline(always)]
    fn largest<I: Isa>(&self, isa: I, at: usize) -> Best<I> {
        let columns = self.columns;
        let inside = columns.inside(at);
        let start = at * columns.stride + inside.start - columns.before;
        let first = self.first * columns.kernel + inside.start;
        let mut best = Best::of(isa, &self.rows[0][start], first);
        for (y, row) in self.rows.iter().enumerate() {
            let row = &row[start..start + inside.len()];
            for (x, value) in row.iter().enumerate() {
                // The first place is compared with itself, which changes nothing.
                best = best.or(isa, Best::of(isa, value, first + y * columns.kernel + x));
            }
        }
        best
    }
}

/// A window of `H` rows and `W` columns, asked only where it lies on the image as a whole.
struct Whole<'a, const H: usize, const W: usize>(WindowRows<'a>, [&'a [[f32; LANES]]; H]);

impl<const H: usize, const W: usize> Largest for Whole<'_, H, W> {
    #[inline(always)]
    fn largest<I: Isa>(&self, isa: I, at: usize) -> Best<I> {
        let start = at * self.0.columns.stride - self.0.columns.before;
        let first = self.0.first * W;
        let mut best = Best::of(isa, &self.1[0][start], first);
        for y in 0..H {
            let row = &self.1[y][start..start + W];
            for (x, value) in row.iter().enumerate().skip(usize::from(y == 0)) {
                best = best.or(isa, Best::of(isa, value, first + y * W + x));
            }
        }
        best
    }
}
