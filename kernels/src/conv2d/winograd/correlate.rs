//! Forward and input gradient of one block of images, a group of tiles at a time.
//!
//! A group is transformed for all source channels, `[point][source][tile][16]`; then, for some
//! panels of channels of the result at a time, multiplied into `[point][channel][tile][16]` and
//! transformed back.

use std::marker::PhantomData;
use std::ops::Range;

use super::tiles::{Ahead, Input, Last, Place, Plane, Vectors, transform_square, write_outputs};
use super::transform::Transform;
use crate::conv2d::taps::Direction;
use crate::conv2d::{Conv2dShape, Epilogue};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::tile::{self, Store, Tile, TileKernel, micro_kernel};
use crate::isa::{Isa, processor};
use crate::lanes::LANES;

/// Tiles of a group at most, on any set: see [`Isa::WINOGRAD_TILES`].
const GROUP: usize = 6;

/// Tiles of a group at least, on any processor: for each group all weights are read.
const LEAST_GROUP: usize = 3;

/// Bytes that the transformed tiles of a group may take, if they are more than [`LEAST_GROUP`]: half of
/// the second-level cache, which holds their products and what is asked for ahead besides.
fn most_transformed() -> usize {
    processor::second_level_cache() / 2
}

/// Channels of the result between two transforms, about: their products, 37 KB for each tile, are
/// transformed back soon after they are written.
const PASS: usize = 16;

/// Floats between the squares of one point and the next beyond what they hold: one vector, so that
/// the points of a tile do not fall on one set of the first-level cache.
const SKEW: usize = LANES;

/// One direction of a convolution, laid out for one instruction set.
pub(crate) struct Plan<T> {
    pub(super) direction: Direction,
    /// Channels of the source and of the result.
    pub(super) sources: usize,
    pub(super) results: usize,
    source: Plane,
    result: Plane,
    /// Rows and columns of tiles.
    tiles: [usize; 2],
    /// Tiles of a group at most.
    group: usize,
    /// Panels of the result between two transforms.
    pass: usize,
    /// Channels of the result in a panel.
    pub(super) panel_rows: usize,
    transform: PhantomData<T>,
}

/// Rows of the register tile of a set, and tiles of a group at most.
struct Sizes;

impl Kernel for Sizes {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> (usize, usize) {
        isa.conv2d_tile(self)
    }
}

impl TileKernel for Sizes {
    type Output = (usize, usize);

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, _: I) -> (usize, usize) {
        const {
            assert!(ROWS <= LANES && VECTORS <= 3);
            assert!(LEAST_GROUP <= I::WINOGRAD_TILES && I::WINOGRAD_TILES <= GROUP);
        };
        (ROWS, I::WINOGRAD_TILES)
    }
}

impl<T: Transform> Plan<T> {
    /// Lays out one direction of a convolution.
    ///
    /// # Panics
    /// If the window is not three by three places that moves by one.
    pub(crate) fn new(set: InstructionSet, shape: &Conv2dShape, direction: Direction) -> Self {
        super::check_window(shape);
        let axes = shape.window.axes([shape.height, shape.width]);
        let [[source_rows, result_rows], [source_columns, result_columns]] =
            axes.map(|axis| direction.lengths(&axis));
        let (channels, before) = match direction {
            Direction::Forward => ([shape.inputs, shape.outputs], axes.map(|axis| axis.before)),
            // All windows that reach a place: as many zeros more as a window has taps less one.
            Direction::Gradient => (
                [shape.outputs, shape.inputs],
                axes.map(|axis| 2 - axis.before),
            ),
        };
        let [sources, results] = channels;
        let (panel_rows, most_group) = set.run(Sizes);
        let tile_len = T::POINTS * T::POINTS * sources * LANES;
        let held = most_transformed() / (tile_len * size_of::<f32>()).max(1);
        Self {
            direction,
            sources,
            results,
            source: Plane {
                rows: source_rows,
                columns: source_columns,
                before,
            },
            result: Plane {
                rows: result_rows,
                columns: result_columns,
                before: [0; 2],
            },
            tiles: [result_rows, result_columns].map(|len| len.div_ceil(T::OUTPUTS)),
            group: held.clamp(LEAST_GROUP, most_group),
            pass: PASS.div_ceil(panel_rows),
            panel_rows,
            transform: PhantomData,
        }
    }

    /// Floats of the source for one block of images.
    pub(crate) fn source_len(&self) -> usize {
        self.sources * self.source.len()
    }

    /// Floats of the result for one block of images.
    pub(crate) fn result_len(&self) -> usize {
        self.results * self.result.len()
    }

    /// Rows and columns of the result.
    pub(crate) fn result_size(&self) -> [usize; 2] {
        [self.result.rows, self.result.columns]
    }

    /// Floats of the transformed weights.
    pub(crate) fn weights_len(&self) -> usize {
        self.results.div_ceil(self.panel_rows) * self.panel_len()
    }

