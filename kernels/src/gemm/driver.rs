//! The blocked loops around the micro-kernel.
//!
//! The result is cut into a grid of tasks. Each value is summed by one task in one order, whatever the grid,
//! so the result is the same bit for bit on any number of threads. A task walks through the summed dimension
//! in blocks of at most [`DEPTH`] steps. For each it packs its part of an operand that is neither packed yet
//! nor read where it lies, which then stays in its core's second-level cache, and runs the micro-kernel over
//! every panel of rows and every strip of vectors. The operand that many tasks share streams past.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;

use super::epilogue::{Epilogue, Stored};
use super::pack::{Source, packed_len};
use super::scratch::with_scratch;
use super::task::Task;
use super::tile::TileKernel;
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::{Isa, processor};
use crate::lanes::LANES;
use crate::shared::Shared;

/// Steps of the sum in one block, a multiple of sixteen. A panel of 14 rows is then 28 KB, which a
/// first-level cache of 48 KB holds; a strip of two vectors, 64 KB, comes from the second level.
pub(crate) const DEPTH: usize = 512;

/// The same of a product whose values are read in rows, eight at most to a panel, which is then 32 KB.
const ROWS_DEPTH: usize = 1024;

/// Rows that are a multiple of so many floats apart, 1 KB, fall on so few sets of a cache that it holds only
/// [`DEPTH`] of them.
const CROWDED_STRIDE: usize = 256;

/// Those a multiple of so many apart, a small page, are packed.
const PACKED_STRIDE: usize = 1024;

/// Rows for which a tile a single vector wide, which reads one line for each step, is not worth a copy whose
/// lines follow one another.
const FEW_ROWS: usize = 512;

/// Rows of a task where vectors pass, at least, whole panels of every tile: 42 · 512 · 4 B = 86 KB. A thousand are
/// then 24 tasks, which eight threads share evenly.
const PACKED_ROWS: usize = 42;

/// Vectors of such a task, which pass once for its rows: the more there are, the less often rows are packed.
const PASSING_VECTORS: usize = 64;

/// Tasks for each thread to aim at where vectors pass packed rows: the more rows a task has, the less often they
/// pass.
const THREAD_TASKS: usize = 4;

/// Vectors of a task that keeps them while all rows pass, at most.
const HELD_VECTORS: usize = 8;

/// Tasks to aim at where a task would otherwise take all rows: enough for many cores, and for the
/// last one not to keep the others waiting.
const LEAST_TASKS: usize = 16;

/// Multiply-adds below which threads cost more than they save.
const LEAST_PARALLEL_WORK: usize = 1 << 18;

