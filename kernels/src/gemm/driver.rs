//! The blocked loops around the micro-kernel.
//!
//! The result is cut into a fixed grid of tasks, `TASK_ROWS` rows by `TASK_VECTORS` vectors, whatever
//! the number of threads: each value is summed by one task in one order, so the result is the same
//! bit for bit on any number of them. Within a task, from the outside in:
//!
//! 1. blocks of the summed dimension, at most [`DEPTH`] steps;
//! 2. strips of vectors, as wide as the tile: one strip of one block stays in the first-level cache;
//! 3. panels of rows, as high as the tile, which stream from the second-level cache;
//! 4. the micro-kernel.

use std::ops::Range;

use rayon::prelude::*;

use super::tile::{Finish, Tile, TileKernel, micro_kernel};
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::LANES;

/// Steps of the sum that one pass takes, a multiple of sixteen. A strip of two vectors is then
/// 384 · 2 · 64 B = 48 KB.
const DEPTH: usize = 384;

/// Rows of one task: 112 rows of 1,000 steps are 448 KB.
const TASK_ROWS: usize = 112;

/// Vectors of one task: eight of 1,000 steps are 512 KB, which with the rows leaves half of a
/// second-level cache of 2 MB.
const TASK_VECTORS: usize = 8;

/// Multiply-adds below which threads cost more than they save.
pub(crate) const LEAST_PARALLEL_WORK: usize = 1 << 18;

/// The broadcast operand. Panel p begins at `data[p · panel_stride]`, the last one at `last`; within
/// a panel, row r of step s lies at
/// `r · A_ROW + s / group · group_stride + s % group · step`.
#[derive(Clone, Copy)]
pub(crate) struct Broadcasts {
    pub(crate) data: *const f32,
    pub(crate) panel_stride: usize,
    pub(crate) group: usize,
    pub(crate) group_stride: usize,
    pub(crate) step: usize,
    /// The last panel where it lies elsewhere, filled up to a whole one: its start and group stride.
    pub(crate) last: Option<(*const f32, usize)>,
}

/// The vector operand: vector v of strip s at `data[s · strip_stride + v · vector_stride]`, and
/// `step` floats further for each step of the sum.
#[derive(Clone, Copy)]
pub(crate) struct Strips {
    pub(crate) data: *const f32,
    pub(crate) strip_stride: usize,
    pub(crate) vector_stride: usize,
    pub(crate) step: usize,
}

impl Broadcasts {
    /// Panels as [`pack`](super::pack::pack) writes them, of `width` rows.
    pub(crate) fn packed(panels: &[f32], depth: usize, width: usize) -> Self {
        Self {
            data: panels.as_ptr(),
            panel_stride: depth * width,
            group: depth,
            group_stride: 0,
            step: width,
            last: None,
        }
    }
}

impl Strips {
    /// Panels as [`pack`](super::pack::pack) writes them, `width` floats across.
    pub(crate) fn packed(panels: &[f32], depth: usize, width: usize) -> Self {
        Self {
            data: panels.as_ptr(),
            strip_stride: depth * width,
            vector_stride: LANES,
            step: width,
        }
    }

    /// Activations in lanes, a strip of `vectors` blocks of images.
    pub(crate) fn lanes(values: &[f32], features: usize, vectors: usize) -> Self {
        Self {
            data: values.as_ptr(),
            strip_stride: vectors * features * LANES,
            vector_stride: features * LANES,
            step: LANES,
        }
    }
}

/// The result: vector v of row r at `data[r · row_stride + v · vector_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) data: *mut f32,
    pub(crate) row_stride: usize,
    pub(crate) vector_stride: usize,
    /// Lanes of the very last vector.
    pub(crate) last_lanes: usize,
    pub(crate) finish: Finish,
}

/// A product: `rows` by `vectors` vectors, summed over `depth` steps.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub(crate) rows: usize,
    pub(crate) vectors: usize,
    pub(crate) depth: usize,
    pub(crate) a: Broadcasts,
    pub(crate) b: Strips,
    pub(crate) c: Target,
}

// SAFETY: the pointers are read from several threads, and tasks write disjoint tiles of the target;
// `multiply` makes its caller vouch for all of it.
unsafe impl Send for Product {}
// SAFETY: as above.
unsafe impl Sync for Product {}

/// Rows and vectors of the register tile of a set.
pub(crate) fn tile_size(set: InstructionSet) -> (usize, usize) {
    set.run(TileSize)
}

struct TileSize;

impl Kernel for TileSize {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (usize, usize) {
        isa.gemm_tile(self)
    }
}

