//! Products of one direction, compiled: the code and the order in which it reads the values.
//!
//! The sums of one pixel for a *group* of results stay in registers while the code goes through the
//! weights of a *chunk* of source channels: each vector of the source is loaded once for all weights of
//! the group that want it, and each weight is an operand in memory. Code that does not fit the
//! first-level cache comes from the second-level one, ahead of its execution, for nothing in it branches.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::Arc;

use super::assembler::{
    Assembler, FLOAT, Place, Register, VECTOR, Vector, is_near_float, is_near_vector,
};
use super::endings::{Ending, Endings};
use super::memory::Code;
use crate::dispatch::InstructionSet;
use crate::isa::processor;
use crate::lanes::LANES;
use crate::sparse::index::{Entry, Order, Outline};

/// Results whose sums stay in registers; the other four take turns with vectors of the source.
pub(super) const MOST_RESULTS: usize = 28;

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
        let reached = sources.saturating_mul(width * LANES * size_of::<f32>());
        let is_near = i32::try_from(reached).is_ok();
        if !set.is_avx512() || !is_plain || !is_near || height > MOST_ROWS || results == 0 {
            return Err(entries);
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
        let last = results - (groups - 1) * group;
        let endings = [group, last].map(|results| Endings::assemble(&mut assembler, results));
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
}

impl SegmentShape {
    /// Appends the code for these weights, ordered by source and place of the window.
    fn assemble(&self, assembler: &mut Assembler, weights: &[Entry], value: u32) -> Segment {
        let sums = 0..self.results.len() as u8;
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
        // How far the pointers have moved.
        let mut row_moves = [0; MOST_ROWS];
        let mut value_move = NEAR as i32 * FLOAT;
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
            let mut offset = place * VECTOR - row_moves[row];
            if self.kernel[1] == 1 && !is_near_vector(offset) {
                let step = offset + NEAR as i32 * VECTOR;
                assembler.add(base, step);
                row_moves[row] += step;
                offset -= step;
            }
            let x = Vector((MOST_RESULTS + turn) as u8);
            turn = (turn + 1) % 4;
            assembler.load(x, Place { base, offset });
            for weight in sharing {
                if !is_near_float(value - value_move) {
                    let step = 2 * NEAR as i32 * FLOAT;
                    assembler.add(VALUES, step);
                    value_move += step;
                }
                let sum = Vector((weight.result as usize - self.results.start) as u8);
                let place = Place {
                    base: VALUES,
                    offset: value - value_move,
                };
                assembler.multiply_add_float(sum, x, place);
                value += FLOAT;
            }
        }
    }
}
