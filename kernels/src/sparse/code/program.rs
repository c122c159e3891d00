//! Products of one direction, compiled: the code and the order in which it reads the values.
//!
//! The sums of one pixel, or of two neighbours, for a *group* of results stay in registers while the code
//! goes through the weights of a *chunk* of source channels: each vector of the source is loaded once for
//! all weights of the group that want it, and each weight once for all pixels. Code that does not fit
//! the first-level cache comes from the second-level one, ahead of its execution, for nothing in it
//! branches.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::Arc;

use super::assembler::{Assembler, FLOAT, Place, Register, VECTOR, Vector, is_near_vector};
use super::endings::{Ending, Endings};
use super::memory::Code;
use crate::dispatch::InstructionSet;
use crate::isa::processor;
use crate::lanes::LANES;
use crate::sparse::index::{Entry, Order, Outline};

/// Sums that stay in registers; the other four take turns with weights and vectors of the source.
const MOST_SUMS: usize = 28;

/// Results of a group, at most.
pub(super) const MOST_RESULTS: usize = MOST_SUMS;

/// Vectors that one pixel of the result reaches in a chunk, at most: 16 KB, so that two pixels leave a third of a
/// first-level cache to the values and sums.
const REACHED: usize = 256;

/// The same of a window, of whose columns neighbouring pixels share all but one: 36 KB.
const REACHED_BY_WINDOW: usize = 576;

/// Vectors that are one chunk where loads bind: sums that wait in memory for the next chunk would cost more loads
/// than vectors that come from the second-level cache.
const ONE_CHUNK: usize = 1024;

/// Rows of a window that there are registers for.
pub(super) const MOST_ROWS: usize = 5;

/// What the code of a product is called with.
#[repr(C)]
pub(super) struct Frame {
    pub(super) rows: [*const f32; MOST_ROWS],
    pub(super) values: *const f32,
    /// Of the group, if there is more than one chunk.
    pub(super) sums: *mut f32,
    /// See [`Program::ending`].
    pub(super) ending: *const u8,
    /// The place of the first result, and bytes from there to the next one's.
    pub(super) target: *mut f32,
    pub(super) target_step: usize,
    /// Of the first result.
    pub(super) bias: *const f32,
    /// What smaller results are raised to.
    pub(super) floor: f32,
}

/// Where pointers point to behind what they begin with, so that displacements of either sign are used.
pub(super) const NEAR: usize = 128;

/// Registers that hold no sum.
const MOST_VECTORS: usize = 32 - MOST_SUMS;

const FRAME: Register = Register::Rdi;
const VALUES: Register = Register::Rax;
pub(super) const SUMS: Register = Register::Rdx;
const ROWS: [Register; MOST_ROWS] = [
    Register::Rsi,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// The place of what so many bytes of the frame go before.
pub(super) fn in_frame(offset: usize) -> Place {
    Place {
        base: FRAME,
        offset: offset as i32,
    }
}

/// The place in memory of a sum.
pub(super) fn sum_place(sum: u8) -> Place {
    Place {
        base: SUMS,
        offset: i32::from(sum) * VECTOR,
    }
}

/// The products of one direction of a mask, compiled.
#[derive(Clone, Debug)]
pub(in crate::sparse) struct Program {
    pub(super) code: Arc<Code>,
    pub(super) code_len: usize,
    /// In which order it reads the values.
    pub(in crate::sparse) order: Order,
    pub(super) results: usize,
    pub(super) sources: usize,
    /// Rows and columns of the window.
    pub(super) kernel: [usize; 2],
    /// Neighbours in a row whose sums are computed together, side by side: two where windows overlap.
    pub(super) pixels: usize,
    /// Groups whose code the first-level cache holds together.
    pub(super) bundle: usize,
    /// Results of a group, and channels of a chunk.
    pub(super) group: usize,
    pub(super) chunk: usize,
    /// Of each chunk those of all groups.
    pub(super) segments: Vec<Segment>,
    /// Of every group but the last, and of that one.
    endings: [Endings; 2],
}

/// The code for a group of results and a chunk of source channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Where it begins with sums of zero.
    pub(super) from_zero: u32,
    /// Where it begins with the sums in the frame.
    pub(super) onward: u32,
    /// Its first value.
    pub(super) value: u32,
}