impl TileKernel for TileSize {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, _: I) -> (usize, usize) {
        (ROWS, VECTORS)
    }
}

/// Computes a product; `A_ROW` is the stride between the rows of a panel.
///
/// # Safety
/// The operands are valid for reading wherever [`Broadcasts`] and [`Strips`] describe them, for whole
/// panels of the set's [`tile_size`]; the target is valid for writing, no two of its values share a
/// place, and nothing else touches it during the call; its bias is null or
/// as long as `rows`.
pub(crate) unsafe fn multiply<const A_ROW: usize>(set: InstructionSet, product: &Product) {
    let (tile_rows, tile_vectors) = tile_size(set);
    let panels = product.rows.div_ceil(tile_rows);
    let strips = product.vectors.div_ceil(tile_vectors);
    let task_panels = (TASK_ROWS / tile_rows).max(1);
    let task_strips = (TASK_VECTORS / tile_vectors).max(1);
    let across = panels.div_ceil(task_panels);
    let tasks = across * strips.div_ceil(task_strips);
    let run = |task: usize| {
        let (panel, strip) = (task % across * task_panels, task / across * task_strips);
        set.run(Task::<A_ROW> {
            product,
            panels: panel..(panel + task_panels).min(panels),
            strips: strip..(strip + task_strips).min(strips),
        });
    };
    let work = product.rows * product.vectors * LANES * product.depth;
    if work < LEAST_PARALLEL_WORK {
        (0..tasks).for_each(run);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(run);
    }
}

/// One rectangle of the result.
struct Task<'a, const A_ROW: usize> {
    product: &'a Product,
    panels: Range<usize>,
    strips: Range<usize>,
}

impl<const A_ROW: usize> Kernel for Task<'_, A_ROW> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.gemm_tile(self);
    }
}

impl<const A_ROW: usize> TileKernel for Task<'_, A_ROW> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Product {
            rows,
            vectors,
            depth,
            a,
            b,
            c,
        } = *self.product;
        let blocks = depth.div_ceil(DEPTH).max(1);
        let block = depth.div_ceil(blocks).next_multiple_of(LANES);
        for start in (0..blocks).map(|index| index * block) {
            let steps = block.min(depth - start);
            let inner = steps.min(a.group);
            let last_block = start + steps == depth;
            let finish = Finish {
                held: if start > 0 { 1.0 } else { c.finish.held },
                bias: if last_block {
                    c.finish.bias
                } else {
                    std::ptr::null()
                },
                relu: last_block && c.finish.relu,
            };
            for strip in self.strips.clone() {
                let first_vector = strip * VECTORS;
                let strip_vectors = VECTORS.min(vectors - first_vector);
                let last_strip = first_vector + strip_vectors == vectors;
                for panel in self.panels.clone() {
                    let first_row = panel * ROWS;
                    let (panel_data, a_outer) = match a.last {
                        Some(last) if first_row + ROWS > rows => last,
                        _ => (a.data.wrapping_add(panel * a.panel_stride), a.group_stride),
                    };
                    let group = start.checked_div(a.group).unwrap_or(0);
                    let within = start - group * a.group;
                    let tile = Tile {
                        a: panel_data.wrapping_add(group * a_outer + within * a.step),
                        a_outer,
                        a_inner: a.step,
                        b: b.data.wrapping_add(strip * b.strip_stride + start * b.step),
                        b_vector: b.vector_stride,
                        b_step: b.step,
                        outer: steps.checked_div(inner).unwrap_or(0),
                        inner,
                        c: c.data.wrapping_add(
                            first_row * c.row_stride + first_vector * c.vector_stride,
                        ),
                        c_row: c.row_stride,
                        c_vector: c.vector_stride,
                        rows: ROWS.min(rows - first_row),
                        last_lanes: if last_strip { c.last_lanes } else { LANES },
                        finish: Finish {
                            bias: if finish.bias.is_null() {
                                finish.bias
                            } else {
                                finish.bias.wrapping_add(first_row)
                            },
                            ..finish
                        },
                    };
                    // SAFETY: the caller of `multiply` vouches for the operands and the target;
                    // tasks do not overlap.
                    unsafe {
                        if strip_vectors == VECTORS {
                            micro_kernel::<I, ROWS, VECTORS, A_ROW>(isa, &tile);
                        } else if strip_vectors == 2 {
                            micro_kernel::<I, ROWS, 2, A_ROW>(isa, &tile);
                        } else {
                            micro_kernel::<I, ROWS, 1, A_ROW>(isa, &tile);
                        }
                    }
                }
            }
        }
    }
}
