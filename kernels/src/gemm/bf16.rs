//! Products of values rounded to bf16, summed in f32.
//!
//! Both operands are rounded while they are packed, two neighbouring steps of the sum to a lane (see
//! [`isa::bf16`](crate::isa::bf16)), and multiplied pair by pair: twice the work of an f32
//! instruction, at the same rate, on half the bytes. The sums stay f32, and so does everything that
//! comes and goes.
//!
//! Each sum runs over the pairs in order, in blocks that are the same whatever the tile. So the result
//! is the same bit for bit on every instruction set, whether the processor multiplies bf16 or it is
//! emulated, and on any number of threads. Only `amx`, whose [tile registers](crate::isa::amx) have
//! another order, has results of its own: it takes steps in blocks of 32, of which the first sixteen
//! are added up in order, and the other sixteen, and then both to the sum.
//!
//! The loops: the vectors of a chunk are packed once for all tasks; then a grid of tasks, which
//! depends on the shape alone, each of which packs its rows and runs the micro-kernel.

use std::ops::Range;

use rayon::prelude::*;

use super::driver::{for_each_task, is_small, tile_size};
use super::epilogue::{Epilogue, Stored};
use super::scratch::with_scratch;
use super::tile::{Ahead, Tile, TileKernel};
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::{Isa, amx};
use crate::lanes::LANES;
use crate::shared::Shared;

mod operand;
mod pack;
mod tile;
mod tiled;

pub(crate) use operand::{LaneLayout, Operand, Target};
use pack::{Form, Packing};
use tile::micro_kernel;

/// Steps of the sum in one block, a multiple of 32: 512 pairs, a panel of 14 rows of which is
/// 28 KB.
pub(crate) const DEPTH: usize = 1024;

/// Rows of a task, about: 56 · 512 pairs · 4 B = 112 KB stay in a core's second-level cache.
const TASK_ROWS: usize = 56;

/// Floats of the packed vectors of a chunk: 4 MB, which a third-level cache holds.
const CHUNK: usize = 1 << 20;

/// Tasks to aim at where rows alone would make fewer.
const LEAST_TASKS: usize = 8;

/// Strips that one task packs.
const PACKED_STRIPS: usize = 2;

/// Multiply-adds in the time that one pair is packed, roughly.
const PACK_WORK: usize = 32;

/// A product: `rows` by `columns`, summed over `depth` steps.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a, E = Stored<'a>> {
    pub(crate) rows: usize,
    /// Lanes of all vectors.
    pub(crate) columns: usize,
    pub(crate) depth: usize,
    /// The operand whose values are broadcast, rows across.
    pub(crate) a: Operand<'a>,
    /// The operand whose vectors are multiplied, columns across.
    pub(crate) b: Operand<'a>,
    pub(crate) target: Target,
    pub(crate) epilogue: E,
}

/// Computes a product into `c`, or uses it up there as its epilogue says.
///
/// # Panics
/// If an operand, what the epilogue reads or `c` is shorter than the product demands.
pub(crate) fn multiply<E: Epilogue>(set: InstructionSet, product: &Product<'_, E>, c: &mut [f32]) {
    let &Product {
        rows,
        columns,
        depth,
        ..
    } = product;
    if rows == 0 || columns == 0 {
        return;
    }
    let vectors = columns.div_ceil(LANES);
    product.a.check(rows, depth);
    product.b.check(columns, depth);
    product.target.check(rows, vectors, c.len());
    assert!(depth <= DEPTH || !E::NEEDS_WHOLE_SUMS);
    product.epilogue.check(rows, c.len());
    let ((tile_rows, tile_vectors), forms) = match set.tiles() {
        Some(_) => (
            (amx::SIDE, amx::SIDE / LANES),
            [Form::TilesByValue, Form::TilesByPair],
        ),
        None => (tile_size(set), [Form::Vectors; 2]),
    };
    let blocks = depth.div_ceil(DEPTH).max(1);
    let block = depth.div_ceil(blocks).next_multiple_of(amx::STEPS);
    let strip_len = tile_vectors * LANES * (block / 2).max(1);
    let strips = vectors.div_ceil(tile_vectors);
    let chunk_strips = (CHUNK / strip_len).max(1);
    let c = Shared::new(c.as_mut_ptr());
    for first in (0..strips).step_by(chunk_strips) {
        for start in (0..blocks).map(|index| index * block) {
            let part = Part {
                set,
                product,
                a: Packing {
                    operand: product.a,
                    across: rows,
                    width: tile_rows,
                    form: forms[0],
                },
                b: Packing {
                    operand: product.b,
                    across: columns,
                    width: tile_vectors * LANES,
                    form: forms[1],
                },
                strips: first..strips.min(first + chunk_strips),
                steps: start..depth.min(start + block),
                c,
            };
            part.multiply();
        }
    }
}

