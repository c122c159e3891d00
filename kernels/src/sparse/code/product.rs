//! Sums of weights times windows by generated code.
//!
//! The sums of one pixel for a *group* of results stay in registers while the code goes through the
//! weights of a *chunk* of source channels: each vector of the source is loaded once for all weights of
//! the group that want it, and each weight is an operand in memory. Pixels are packed with their channels
//! side by side, so that what one pixel of the result reaches lies in the first-level cache and within
//! reach of a displacement of one byte. Code that does not fit the first-level cache comes from the
//! second-level one, ahead of its execution, for nothing in it branches.

use std::ops::Range;
use std::sync::Arc;

use super::assembler::{Assembler, Place, Register, Vector, is_near_float, is_near_vector};
use super::memory::Code;
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::Shared;
use crate::sparse::correlate::{Correlation, LEAST_TASKS, Parts};
use crate::sparse::index::{Entry, Order, Outline};
use crate::sparse::sheets::TilePlace;

/// Results whose sums stay in registers; the other four take turns with vectors of the source.
const MOST_RESULTS: usize = 28;

/// Vectors that one pixel of the result reaches in a chunk, at most: 24 KB, half of a first-level cache.
const REACHED: usize = 384;

/// Bytes of code that a task goes through for each pixel, at most: what a second-level cache holds beside all else.
const MOST_CODE: usize = 512 << 10;

/// Floats of packed rows, at most: 512 KB.
const MOST_PACKED: usize = 128 << 10;

/// Rows of a window that there are registers for.
const MOST_ROWS: usize = 5;

/// What the code of a product is called with.
#[repr(C)]
struct Frame {
    rows: [*const f32; MOST_ROWS],
    values: *const f32,
    sums: *mut f32,
}

/// Floats of features that no second-level cache holds, 8 MB: they are asked for ahead.
const FAR: usize = 2 << 20;

/// Where pointers point to behind what they begin with, so that displacements of either sign are used.
const NEAR: usize = 128;

const FRAME: Register = Register::Rdi;
const VALUES: Register = Register::Rax;
const SUMS: Register = Register::Rdx;
const ROWS: [Register; MOST_ROWS] = [
    Register::Rsi,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// The products of one direction of a mask, compiled.
#[derive(Clone, Debug)]
pub(in crate::sparse) struct Program {
    code: Arc<Code>,
    code_len: usize,
    /// In which order it reads the values.
    pub(in crate::sparse) order: Order,
    results: usize,
    sources: usize,
    /// Rows and columns of the window.
    kernel: [usize; 2],
    /// Results of a group, and channels of a chunk.
    group: usize,
    chunk: usize,
    /// Of each chunk those of all groups.
    segments: Vec<Segment>,
}

/// The code for a group of results and a chunk of source channels.
#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Where it begins with sums of zero.
    from_zero: u32,
    /// Where it begins with the sums in the frame.
    onward: u32,
    /// Its first value.
    value: u32,
}

impl Program {
    /// Compiles the products of weights. There are none for other instruction sets than AVX-512, for
    /// windows that move by more than a pixel or have too many rows, and where nothing may be executed.
    pub(in crate::sparse) fn new(
        set: InstructionSet,
        outline: &Outline,
        mut entries: Vec<Entry>,
    ) -> Option<Self> {
        let Outline {
            results,
            sources,
            reach,
            ..
        } = *outline;
        let kernel = reach.kernel();
        let [height, width] = kernel;
        if [reach.stride, reach.dilation] != [[1, 1]; 2] {
            return None;
        }
        let reached = i32::try_from(sources.checked_mul(width)? * LANES * size_of::<f32>());
        if !set.is_avx512() || height > MOST_ROWS || results == 0 || reached.is_err() {
            return None;
        }
        let group = results.div_ceil(results.div_ceil(MOST_RESULTS));
        let chunk = Self::chunk(outline);
        let (groups, chunks) = (results.div_ceil(group), chunks_of(sources, chunk));
        let cell = |entry: &Entry| {
            let (source, result) = (entry.source as usize, entry.result as usize);
            (source / chunk, result / group)
        };
        entries.sort_unstable_by_key(|entry| (cell(entry), entry.source, entry.tap, entry.result));
        let mut assembler = Assembler::default();
        let mut segments = Vec::with_capacity(chunks * groups);
        let mut rest = &entries[..];
        for chunk_of in 0..chunks {
            for group_of in 0..groups {
                let len = rest.partition_point(|entry| cell(entry) <= (chunk_of, group_of));
                let (weights, after) = rest.split_at(len);
                let first = group_of * group;
                let shape = SegmentShape {
                    results: first..results.min(first + group),
                    first_source: chunk_of * chunk,
                    sources,
                    kernel,
                };
                let value = entries.len() - rest.len();
                segments.push(shape.assemble(&mut assembler, weights, value as u32));
                rest = after;
            }
        }
        let bytes = assembler.into_bytes();
        u32::try_from(bytes.len()).ok()?;
        Some(Self {
            code: Arc::new(Code::new(&bytes).ok()?),
            code_len: bytes.len(),
            order: Order::new(entries.iter().map(|entry| entry.value).collect()),
            results,
            sources,
            kernel,
            group,
            chunk,
            segments,
        })
    }

