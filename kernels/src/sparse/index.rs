//! The weights of a pattern in the order of one direction, cut into chunks of channels that the
//! first-level cache holds.

use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;

use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::Shared;

/// Rows of a tile where windows are larger than a pixel: a packed row then serves several. Of 27 there are nine
/// tiles.
const TILE_ROWS: usize = 3;

/// Floats of a packed chunk, at most: 28 KB, which a first-level cache of 32 KB holds beside the sums of a list.
const PACKED: usize = 28 << 8;

/// Channels of the result that tasks have in common: a group begins at a multiple of this.
pub(super) const BLOCK: usize = 64;

/// Values that one thread brings from one order into another.
const MOVED: usize = 1 << 14;

/// The weights in the order of one direction.
#[derive(Clone, Debug)]
pub(super) struct Index {
    pub(super) outline: Outline,
    /// Of each chunk those of all channels of the result: of [`BLOCK`] channels after the other, the
    /// shortest first, so that a processor foresees where they end. Then the end of all.
    lists: Vec<List>,
    /// Where in a packed chunk the first pixel of a tile finds what a weight is multiplied with.
    pub(super) offsets: Vec<u32>,
    pub(super) order: Order,
}

/// Another order of the values.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The place of each among the values.
    places: Vec<u32>,
    /// By value where it stands in this order; made when it is wanted first.
    ranks: OnceLock<Vec<u32>>,
}

/// What of a product does not depend on which weights there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outline {
    /// Channels of the result and of the source.
    pub(super) results: usize,
    pub(super) sources: usize,
    pub(super) reach: Reach,
    /// Channels of the source in a chunk.
    pub(super) chunk: usize,
}

impl Outline {
    pub(super) fn new([results, sources]: [usize; 2], reach: Reach) -> Self {
        Self {
            results,
            sources,
            reach,
            chunk: 1,
        }
        .with_packed(PACKED)
    }

    /// The same with chunks of so many floats at most.
    pub(super) fn with_packed(self, floats: usize) -> Self {
        let most = floats / self.reach.channel_len();
        Self {
            chunk: most.clamp(1, self.sources.max(1)),
            ..self
        }
    }

    /// Chunks of the source.
    pub(super) fn chunks(&self) -> usize {
        self.sources.div_ceil(self.chunk)
    }

    /// The channels of a chunk.
    pub(super) fn channels(&self, chunk: usize) -> Range<usize> {
        let first = chunk * self.chunk;
        first..self.sources.min(first + self.chunk)
    }

    /// Floats of a packed chunk.
    pub(super) fn packed_len(&self) -> usize {
        self.chunk * self.reach.channel_len()
    }
}

/// The weights of a channel of the result in a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) result: u32,
    /// The first of them; the last one is before the first of the next list.
    pub(super) start: u32,
}

/// What a tile of the result reaches of the source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Rows and columns of the tile.
    pub(super) tile: [usize; 2],
    /// Rows and columns of the source that windows on it cover, and so of a packed channel.
    pub(super) packed: [usize; 2],
    /// Places of the source from one pixel of the tile to the next.
    pub(super) stride: [usize; 2],
    /// Only places at multiples of this are there; between them are zeros.
    pub(super) dilation: [usize; 2],
}

impl Reach {
    pub(super) fn new(
        tile: [usize; 2],
        kernel: [usize; 2],
        stride: [usize; 2],
        dilation: [usize; 2],
    ) -> Self {
        let covered = |at: usize| (tile[at] - 1) * stride[at] + kernel[at];
        Self {
            tile,
            packed: [covered(0), covered(1)],
            stride,
            dilation,
        }
    }

    /// Rows and columns of the window.
    pub(super) fn kernel(&self) -> [usize; 2] {
        [0, 1].map(|at| self.packed[at] - (self.tile[at] - 1) * self.stride[at])
    }

    /// Whether tiles are single rows, of a window of a single pixel: see [`Isa::sparse_line`].
    pub(super) fn is_line(&self) -> bool {
        self.tile[0] == 1
    }

    /// Floats of one packed channel.
    pub(super) fn channel_len(&self) -> usize {
        self.packed[0] * self.packed[1] * LANES
    }
}

/// A weight as one direction sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) result: u32,
    pub(super) source: u32,
    pub(super) tap: [u32; 2],
    /// Its place among the values.
    pub(super) value: u32,
}

