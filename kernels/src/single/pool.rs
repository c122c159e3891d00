//! Maximum pooling of one image.

use rayon::prelude::*;

use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::is_small;
use crate::isa::Isa;
use crate::lanes::{LANES, check};
use crate::pool::PoolShape;

/// The largest value in each window of one image, from `[channels, height, width]` to `[channels, output
/// height, output width]`. A window that holds NaN gives NaN. How many images the shape has does not
/// count.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn max_pool(set: InstructionSet, shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    check("x", x.len(), shape.input_features());
    check("y", y.len(), shape.output_features());
    let (plane, pooled) = (shape.height * shape.width, shape.output().iter().product());
    if y.is_empty() {
        return;
    }
    let pool = |(x, y): (&[f32], &mut [f32])| set.run(Plane { shape, x, y });
    let places: usize = shape.window.kernel.iter().product();
    if is_small(y.len() * places) {
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

/// One channel.
struct Plane<'a> {
    shape: &'a PoolShape,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Plane<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
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
                    let mut best = isa.splat(f32::NEG_INFINITY);
                    for line in lines.chunks_exact(columns.input) {
                        for place in 0..columns.kernel {
                            let values = line[start + place..].first_chunk();
                            best = larger(isa, best, isa.load(values.expect("a whole window")));
                        }
                    }
                    let target = y[vectors.end..].first_chunk_mut();
                    isa.store(target.expect("a whole window"), best);
                    vectors.end += LANES;
                }
            }
            for column in (0..vectors.start).chain(vectors.end..columns.output) {
                let inside = columns.inside(column);
                let start = column * columns.stride + inside.start - columns.before;
                let lines = lines.chunks_exact(columns.input);
                let values = lines.flat_map(|line| &line[start..][..inside.len()]);
                y[column] = values.fold(f32::NEG_INFINITY, |best, &value| {
                    if value <= best || best.is_nan() {
                        best
                    } else {
                        value
                    }
                });
            }
        }
    }
}

/// The larger of two, NaN if either is.
#[inline(always)]
fn larger<I: Isa>(isa: I, best: I::F32, value: I::F32) -> I::F32 {
    let larger = isa.select(isa.le(value, best), best, value);
    isa.select(isa.eq(best, best), larger, best)
}
