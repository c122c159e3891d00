//! Which weights there are, and in which order the kernels meet them.

use std::ops::Range;

use rayon::prelude::*;

use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::{LANES, check};
use crate::shared::Shared;
use crate::window::Window;

/// Rows of a tile where windows are larger than a pixel: a packed row then serves several.
const TILE_ROWS: usize = 2;

/// Floats of a packed chunk, about: 20 KB, which a first-level cache of 32 KB holds beside the sums.
const PACKED: usize = 28 << 8;

/// Values that one thread brings from one order into another.
const MOVED: usize = 1 << 14;

/// The positions of a kernel that are owned, and the two orders in which the kernels meet them.
///
/// The values of a pattern stand by their positions in the whole kernel, lowest first;
/// [`gather`](Self::gather) and [`scatter`](Self::scatter) bring them from and to it. The orders in which
/// the kernels meet them depend on the instruction set, and each call brings the values into its own.
///
/// Memory: 20 bytes for each position, and 4 for each pair of a channel and a chunk of the other side.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Of the whole kernel, `[kernel height, kernel width, inputs, outputs]`.
    dims: [usize; 4],
    stride: [usize; 2],
    /// The place of each value in the whole kernel.
    positions: Vec<u32>,
    pub(super) forward: Index,
    pub(super) gradient: Index,
}

/// A weight of an output channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutputWeight {
    pub(crate) input: usize,
    /// Its place in the window, row by row.
    pub(crate) tap: usize,
    /// Which of the values it has.
    pub(crate) value: usize,
}