impl Order {
    /// The order of weights, of which each value has one.
    pub(super) fn of<'a>(weights: impl ExactSizeIterator<Item = &'a Entry>) -> Self {
        Self {
            places: weights.map(|weight| weight.value).collect(),
            ranks: OnceLock::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The places of the values, a permutation.
    pub(super) fn places(&self) -> &[u32] {
        &self.places
    }

    fn ranks(&self) -> &[u32] {
        self.ranks.get_or_init(|| {
            let mut ranks = vec![0; self.places.len()];
            for (rank, &place) in (0..).zip(&self.places) {
                ranks[place as usize] = rank;
            }
            ranks
        })
    }

    /// Calls `code` with the values in this order.
    pub(super) fn with_ordered(&self, values: &[f32], code: impl FnOnce(&[f32])) {
        assert_eq!(values.len(), self.len());
        with_scratch(values.len(), |ordered| {
            // Neighbours here go to a few places there, each of which the next ones follow: those lines stay in
            // the first-level cache. The other way round, values would be gone through once for each.
            let target = Shared::new(ordered.as_mut_ptr());
            let moved = values.par_chunks(MOVED).zip(self.ranks().par_chunks(MOVED));
            moved.for_each(|(values, ranks)| {
                for (&value, &rank) in values.iter().zip(ranks) {
                    // SAFETY: ranks are a permutation of the places of as many values, so that each is
                    // written once.
                    unsafe { *target.start().add(rank as usize) = value };
                }
            });
            code(ordered);
        });
    }

    /// Calls `code` with a place for something of each value in this order, then brings
    /// that to the values.
    pub(super) fn with_unordered(&self, values: &mut [f32], code: impl FnOnce(&mut [f32])) {
        assert_eq!(values.len(), self.len());
        with_scratch(values.len(), |ordered| {
            code(ordered);
            let target = Shared::new(values.as_mut_ptr());
            let moved = ordered.par_chunks(MOVED).zip(self.places.par_chunks(MOVED));
            moved.for_each(|(ordered, places)| {
                for (&value, &place) in ordered.iter().zip(places) {
                    // SAFETY: the places are a permutation of those of as many values, so that each is
                    // written once.
                    unsafe { *target.start().add(place as usize) = value };
                }
            });
        });
    }
}

impl Index {
    /// Sorts the weights.
    pub(super) fn new(outline: Outline, mut entries: Vec<Entry>) -> Self {
        let Outline {
            results,
            sources,
            reach,
            chunk,
        } = outline;
        let key = |entry: &Entry| {
            let chunk_of = entry.source as usize / chunk;
            (chunk_of as u32, entry.result, entry.source, entry.tap)
        };
        entries.sort_unstable_by_key(key);
        let mut lists = Vec::with_capacity(sources.div_ceil(chunk) * results + 1);
        let mut sorted = Vec::with_capacity(entries.len());
        let mut rest = &entries[..];
        for chunk_of in 0..sources.div_ceil(chunk) {
            let mut of_chunk: Vec<&[Entry]> = Vec::with_capacity(results);
            for result in 0..results {
                let is_here = |entry: &Entry| {
                    entry.source as usize / chunk == chunk_of && entry.result as usize == result
                };
                let len = rest.iter().take_while(|entry| is_here(entry)).count();
                let (list, after) = rest.split_at(len);
                of_chunk.push(list);
                rest = after;
            }
            let mut order: Vec<usize> = (0..results).collect();
            order.sort_by_key(|&result| (result / BLOCK, of_chunk[result].len()));
            for result in order {
                lists.push(List {
                    result: result as u32,
                    start: sorted.len() as u32,
                });
                sorted.extend(of_chunk[result]);
            }
        }
        lists.push(List {
            result: results as u32,
            start: sorted.len() as u32,
        });
        let offset = |entry: &Entry| {
            let channel = entry.source as usize % chunk;
            let [row, column] = entry.tap.map(|place| place as usize);
            let place = (channel * reach.packed[0] + row) * reach.packed[1] + column;
            (place * LANES) as u32
        };
        Self {
            outline,
            lists,
            offsets: sorted.iter().copied().map(offset).collect(),
            order: Order::of(sorted.iter().copied()),
        }
    }

    /// Channels of the result and where their weights lie, of a chunk.
    ///
    /// # Panics
    /// If the channels do not begin with a [`BLOCK`], and end with one or with all.
    #[inline(always)]
    pub(super) fn lists(
        &self,
        chunk: usize,
        results: Range<usize>,
    ) -> impl ExactSizeIterator<Item = (usize, Range<usize>)> {
        self.lists_and_next(chunk, results).windows(2).map(|pair| {
            let weights = pair[0].start as usize..pair[1].start as usize;
            (pair[0].result as usize, weights)
        })
    }

    /// The same lists, and the one behind them, where the last of these ends.
    ///
    /// # Panics
    /// As [`lists`](Self::lists).
    #[inline(always)]
    pub(super) fn lists_and_next(&self, chunk: usize, results: Range<usize>) -> &[List] {
        assert!(results.start.is_multiple_of(BLOCK));
        assert!(results.end.is_multiple_of(BLOCK) || results.end == self.outline.results);
        let first = chunk * self.outline.results;
        &self.lists[first + results.start..=first + results.end]
    }

    /// Where the weights of these channels lie, of a chunk.
    pub(super) fn weights(&self, chunk: usize, results: Range<usize>) -> Range<usize> {
        let first = chunk * self.outline.results;
        let place = |at: usize| self.lists[first + at].start as usize;
        place(results.start)..place(results.end)
    }
}

/// Runs a kernel with the tile of single pixels, or with that of larger windows.
#[inline(always)]
pub(super) fn run_tile<I: Isa, K: TileKernel>(isa: I, is_line: bool, kernel: K) -> K::Output {
    match is_line {
        true => isa.sparse_line(kernel),
        false => isa.sparse_tile(kernel),
    }
}

/// Rows and columns of a tile of the result under a window of this size.
pub(super) fn tile(set: InstructionSet, kernel: [usize; 2]) -> [usize; 2] {
    let is_line = kernel == [1, 1];
    let rows = if is_line { 1 } else { TILE_ROWS };
    [rows, set.run(TilePixels { is_line })]
}

/// Pixels of a tile in a row.
struct TilePixels {
    is_line: bool,
}

impl Kernel for TilePixels {
    type Output = usize;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> usize {
        run_tile(isa, self.is_line, self)
    }
}

impl TileKernel for TilePixels {
    type Output = usize;

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, _: I) -> usize {
        VECTORS
    }
}
