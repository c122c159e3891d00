//! The direct form: every product of the convolution, summed in registers.
//!
//! A tile is a few channels of the result by a few neighbouring pixels of one row, more where all
//! channels are few, each pixel a vector of sixteen images. The sum of a tile runs over all source
//! channels and all taps without leaving the registers: at each step it reads one vector per pixel,
//! straight out of the source, and broadcasts one weight per channel. Nothing is copied and nothing
//! padded: pixels at the edge, which have fewer taps, are tiles of their own.
//!
//! Weights are packed once per call, `[panel][source channel][kernel row][kernel column][rows]`, so
//! that a tile reads them in order.

use smallvec::SmallVec;

use super::taps::{Direction, Runs};
use super::{Conv2dShape, Epilogue};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::window::Axis;

/// A convolution, or its input gradient, laid out for one instruction set.
pub(super) struct Plan<'a> {
    /// Channels of the source and of the result.
    pub(super) sources: usize,
    pub(super) results: usize,
    source_rows: usize,
    source_columns: usize,
    pub(super) result_rows: usize,
    pub(super) result_columns: usize,
    kernel_len: usize,
    kernel_columns: usize,
    direction: Direction,
    rows: Axis,
    column_runs: Runs,
    tile_rows: usize,
    /// From [`pack_weights`].
    panels: &'a [f32],
}

/// Results that a narrow tile has room for: the channels of images, in a gradient of them.
const NARROW: usize = 3;

/// Calls `kernel` with the tile that suits a convolution with so many results.
#[inline(always)]
fn with_tile<I: Isa, K: TileKernel>(isa: I, results: usize, kernel: K) -> K::Output {
    if results <= NARROW {
        isa.conv2d_narrow_tile(kernel)
    } else {
        isa.conv2d_tile(kernel)
    }
}

/// Rows of the tile of a set.
struct TileRows {
    results: usize,
}

impl Kernel for TileRows {
    type Output = usize;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        with_tile(isa, self.results, self)
    }
}

impl TileKernel for TileRows {
    type Output = usize;

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, _: I) -> usize {
        ROWS
    }
}

/// Channels of the source and of the result.
fn channels(shape: &Conv2dShape, direction: Direction) -> [usize; 2] {
    match direction {
        Direction::Forward => [shape.inputs, shape.outputs],
        Direction::Gradient => [shape.outputs, shape.inputs],
    }
}

/// Floats of the weights in panels.
pub(super) fn panels_len(set: InstructionSet, shape: &Conv2dShape, direction: Direction) -> usize {
    let [sources, results] = channels(shape, direction);
    let kernel_len: usize = shape.window.kernel.iter().product();
    results.next_multiple_of(set.run(TileRows { results })) * sources * kernel_len
}

/// Packs weights `[kh, kw, inputs, outputs]` into [`panels_len`] floats, the last panel filled up
/// with zeros.
pub(super) fn pack_weights(
    set: InstructionSet,
    shape: &Conv2dShape,
    direction: Direction,
    weights: &[f32],
    panels: &mut [f32],
) {
    let [sources, results] = channels(shape, direction);
    let tile_rows = set.run(TileRows { results });
    let kernel_len: usize = shape.window.kernel.iter().product();
    for (index, value) in panels.iter_mut().enumerate() {
        let (step, row) = (index / tile_rows, index % tile_rows);
        let (place, source) = (step % kernel_len, step / kernel_len % sources);
        let result = step / kernel_len / sources * tile_rows + row;
        let (input, output) = match direction {
            Direction::Forward => (source, result),
            Direction::Gradient => (result, source),
        };
        *value = if result < results {
            weights[(place * shape.inputs + input) * shape.outputs + output]
        } else {
            0.0
        };
    }
}

impl<'a> Plan<'a> {
    /// Lays out one direction of a convolution with weights from [`pack_weights`].
    pub(super) fn new(
        set: InstructionSet,
        shape: &Conv2dShape,
        direction: Direction,
        panels: &'a [f32],
    ) -> Self {
        let [rows, columns] = shape.window.axes([shape.height, shape.width]);
        let [source_rows, result_rows] = direction.lengths(&rows);
        let [source_columns, result_columns] = direction.lengths(&columns);
        let [sources, results] = channels(shape, direction);
        assert_eq!(panels.len(), panels_len(set, shape, direction));
        Self {
            sources,
            results,
            source_rows,
            source_columns,
            result_rows,
            result_columns,
            kernel_len: rows.kernel * columns.kernel,
            kernel_columns: columns.kernel,
            direction,
            rows,
            column_runs: direction.runs(&columns),
            tile_rows: set.run(TileRows { results }),
            panels,
        }
    }