/// The weights in the order of one direction.
#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Channels of the result and of the source.
    pub(super) results: usize,
    pub(super) sources: usize,
    /// Channels of the source in a chunk.
    pub(super) chunk: usize,
    /// Where the weights of each channel of the result begin, chunk by chunk, and the end of all.
    pub(super) starts: Vec<u32>,
    /// Where in a packed chunk the first pixel of a tile finds what a weight is multiplied with.
    pub(super) offsets: Vec<u32>,
    /// Which of the values it has.
    order: Vec<u32>,
    pub(super) reach: Reach,
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
    fn new(tile: [usize; 2], kernel: [usize; 2], stride: [usize; 2], dilation: [usize; 2]) -> Self {
        let covered = |at: usize| (tile[at] - 1) * stride[at] + kernel[at];
        Self {
            tile,
            packed: [covered(0), covered(1)],
            stride,
            dilation,
        }
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
struct Entry {
    result: u32,
    source: u32,
    tap: [u32; 2],
    /// Its place among the values.
    value: u32,
}

impl Index {
    /// Sorts the weights.
    fn new(results: usize, sources: usize, reach: Reach, mut entries: Vec<Entry>) -> Self {
        let chunk = (PACKED / reach.channel_len()).clamp(1, sources.max(1));
        let key = |entry: &Entry| {
            let chunk_of = entry.source as usize / chunk;
            (chunk_of as u32, entry.result, entry.source, entry.tap)
        };
        entries.sort_unstable_by_key(key);
        let mut starts = Vec::with_capacity(sources.div_ceil(chunk) * results + 1);
        let mut next = 0;
        for chunk_of in 0..sources.div_ceil(chunk) {
            for result in 0..results {
                starts.push(next as u32);
                let is_here = |entry: &Entry| {
                    entry.source as usize / chunk == chunk_of && entry.result as usize == result
                };
                while entries.get(next).is_some_and(is_here) {
                    next += 1;
                }
            }
        }
        starts.push(next as u32);
        let offset = |entry: &Entry| {
            let channel = entry.source as usize % chunk;
            let [row, column] = entry.tap.map(|place| place as usize);
            let place = (channel * reach.packed[0] + row) * reach.packed[1] + column;
            (place * LANES) as u32
        };
        Self {
            results,
            sources,
            chunk,
            starts,
            offsets: entries.iter().map(offset).collect(),
            order: entries.iter().map(|entry| entry.value).collect(),
            reach,
        }
    }

    /// Calls `code` with the values in the order of this index.
    pub(super) fn with_ordered(&self, values: &[f32], code: impl FnOnce(&[f32])) {
        with_scratch(values.len(), |ordered| {
            let targets = ordered
                .par_chunks_mut(MOVED)
                .zip(self.order.par_chunks(MOVED));
            targets.for_each(|(targets, order)| {
                for (target, &at) in targets.iter_mut().zip(order) {
                    *target = values[at as usize];
                }
            });
            code(ordered);
        });
    }

    /// Calls `code` with a place for something of each value in the order of this index, then brings
    /// that to the values.
    pub(super) fn with_unordered(&self, values: &mut [f32], code: impl FnOnce(&mut [f32])) {
        assert_eq!(values.len(), self.order.len());
        with_scratch(values.len(), |ordered| {
            code(ordered);
            let places = Shared::new(values.as_mut_ptr());
            let moved = ordered.par_chunks(MOVED).zip(self.order.par_chunks(MOVED));
            moved.for_each(|(ordered, order)| {
                for (&value, &at) in ordered.iter().zip(order) {
                    // SAFETY: the order is a permutation of the places of as many values, so that each
                    // place is written once.
                    unsafe { *places.start().add(at as usize) = value };
                }
            });
        });
    }

    /// Chunks of the source.
    pub(super) fn chunks(&self) -> usize {
        self.sources.div_ceil(self.chunk)
    }

    /// Floats of a packed chunk.
    pub(super) fn packed_len(&self) -> usize {
        self.chunk * self.reach.channel_len()
    }

    /// Where the weights of some channels of the result begin in a chunk, and their end.
    pub(super) fn starts_of(&self, chunk: usize, results: Range<usize>) -> &[u32] {
        let first = chunk * self.results;
        &self.starts[first + results.start..=first + results.end]
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

impl Pattern {
    /// The pattern of a dense layer's weights, row-major `[inputs, outputs]`: those whose mask is not
    /// zero.
    ///
    /// # Panics
    /// If the mask has another length, or there are 2³² weights or more.
    pub fn dense(set: InstructionSet, [inputs, outputs]: [usize; 2], owned: &[u8]) -> Self {
        Self::new(set, [1, 1, inputs, outputs], [1, 1], owned)
    }

    /// The pattern of a convolution's weights, row-major `[kernel height, kernel width, inputs,
    /// outputs]`: those whose mask is not zero.
    ///
    /// # Panics
    /// If the mask has another length, or there are 2³² weights or more.
    pub fn conv2d(
        set: InstructionSet,
        window: Window,
        [inputs, outputs]: [usize; 2],
        owned: &[u8],
    ) -> Self {
        let [height, width] = window.kernel;
        Self::new(set, [height, width, inputs, outputs], window.stride, owned)
    }

    fn new(set: InstructionSet, dims: [usize; 4], stride: [usize; 2], owned: &[u8]) -> Self {
        let [height, width, inputs, outputs] = dims;
        check("owned", owned.len(), dims.iter().product());
        assert!(
            u32::try_from(owned.len()).is_ok(),
            "{} weights, where a position is a number of 32 bits",
            owned.len()
        );
        let kernel = [height, width];
        let is_line = kernel == [1, 1];
        let pixels = set.run(TilePixels { is_line });
        let rows = if is_line { 1 } else { TILE_ROWS };
        let tile = [rows, pixels];
        let positions = (0..owned.len() as u32).filter(|&at| owned[at as usize] != 0);
        let positions: Vec<u32> = positions.collect();
        // Input, output and place of the window of every value.
        let weights = positions.iter().enumerate().map(|(value, &position)| {
            let rest = position as usize;
            let (output, rest) = (rest % outputs, rest / outputs);
            let (input, tap) = (rest % inputs, rest / inputs);
            let tap = [tap / width, tap % width];
            (
                input as u32,
                output as u32,
                tap.map(|place| place as u32),
                value as u32,
            )
        });
        let forward = weights.clone().map(|(source, result, tap, value)| Entry {
            result,
            source,
            tap,
            value,
        });
        let last = [height as u32 - 1, width as u32 - 1];
        let gradient = weights.map(|(result, source, [row, column], value)| Entry {
            result,
            source,
            tap: [last[0] - row, last[1] - column],
            value,
        });
        let forward_reach = Reach::new(tile, kernel, stride, [1, 1]);
        let gradient_reach = Reach::new(tile, kernel, [1, 1], stride);
        let forward = Index::new(outputs, inputs, forward_reach, forward.collect());
        let gradient = Index::new(inputs, outputs, gradient_reach, gradient.collect());
        Self {
            dims,
            stride,
            positions,
            forward,
            gradient,
        }
    }

    /// Number of weights that there are.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is no weight.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The whole kernel: `[kernel height, kernel width, inputs, outputs]`, for a dense layer `[1, 1,
    /// inputs, outputs]`.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// Rows and columns that the window moves by.
    pub fn stride(&self) -> [usize; 2] {
        self.stride
    }

    /// The share of the weights that there are; 0 of none.
    pub fn density(&self) -> f64 {
        self.len() as f64 / self.dims.iter().product::<usize>().max(1) as f64
    }

    /// The place of each value in the whole kernel.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Takes the values out of a whole kernel.
    ///
    /// # Panics
    /// If a slice has another length than it should.
    pub fn gather(&self, whole: &[f32], values: &mut [f32]) {
        check("whole", whole.len(), self.dims.iter().product());
        check("values", values.len(), self.len());
        for (value, &position) in values.iter_mut().zip(&self.positions) {
            *value = whole[position as usize];
        }
    }

    /// Puts the values into a whole kernel; what is not owned stays as it is.
    ///
    /// # Panics
    /// If a slice has another length than it should.
    pub fn scatter(&self, values: &[f32], whole: &mut [f32]) {
        check("values", values.len(), self.len());
        check("whole", whole.len(), self.dims.iter().product());
        for (&value, &position) in values.iter().zip(&self.positions) {
            whole[position as usize] = value;
        }
    }

    /// Calls `code` with the whole kernel, row-major and zero where nothing is owned: for a product that
    /// dense kernels compute faster.
    ///
    /// # Panics
    /// If there is not a value for every position.
    pub fn with_whole<R>(&self, values: &[f32], code: impl FnOnce(&[f32]) -> R) -> R {
        with_scratch(self.dims.iter().product(), |whole| {
            whole.fill(0.0);
            self.scatter(values, whole);
            code(whole)
        })
    }

    /// Calls `code` with a place for the gradient of the whole kernel, of any content, and takes that of
    /// the values out of what it leaves there.
    ///
    /// # Panics
    /// If there is not a value for every position.
    pub fn with_whole_gradient(&self, grad_values: &mut [f32], code: impl FnOnce(&mut [f32])) {
        with_scratch(self.dims.iter().product(), |whole| {
            code(whole);
            self.gather(whole, grad_values);
        });
    }

    /// The weights of an output channel.
    pub(crate) fn of_output(&self, output: usize) -> impl Iterator<Item = OutputWeight> {
        let index = &self.forward;
        let [_, kernel_columns, _, _] = self.dims;
        let [_, packed_columns] = index.reach.packed;
        let channel_len = index.reach.channel_len();
        (0..index.chunks()).flat_map(move |chunk| {
            let bounds = index.starts_of(chunk, output..output + 1);
            (bounds[0] as usize..bounds[1] as usize).map(move |at| {
                let offset = index.offsets[at] as usize;
                let place = offset % channel_len / LANES;
                let (row, column) = (place / packed_columns, place % packed_columns);
                OutputWeight {
                    input: chunk * index.chunk + offset / channel_len,
                    tap: row * kernel_columns + column,
                    value: index.order[at] as usize,
                }
            })
        })
    }

    /// Holds the pattern to a dense layer of these sizes, or to the window and channels of a
    /// convolution.
    #[track_caller]
    pub(super) fn check(&self, dims: [usize; 4], stride: [usize; 2]) {
        assert!(
            (dims, stride) == (self.dims, self.stride),
            "the pattern is one of {:?} by {:?}, not of {dims:?} by {stride:?}",
            self.dims,
            self.stride
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch;
    use crate::window::Padding;

    #[test]
    fn values_go_to_their_places_and_come_back() {
        for &set in dispatch::all() {
            let window = Window {
                kernel: [3, 2],
                stride: [1, 1],
                padding: Padding::Same,
            };
            let owned: Vec<u8> = (0..3 * 2 * 5 * 7).map(|at| u8::from(at % 3 == 1)).collect();
            let pattern = Pattern::conv2d(set, window, [5, 7], &owned);
            assert_eq!(pattern.len(), 70);
            assert_eq!(pattern.density(), 1.0 / 3.0);
            let whole: Vec<f32> = (0..210).map(|at| at as f32).collect();
            let mut values = vec![0.0; 70];
            pattern.gather(&whole, &mut values);
            let mut back = vec![-1.0; 210];
            pattern.scatter(&values, &mut back);
            for (at, &value) in back.iter().enumerate() {
                assert_eq!(value, if at % 3 == 1 { at as f32 } else { -1.0 });
            }
            assert!(pattern.positions().is_sorted());
            for index in [&pattern.forward, &pattern.gradient] {
                let mut back = vec![0.0; 70];
                index.with_ordered(&values, |ordered| {
                    index.with_unordered(&mut back, |target| target.copy_from_slice(ordered));
                });
                assert_eq!(back, values);
            }
        }
    }

    #[test]
    #[should_panic(expected = "owned")]
    fn a_mask_of_another_length_is_refused() {
        Pattern::dense(dispatch::active(), [2, 3], &[1; 5]);
    }
}