    /// Source channels of a chunk, of several a multiple of those in a chunk of lists.
    pub(in crate::sparse) fn chunk(outline: &Outline) -> usize {
        let [height, width] = outline.reach.kernel();
        let most = (REACHED / (height * width)).max(1);
        let chunks = outline.sources.div_ceil(most).max(1);
        match outline.sources.div_ceil(chunks) {
            all if chunks == 1 => all.max(1),
            some => some.next_multiple_of(outline.chunk),
        }
    }

    fn results_of(&self, group: usize) -> Range<usize> {
        let first = group * self.group;
        first..self.results.min(first + self.group)
    }

    fn groups(&self) -> usize {
        self.results.div_ceil(self.group)
    }
}

/// Chunks of so many channels; one of none, where sums begin and end.
fn chunks_of(sources: usize, chunk: usize) -> usize {
    sources.div_ceil(chunk).max(1)
}

/// What the code of a segment is made for.
struct SegmentShape {
    results: Range<usize>,
    first_source: usize,
    /// Channels of the source that lie side by side.
    sources: usize,
    kernel: [usize; 2],
}

impl SegmentShape {
    /// Appends the code for these weights, ordered by source and place of the window.
    fn assemble(&self, assembler: &mut Assembler, weights: &[Entry], value: u32) -> Segment {
        let sums = || (0..self.results.len() as u8).map(Vector);
        let sum_place = |sum: Vector| Place {
            base: SUMS,
            offset: i32::from(sum.0) * (LANES * size_of::<f32>()) as i32,
        };
        let from_frame = |index: usize| Place {
            base: FRAME,
            offset: (index * size_of::<*const f32>()) as i32,
        };
        assembler.align(LANES * size_of::<f32>());
        let onward = assembler.len() as u32;
        assembler.load_register(SUMS, from_frame(MOST_ROWS + 1));
        for sum in sums() {
            assembler.load(sum, sum_place(sum));
        }
        let to_products = assembler.jump();
        let from_zero = assembler.len() as u32;
        assembler.load_register(SUMS, from_frame(MOST_ROWS + 1));
        for sum in sums() {
            assembler.clear(sum);
        }
        assembler.land(to_products);
        for (at, &row) in ROWS.iter().enumerate().take(self.kernel[0]) {
            assembler.load_register(row, from_frame(at));
        }
        assembler.load_register(VALUES, from_frame(MOST_ROWS));
        self.products(assembler, weights);
        for sum in sums() {
            assembler.store(sum, sum_place(sum));
        }
        assembler.ret();
        Segment {
            from_zero,
            onward,
            value,
        }
    }