impl Program {
    /// Compiles the products of weights.
    ///
    /// # Errors
    /// Gives the weights back, in any order, on other instruction sets than AVX-512, for windows that move
    /// by more than a pixel or have too many rows, and where nothing may be executed.
    pub(in crate::sparse) fn new(
        set: InstructionSet,
        outline: &Outline,
        mut entries: Vec<Entry>,
    ) -> Result<Self, Vec<Entry>> {
        let Outline {
            results,
            sources,
            reach,
            ..
        } = *outline;
        let kernel = reach.kernel();
        let [height, width] = kernel;
        let is_plain = [reach.stride, reach.dilation] == [[1, 1]; 2];
        let reached = sources.saturating_mul((width + 1) * LANES * size_of::<f32>());
        let is_near = i32::try_from(reached).is_ok();
        if !set.is_avx512() || !is_plain || !is_near || height > MOST_ROWS || results == 0 {
            return Err(entries);
        }
        let pixels = width.min(2);
        let chunk = Self::chunk(outline);
        let chunks = chunks_of(sources, chunk);
        let most = 950;
        let weights = entries.len().div_ceil(chunks);
        let groups = match width {
            1 => results.div_ceil(MOST_SUMS),
            _ => results
                .div_ceil(MOST_SUMS / pixels)
                .max(weights.div_ceil(most)),
        };
        let group = results.div_ceil(groups);
        let bundle = (most * results.div_ceil(group) / weights.max(1)).max(1);
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
                    pixels,
                };
                let value = entries.len() - rest.len();
                segments.push(shape.assemble(&mut assembler, weights, value as u32));
                rest = after;
            }
        }
        let last = results - (groups - 1) * group;
        let endings =
            [group, last].map(|results| Endings::assemble(&mut assembler, [pixels, results]));
        let bytes = assembler.into_bytes();
        let code = match Code::new(&bytes) {
            Ok(code) if u32::try_from(bytes.len()).is_ok() => code,
            _ => return Err(entries),
        };
        Ok(Self {
            code: Arc::new(code),
            code_len: bytes.len(),
            order: Order::of(entries.iter()),
            results,
            sources,
            kernel,
            pixels,
            bundle,
            group,
            chunk,
            segments,
            endings,
        })
    }

    /// Source channels of a chunk, of several a multiple of those in a chunk of lists.
    pub(in crate::sparse) fn chunk(outline: &Outline) -> usize {
        let [height, width] = outline.reach.kernel();
        let reached = if width > 1 {
            REACHED_BY_WINDOW
        } else if processor::is_bound_by_loads() && outline.sources * height <= ONE_CHUNK {
            ONE_CHUNK
        } else {
            REACHED
        };
        let most = (reached / (height * width)).max(1);
        let chunks = outline.sources.div_ceil(most).max(1);
        match outline.sources.div_ceil(chunks) {
            all if chunks == 1 => all.max(1),
            some => some.next_multiple_of(outline.chunk),
        }
    }

    pub(super) fn results_of(&self, group: usize) -> Range<usize> {
        let first = group * self.group;
        first..self.results.min(first + self.group)
    }

    /// The address of an ending of a group's code.
    pub(super) fn ending(&self, group: usize, ending: Ending) -> *const u8 {
        let is_last = group + 1 == self.groups();
        let start = self.endings[usize::from(is_last)].start(ending);
        self.code.address(start)
    }

    /// Chunks of the source.
    pub(super) fn chunks(&self) -> usize {
        chunks_of(self.sources, self.chunk)
    }

    pub(super) fn groups(&self) -> usize {
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
    pixels: usize,
}

