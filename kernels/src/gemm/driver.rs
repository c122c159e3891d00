//! The blocked loops around the micro-kernel.
//!
//! The result is cut into a fixed grid of tasks, whatever the number of threads: each value is summed
//! by one task in one order, so the result is the same bit for bit on any number of them. A task
//! walks through the summed dimension in blocks of at most [`DEPTH`] steps. For each it packs
//! its part of an operand that is not packed yet, which then stays in its core's second-level cache,
//! and runs the micro-kernel over every panel of rows and every strip of vectors. The operand
//! that many tasks share streams past.

use std::ops::Range;

use rayon::prelude::*;

use super::pack::{Source, pack_block, packed_len};
use super::scratch::with_scratch;
use super::tile::{Finish, Tile, TileKernel, micro_kernel};
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::LANES;

/// Steps of the sum in one block, a multiple of sixteen. A panel of 14 rows is then 28 KB, which a
/// first-level cache of 48 KB holds; a strip of two vectors, 64 KB, comes from the second level.
const DEPTH: usize = 512;

/// Rows of a task that packs rows: 56 · 512 · 4 B = 112 KB.
const PACKED_ROWS: usize = 56;

/// Vectors of such a task: 32 · 512 · 64 B = 1 MB, half of a second-level cache of 2 MB.
const PASSING_VECTORS: usize = 32;

/// Vectors of a task that packs vectors: 8 · 512 · 64 B = 256 KB.
const PACKED_VECTORS: usize = 8;

/// Tasks to aim at where a task would otherwise take all rows: enough for many cores, and for the
/// last one not to keep the others waiting.
const LEAST_TASKS: usize = 8;

/// Multiply-adds below which threads cost more than they save.
const LEAST_PARALLEL_WORK: usize = 1 << 18;