    fn products(&self, assembler: &mut Assembler, weights: &[Entry]) {
        let vector_len = (LANES * size_of::<f32>()) as i32;
        // How far the pointers have moved.
        let mut row_moves = [0; MOST_ROWS];
        let mut value_move = (NEAR * size_of::<f32>()) as i32;
        let mut value = 0;
        let mut turn = 0;
        let is_same = |a: &Entry, b: &Entry| (a.source, a.tap) == (b.source, b.tap);
        for sharing in weights.chunk_by(is_same) {
            let Entry { source, tap, .. } = sharing[0];
            let row = tap[0] as usize;
            let place = tap[1] as usize * self.sources + source as usize;
            let place = place as i32 - (self.first_source + NEAR) as i32;
            let base = ROWS[row];
            // Channels of one column follow one another, and so may the pointer.
            let mut offset = place * vector_len - row_moves[row];
            if self.kernel[1] == 1 && !is_near_vector(offset) {
                let step = offset + NEAR as i32 * vector_len;
                assembler.add(base, step);
                row_moves[row] += step;
                offset -= step;
            }
            let x = Vector((MOST_RESULTS + turn) as u8);
            turn = (turn + 1) % 4;
            assembler.load(x, Place { base, offset });
            for weight in sharing {
                if !is_near_float(value - value_move) {
                    let step = (2 * NEAR * size_of::<f32>()) as i32;
                    assembler.add(VALUES, step);
                    value_move += step;
                }
                let sum = Vector((weight.result as usize - self.results.start) as u8);
                let place = Place {
                    base: VALUES,
                    offset: value - value_move,
                };
                assembler.multiply_add_float(sum, x, place);
                value += size_of::<f32>() as i32;
            }
        }
    }
}

/// A product, and the parts of its sums that are wanted.
pub(in crate::sparse) struct Product<'a> {
    pub(in crate::sparse) correlation: &'a Correlation<'a>,
    pub(in crate::sparse) program: &'a Program,
    /// Of whole chunks each.
    pub(in crate::sparse) parts: Parts,
    /// Whether to write past the caches.
    pub(in crate::sparse) streamed: bool,
}

impl Product<'_> {
    /// Computes every part, `parts.len` floats behind the one before it.
    ///
    /// # Panics
    /// If the values or the sheets are none of the program's.
    pub(in crate::sparse) fn run(&self, set: InstructionSet, target: Shared) {
        let Self { program, parts, .. } = self;
        assert_eq!(self.correlation.values.len(), program.order.len());
        let sheets = &self.correlation.result_sheets;
        let [rows, columns] = sheets.size;
        let chunks = chunks_of(program.sources, program.chunk);
        let part_chunks = match parts.count {
            1 => chunks,
            _ => parts.sources / program.chunk,
        };
        let pieces = (program.code_len / parts.count).div_ceil(MOST_CODE);
        let groups = program.groups().div_ceil(pieces.clamp(1, program.groups()));
        let pieces = program.groups().div_ceil(groups);
        let wanted = LEAST_TASKS.div_ceil(parts.count * pieces * sheets.count);
        let (band_rows, band_columns) = match self.correlation.sheets.has_features {
            true => (1, columns.div_ceil(wanted)),
            false => (rows.div_ceil(wanted), self.packed_columns(columns)),
        };
        let (down, across) = (rows.div_ceil(band_rows), columns.div_ceil(band_columns));
        let places = sheets.count * down * across;
        let task = |task: usize| {
            let (part_of, task) = (task / (pieces * places), task % (pieces * places));
            let (piece, place) = (task / places, task % places);
            let (sheet, place) = (place / (down * across), place % (down * across));
            let first = [place / across * band_rows, place % across * band_columns];
            let first_chunk = part_of * part_chunks;
            let first_group = piece * groups;
            let task = Task {
                product: self,
                tile: TilePlace {
                    sheet,
                    first,
                    len: [
                        band_rows.min(rows - first[0]),
                        band_columns.min(columns - first[1]),
                    ],
                },
                chunks: first_chunk..chunks.min(first_chunk + part_chunks),
                groups: first_group..program.groups().min(first_group + groups),
                target: target.start().wrapping_add(part_of * parts.len),
            };
            let packed = task.packed_len();
            with_scratch(packed + task.sums_len(), |scratch| {
                let (packed, sums) = scratch.split_at_mut(packed);
                set.run(Run { task, packed, sums });
            });
        };
        self.correlation
            .for_each(parts.count * pieces * places, task);
    }

    /// Columns of a band whose packed rows the second-level cache holds.
    fn packed_columns(&self, columns: usize) -> usize {
        let [height, width] = self.program.kernel;
        let held = MOST_PACKED / (height * self.program.sources.max(1) * LANES);
        let most = held.saturating_sub(width - 1).max(4);
        columns.div_ceil(columns.div_ceil(most))
    }
}