impl SegmentShape {
    /// Appends the code for these weights, ordered by source and place of the window.
    fn assemble(&self, assembler: &mut Assembler, weights: &[Entry], value: u32) -> Segment {
        let sums = 0..(self.pixels * self.results.len()) as u8;
        assembler.align(VECTOR as usize);
        let onward = assembler.len() as u32;
        assembler.load_register(SUMS, in_frame(offset_of!(Frame, sums)));
        for sum in sums.clone() {
            assembler.load(Vector(sum), sum_place(sum));
        }
        let to_products = assembler.jump();
        let from_zero = assembler.len() as u32;
        for sum in sums {
            assembler.clear(Vector(sum));
        }
        assembler.land(to_products);
        for (at, &row) in ROWS.iter().enumerate().take(self.kernel[0]) {
            let place = offset_of!(Frame, rows) + at * size_of::<*const f32>();
            assembler.load_register(row, in_frame(place));
        }
        assembler.load_register(VALUES, in_frame(offset_of!(Frame, values)));
        self.products(assembler, weights);
        assembler.jump_through(in_frame(offset_of!(Frame, ending)));
        Segment {
            from_zero,
            onward,
            value,
        }
    }

    fn products(&self, assembler: &mut Assembler, weights: &[Entry]) {
        let mut values = Values::default();
        let mut vectors = Vectors::new(self);
        for weight in weights {
            let value = values.next(assembler);
            let sum = (weight.result as usize - self.results.start) as u8;
            match self.pixels {
                1 => {
                    let x = vectors.get(assembler, weight, 0);
                    assembler.multiply_add_float(Vector(sum), x, value);
                }
                _ => {
                    let neighbours = [0, 1].map(|pixel| vectors.get(assembler, weight, pixel));
                    assembler.load_float(WEIGHT, value);
                    for (pixel, x) in neighbours.into_iter().enumerate() {
                        let sum = sum + (pixel * self.results.len()) as u8;
                        assembler.multiply_add(Vector(sum), x, WEIGHT);
                    }
                }
            }
        }
    }
}

/// The weight of two pixels.
const WEIGHT: Vector = Vector(31);

/// Where the values lie, one after the other.
#[derive(Default)]
struct Values {
    count: i32,
    /// How far the pointer has moved, in floats.
    moved: i32,
}

impl Values {
    fn next(&mut self, assembler: &mut Assembler) -> Place {
        let near = NEAR as i32;
        if self.count - self.moved == 2 * near {
            assembler.add(VALUES, 2 * near * FLOAT);
            self.moved += 2 * near;
        }
        let offset = (self.count - self.moved - near) * FLOAT;
        self.count += 1;
        Place {
            base: VALUES,
            offset,
        }
    }
}

/// A vector of the source: its channel, and its row and column of the windows.
type Reached = (u32, [usize; 2]);

/// Registers that take turns with vectors of the source.
struct Vectors<'a> {
    shape: &'a SegmentShape,
    /// What each holds.
    held: [Option<Reached>; MOST_VECTORS],
    turn: usize,
    /// How far the pointers have moved.
    moved: [i32; MOST_ROWS],
}

impl<'a> Vectors<'a> {
    fn new(shape: &'a SegmentShape) -> Self {
        Self {
            shape,
            held: [None; MOST_VECTORS],
            turn: 0,
            moved: [0; MOST_ROWS],
        }
    }

    /// The register with what a weight takes for a pixel.
    fn get(&mut self, assembler: &mut Assembler, weight: &Entry, pixel: usize) -> Vector {
        let [row, column] = weight.tap.map(|at| at as usize);
        let reached = (weight.source, [row, column + pixel]);
        let register = |at: usize| Vector((MOST_SUMS + at) as u8);
        if let Some(at) = self.held.iter().position(|held| *held == Some(reached)) {
            return register(at);
        }
        let place = self.place(assembler, reached);
        let at = self.turn;
        assembler.load(register(at), place);
        self.held[at] = Some(reached);
        // The last one is the weight's, if that is loaded.
        self.turn = (at + 1) % (MOST_VECTORS + 1 - self.shape.pixels);
        register(at)
    }

    fn place(&mut self, assembler: &mut Assembler, (source, [row, column]): Reached) -> Place {
        let shape = self.shape;
        let place = (column * shape.sources + source as usize) as i32;
        let base = ROWS[row];
        let mut offset = (place - (shape.first_source + NEAR) as i32) * VECTOR - self.moved[row];
        // Channels of one column follow one another, and so may the pointer.
        if shape.kernel[1] == 1 && !is_near_vector(offset) {
            let step = offset + NEAR as i32 * VECTOR;
            assembler.add(base, step);
            self.moved[row] += step;
            offset -= step;
        }
        Place { base, offset }
    }
}
