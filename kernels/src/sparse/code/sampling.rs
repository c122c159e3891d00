//! Gradients of values by generated code.
//!
//! The sums of a *segment*, some neighbouring weights of an index, stay in registers while the code goes
//! through the pixels of a tile. Of each pixel it loads the gradient once for all weights of a channel of
//! the result; what that is multiplied with is an operand in memory, in the packed chunk.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::Arc;

use super::assembler::{Assembler, FLOAT, Place, Register, VECTOR, Vector};
use super::memory::Code;
use crate::dispatch::InstructionSet;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::sparse::index::{BLOCK, Index};

/// Weights whose sums stay in registers, a multiple of [`TOGETHER`]; the other eight take turns with vectors
/// of the gradient.
const MOST_WEIGHTS: usize = 24;

/// Sums that are brought from vectors to numbers together, and so with those of a segment as many behind
/// it as are missing, to which zero is added.
pub(in crate::sparse) const TOGETHER: usize = 8;

/// What the code of a segment is called with.
#[repr(C)]
struct Frame {
    x: *const f32,
    grad: *const f32,
    sums: *mut f32,
    rows: usize,
    columns: usize,
}

/// Vectors that a displacement of one byte tells apart.
const NEAR: i32 = 256;

const FRAME: Register = Register::Rdi;
const SUMS: Register = Register::Rax;
const COLUMNS: Register = Register::Rcx;
const ROWS: Register = Register::Rdx;
/// Where the row of the tile begins, in the chunk and in the gradient.
const X_ROW: Register = Register::Rsi;
const GRAD_ROW: Register = Register::R8;
/// The pixel in the gradient, and in the chunk in two ranges of offsets.
const GRAD: Register = Register::R9;
const X: [Register; 2] = [Register::R10, Register::R11];

/// The gradient at the positions of an index, compiled.
#[derive(Clone, Debug)]
pub(in crate::sparse) struct Sampler {
    code: Arc<Code>,
    segments: Vec<Segment>,
    /// Of each chunk where the segments of each [`BLOCK`] of results begin, then the end of all.
    blocks: Vec<u32>,
    /// Blocks of results.
    count: usize,
    /// How the gradient lies.
    strides: Strides,
}

/// Floats from one channel, row and pixel of an operand to the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::sparse) struct Strides {
    pub(in crate::sparse) channel: usize,
    pub(in crate::sparse) row: usize,
    pub(in crate::sparse) pixel: usize,
}

impl Strides {
    /// How far a displacement has to reach for so many channels, if it can.
    fn reach(&self, channels: usize) -> Option<i32> {
        let farthest = self.channel.max(1).checked_mul(channels)?;
        let farthest = farthest.max(self.row).max(self.pixel);
        i32::try_from(farthest.checked_mul(size_of::<f32>())?).ok()
    }
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    /// Where its code begins.
    start: u32,
    /// How many weights it has.
    len: u32,
}

/// A tile of both operands.
pub(in crate::sparse) struct Tile<'a> {
    /// A packed chunk, as the index has its offsets.
    pub(in crate::sparse) x: &'a [f32],
    /// The gradient, from the first pixel of the tile in a block of results on.
    pub(in crate::sparse) grad: &'a [f32],
    /// Rows and columns that count, one at least of each.
    pub(in crate::sparse) len: [usize; 2],
}

impl Sampler {
    /// Compiles the gradient at the positions of an index, where the gradient of the result lies like
    /// this. There is none for other instruction sets than AVX-512, for windows that move by more than a
    /// pixel, and where nothing may be executed.
    pub(in crate::sparse) fn new(
        set: InstructionSet,
        index: &Index,
        strides: Strides,
    ) -> Option<Self> {
        strides.reach(BLOCK)?;
        if !set.is_avx512() || index.outline.reach.stride != [1, 1] {
            return None;
        }
        let count = index.outline.results.div_ceil(BLOCK);
        let mut assembler = Assembler::default();
        let mut segments = Vec::new();
        let mut blocks = Vec::with_capacity(index.outline.chunks() * count + 1);
        for chunk in 0..index.outline.chunks() {
            for first in (0..index.outline.results).step_by(BLOCK) {
                blocks.push(segments.len() as u32);
                let results = first..index.outline.results.min(first + BLOCK);
                let of_result = index.lists(chunk, results.clone());
                let slots = of_result.flat_map(|(result, list)| list.map(move |_| result - first));
                let slots: Vec<usize> = slots.collect();
                let all = index.weights(chunk, results);
                let pieces = slots.chunks(MOST_WEIGHTS).zip(all.step_by(MOST_WEIGHTS));
                for (slots, weight) in pieces {
                    assembler.align(VECTOR as usize);
                    segments.push(Segment {
                        start: assembler.len() as u32,
                        len: slots.len() as u32,
                    });
                    assemble(&mut assembler, (index, strides), weight, slots);
                }
            }
        }
        blocks.push(segments.len() as u32);
        let bytes = assembler.into_bytes();
        u32::try_from(bytes.len()).ok()?;
        Some(Self {
            code: Arc::new(Code::new(&bytes).ok()?),
            segments,
            blocks,
            count,
            strides,
        })
    }