/// Some chunks and groups, on a tile of the result.
struct Task<'a> {
    product: &'a Product<'a>,
    tile: TilePlace,
    chunks: Range<usize>,
    groups: Range<usize>,
    target: *mut f32,
}

impl Task<'_> {
    /// Floats of a packed row: all channels of all pixels that windows on the tile reach.
    fn row_len(&self) -> usize {
        let program = self.product.program;
        (self.tile.len[1] + program.kernel[1] - 1) * program.sources * LANES
    }

    fn packed_len(&self) -> usize {
        match self.product.correlation.sheets.has_features {
            true => 0,
            false => self.product.program.kernel[0] * self.row_len(),
        }
    }

    /// Floats of the sums of one pixel.
    fn pixel_len(&self) -> usize {
        self.groups.len() * self.product.program.group * LANES
    }

    fn sums_len(&self) -> usize {
        match self.chunks.len() {
            0 | 1 => self.pixel_len(),
            _ => self.pixel_len() * self.tile.len[1],
        }
    }
}

/// A task, and its memory.
struct Run<'a> {
    task: Task<'a>,
    packed: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Kernel for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { task, packed, sums } = self;
        let Product {
            correlation,
            program,
            streamed,
            ..
        } = *task.product;
        let sheets = &correlation.sheets;
        let tile = &task.tile;
        let [height, _] = program.kernel;
        let row_len = task.row_len();
        let pixel_len = task.pixel_len();
        let mut packed_rows = 0;
        for row in tile.first[0]..tile.first[0] + tile.len[0] {
            let mut starts = [correlation.source.as_ptr(); MOST_ROWS];
            let pixel = match sheets.has_features {
                true => {
                    let first = sheets.place(tile.sheet, 0, [row, tile.first[1]]);
                    starts[0] = correlation.source[first..].as_ptr();
                    sheets.pixel
                }
                false => {
                    let wanted = row - tile.first[0] + height;
                    for packed_row in packed_rows..wanted {
                        let slot = packed_row % height * row_len;
                        task.pack_row(
                            isa,
                            tile.first[0] + packed_row,
                            &mut packed[slot..][..row_len],
                        );
                    }
                    packed_rows = wanted;
                    for (at, start) in starts.iter_mut().enumerate().take(height) {
                        let slot = (wanted - height + at) % height;
                        *start = packed[slot * row_len..].as_ptr();
                    }
                    program.sources * LANES
                }
            };
            for chunk in task.chunks.clone() {
                let is_last = chunk + 1 == task.chunks.end;
                let first_source = chunk * program.chunk;
                for column in 0..tile.len[1] {
                    let place = column * pixel + first_source * LANES;
                    let sums_at = if task.chunks.len() > 1 {
                        column * pixel_len
                    } else {
                        0
                    };
                    let sums = &mut sums[sums_at..][..pixel_len];
                    let segments = &program.segments[chunk * program.groups()..];
                    for (at, group) in task.groups.clone().enumerate() {
                        task.prefetch(isa, [row, column], chunk, at);
                        if is_last && correlation.rectified {
                            task.prefetch_results(isa, group, [row, tile.first[1] + column]);
                        }
                        let segment = segments[group];
                        let sums = &mut sums[at * program.group * LANES..];
                        let frame = Frame {
                            rows: starts.map(|start| start.wrapping_add(place + NEAR * LANES)),
                            values: correlation.values[segment.value as usize..]
                                .as_ptr()
                                .wrapping_add(NEAR),
                            sums: sums.as_mut_ptr(),
                        };
                        let start = match chunk == task.chunks.start {
                            true => segment.from_zero,
                            false => segment.onward,
                        };
                        // SAFETY: only a set with AVX-512 has a program; the code reads a vector for
                        // each weight, of channels that there are, in rows that were packed or are
                        // features of one block, as many values as are its own, and a vector of sums
                        // for each result of the group.
                        unsafe { program.code.call(start, &frame) };
                        if is_last {
                            task.finish(isa, group, [row, tile.first[1] + column], sums);
                        }
                    }
                }
            }
        }
        if streamed {
            isa.fence();
        }
    }
}

