//! Products whose sums are long and whose results are small: a layer behind thousands of features.
//!
//! Tasks that shared out the result would each read all activations, from memory. Here they share out
//! the sum: each task adds up some steps for the whole result, which lies in its second-level cache,
//! and reads its part of weights and activations once. The parts are added in order at the end. Their
//! number follows from the sizes alone.

use rayon::prelude::*;

use super::driver::{Broadcast, DEPTH, Product, Vectors, tile_size};
use super::epilogue::Stored;
use super::scratch::with_scratch;
use super::task::Task;
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::Shared;

/// Steps of a part at least: 43,264 features make sixteen parts.
const LEAST_STEPS: usize = 2_048;

/// Parts at most: enough for many cores, and for the last one not to keep the others waiting.
const MOST_PARTS: usize = 16;

/// Rows of a task: 256 · 512 · 4 B = 512 KB of packed weights, half of a second-level cache of 1 MB.
const ROWS: usize = 256;

/// Floats of the result at most: sixteen parts of it are then 32 MB.
const MOST_RESULT: usize = 512 << 10;

/// Parts that a sum of weights times lanes is cut into; one is for [`multiply`](super::driver).
fn parts(product: &Product<'_>) -> usize {
    let result = product.rows * product.vectors * LANES;
    match (product.a, product.b) {
        (Broadcast::Matrix(_), Vectors::Lanes(_)) if result <= MOST_RESULT => {
            (product.depth / LEAST_STEPS).clamp(1, MOST_PARTS)
        }
        _ => 1,
    }
}

/// Computes a product of weights with lanes into `y`, lanes `[vectors][rows][16]`, and says whether
/// it did: short sums and large results are better shared out otherwise.
///
/// # Panics
/// If an operand, the bias or `y` is shorter than the product demands.
pub(crate) fn multiply_deep(set: InstructionSet, product: &Product<'_>, y: &mut [f32]) -> bool {
    let parts = parts(product);
    if parts == 1 {
        return false;
    }
    let &Product {
        rows,
        vectors,
        depth,
        epilogue,
        ..
    } = product;
    let (tile_rows, tile_vectors) = tile_size(set);
    product.check(tile_rows, tile_vectors, y.len());
    let part_len = y.len();
    let steps = depth.div_ceil(parts);
    let (panels, task_panels) = (rows.div_ceil(tile_rows), ROWS.div_ceil(tile_rows));
    let groups = panels.div_ceil(task_panels);
    let scratch_len = task_panels.min(panels) * tile_rows * DEPTH;
    let product = Product {
        epilogue: Stored::PLAIN,
        ..*product
    };
    with_scratch(parts * part_len, |sums| {
        let parts_of_sums = Shared::new(sums.as_mut_ptr());
        (0..parts * groups)
            .into_par_iter()
            .with_max_len(1)
            .for_each(|task| {
                let (part, group) = (task / groups, task % groups);
                with_scratch(scratch_len, |scratch| {
                    set.run(Task {
                        product: &product,
                        c: Shared::new(parts_of_sums.start().wrapping_add(part * part_len)),
                        panels: group * task_panels..panels.min((group + 1) * task_panels),
                        strips: 0..vectors.div_ceil(tile_vectors),
                        steps: part * steps..depth.min((part + 1) * steps),
                        scratch,
                    });
                });
            });
        let block_len = rows * LANES;
        y.par_chunks_mut(block_len)
            .enumerate()
            .for_each(|(block, y)| {
                set.run(AddParts {
                    sums: &sums[block * block_len..],
                    part_len,
                    epilogue,
                    y,
                });
            });
    });
    true
}

/// One block of the result.
struct AddParts<'a> {
    /// From the block of the first part on.
    sums: &'a [f32],
    part_len: usize,
    epilogue: Stored<'a>,
    y: &'a mut [f32],
}

impl Kernel for AddParts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (vectors, _) = self.y.as_chunks_mut::<LANES>();
        for (row, y) in vectors.iter_mut().enumerate() {
            let mut sum = isa.splat(self.epilogue.bias.map_or(0.0, |bias| bias[row]));
            for part in self.sums.chunks(self.part_len) {
                let values = part[row * LANES..].first_chunk().expect("whole vectors");
                sum = isa.add(sum, isa.load(values));
            }
            if self.epilogue.relu {
                // In this order NaN stays NaN.
                sum = isa.max(isa.zero(), sum);
            }
            isa.store(y, sum);
        }
    }
}