/// The operand whose values are broadcast: `rows` rows, as long as the sum is deep.
#[derive(Clone, Copy)]
pub(crate) enum Broadcast<'a> {
    /// A matrix that tasks pack.
    Matrix(Source<'a>),
    /// One packed over its whole depth, in panels as high as the tile.
    Packed(&'a [f32]),
    /// A matrix with each row in one piece, read where it lies.
    Rows(Source<'a>),
    /// Activations in lanes, a row for each feature, a step of the sum for each image.
    Lanes(&'a [f32]),
}

/// The operand whose vectors are multiplied.
#[derive(Clone, Copy)]
pub(crate) enum Vectors<'a> {
    /// A matrix that tasks pack.
    Matrix(Source<'a>),
    /// One packed over its whole depth, in strips as wide as the tile.
    Packed(&'a [f32]),
    /// Activations in lanes, a vector for each block of images, a step of the sum for each feature.
    Lanes(&'a [f32]),
}

/// A product: `rows` by `vectors` vectors, summed over `depth` steps.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) rows: usize,
    pub(crate) vectors: usize,
    pub(crate) depth: usize,
    pub(crate) a: Broadcast<'a>,
    pub(crate) b: Vectors<'a>,
    /// Floats from one row of the result to the next.
    pub(crate) row_stride: usize,
    /// Floats from one vector of a row to the next.
    pub(crate) vector_stride: usize,
    /// Lanes of the very last vector that belong to the result.
    pub(crate) last_lanes: usize,
    /// The factor of what the result holds; zero does not read it.
    pub(crate) held: f32,
    /// One value for each row.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) relu: bool,
}

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

/// The result, written by many tasks.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: the tasks of one product write disjoint tiles through it, as `multiply` lays them out.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

/// Computes a product into `c`.
///
/// # Panics
/// If an operand, the bias or `c` is shorter than the product demands.
///
/// # Safety
/// No two elements of the result share a place in `c`.
pub(crate) unsafe fn multiply(set: InstructionSet, product: &Product<'_>, c: &mut [f32]) {
    let &Product {
        rows,
        vectors,
        depth,
        ..
    } = product;
    if rows == 0 || vectors == 0 {
        return;
    }
    let (tile_rows, tile_vectors) = tile_size(set);
    product.check(tile_rows, tile_vectors, c.len());
    let (task_rows, task_vectors) = match product.b {
        Vectors::Matrix(_) => {
            // All rows at once where the vectors alone are enough tasks.
            let splits = LEAST_TASKS.div_ceil(vectors.div_ceil(PACKED_VECTORS));
            (rows.div_ceil(splits).max(PACKED_ROWS), PACKED_VECTORS)
        }
        _ => (PACKED_ROWS, PASSING_VECTORS),
    };
    let task_panels = task_rows.div_ceil(tile_rows);
    let task_strips = (task_vectors / tile_vectors).max(1);
    let panels = rows.div_ceil(tile_rows);
    let strips = vectors.div_ceil(tile_vectors);
    let across = panels.div_ceil(task_panels);
    let tasks = across * strips.div_ceil(task_strips);
    let scratch_len = {
        let a = match product.a {
            Broadcast::Matrix(_) => task_panels.min(panels) * tile_rows,
            Broadcast::Packed(_) => 0,
            Broadcast::Rows(_) | Broadcast::Lanes(_) => tile_rows,
        };
        let b = match product.b {
            Vectors::Matrix(_) => task_strips * tile_vectors * LANES,
            _ => 0,
        };
        (a + b) * DEPTH.min(depth.next_multiple_of(LANES))
    };
    let c = Shared(c.as_mut_ptr());
    let run = |task: usize| {
        let (panel, strip) = (task % across * task_panels, task / across * task_strips);
        with_scratch(scratch_len, |scratch| {
            set.run(Task {
                product,
                c,
                panels: panel..(panel + task_panels).min(panels),
                strips: strip..(strip + task_strips).min(strips),
                scratch,
            });
        });
    };
    if is_small(rows * vectors * LANES * depth) {
        (0..tasks).for_each(run);
    } else {
        (0..tasks).into_par_iter().with_max_len(1).for_each(run);
    }
}

/// Whether so many multiply-adds are not worth waking other threads.
pub(crate) fn is_small(work: usize) -> bool {
    work < LEAST_PARALLEL_WORK
}

impl Product<'_> {
    /// Holds every slice to the sizes.
    fn check(&self, tile_rows: usize, tile_vectors: usize, c_len: usize) {
        let &Self {
            rows,
            vectors,
            depth,
            ..
        } = self;
        match self.a {
            Broadcast::Matrix(source) | Broadcast::Rows(source) => source.check(rows, depth),
            Broadcast::Packed(values) => {
                assert_eq!(values.len(), packed_len(rows, depth, tile_rows));
            }
            Broadcast::Lanes(values) => assert_eq!(values.len(), rows * depth),
        }
        match self.b {
            Vectors::Matrix(source) => {
                source.check((vectors - 1) * LANES + self.last_lanes, depth);
            }
            Vectors::Packed(values) => {
                let width = tile_vectors * LANES;
                assert_eq!(values.len(), packed_len(vectors * LANES, depth, width));
            }
            Vectors::Lanes(values) => assert_eq!(values.len(), vectors * depth * LANES),
        }
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), rows);
        }
        let last = (rows - 1) * self.row_stride + (vectors - 1) * self.vector_stride;
        assert!((1..=LANES).contains(&self.last_lanes));
        assert!(last + self.last_lanes <= c_len);
        assert!(vectors == 1 || self.last_lanes == LANES || self.vector_stride >= LANES);
    }
}

/// One rectangle of the result.
struct Task<'a> {
    product: &'a Product<'a>,
    c: Shared,
    panels: Range<usize>,
    strips: Range<usize>,
    scratch: &'a mut [f32],
}

/// One block of the sum: where the operands of a tile lie.
#[derive(Clone, Copy)]
struct Operands {
    a: *const f32,
    a_panel: usize,
    a_row: usize,
    a_outer: usize,
    a_inner: usize,
    /// The last panel where it lies elsewhere: its start, `a_row` and `a_outer`.
    a_last: Option<(*const f32, usize, usize)>,
    b: *const f32,
    b_strip: usize,
    b_vector: usize,
    b_step: usize,
    outer: usize,
    inner: usize,
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.gemm_tile(self);
    }
}