impl Task<'_> {
    /// Packs a row that windows on the tile reach, `[column][channel][16]`, zeros where there is none.
    #[inline(always)]
    fn pack_row<I: Isa>(&self, isa: I, row: usize, packed: &mut [f32]) {
        let correlation = self.product.correlation;
        let (sheets, before) = (&correlation.sheets, correlation.before);
        let row = row.wrapping_sub(before[0]);
        if row >= sheets.size[0] {
            return packed.fill(0.0);
        }
        let sources = self.product.program.sources;
        let (vectors, _) = packed.as_chunks_mut::<LANES>();
        let columns = vectors.len() / sources.max(1);
        // Those that there are.
        let first = before[1].saturating_sub(self.tile.first[1]).min(columns);
        let end = (sheets.size[1] + before[1]).saturating_sub(self.tile.first[1]);
        let end = end.min(columns).max(first);
        vectors[..first * sources].fill([0.0; LANES]);
        vectors[end * sources..].fill([0.0; LANES]);
        if first == end {
            return;
        }
        let column = self.tile.first[1] + first - before[1];
        for channel in 0..sources {
            let from = sheets.place(self.tile.sheet, channel, [row, column]);
            let (from, _) = correlation.source[from..].as_chunks::<LANES>();
            let targets = vectors[first * sources + channel..]
                .iter_mut()
                .step_by(sources);
            for (pixel, target) in from[..end - first].iter().zip(targets) {
                isa.store(target, isa.load(pixel));
            }
        }
    }

    /// Asks for what comes after a pixel of the tile, a share at each group, for it comes from memory while
    /// the code runs: the same chunk of the next pixel's features, or a pixel of the row to be packed next.
    #[inline(always)]
    fn prefetch<I: Isa>(&self, isa: I, [row, column]: [usize; 2], chunk: usize, group: usize) {
        let Product {
            correlation,
            program,
            ..
        } = *self.product;
        let sheets = &correlation.sheets;
        let (channels, pixel) = match sheets.has_features {
            true if correlation.source.len() < FAR => return,
            true => {
                let first = chunk * program.chunk;
                let (chunk, column) = match column + 1 < self.tile.len[1] {
                    true => (first, column + 1),
                    false => (first + program.chunk, 0),
                };
                let end = program.sources.min(chunk + program.chunk);
                (chunk..end, [row, self.tile.first[1] + column])
            }
            false if chunk == self.chunks.start => {
                let row = (row + program.kernel[0]).wrapping_sub(correlation.before[0]);
                (0..program.sources, [row, self.tile.first[1] + column])
            }
            false => return,
        };
        if channels.is_empty() || pixel[0] >= sheets.size[0] || pixel[1] >= sheets.size[1] {
            return;
        }
        let share = channels.len().div_ceil(self.groups.len());
        let first = channels.start + group * share;
        let start = correlation.source.as_ptr();
        for channel in first..channels.end.min(first + share) {
            let place = sheets.place(self.tile.sheet, channel, pixel);
            isa.prefetch_to_l2(start.wrapping_add(place));
        }
    }

    /// Asks for what lies where the sums of a group at a pixel go, to be rectified by it.
    #[inline(always)]
    fn prefetch_results<I: Isa>(&self, isa: I, group: usize, pixel: [usize; 2]) {
        let sheets = &self.product.correlation.result_sheets;
        for result in self.product.program.results_of(group) {
            let place = sheets.place(self.tile.sheet, result, pixel);
            isa.prefetch(self.target.wrapping_add(place));
        }
    }

    /// Writes the sums of a group at a pixel.
    #[inline(always)]
    fn finish<I: Isa>(&self, isa: I, group: usize, pixel: [usize; 2], sums: &[f32]) {
        let Product {
            correlation,
            program,
            parts,
            streamed,
        } = self.product;
        let sheets = &correlation.result_sheets;
        let (sums, _) = sums.as_chunks::<LANES>();
        for (result, sum) in program.results_of(group).zip(sums) {
            let sum = isa.load(sum);
            let place = sheets.place(self.tile.sheet, result, pixel);
            let target = self.target.wrapping_add(place);
            // SAFETY: `Correlation::run` held the result to the sheets; no other task has this pixel of
            // this channel; what is streamed is aligned.
            unsafe {
                match parts.count {
                    1 => correlation.write(isa, result, sum, (target, *streamed)),
                    _ => isa.store_ptr(target, sum),
                }
            }
        }
    }
}