/// The operand whose values are broadcast: `rows` rows, as long as the sum is deep.
#[derive(Clone, Copy)]
pub(crate) enum Broadcast<'a> {
    /// A matrix that tasks pack.
    Matrix(Source<'a>),
    /// One packed over its whole depth, in panels as high as the tile.
    Packed(&'a [f32]),
    /// A matrix with the values of each step in one piece, read where it lies.
    Columns(Source<'a>),
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
    /// A matrix with the values of each step in one piece, read where it lies.
    Rows(Source<'a>),
    /// One packed over its whole depth, in strips as wide as the tile.
    Packed(&'a [f32]),
    /// Activations in lanes, a vector for each block of images, a step of the sum for each feature.
    Lanes(&'a [f32]),
}

impl<'a> Vectors<'a> {
    /// A matrix to be multiplied by so many rows, read where it lies if no copy of it would be faster.
    pub(crate) fn matrix(set: InstructionSet, source: Source<'a>, rows: usize) -> Self {
        let is_in_rows = source.across_stride == 1 && source.scale == 1.0;
        let is_spread = !source.depth_stride.is_multiple_of(PACKED_STRIDE);
        let (_, tile_vectors) = rows_tile_size(set);
        match is_in_rows && is_spread && (tile_vectors > 1 || rows <= FEW_ROWS) {
            true => Self::Rows(source),
            false => Self::Matrix(source),
        }
    }
}

/// A product: `rows` by `vectors` vectors, summed over `depth` steps.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a, E = Stored<'a>> {
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
    pub(crate) epilogue: E,
    /// What the next product of this thread will read, asked for while lanes are multiplied with packed
    /// vectors.
    pub(crate) ahead: Option<LanesAhead>,
}

/// Some features of every block of activations in lanes.
#[derive(Clone, Copy)]
pub(crate) struct LanesAhead {
    /// Those of the first block; need not be valid.
    pub(crate) start: Shared,
    pub(crate) features: usize,
    /// Floats from one block to the next.
    pub(crate) block_stride: usize,
}

/// Rows and vectors of the register tile of a set.
pub(crate) fn tile_size(set: InstructionSet) -> (usize, usize) {
    set.run(TileSize { in_rows: false })
}

/// The same of a product whose values are read in rows.
fn rows_tile_size(set: InstructionSet) -> (usize, usize) {
    set.run(TileSize { in_rows: true })
}

/// The tile of a set, or its tile for values that lie `in_rows`.
struct TileSize {
    in_rows: bool,
}

impl Kernel for TileSize {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (usize, usize) {
        if self.in_rows {
            isa.gemm_rows_tile(self)
        } else {
            isa.gemm_tile(self)
        }
    }
}

impl TileKernel for TileSize {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, _: I) -> (usize, usize) {
        (ROWS, VECTORS)
    }
}

/// Computes a product into `c`, or uses it up there as its epilogue says.
///
/// # Panics
/// If an operand, what the epilogue reads or `c` is shorter than the product demands.
///
/// # Safety
/// No two elements of the result share a place in `c`.
pub(crate) unsafe fn multiply<E: Epilogue>(
    set: InstructionSet,
    product: &Product<'_, E>,
    c: &mut [f32],
) {
    let &Product {
        rows,
        vectors,
        depth,
        ..
    } = product;
    if rows == 0 || vectors == 0 {
        return;
    }
    let (tile_rows, tile_vectors) = product.tile_size(set);
    product.check(tile_rows, tile_vectors, c.len());
    let (task_rows, task_vectors) = match product.b {
        Vectors::Matrix(_) | Vectors::Rows(_) => {
            // All rows at once where the vectors alone are enough tasks.
            let task_vectors = product.held_vectors(tile_vectors);
            (product.task_rows(LEAST_TASKS, task_vectors), task_vectors)
        }
        _ => (product.passed_rows(tile_rows), PASSING_VECTORS),
    };
    let task_panels = task_rows.div_ceil(tile_rows);
    let task_strips = (task_vectors / tile_vectors).max(1);
    let panels = rows.div_ceil(tile_rows);
    let strips = vectors.div_ceil(tile_vectors);
    let across = panels.div_ceil(task_panels);
    let tasks = across * strips.div_ceil(task_strips);
    let packed_rows = task_panels.min(panels) * tile_rows;
    let scratch_len = product.scratch_len(
        (tile_rows, tile_vectors),
        packed_rows,
        task_strips * tile_vectors,
    );
    let c = Shared::new(c.as_mut_ptr());
    // What tasks of the same vectors pack of them, one thread packs once.
    let together = match (product.a, product.b) {
        (Broadcast::Rows(_) | Broadcast::Packed(_) | Broadcast::Lanes(_), Vectors::Matrix(_)) => {
            across
        }
        _ => 1,
    };
    let run = |tasks: Range<usize>| {
        let panel = tasks.start % across * task_panels;
        let strip = tasks.start / across * task_strips;
        with_scratch(scratch_len, |scratch| {
            set.run(Task {
                product,
                c,
                panels: panel..(panel + tasks.len() * task_panels).min(panels),
                strips: strip..(strip + task_strips).min(strips),
                steps: 0..depth,
                scratch,
            });
        });
    };
    for_each_task(tasks, together, rows * vectors * LANES * depth, run);
}

/// Computes a product as a part of a task, from `c` on.
///
/// # Panics
/// If an operand or what the epilogue reads is shorter than the product demands.
///
/// # Safety
/// No two elements of the result share a place; every place is valid for reading and writing, and
/// nobody else uses it.
pub(crate) unsafe fn multiply_here<E: Epilogue>(
    set: InstructionSet,
    product: &Product<'_, E>,
    c: *mut f32,
) {
    let &Product {
        rows,
        vectors,
        depth,
        ..
    } = product;
    if rows == 0 || vectors == 0 {
        return;
    }
    let (tile_rows, tile_vectors) = product.tile_size(set);
    product.check(tile_rows, tile_vectors, product.reach());
    let (panels, strips) = (rows.div_ceil(tile_rows), vectors.div_ceil(tile_vectors));
    let scratch_len = product.scratch_len(
        (tile_rows, tile_vectors),
        panels * tile_rows,
        strips * tile_vectors,
    );
    with_scratch(scratch_len, |scratch| {
        set.run(Task {
            product,
            c: Shared::new(c),
            panels: 0..panels,
            strips: 0..strips,
            steps: 0..depth,
            scratch,
        });
    });
}

/// Runs tasks that have so many multiply-adds together, on other threads if that is worth it. Each thread
/// takes the next ones in order, so that neighbours in time share what they read, and one that wakes
/// late takes fewer: `together` at a time, of which `tasks` is a multiple, as long as there are so many for
/// every thread, then single ones.
pub(super) fn for_each_task(
    tasks: usize,
    together: usize,
    work: usize,
    run: impl Fn(Range<usize>) + Send + Sync,
) {
    let threads = if is_small(work) {
        1
    } else {
        rayon::current_num_threads()
    };
    let behind = |first: usize| {
        let is_early = first + threads * together <= tasks;
        first + if is_early { together } else { 1 }
    };
    let next = AtomicUsize::new(0);
    let claim = || {
        let first = next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
            (first < tasks).then(|| behind(first))
        });
        first.ok().map(|first| first..behind(first))
    };
    let work_through = |_| std::iter::from_fn(claim).for_each(&run);
    let workers = 0..threads.min(tasks);
    if workers.len() > 1 {
        workers
            .into_par_iter()
            .with_max_len(1)
            .for_each(work_through);
    } else {
        work_through(0);
    }
}

/// Runs tasks, on other threads if they are to be `shared`. Threads halve what is left: the first tasks and the
/// last ones stay together.
pub(crate) fn for_each_by_halves(tasks: usize, shared: bool, run: impl Fn(usize) + Send + Sync) {
    if shared {
        (0..tasks).into_par_iter().with_max_len(1).for_each(run);
    } else {
        (0..tasks).for_each(run);
    }
}

/// Whether so many multiply-adds are not worth waking other threads.
pub(crate) fn is_small(work: usize) -> bool {
    work < LEAST_PARALLEL_WORK
}

impl<E: Epilogue> Product<'_, E> {
    /// Rows and vectors of the register tile that computes this product.
    fn tile_size(&self, set: InstructionSet) -> (usize, usize) {
        match self.a {
            Broadcast::Rows(_) => rows_tile_size(set),
            _ => tile_size(set),
        }
    }

    /// Steps of so long a sum that a task takes at a time: equal blocks, each a multiple of sixteen.
    pub(super) fn block_depth(&self, depth: usize) -> usize {
        let most = match (self.a, self.b) {
            (_, Vectors::Rows(rows)) if rows.depth_stride.is_multiple_of(CROWDED_STRIDE) => DEPTH,
            // As by packed weights, to the last bit.
            (Broadcast::Rows(_), Vectors::Lanes(_)) => DEPTH,
            (Broadcast::Rows(_), _) => ROWS_DEPTH,
            _ => DEPTH,
        };
        let blocks = depth.div_ceil(most).max(1);
        depth.div_ceil(blocks).next_multiple_of(LANES)
    }

    /// Vectors, in whole tiles, whose steps of a block stay in half of a core's second-level cache.
    fn held_vectors(&self, tile_vectors: usize) -> usize {
        let vector = self.block_depth(self.depth) * LANES * size_of::<f32>();
        let held = (processor::second_level_cache() / 2 / vector.max(1)).min(HELD_VECTORS);
        (held / tile_vectors).max(1) * tile_vectors
    }

    /// Rows of each of about so many tasks, each of so many vectors.
    fn task_rows(&self, tasks: usize, task_vectors: usize) -> usize {
        let splits = tasks.div_ceil(self.vectors.div_ceil(task_vectors));
        self.rows.div_ceil(splits).max(PACKED_ROWS)
    }

    /// Rows of a task that vectors pass. Packed ones stay in a quarter of a core's second-level cache, in whole
    /// tiles, too.
    fn passed_rows(&self, tile_rows: usize) -> usize {
        let Broadcast::Matrix(_) = self.a else {
            return PACKED_ROWS;
        };
        let row = self.block_depth(self.depth) * size_of::<f32>();
        let held = processor::second_level_cache() / 4 / row.max(1) / tile_rows * tile_rows;
        let tasks = THREAD_TASKS * rayon::current_num_threads();
        self.task_rows(tasks, PASSING_VECTORS)
            .min(held.max(PACKED_ROWS))
    }

    /// Floats of memory for a task of so many rows, in whole panels, and vectors, in whole strips.
    fn scratch_len(
        &self,
        (tile_rows, tile_vectors): (usize, usize),
        rows: usize,
        vectors: usize,
    ) -> usize {
        let a = match self.a {
            Broadcast::Matrix(_) => rows,
            Broadcast::Packed(_) => 0,
            Broadcast::Columns(_) | Broadcast::Rows(_) | Broadcast::Lanes(_) => tile_rows,
        };
        let b = match self.b {
            Vectors::Matrix(_) => vectors * LANES,
            Vectors::Rows(_) => tile_vectors * LANES,
            Vectors::Packed(_) | Vectors::Lanes(_) => 0,
        };
        (a + b) * self.block_depth(self.depth)
    }

    /// Floats from the first element of the result to behind its last.
    fn reach(&self) -> usize {
        (self.rows - 1) * self.row_stride
            + (self.vectors - 1) * self.vector_stride
            + self.last_lanes
    }

    /// Holds every slice to the sizes.
    pub(super) fn check(&self, tile_rows: usize, tile_vectors: usize, c_len: usize) {
        let &Self {
            rows,
            vectors,
            depth,
            ..
        } = self;
        match self.a {
            Broadcast::Matrix(source) | Broadcast::Columns(source) | Broadcast::Rows(source) => {
                source.check(rows, depth);
            }
            Broadcast::Packed(values) => {
                assert_eq!(values.len(), packed_len(rows, depth, tile_rows));
            }
            Broadcast::Lanes(values) => assert_eq!(values.len(), rows * depth),
        }
        match self.b {
            Vectors::Matrix(source) | Vectors::Rows(source) => {
                source.check((vectors - 1) * LANES + self.last_lanes, depth);
            }
            Vectors::Packed(values) => {
                let width = tile_vectors * LANES;
                assert_eq!(values.len(), packed_len(vectors * LANES, depth, width));
            }
            Vectors::Lanes(values) => assert_eq!(values.len(), vectors * depth * LANES),
        }
        assert!(depth <= DEPTH || !E::NEEDS_WHOLE_SUMS);
        self.epilogue.check(rows, c_len);
        assert!((1..=LANES).contains(&self.last_lanes));
        assert!(self.reach() <= c_len);
        assert!(vectors == 1 || self.last_lanes == LANES || self.vector_stride >= LANES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whoever_takes_it() {
        for (tasks, together) in [(0, 1), (1, 1), (7, 1), (2, 2), (12, 2), (12, 3), (15, 5)] {
            for (threads, work) in [(1, 1), (1, LEAST_PARALLEL_WORK), (3, LEAST_PARALLEL_WORK)] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.build().expect("a few threads").install(|| {
                    for_each_task(tasks, together, work, |range| {
                        let is_whole = range.start % together == 0 && range.len() == together;
                        assert!(is_whole || range.len() == 1, "{range:?} of {together}");
                        for task in range {
                            runs[task].fetch_add(1, Ordering::Relaxed);
                        }
                    });
                });
                let runs: Vec<usize> = runs.into_iter().map(AtomicUsize::into_inner).collect();
                assert_eq!(
                    runs,
                    vec![1; tasks],
                    "{together} together, {threads} threads"
                );
            }
        }
    }
}