impl TileKernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(mut self, isa: I) {
        let depth = self.product.depth;
        let blocks = depth.div_ceil(DEPTH).max(1);
        let block = depth.div_ceil(blocks).next_multiple_of(LANES);
        for start in (0..blocks).map(|index| index * block) {
            let steps = start..depth.min(start + block);
            let operands = self.operands::<I, ROWS, VECTORS>(isa, steps.clone());
            let finish = self.finish(&steps);
            let (panels, strips) = (self.panels.len(), self.strips.len());
            for index in 0..panels * strips {
                // A strip stays in the first-level cache while packed panels pass. Rows and lanes are
                // panels whose values lie far apart: there the panel stays, and strips pass.
                let (panel, strip) = match (self.product.a, self.product.b) {
                    (Broadcast::Lanes(_) | Broadcast::Rows(_), Vectors::Matrix(_)) => {
                        (index / strips, index % strips)
                    }
                    _ => (index % panels, index / panels),
                };
                let place = (self.panels.start + panel, self.strips.start + strip);
                match self.product.a {
                    Broadcast::Lanes(_) => {
                        self.tile::<I, ROWS, VECTORS, LANES>(isa, &operands, place, finish);
                    }
                    Broadcast::Rows(_) => {
                        self.tile::<I, ROWS, VECTORS, 0>(isa, &operands, place, finish);
                    }
                    Broadcast::Matrix(_) | Broadcast::Packed(_) => {
                        self.tile::<I, ROWS, VECTORS, 1>(isa, &operands, place, finish);
                    }
                }
            }
        }
    }
}