    /// Floats of the source for one block of images.
    pub(super) fn source_len(&self) -> usize {
        self.sources * self.source_rows * self.source_columns * LANES
    }

    /// Floats of the result for one block of images.
    pub(super) fn result_len(&self) -> usize {
        self.results * self.result_rows * self.result_columns * LANES
    }
}

/// Where a row of the result goes: pixel x of channel c at `start[c · channel_stride + x · 16]`.
#[derive(Clone, Copy)]
pub(super) struct RowTarget {
    pub(super) start: *mut f32,
    pub(super) channel_stride: usize,
}

/// Computes row `y` of the result for one block of images.
///
/// `source` is one block, of [`Plan::source_len`] floats.
///
/// # Safety
/// The target is valid for writing one row of every channel of the result, and for reading it if it is
/// rectified.
#[inline(always)]
pub(super) unsafe fn row<I: Isa>(
    isa: I,
    plan: &Plan<'_>,
    source: &[f32],
    y: usize,
    epilogue: Epilogue<'_>,
    target: RowTarget,
) {
    assert_eq!(source.len(), plan.source_len());
    if let Some(bias) = epilogue.bias {
        assert_eq!(bias.len(), plan.results);
    }
    let kernel = RowKernel {
        plan,
        source,
        y,
        epilogue,
        target,
    };
    with_tile(isa, plan.results, kernel);
}

struct RowKernel<'a> {
    plan: &'a Plan<'a>,
    source: &'a [f32],
    y: usize,
    epilogue: Epilogue<'a>,
    target: RowTarget,
}

/// Where the vectors of one tile lie.
struct Tile {
    /// The first pixel of the first channel at no offset.
    source: *const f32,
    /// Floats between neighbouring pixels of the tile.
    pixel_stride: usize,
    /// Floats between channels of the source.
    channel_stride: usize,
    channels: usize,
    weights: *const f32,
    /// Floats between the weights of channels.
    weight_stride: usize,
}

/// Taps that a list of steps holds without memory of its own: those of a 5×5 window.
const LISTED: usize = 25;

/// Up to as many products in a result, pixels are computed one by one: writing them takes longer than
/// computing them, and stores of one at a time take a fifth less time than bursts of three.
const FEW_PRODUCTS: usize = 16;

impl TileKernel for RowKernel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Self { plan, y, .. } = self;
        assert_eq!(plan.tile_rows, ROWS);
        let channel_stride = plan.source_rows * plan.source_columns * LANES;
        let panel_len = plan.sources * plan.kernel_len * ROWS;
        let row_taps = plan.direction.taps(&plan.rows, y);
        let most_vectors = match plan.sources * plan.kernel_len {
            ..=FEW_PRODUCTS => 1,
            _ => VECTORS,
        };
        for run in &plan.column_runs {
            // Offsets into the source and into the weights of one channel.
            let mut steps: SmallVec<[[usize; 2]; LISTED]> = SmallVec::new();
            for row in &row_taps {
                steps.extend(run.taps.iter().map(|column| {
                    [
                        (row.source * plan.source_columns + column.source) * LANES,
                        (row.kernel * plan.kernel_columns + column.kernel) * ROWS,
                    ]
                }));
            }
            let steps = &steps[..];
            let mut done = 0;
            while done < run.count {
                let vectors = match run.count - done {
                    left if left >= most_vectors => most_vectors,
                    left => 1 << left.ilog2(),
                };
                let column = run.first + done * run.step;
                for panel in 0..plan.results.div_ceil(ROWS) {
                    let tile = Tile {
                        source: self
                            .source
                            .as_ptr()
                            .wrapping_add(done * run.source_step * LANES),
                        pixel_stride: run.source_step * LANES,
                        channel_stride,
                        channels: plan.sources,
                        weights: plan.panels.as_ptr().wrapping_add(panel * panel_len),
                        weight_stride: plan.kernel_len * ROWS,
                    };
                    let first = panel * ROWS;
                    let place = Place {
                        start: self
                            .target
                            .start
                            .wrapping_add(first * self.target.channel_stride + column * LANES),
                        channel_stride: self.target.channel_stride,
                        pixel_stride: run.step * LANES,
                        channels: ROWS.min(plan.results - first),
                        bias: match self.epilogue.bias {
                            Some(bias) => &bias[first..],
                            None => &[],
                        },
                        relu: self.epilogue.relu,
                        rectified: self.epilogue.rectified,
                    };
                    // SAFETY: taps lie on the source, whose length `row` has checked, and packed
                    // weights are whole panels; the caller of `row` vouches for the target.
                    unsafe {
                        match vectors {
                            1 => tile_of::<I, ROWS, 1>(isa, &tile, steps, &place),
                            2 => tile_of::<I, ROWS, 2>(isa, &tile, steps, &place),
                            4 => tile_of::<I, ROWS, 4>(isa, &tile, steps, &place),
                            _ => tile_of::<I, ROWS, VECTORS>(isa, &tile, steps, &place),
                        }
                    }
                }
                done += vectors;
            }
        }
    }
}