/// Some strips of vectors over some steps: what is packed at a time.
struct Part<'a, E> {
    set: InstructionSet,
    product: &'a Product<'a, E>,
    a: Packing<'a>,
    b: Packing<'a>,
    strips: Range<usize>,
    steps: Range<usize>,
    c: Shared,
}

impl<E: Epilogue> Part<'_, E> {
    /// Packs the vectors, then runs all tasks.
    fn multiply(&self) {
        let len = self.b.len(self.strips.len(), &self.steps);
        with_scratch(len, |vectors| {
            self.pack_vectors(vectors);
            let panels = self.product.rows.div_ceil(self.a.width);
            let task_panels = TASK_ROWS.div_ceil(self.a.width).min(panels);
            let across = panels.div_ceil(task_panels);
            let along = LEAST_TASKS.div_ceil(across).min(self.strips.len());
            let task_strips = self.strips.len().div_ceil(along);
            let along = self.strips.len().div_ceil(task_strips);
            let run = |tasks: Range<usize>| {
                let panel = tasks.start % across * task_panels;
                let strip = self.strips.start + tasks.start / across * task_strips;
                let panels = panel..panels.min(panel + task_panels);
                with_scratch(self.a.len(panels.len(), &self.steps), |rows| {
                    let task = Task {
                        part: self,
                        panels,
                        strips: strip..self.strips.end.min(strip + task_strips),
                        rows,
                        vectors,
                    };
                    match self.set.tiles() {
                        Some(unit) => unit.run(task),
                        None => self.set.run_bf16(task),
                    }
                });
            };
            let work = self.product.rows * self.strips.len() * self.b.width * self.steps.len();
            for_each_task(across * along, 1, work / 2, run);
        });
    }

    fn pack_vectors(&self, vectors: &mut [f32]) {
        let chunk = self.b.len(PACKED_STRIPS, &self.steps);
        if chunk == 0 {
            return;
        }
        let work = vectors.len() * PACK_WORK;
        let pack = |(index, vectors): (usize, &mut [f32])| {
            self.set.run_bf16(Pack {
                packing: self.b,
                first: self.strips.start + index * PACKED_STRIPS,
                steps: self.steps.clone(),
                vectors,
            });
        };
        if is_small(work) {
            vectors.chunks_mut(chunk).enumerate().for_each(pack);
        } else {
            vectors.par_chunks_mut(chunk).enumerate().for_each(pack);
        }
    }
}

/// Packs some panels.
struct Pack<'a, 'b> {
    packing: Packing<'a>,
    first: usize,
    steps: Range<usize>,
    vectors: &'b mut [f32],
}

impl Kernel for Pack<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            packing,
            first,
            steps,
            vectors,
        } = self;
        // SAFETY: `multiply` held the operand to the product.
        unsafe { packing.pack(isa, first, steps, vectors) };
    }
}

/// One rectangle of the result.
struct Task<'a, E> {
    part: &'a Part<'a, E>,
    panels: Range<usize>,
    strips: Range<usize>,
    /// Room for the packed rows.
    rows: &'a mut [f32],
    /// All packed vectors of the part.
    vectors: &'a [f32],
}