impl Task<'_> {
    /// Packs what must be packed of the steps of one block.
    #[inline(always)]
    fn operands<I: Isa, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        isa: I,
        steps: Range<usize>,
    ) -> Operands {
        let &Product {
            rows,
            vectors,
            depth,
            a,
            b,
            ..
        } = self.product;
        let start = steps.start;
        let count = steps.len();
        let whole_panels = (rows / ROWS).clamp(self.panels.start, self.panels.end);
        let last_is_partial = whole_panels < self.panels.end;
        let for_a = match a {
            Broadcast::Matrix(_) => self.panels.len() * ROWS * count,
            Broadcast::Packed(_) => 0,
            Broadcast::Rows(_) | Broadcast::Lanes(_) => ROWS * count,
        };
        let (for_a, for_b) = self.scratch.split_at_mut(for_a);

        let first_row = self.panels.start * ROWS;
        let (a, a_panel, a_row, a_outer, a_inner, a_last, group) = match a {
            Broadcast::Matrix(source) => {
                // SAFETY: `multiply` held the source to `rows` rows of `depth` steps.
                unsafe { pack_block(isa, &source, first_row, steps, ROWS, for_a) };
                (for_a.as_ptr(), ROWS * count, 1, 0, ROWS, None, count)
            }
            Broadcast::Packed(values) => {
                let first = first_row * depth + start * ROWS;
                let first = values.as_ptr().wrapping_add(first);
                (first, ROWS * depth, 1, 0, ROWS, None, count)
            }
            Broadcast::Rows(source) => {
                let stride = source.across_stride;
                let first = |row: usize| row * stride + start;
                let last = last_is_partial.then(|| {
                    for (row, panel) in for_a.chunks_exact_mut(count.max(1)).enumerate() {
                        let row = whole_panels * ROWS + row;
                        if row < rows {
                            panel.copy_from_slice(&source.values[first(row)..][..count]);
                        } else {
                            panel.fill(0.0);
                        }
                    }
                    (for_a.as_ptr(), count, 0)
                });
                let values = source.values.as_ptr().wrapping_add(first(first_row));
                (values, ROWS * stride, stride, 0, 1, last, count)
            }
            Broadcast::Lanes(values) => {
                let from = &values[(start * rows).min(values.len())..];
                let last = last_is_partial.then(|| {
                    copy_last_rows(from, rows, whole_panels * ROWS, ROWS, for_a);
                    (for_a.as_ptr(), LANES, ROWS * LANES)
                });
                let first = from.as_ptr().wrapping_add(first_row * LANES);
                (first, ROWS * LANES, LANES, rows * LANES, 1, last, LANES)
            }
        };

        let first_strip = self.strips.start;
        let strip = VECTORS * LANES;
        let (b, b_strip, b_vector, b_step) = match b {
            Vectors::Matrix(source) => {
                let used = self.strips.len() * strip * count;
                let steps = start..start + count;
                let first = first_strip * strip;
                // SAFETY: `multiply` held the source to the vectors and steps of the product.
                unsafe { pack_block(isa, &source, first, steps, strip, &mut for_b[..used]) };
                (for_b.as_ptr(), strip * count, LANES, strip)
            }
            Vectors::Packed(values) => {
                let first = first_strip * strip * depth + start * strip;
                (
                    values.as_ptr().wrapping_add(first),
                    strip * depth,
                    LANES,
                    strip,
                )
            }
            Vectors::Lanes(values) => {
                let vector = depth * LANES;
                let first = first_strip * VECTORS * vector + start * LANES;
                let first = values.as_ptr().wrapping_add(first);
                (first, VECTORS * vector, vector, LANES)
            }
        };
        debug_assert!(first_strip * VECTORS < vectors);
        let inner = group.min(count);
        Operands {
            a,
            a_panel,
            a_row,
            a_outer,
            a_inner,
            a_last,
            b,
            b_strip,
            b_vector,
            b_step,
            outer: count.checked_div(inner).unwrap_or(0),
            inner,
        }
    }

    /// What happens to the sums of a block.
    #[inline(always)]
    fn finish(&self, steps: &Range<usize>) -> Finish {
        let product = self.product;
        let last = steps.end == product.depth;
        Finish {
            held: if steps.start > 0 { 1.0 } else { product.held },
            bias: match product.bias {
                Some(bias) if last => bias.as_ptr(),
                _ => std::ptr::null(),
            },
            relu: last && product.relu,
        }
    }

    /// Computes the tile at (panel, strip) over one block.
    #[inline(always)]
    fn tile<I: Isa, const ROWS: usize, const VECTORS: usize, const A_ROW: usize>(
        &self,
        isa: I,
        operands: &Operands,
        (panel, strip): (usize, usize),
        mut finish: Finish,
    ) {
        let &Product {
            rows,
            vectors,
            row_stride,
            vector_stride,
            last_lanes,
            ..
        } = self.product;
        let (first_row, first_vector) = (panel * ROWS, strip * VECTORS);
        let (local_panel, local_strip) = (panel - self.panels.start, strip - self.strips.start);
        let tile_vectors = VECTORS.min(vectors - first_vector);
        let (a, a_row, a_outer) = match operands.a_last {
            Some(last) if first_row + ROWS > rows => last,
            _ => (
                operands.a.wrapping_add(local_panel * operands.a_panel),
                operands.a_row,
                operands.a_outer,
            ),
        };
        if !finish.bias.is_null() {
            finish.bias = finish.bias.wrapping_add(first_row);
        }
        let tile = Tile {
            a,
            a_row,
            a_outer,
            a_inner: operands.a_inner,
            b: operands.b.wrapping_add(local_strip * operands.b_strip),
            b_vector: operands.b_vector,
            b_step: operands.b_step,
            outer: operands.outer,
            inner: operands.inner,
            c: self
                .c
                .0
                .wrapping_add(first_row * row_stride + first_vector * vector_stride),
            c_row: row_stride,
            c_vector: vector_stride,
            rows: ROWS.min(rows - first_row),
            last_lanes: if first_vector + tile_vectors == vectors {
                last_lanes
            } else {
                LANES
            },
            finish,
        };
        // SAFETY: `multiply` held operands in place, bias and result to the sizes, and packed
        // ones are whole panels; tiles do not overlap, since elements of the result do not.
        unsafe {
            if tile_vectors == VECTORS {
                micro_kernel::<I, ROWS, VECTORS, A_ROW>(isa, &tile);
            } else if tile_vectors == 2 {
                micro_kernel::<I, ROWS, 2, A_ROW>(isa, &tile);
            } else {
                micro_kernel::<I, ROWS, 1, A_ROW>(isa, &tile);
            }
        }
    }
}

/// Features from `first` on, fewer than `rows`, as a panel `[blocks][rows][16]` filled up with zeros.
#[inline(always)]
fn copy_last_rows(x: &[f32], features: usize, first: usize, rows: usize, panel: &mut [f32]) {
    let used = (features - first) * LANES;
    for (block, target) in x
        .chunks_exact(features * LANES)
        .zip(panel.chunks_exact_mut(rows * LANES))
    {
        target[..used].copy_from_slice(&block[first * LANES..]);
        target[used..].fill(0.0);
    }
}