/// Where the results of a tile go, and what happens to them before.
struct Place<'a> {
    start: *mut f32,
    channel_stride: usize,
    pixel_stride: usize,
    /// Channels to write; the others are computed and dropped.
    channels: usize,
    /// From the first channel of the tile on; empty for zeros.
    bias: &'a [f32],
    relu: bool,
    rectified: bool,
}

/// Computes and writes one tile.
///
/// # Safety
/// Every source vector and every weight of the steps is valid for reading, every result for writing,
/// and for reading if it is rectified.
#[inline(always)]
unsafe fn tile_of<I: Isa, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    tile: &Tile,
    steps: &[[usize; 2]],
    place: &Place<'_>,
) {
    let mut sums = [[isa.zero(); VECTORS]; ROWS];
    let (mut source, mut weights) = (tile.source, tile.weights);
    for _ in 0..tile.channels {
        for &[at, weight] in steps {
            let mut pixels = [isa.zero(); VECTORS];
            for (v, pixel) in pixels.iter_mut().enumerate() {
                // SAFETY: the caller vouches for every vector of every step.
                *pixel = unsafe { isa.load_ptr(source.add(at + v * tile.pixel_stride)) };
            }
            for (r, row) in sums.iter_mut().enumerate() {
                // SAFETY: the caller vouches for the weights of every step.
                let weight = isa.splat(unsafe { *weights.add(weight + r) });
                for (sum, pixel) in row.iter_mut().zip(pixels) {
                    *sum = isa.mul_add(weight, pixel, *sum);
                }
            }
        }
        source = source.wrapping_add(tile.channel_stride);
        weights = weights.wrapping_add(tile.weight_stride);
    }
    // SAFETY: the caller vouches for the results.
    unsafe {
        if place.channels == ROWS {
            write_rows(isa, &sums, ROWS, place);
        } else {
            // A copy: the sums themselves must not be indexed by what is known only at run time, or they
            // would lie in memory all along.
            let sums = sums;
            write_rows(isa, &sums, place.channels, place);
        }
    }
}

/// Finishes and writes the first rows of a tile.
///
/// # Safety
/// As [`tile_of`], for these rows.
#[inline(always)]
unsafe fn write_rows<I: Isa, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    sums: &[[I::F32; VECTORS]; ROWS],
    rows: usize,
    place: &Place<'_>,
) {
    for (r, row) in sums.iter().enumerate().take(rows) {
        let bias = isa.splat(place.bias.get(r).copied().unwrap_or(0.0));
        for (v, &sum) in row.iter().enumerate() {
            let mut value = isa.add(sum, bias);
            if place.relu {
                // In this order NaN stays NaN.
                value = isa.max(isa.zero(), value);
            }
            let at = place
                .start
                .wrapping_add(r * place.channel_stride + v * place.pixel_stride);
            // SAFETY: the caller vouches for the results.
            unsafe {
                if place.rectified {
                    value = isa.select_gt_zero(isa.load_ptr(at), value);
                }
                isa.store_ptr(at, value);
            }
        }
    }
}
