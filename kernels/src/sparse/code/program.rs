//! Products of one direction, compiled: the code and the order in which it reads the values.
//!
//! The sums of one pixel, or of two neighbours, for a *group* of results stay in registers while the code
//! goes through the weights of a *chunk* of source channels: each vector of the source is loaded once for
//! all weights of the group that want it, and each weight once for all pixels. Code that does not fit
//! the first-level cache comes from the second-level one, ahead of its execution, for nothing in it
//! branches.

use std::ops::Range;

use super::assembler::{Assembler, Place, Register, VECTOR};
use super::endings::{Ending, Endings};
use super::memory::Code;
use super::segment::{Segment, SegmentShape};
use crate::dispatch::InstructionSet;
use crate::isa::processor;
use crate::lanes::LANES;
use crate::sparse::index::{Entry, Order, Outline};

/// Sums that stay in registers, so results of a group at most; the other four take turns with weights and vectors of
/// the source.
pub(super) const MOST_SUMS: usize = 28;

/// Vectors that one pixel of the result reaches in a chunk, at most: 16 KB, so that two pixels leave a third of a
/// first-level cache to the values and sums.
const REACHED: usize = 256;

/// The same of a window, of whose columns neighbouring pixels share all but one: 36 KB.
const REACHED_BY_WINDOW: usize = 576;

/// Vectors that are one chunk where loads bind: sums that wait in memory for the next chunk would cost more loads
/// than vectors that come from the second-level cache.
const ONE_CHUNK: usize = 1024;

/// Weights of two pixels whose code, 26 bytes each, leaves a quarter of a first-level cache of 32 KB free.
const NEAR_WEIGHTS: usize = 950;

/// Groups of two pixels that take turns, at most.
pub(super) const MOST_BUNDLE: usize = 8;

/// Rows of a window that there are registers for.
pub(super) const MOST_ROWS: usize = 5;

/// What the code of a product is called with.
#[derive(Clone, Copy)]
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
    /// The first pixel to ask for, and bytes from channel to channel.
    pub(super) ahead: *const f32,
    pub(super) ahead_step: usize,
}

/// Where pointers point to behind what they begin with, so that displacements of either sign are used.
pub(super) const NEAR: usize = 128;

const FRAME: Register = Register::Rdi;
pub(super) const SUMS: Register = Register::Rdx;
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
#[derive(Debug)]
pub(in crate::sparse) struct Program {
    pub(super) code: Code,
    code_len: usize,
    /// In which order it reads the values.
    pub(in crate::sparse) order: Order,
    pub(super) results: usize,
    pub(super) sources: usize,
    /// Rows and columns of the window.
    pub(super) kernel: [usize; 2],
    /// Neighbours in a row whose sums are computed together, two or one.
    pub(super) pixels: usize,
    /// Groups that a turn of pixels goes through before the next one does.
    pub(super) bundle: usize,
    /// Results of a group, and channels of a chunk.
    pub(super) group: usize,
    pub(super) chunk: usize,
    /// Of each chunk those of all groups.
    pub(super) segments: Vec<Segment>,
    /// Of every group but the last, and of that one.
    endings: [Endings; 2],
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
        let chunk = Self::chunk(outline);
        let chunks = chunks_of(sources, chunk);
        let weights = entries.len().div_ceil(chunks);
        // Of two pixels the same code is gone through for a whole row, so it has to stay in the cache; sums of
        // many pixels that wait for another chunk would not.
        let pair_groups = results.div_ceil(MOST_SUMS / 2);
        let pixels = match width > 1 && chunks == 1 && weights <= pair_groups * NEAR_WEIGHTS {
            true => 2,
            false => 1,
        };
        let group = results.div_ceil(results.div_ceil(MOST_SUMS / pixels));
        let groups = results.div_ceil(group);
        let bundle = match pixels {
            1 => groups,
            _ => (groups * NEAR_WEIGHTS / weights.max(1)).clamp(1, MOST_BUNDLE),
        };
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
                    asked: match kernel[1] {
                        1 => 0,
                        _ => chunk.min(sources - chunk_of * chunk).div_ceil(groups),
                    },
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
            code,
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

    /// Bytes of code that a turn of pixels goes through.
    pub(super) fn turn_len(&self) -> usize {
        self.code_len / self.groups() * self.bundle.min(self.groups())
    }

    pub(super) fn results_of(&self, group: usize) -> Range<usize> {
        let first = group * self.group;
        first..self.results.min(first + self.group)
    }

    /// Bytes of code and values of some groups of a chunk, from the first ones on.
    pub(super) fn extent(
        &self,
        chunk: usize,
        groups: &Range<usize>,
    ) -> (Range<usize>, Range<usize>) {
        let end = (self.code_len, self.order.len());
        let place = |group: usize| {
            let segment = self.segments.get(chunk * self.groups() + group);
            segment.map_or(end, |at| (at.from_zero as usize, at.value as usize))
        };
        let (first, last) = (place(groups.start), place(groups.end));
        (first.0..last.0, first.1..last.1)
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