impl<E: Epilogue> Kernel for Task<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.gemm_tile(self);
    }
}

impl<E: Epilogue> TileKernel for Task<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let part = self.part;
        let steps = part.steps.clone();
        let total = part.vectors();
        // SAFETY: `multiply` held the operand to the product.
        unsafe { part.a.pack(isa, self.panels.start, steps, self.rows) };
        // A strip stays in the first-level cache while panels pass.
        for strip in self.strips.clone() {
            let first = strip * VECTORS;
            for panel in self.panels.clone() {
                if total - first >= VECTORS && part.product.target.is_even::<VECTORS>(first) {
                    self.tile::<I, ROWS, VECTORS, VECTORS>(isa, panel, first);
                } else {
                    for vector in first..total.min(first + VECTORS) {
                        self.tile::<I, ROWS, VECTORS, 1>(isa, panel, vector);
                    }
                }
            }
        }
    }
}

impl<E: Epilogue> Task<'_, E> {
    /// Computes a tile of `VECTORS` vectors of a strip of `WIDTH`.
    #[inline(always)]
    fn tile<I: Isa, const ROWS: usize, const WIDTH: usize, const VECTORS: usize>(
        &self,
        isa: I,
        panel: usize,
        vector: usize,
    ) {
        let (a, b) = self.operands(panel, vector / WIDTH);
        let tile = Tile {
            a: a.as_ptr(),
            a_row: 1,
            a_outer: 0,
            b: b.as_ptr().wrapping_add(vector % WIDTH * LANES),
            b_vector: LANES,
            b_step: WIDTH * LANES,
            outer: 1,
            inner: self.part.steps.len().div_ceil(2),
            ..self
                .part
                .result::<VECTORS>(panel * ROWS..(panel + 1) * ROWS, vector)
        };
        // SAFETY: packed operands are whole panels; `multiply` held the epilogue and the result to the
        // product; tiles do not overlap, since elements of the result do not.
        unsafe { micro_kernel::<I, _, ROWS, VECTORS>(isa, &tile) };
    }

    /// A packed panel of rows and a packed strip of vectors.
    #[inline(always)]
    fn operands(&self, panel: usize, strip: usize) -> (&[f32], &[f32]) {
        let part = self.part;
        let [a, b] = [&part.a, &part.b].map(|packing| packing.panel_len(&part.steps));
        (
            &self.rows[(panel - self.panels.start) * a..][..a],
            &self.vectors[(strip - part.strips.start) * b..][..b],
        )
    }
}

impl<E: Epilogue> Part<'_, E> {
    /// Vectors of a row of the result.
    #[inline(always)]
    fn vectors(&self) -> usize {
        self.product.columns.div_ceil(LANES)
    }

    /// The place of some vectors of some rows in the result, of which there may be fewer, and what
    /// becomes of their sums; of the operands nothing.
    #[inline(always)]
    fn result<const VECTORS: usize>(&self, rows: Range<usize>, vector: usize) -> Tile<E::Finish> {
        let &Product {
            rows: all,
            depth,
            target,
            epilogue,
            ..
        } = self.product;
        let at = target.at(rows.start, vector);
        Tile {
            a: std::ptr::null(),
            a_row: 0,
            a_outer: 0,
            b: std::ptr::null(),
            b_vector: 0,
            b_step: 0,
            outer: 0,
            inner: 0,
            ahead: Ahead::NONE,
            c: self.c.start().wrapping_add(at),
            c_row: target.row_stride(),
            c_vector: match VECTORS {
                1 => 0,
                _ => target.at(rows.start, vector + 1) - at,
            },
            rows: rows.len().min(all - rows.start),
            last_lanes: target.lanes(vector + VECTORS - 1),
            finish: epilogue.finish(&self.steps, &(0..depth), rows.start),
        }
    }
}
