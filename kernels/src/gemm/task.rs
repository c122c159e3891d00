//! One task of a product: a rectangle of the result, block by block of the sum.

use std::ops::Range;
use std::ptr;

use super::driver::{Broadcast, Product, Vectors};
use super::epilogue::Epilogue;
use super::pack::{Source, pack_block};
use super::tile::{Ahead, Tile, TileKernel, micro_kernel};
use crate::dispatch::Kernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::Shared;

/// One rectangle of the result.
pub(super) struct Task<'a, E> {
    pub(super) product: &'a Product<'a, E>,
    pub(super) c: Shared,
    pub(super) panels: Range<usize>,
    pub(super) strips: Range<usize>,
    /// Of the sum.
    pub(super) steps: Range<usize>,
    pub(super) scratch: &'a mut [f32],
}

/// Steps ahead at which values of columns are asked for: some hundred nanoseconds.
const COLUMNS_AHEAD: usize = 64;

/// One block of the sum: where the operands of a tile lie.
#[derive(Clone, Copy)]
struct Operands {
    a: *const f32,
    a_panel: usize,
    a_row: usize,
    a_outer: usize,
    /// The last panel where it lies elsewhere: its start, `a_row` and `a_outer`.
    a_last: Option<(*const f32, usize, usize)>,
    b: *const f32,
    b_strip: usize,
    b_vector: usize,
    b_step: usize,
    /// The last strip where it lies elsewhere: its start and `b_step`.
    b_last: Option<(*const f32, usize)>,
    /// Where what the next block reads of a matrix begins, null behind the last block; or the rows behind those of
    /// this task.
    next: *const f32,
    outer: usize,
    inner: usize,
}

impl<E: Epilogue> Kernel for Task<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.product.a {
            Broadcast::Rows(_) => isa.gemm_rows_tile(InRows(self)),
            _ => isa.gemm_tile(self),
        }
    }
}

impl<E: Epilogue> TileKernel for Task<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        match self.product.a {
            Broadcast::Lanes(_) => self.run_tiles::<I, ROWS, VECTORS, LANES>(isa),
            _ => self.run_tiles::<I, ROWS, VECTORS, 1>(isa),
        }
    }
}

/// A task whose values are read in rows.
struct InRows<'a, E>(Task<'a, E>);

impl<E: Epilogue> TileKernel for InRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        self.0.run_tiles::<I, ROWS, VECTORS, 0>(isa);
    }
}