    /// Floats of one panel of the transformed weights.
    pub(super) fn panel_len(&self) -> usize {
        T::POINTS * T::POINTS * self.sources * self.panel_rows
    }

    /// Floats from the transformed source of one point to that of the next.
    fn source_stride(&self) -> usize {
        self.sources * self.group * LANES + SKEW
    }

    /// Floats from the products of one point to those of the next.
    fn product_stride(&self) -> usize {
        self.pass * self.panel_rows * self.group * LANES + SKEW
    }

    /// Floats of memory that [`correlate`] works in.
    pub(crate) fn scratch_len(&self) -> usize {
        T::POINTS * T::POINTS * (self.source_stride() + self.product_stride())
    }
}

/// Where a block of the result goes: pixel (y, x) of channel c lies at
/// `start[c · channel_stride + y · row_stride + x · 16]`.
#[derive(Clone, Copy)]
pub(crate) struct PlaneTarget {
    pub(crate) start: *mut f32,
    pub(crate) channel_stride: usize,
    pub(crate) row_stride: usize,
    /// Whether Winograd's outputs are written past the caches: never what is rectified in its place.
    pub(crate) streamed: bool,
}

impl PlaneTarget {
    /// A block in lanes, of so many rows and columns.
    pub(crate) fn whole([rows, columns]: [usize; 2], start: *mut f32, streamed: bool) -> Self {
        Self {
            start,
            channel_stride: rows * columns * LANES,
            row_stride: columns * LANES,
            streamed,
        }
    }
}

/// Some rows of tiles of one block of images.
pub(crate) struct Band<'a, T> {
    pub(crate) plan: &'a Plan<T>,
    /// From [`transform_weights`](super::weights::transform_weights).
    pub(crate) weights: &'a [f32],
    /// One block, [`Plan::source_len`] floats.
    pub(crate) source: &'a [f32],
    pub(crate) epilogue: Epilogue<'a>,
    pub(crate) tile_rows: Range<usize>,
    /// Row 0 of the result of the block, whatever the rows of tiles.
    pub(crate) target: PlaneTarget,
    /// [`Plan::scratch_len`] floats of any content.
    pub(crate) scratch: &'a mut [f32],
}

/// Computes rows of tiles of one block.
///
/// # Panics
/// If a slice has another length than the plan demands, or there are not so many rows of tiles.
///
/// # Safety
/// The target is valid for writing the rows of the result that the rows of tiles hold, in every
/// channel, and for reading them if they are rectified; if it is streamed, its vectors are aligned to
/// 64 bytes.
#[inline(always)]
pub(crate) unsafe fn correlate<I: Isa, T: Transform>(isa: I, band: Band<'_, T>) {
    let plan = band.plan;
    assert_eq!(band.weights.len(), plan.weights_len());
    assert_eq!(band.source.len(), plan.source_len());
    assert_eq!(band.scratch.len(), plan.scratch_len());
    assert!(band.tile_rows.end <= plan.tiles[0]);
    if let Some(bias) = band.epilogue.bias {
        assert_eq!(bias.len(), plan.results);
    }
    let streamed = band.target.streamed;
    assert!(!(streamed && band.epilogue.rectified));
    isa.conv2d_tile(Groups(band));
    if streamed {
        isa.fence();
    }
}

struct Groups<'a, T>(Band<'a, T>);

