//! Pooling of one image.

use rayon::prelude::*;

use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::is_small;
use crate::isa::Isa;
use crate::lanes::{LANES, check};
use crate::pool::PoolShape;

/// Multiply-adds in the time of one place under a window, roughly.
const PLACE_WORK: usize = 4;

/// The largest value in each window of one image, from `[channels, height, width]` to `[channels, output
/// height, output width]`. A window that holds NaN gives NaN. How many images the shape has does not
/// count.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn max_pool(set: InstructionSet, shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    pool(set, shape, Largest, x, y);
}

/// The mean of what each window of one image covers, from `[channels, height, width]` to `[channels,
/// output height, output width]`; padding does not count. How many images the shape has does not count
/// either.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn average_pool(set: InstructionSet, shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    pool(set, shape, Mean, x, y);
}

fn pool<P: Pooling>(set: InstructionSet, shape: &PoolShape, pooling: P, x: &[f32], y: &mut [f32]) {
    check("x", x.len(), shape.input_features());
    check("y", y.len(), shape.output_features());
    let (plane, pooled) = (shape.height * shape.width, shape.output().iter().product());
    if y.is_empty() {
        return;
    }
    let pool = |(x, y): (&[f32], &mut [f32])| {
        set.run(Plane {
            shape,
            pooling,
            x,
            y,
        });
    };
    let places: usize = shape.window.kernel.iter().product();
    if is_small(y.len() * places * PLACE_WORK) {
        x.chunks_exact(plane)
            .zip(y.chunks_exact_mut(pooled))
            .for_each(pool);
    } else {
        let planes = x
            .par_chunks_exact(plane)
            .zip(y.par_chunks_exact_mut(pooled));
        planes.with_min_len(8).for_each(pool);
    }
}

/// How the values under a window become one, row by row.
trait Pooling: Copy + Send + Sync {
    /// Of no value.
    const START: f32;

    /// What was made of the values so far, and one more.
    fn add<I: Isa>(self, isa: I, so_far: I::F32, value: I::F32) -> I::F32;

    /// The same of a single place.
    fn add_one(self, so_far: f32, value: f32) -> f32;

    /// What becomes of so many values.
    fn finish<I: Isa>(self, isa: I, total: I::F32, count: usize) -> I::F32;

    /// The same of a single place.
    fn finish_one(self, total: f32, count: usize) -> f32;
}

/// NaN if one is.
#[derive(Clone, Copy)]
struct Largest;

impl Pooling for Largest {
    const START: f32 = f32::NEG_INFINITY;

    #[inline(always)]
    fn add<I: Isa>(self, isa: I, best: I::F32, value: I::F32) -> I::F32 {
        isa.select(isa.exceeds(value, best), value, best)
    }

    #[inline(always)]
    fn add_one(self, best: f32, value: f32) -> f32 {
        if value <= best || best.is_nan() {
            best
        } else {
            value
        }
    }

    #[inline(always)]
    fn finish<I: Isa>(self, _: I, best: I::F32, _: usize) -> I::F32 {
        best
    }

    #[inline(always)]
    fn finish_one(self, best: f32, _: usize) -> f32 {
        best
    }
}

#[derive(Clone, Copy)]
struct Mean;

impl Pooling for Mean {
    const START: f32 = 0.0;

    #[inline(always)]
    fn add<I: Isa>(self, isa: I, sum: I::F32, value: I::F32) -> I::F32 {
        isa.add(sum, value)
    }

    #[inline(always)]
    fn add_one(self, sum: f32, value: f32) -> f32 {
        sum + value
    }

    #[inline(always)]
    fn finish<I: Isa>(self, isa: I, sum: I::F32, count: usize) -> I::F32 {
        isa.div(sum, isa.splat(count as f32))
    }

    #[inline(always)]
    fn finish_one(self, sum: f32, count: usize) -> f32 {
        sum / count as f32
    }
}

/// One channel.
struct Plane<'a, P> {
    shape: &'a PoolShape,
    pooling: P,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl<P: Pooling> Kernel for Plane<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let pooling = self.pooling;
        let [rows, columns] = self.shape.axes();
        let whole = columns.whole();
        for (row, y) in self.y.chunks_exact_mut(columns.output).enumerate() {
            let inside = rows.inside(row);
            let first = row * rows.stride + inside.start - rows.before;
            let lines = &self.x[first * columns.input..][..inside.len() * columns.input];
            // Neighbours that one vector holds: whole windows that move by one. The last vector may begin
            // within the one before it.
            let mut vectors = whole.start..whole.start;
            if columns.stride == 1 && whole.len() >= LANES {
                while vectors.end < whole.end {
                    vectors.end = vectors.end.min(whole.end - LANES);
                    let start = vectors.end - columns.before;
                    let mut total = isa.splat(P::START);
                    for line in lines.chunks_exact(columns.input) {
                        for place in 0..columns.kernel {
                            let values = line[start + place..].first_chunk();
                            let values = isa.load(values.expect("a whole window"));
                            total = pooling.add(isa, total, values);
                        }
                    }
                    let target = y[vectors.end..].first_chunk_mut();
                    let count = inside.len() * columns.kernel;
                    let value = pooling.finish(isa, total, count);
                    isa.store(target.expect("a whole window"), value);
                    vectors.end += LANES;
                }
            }
            for column in (0..vectors.start).chain(vectors.end..columns.output) {
                let covered = columns.inside(column);
                let start = column * columns.stride + covered.start - columns.before;
                let lines = lines.chunks_exact(columns.input);
                let values = lines.flat_map(|line| &line[start..][..covered.len()]);
                let total = values.fold(P::START, |so_far, &value| pooling.add_one(so_far, value));
                y[column] = pooling.finish_one(total, inside.len() * covered.len());
            }
        }
    }
}