    /// How the gradient is to lie.
    pub(in crate::sparse) fn strides(&self) -> Strides {
        self.strides
    }

    /// Segments of a chunk and some blocks of results.
    pub(in crate::sparse) fn segments(&self, chunk: usize, blocks: Range<usize>) -> usize {
        let place = |block: usize| self.blocks[chunk * self.count + block] as usize;
        place(blocks.end) - place(blocks.start)
    }

    /// Adds the products of a tile to the sums of all weights of a chunk and a block of results, the
    /// first of which stands at `sums[0]`; calls `ahead` before each segment, to ask for what comes next.
    ///
    /// # Safety
    /// The index that the code was made from has this chunk and block, and was packed for the tile; the
    /// gradient lies as the code has it, as far as the tile and the block go.
    #[inline(always)]
    pub(in crate::sparse) unsafe fn run<I: Isa>(
        &self,
        isa: I,
        [chunk, block]: [usize; 2],
        tile: &Tile<'_>,
        sums: &mut [f32],
        mut ahead: impl FnMut(),
    ) {
        let at = chunk * self.count + block;
        let range = self.blocks[at] as usize..self.blocks[at + 1] as usize;
        let mut dots = [[0.0; LANES]; MOST_WEIGHTS];
        let mut done = 0;
        for segment in &self.segments[range] {
            ahead();
            let frame = Frame {
                x: tile.x.as_ptr(),
                grad: tile.grad.as_ptr(),
                sums: dots.as_mut_ptr().cast(),
                rows: tile.len[0],
                columns: tile.len[1],
            };
            // SAFETY: only a set with AVX-512 has such code; it reads at the offsets of the index from
            // each pixel of the tile, and writes a vector for each weight.
            unsafe { self.code.call(segment.start, &frame) };
            let (dots, _) = dots.as_chunks::<TOGETHER>();
            let len = segment.len as usize;
            let (sums, _) = sums[done..].as_chunks_mut::<TOGETHER>();
            done += len;
            for (sums, dots) in sums[..len.div_ceil(TOGETHER)].iter_mut().zip(dots) {
                let totals = isa.sum_eight(std::array::from_fn(|at| isa.load(&dots[at])));
                for (sum, total) in sums.iter_mut().zip(totals) {
                    *sum += total;
                }
            }
        }
    }
}

/// Appends the code for weights from one of the index on, whose results have these places in their block.
fn assemble(
    assembler: &mut Assembler,
    (index, strides): (&Index, Strides),
    weight: usize,
    slots: &[usize],
) {
    let bytes = |floats: usize| floats as i32 * FLOAT;
    let in_frame = |offset: usize| Place {
        base: FRAME,
        offset: offset as i32,
    };
    let reach = &index.outline.reach;
    for sum in 0..slots.len() as u8 {
        assembler.clear(Vector(sum));
    }
    assembler.load_register(X_ROW, in_frame(offset_of!(Frame, x)));
    assembler.load_register(GRAD_ROW, in_frame(offset_of!(Frame, grad)));
    assembler.load_register(ROWS, in_frame(offset_of!(Frame, rows)));
    let row = assembler.len();
    for (at, &x) in X.iter().enumerate() {
        assembler.copy(x, X_ROW);
        assembler.add(x, (at as i32 * NEAR + NEAR / 2) * VECTOR);
    }
    assembler.copy(GRAD, GRAD_ROW);
    assembler.load_register(COLUMNS, in_frame(offset_of!(Frame, columns)));
    let column = assembler.len();
    let mut sum = 0;
    let mut turn = 0;
    for slots in slots.chunk_by(|a, b| a == b) {
        let factor = Vector((MOST_WEIGHTS + turn) as u8);
        turn = (turn + 1) % TOGETHER;
        let grad = Place {
            base: GRAD,
            offset: bytes(slots[0] * strides.channel),
        };
        assembler.load(factor, grad);
        for _ in slots {
            let vector = index.offsets[weight + sum] as i32 / LANES as i32;
            let range = (vector / NEAR).min(X.len() as i32 - 1);
            let x = Place {
                base: X[range as usize],
                offset: (vector - range * NEAR - NEAR / 2) * VECTOR,
            };
            assembler.multiply_add(Vector(sum as u8), factor, x);
            sum += 1;
        }
    }
    for x in X {
        assembler.add(x, VECTOR);
    }
    assembler.add(GRAD, bytes(strides.pixel));
    assembler.count_down(COLUMNS, column);
    assembler.add(X_ROW, reach.packed[1] as i32 * VECTOR);
    assembler.add(GRAD_ROW, bytes(strides.row));
    assembler.count_down(ROWS, row);
    assembler.load_register(SUMS, in_frame(offset_of!(Frame, sums)));
    for missing in slots.len()..slots.len().next_multiple_of(TOGETHER) {
        assembler.clear(Vector(missing as u8));
    }
    for sum in 0..slots.len().next_multiple_of(TOGETHER) as u8 {
        let offset = i32::from(sum) * VECTOR;
        let place = Place { base: SUMS, offset };
        assembler.store(Vector(sum), place);
    }
    assembler.ret();
}