impl<E: Epilogue> Task<'_, E> {
    /// Computes every tile, block by block of the sum; `A_ROW` as [`micro_kernel`] takes it.
    #[inline(always)]
    fn run_tiles<I: Isa, const ROWS: usize, const VECTORS: usize, const A_ROW: usize>(
        mut self,
        isa: I,
    ) {
        let depth = self.steps.len();
        let block = self.product.block_depth(depth);
        // Without a single step there are still sums to write.
        for index in 0..depth.div_ceil(block.max(1)).max(1) {
            let start = self.steps.start + index * block;
            let steps = start..self.steps.end.min(start + block);
            let operands = self.operands::<I, ROWS, VECTORS>(isa, steps.clone());
            let (panels, strips) = (self.panels.len(), self.strips.len());
            for index in 0..panels * strips {
                // A strip stays in the first-level cache while packed panels pass. Rows and lanes are
                // panels whose values lie far apart: there the panel stays, and strips pass.
                let (panel, strip) = if self.panel_stays() {
                    (index / strips, index % strips)
                } else {
                    (index % panels, index / panels)
                };
                let place = (self.panels.start + panel, self.strips.start + strip);
                self.tile::<I, ROWS, VECTORS, A_ROW>(isa, &operands, place, &steps);
            }
        }
    }

    fn panel_stays(&self) -> bool {
        matches!(
            (self.product.a, self.product.b),
            (Broadcast::Columns(_) | Broadcast::Lanes(_), _)
                | (Broadcast::Rows(_), Vectors::Matrix(_) | Vectors::Rows(_))
        )
    }

    /// What to ask for during one tile: the part of the next panel or strip, or of what the next block
    /// packs, that falls to this one, where those come from memory or the third-level cache.
    #[inline(always)]
    fn ahead<const ROWS: usize, const VECTORS: usize>(
        &self,
        operands: &Operands,
        (panel, strip): (usize, usize),
    ) -> Ahead {
        let (panels, strips) = (self.panels.len(), self.strips.len());
        // What is read anyway.
        let nothing = Ahead {
            start: operands.a,
            ..Ahead::NONE
        };
        let (tile, tiles) = (panel * strips + strip, panels * strips);
        let tiles_left = tiles - tile;
        match (self.product.a, self.product.b) {
            (Broadcast::Lanes(_), Vectors::Matrix(_)) if panel + 1 < panels => Ahead {
                start: operands
                    .a
                    .wrapping_add((panel + 1) * operands.a_panel + strip * ROWS * LANES / strips),
                outer_stride: operands.a_outer,
                inner_stride: ROWS.div_ceil(strips),
            },
            (Broadcast::Matrix(_), Vectors::Lanes(_) | Vectors::Packed(_))
                if strip + 1 < strips && operands.inner > 0 =>
            {
                // Lines of the next strip, of whose vectors each has its own lines or all share them.
                let line = panel * VECTORS * operands.inner / panels;
                let offset = match self.product.b {
                    Vectors::Lanes(_) => {
                        line / operands.inner * operands.b_vector + line % operands.inner * LANES
                    }
                    _ => line * LANES,
                };
                Ahead {
                    start: operands
                        .b
                        .wrapping_add((strip + 1) * operands.b_strip + offset),
                    outer_stride: 0,
                    inner_stride: (VECTORS * LANES).div_ceil(panels),
                }
            }
            // Of what the next block packs, a column of lines for each of the last tiles.
            (Broadcast::Matrix(source), Vectors::Lanes(_) | Vectors::Packed(_))
                if source.across_stride == 1 && !operands.next.is_null() =>
            {
                Ahead {
                    start: operands.next.wrapping_add(panel * LANES),
                    outer_stride: 0,
                    inner_stride: source.depth_stride,
                }
            }
            (Broadcast::Rows(_), Vectors::Matrix(source) | Vectors::Rows(source))
                if source.across_stride == 1
                    && tiles_left <= strips * VECTORS
                    && !operands.next.is_null() =>
            {
                Ahead {
                    start: operands.next.wrapping_add((tiles_left - 1) * LANES),
                    outer_stride: 0,
                    inner_stride: source.depth_stride,
                }
            }
            // Values of this panel, some steps on; the line where they end, for the one where they begin
            // is that where the panel before ended.
            (Broadcast::Columns(_), _) if strip == 0 => Ahead {
                start: operands
                    .a
                    .wrapping_add(panel * ROWS + ROWS - 1 + COLUMNS_AHEAD * operands.a_outer),
                outer_stride: operands.a_outer,
                inner_stride: 0,
            },
            // The rows that stand behind these, over the last tiles.
            (Broadcast::Matrix(source), Vectors::Lanes(_))
                if [source.depth_stride, source.across_stride] == [1, operands.inner] =>
            {
                Ahead {
                    start: operands.next.wrapping_add(panel * ROWS * operands.inner),
                    outer_stride: 0,
                    inner_stride: ROWS,
                }
            }
            (Broadcast::Lanes(_), Vectors::Packed(_)) => match self.product.ahead {
                Some(next) => {
                    let first = tile * next.features / tiles;
                    Ahead {
                        start: next.start.start().wrapping_add(first * LANES).cast_const(),
                        outer_stride: next.block_stride,
                        inner_stride: next.features.div_ceil(tiles),
                    }
                }
                None => nothing,
            },
            _ => nothing,
        }
    }

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
            Broadcast::Columns(_) | Broadcast::Rows(_) | Broadcast::Lanes(_) => ROWS * count,
        };
        let (for_a, for_b) = self.scratch.split_at_mut(for_a);

        let mut next = ptr::null();
        // Behind the last block there is nothing to ask for.
        let has_next = start + count < depth;
        let place = |source: &Source<'_>, first: usize| {
            let offset = first * source.across_stride + (start + count) * source.depth_stride;
            match has_next {
                true => source.values.as_ptr().wrapping_add(offset),
                false => ptr::null(),
            }
        };
        let first_row = self.panels.start * ROWS;
        let (a, a_panel, a_row, a_outer, a_last, group) = match a {
            Broadcast::Matrix(source) => {
                next = match source.across_stride {
                    1 => place(&source, first_row),
                    stride => {
                        let behind = (first_row + self.panels.len() * ROWS) * stride;
                        source.values.as_ptr().wrapping_add(behind)
                    }
                };
                // SAFETY: `multiply` held the source to `rows` rows of `depth` steps.
                unsafe { pack_block(isa, &source, first_row, steps, ROWS, for_a) };
                (for_a.as_ptr(), ROWS * count, 1, 0, None, count)
            }
            Broadcast::Packed(values) => {
                let first = first_row * depth + start * ROWS;
                let first = values.as_ptr().wrapping_add(first);
                (first, ROWS * depth, 1, 0, None, count)
            }
            Broadcast::Columns(source) => {
                let stride = source.depth_stride;
                let last = last_is_partial.then(|| {
                    // SAFETY: as above.
                    unsafe { pack_block(isa, &source, whole_panels * ROWS, steps, ROWS, for_a) };
                    (for_a.as_ptr(), 1, ROWS)
                });
                let offset = start * stride + first_row;
                let first = source.values.as_ptr().wrapping_add(offset);
                (first, ROWS, 1, stride, last, 1)
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
                (values, ROWS * stride, stride, 0, last, count)
            }
            Broadcast::Lanes(values) => {
                let from = &values[(start * rows).min(values.len())..];
                let last = last_is_partial.then(|| {
                    copy_last_rows(from, rows, whole_panels * ROWS, ROWS, for_a);
                    (for_a.as_ptr(), LANES, ROWS * LANES)
                });
                let first = from.as_ptr().wrapping_add(first_row * LANES);
                (first, ROWS * LANES, LANES, rows * LANES, last, LANES)
            }
        };

        let first_strip = self.strips.start;
        let strip = VECTORS * LANES;
        let mut b_last = None;
        let (b, b_strip, b_vector, b_step) = match b {
            Vectors::Matrix(source) => {
                let used = self.strips.len() * strip * count;
                let steps = start..start + count;
                let first = first_strip * strip;
                // SAFETY: `multiply` held the source to the vectors and steps of the product.
                unsafe { pack_block(isa, &source, first, steps, strip, &mut for_b[..used]) };
                next = place(&source, first);
                (for_b.as_ptr(), strip * count, LANES, strip)
            }
            Vectors::Rows(source) => {
                let steps = start..start + count;
                // A vector that ends within its row would reach beyond the matrix in the last one.
                let partial = source.across / strip;
                let is_partial = !source.across.is_multiple_of(LANES);
                if is_partial && (first_strip..self.strips.end).contains(&partial) {
                    let panel = &mut for_b[..strip * count];
                    // SAFETY: as above.
                    unsafe { pack_block(isa, &source, partial * strip, steps, strip, panel) };
                    b_last = Some((panel.as_ptr(), strip));
                }
                let first = first_strip * strip;
                next = place(&source, first);
                let offset = start * source.depth_stride + first;
                let values = source.values.as_ptr().wrapping_add(offset);
                (values, strip, LANES, source.depth_stride)
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
            a_last,
            b,
            b_strip,
            b_vector,
            b_step,
            b_last,
            next,
            outer: count.checked_div(inner).unwrap_or(0),
            inner,
        }
    }

    /// Computes the tile at (panel, strip) over one block.
    #[inline(always)]
    fn tile<I: Isa, const ROWS: usize, const VECTORS: usize, const A_ROW: usize>(
        &self,
        isa: I,
        operands: &Operands,
        (panel, strip): (usize, usize),
        steps: &Range<usize>,
    ) {
        let &Product {
            rows,
            vectors,
            row_stride,
            vector_stride,
            last_lanes,
            epilogue,
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
        let is_last = first_vector + tile_vectors == vectors;
        let (b, b_step) = match operands.b_last {
            Some(last) if is_last => last,
            _ => (
                operands.b.wrapping_add(local_strip * operands.b_strip),
                operands.b_step,
            ),
        };
        let tile = Tile {
            a,
            a_row,
            a_outer,
            b,
            b_vector: operands.b_vector,
            b_step,
            outer: operands.outer,
            inner: operands.inner,
            ahead: self.ahead::<ROWS, VECTORS>(operands, (local_panel, local_strip)),
            c: self
                .c
                .start()
                .wrapping_add(first_row * row_stride + first_vector * vector_stride),
            c_row: row_stride,
            c_vector: vector_stride,
            rows: ROWS.min(rows - first_row),
            last_lanes: if is_last { last_lanes } else { LANES },
            finish: epilogue.finish(steps, &self.steps, first_row),
        };
        // SAFETY: `multiply` held operands in place, epilogue and result to the sizes, and packed
        // ones are whole panels; tiles do not overlap, since elements of the result do not.
        unsafe {
            if tile_vectors == VECTORS {
                micro_kernel::<I, _, ROWS, VECTORS, A_ROW, true>(isa, &tile);
            } else if tile_vectors == 2 {
                micro_kernel::<I, _, ROWS, 2, A_ROW, true>(isa, &tile);
            } else {
                micro_kernel::<I, _, ROWS, 1, A_ROW, true>(isa, &tile);
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