impl<T: Transform> TileKernel for Groups<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Self(band) = self;
        let plan = band.plan;
        let points = T::POINTS * T::POINTS;
        let (sources, products) = band.scratch.split_at_mut(points * plan.source_stride());
        let [_, across] = plan.tiles;
        let end = band.tile_rows.end * across;
        let mut first = band.tile_rows.start * across;
        while first < end {
            // As equal as can be: groups of 4 and 3, not of 6 and 1.
            let left = end - first;
            let tiles = left.div_ceil(left.div_ceil(plan.group));
            let mut places: [Place; GROUP] = Default::default();
            for (tile, place) in (first..end).zip(&mut places).take(tiles) {
                let at = [tile / across, tile % across];
                *place = plan.source.square(at, T::OUTPUTS, T::POINTS);
            }
            for channel in 0..plan.sources {
                let plane = band.source[channel * plan.source.len()..].as_ptr();
                for (tile, place) in places.iter().enumerate().take(tiles) {
                    let to = (channel * tiles + tile) * LANES;
                    // SAFETY: places lie on their plane, and the scratch holds every point of
                    // every tile of every channel.
                    unsafe {
                        transform_square::<I, Input<T>>(
                            isa,
                            Vectors::of(plane, &plan.source, place),
                            place,
                            (sources.as_mut_ptr().wrapping_add(to), plan.source_stride()),
                        );
                    }
                }
            }
            for (tile, place) in (first..end).zip(&mut places).take(tiles) {
                let at = [tile / across, tile % across];
                *place = plan.result.square(at, T::OUTPUTS, T::OUTPUTS);
            }
            let panels = plan.results.div_ceil(ROWS);
            let next = first + tiles;
            let mut source_ahead = Ahead::new(&plan.source, T::POINTS, T::OUTPUTS, plan.sources);
            for tile in next..next + plan.group {
                source_ahead.add_square((&plan.source, plan.tiles), band.source.as_ptr(), tile);
            }
            let calls = T::POINTS * T::POINTS * tiles.div_ceil(VECTORS);
            source_ahead.spread_over(calls * panels);
            let mut panel = 0;
            while panel < panels {
                let pass = panel..panels.min(panel + plan.pass);
                let channels = pass.start * ROWS..plan.results.min(pass.end * ROWS);
                let mut target_ahead =
                    Ahead::new(&plan.result, T::OUTPUTS, T::OUTPUTS, channels.len())
                        .with_strides(band.target.row_stride, band.target.channel_stride);
                for tile in first..next {
                    let at = [tile / across, tile % across];
                    let offset = channels.start * band.target.channel_stride
                        + at[0] * T::OUTPUTS * band.target.row_stride
                        + at[1] * T::OUTPUTS * LANES;
                    target_ahead.add(band.target.start.wrapping_add(offset));
                }
                if !band.target.streamed {
                    target_ahead.spread_over(calls * pass.len());
                }
                multiply::<I, T, ROWS, VECTORS>(
                    isa,
                    plan,
                    (band.weights, sources, products),
                    pass.clone(),
                    tiles,
                    [&mut source_ahead, &mut target_ahead],
                );
                for channel in channels {
                    let last = Last {
                        bias: band.epilogue.bias.map_or(0.0, |bias| bias[channel]),
                        relu: band.epilogue.relu,
                        rectified: band.epilogue.rectified,
                        streamed: band.target.streamed,
                    };
                    let plane = band
                        .target
                        .start
                        .wrapping_add(channel * band.target.channel_stride);
                    for (tile, place) in places.iter().enumerate().take(tiles) {
                        let from = ((channel - pass.start * ROWS) * tiles + tile) * LANES;
                        let at = [(first + tile) / across, (first + tile) % across];
                        let corner = at[0] * T::OUTPUTS * band.target.row_stride
                            + at[1] * T::OUTPUTS * LANES;
                        // SAFETY: `multiply` wrote every point of these tiles and channels, and the
                        // caller vouches for the target.
                        unsafe {
                            write_outputs::<I, T>(
                                isa,
                                (products.as_ptr().wrapping_add(from), plan.product_stride()),
                                place,
                                (plane.wrapping_add(corner), band.target.row_stride),
                                last,
                            );
                        }
                    }
                }
                panel = pass.end;
            }
            first += tiles;
        }
    }
}

/// The products of every point for some panels of the result and `tiles` tiles.
#[inline(always)]
fn multiply<I: Isa, T: Transform, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    plan: &Plan<T>,
    (weights, sources, products): (&[f32], &[f32], &mut [f32]),
    panels: Range<usize>,
    tiles: usize,
    ahead: [&mut Ahead<GROUP>; 2],
) {
    let [source_ahead, target_ahead] = ahead;
    let strips = tiles.div_ceil(VECTORS);
    for point in 0..T::POINTS * T::POINTS {
        for panel in panels.clone() {
            let first_row = (panel - panels.start) * ROWS;
            let a = &weights[panel * plan.panel_len() + point * plan.sources * ROWS..];
            let mut first = 0;
            for strip in 0..strips {
                // Strips as equal as can be: 2 and 2, not 3 and 1.
                let vectors = (tiles - first).div_ceil(strips - strip);
                let b = &sources[point * plan.source_stride() + first * LANES..];
                let c = point * plan.product_stride() + (first_row * tiles + first) * LANES;
                let tile = Tile {
                    a: a.as_ptr(),
                    a_row: 1,
                    a_outer: 0,
                    b: b.as_ptr(),
                    b_vector: LANES,
                    b_step: tiles * LANES,
                    outer: 1,
                    inner: plan.sources,
                    ahead: tile::Ahead::NONE,
                    c: products[c..].as_mut_ptr(),
                    c_row: tiles * LANES,
                    c_vector: LANES,
                    rows: ROWS,
                    last_lanes: LANES,
                    finish: Store::PLAIN,
                };
                // SAFETY: panels hold `ROWS` rows of every source, the transformed source every
                // tile of every source, and the products have room for whole panels.
                unsafe {
                    match vectors {
                        1 => micro_kernel::<I, _, ROWS, 1, 1, false>(isa, &tile),
                        2 => micro_kernel::<I, _, ROWS, 2, 1, false>(isa, &tile),
                        _ => micro_kernel::<I, _, ROWS, VECTORS, 1, false>(isa, &tile),
                    }
                }
                source_ahead.fetch(isa);
                target_ahead.fetch(isa);
                first += vectors;
            }
        }
    }
}
