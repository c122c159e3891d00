//! The code for a group of results and a chunk of source channels.

use std::mem::offset_of;
use std::ops::Range;

use super::assembler::{Assembler, FLOAT, Place, Register, VECTOR, Vector, is_near_vector};
use super::program::{Frame, MOST_ROWS, MOST_SUMS, NEAR, SUMS, in_frame, sum_place};
use crate::sparse::index::Entry;

/// Registers that hold no sum.
const MOST_VECTORS: usize = 32 - MOST_SUMS;

/// The weight of two pixels.
const WEIGHT: Vector = Vector(31);

const VALUES: Register = Register::Rax;

/// What is asked for next, and bytes from there to the next channel.
const AHEAD: Register = Register::Rcx;
const AHEAD_STEP: Register = Register::Rdx;

const ROWS: [Register; MOST_ROWS] = [
    Register::Rsi,
    Register::R8,
    Register::R9,
    Register::R10,
    Register::R11,
];

/// The code for a group of results and a chunk of source channels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    /// Where it begins with sums of zero.
    pub(super) from_zero: u32,
    /// Where it begins with the sums in the frame.
    pub(super) onward: u32,
    /// Its first value.
    pub(super) value: u32,
    /// See [`SegmentShape::asked`].
    pub(super) asked: usize,
}

/// What the code of a segment is made for.
pub(super) struct SegmentShape {
    pub(super) results: Range<usize>,
    pub(super) first_source: usize,
    /// Channels of the source that lie side by side.
    pub(super) sources: usize,
    pub(super) kernel: [usize; 2],
    /// Whose sums are computed together, one or two.
    pub(super) pixels: usize,
    /// Channels of which as many pixels are asked for meanwhile, one vector after the other: all at once,
    /// they would hold up what the code reads.
    pub(super) asked: usize,
}

impl SegmentShape {
    /// Appends the code for these weights, ordered by source and place of the window.
    pub(super) fn assemble(
        &self,
        assembler: &mut Assembler,
        weights: &[Entry],
        value: u32,
    ) -> Segment {
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
        if self.asked > 0 {
            assembler.load_register(AHEAD, in_frame(offset_of!(Frame, ahead)));
            assembler.load_register(AHEAD_STEP, in_frame(offset_of!(Frame, ahead_step)));
        }
        self.products(assembler, weights);
        assembler.jump_through(in_frame(offset_of!(Frame, ending)));
        Segment {
            from_zero,
            onward,
            value,
            asked: self.asked,
        }
    }

    fn products(&self, assembler: &mut Assembler, weights: &[Entry]) {
        let mut values = Values::default();
        let mut vectors = Vectors::new(self);
        let mut asked = 0;
        for (at, weight) in weights.iter().enumerate() {
            while asked * weights.len() < at * self.asked * self.pixels {
                let pixel = asked % self.pixels;
                assembler.prefetch(Place {
                    base: AHEAD,
                    offset: pixel as i32 * VECTOR,
                });
                if pixel + 1 == self.pixels {
                    assembler.add_register(AHEAD, AHEAD_STEP);
                }
                asked += 1;
            }
            let value = values.next(assembler);
            let sum = (weight.result as usize - self.results.start) as u8;
            if self.pixels == 1 {
                let x = vectors.get(assembler, weight, 0);
                assembler.multiply_add_float(Vector(sum), x, value);
                continue;
            }
            let neighbours = [0, 1].map(|pixel| vectors.get(assembler, weight, pixel));
            // Columns ascend, so the second one never takes the register that the first one was found in.
            debug_assert_ne!(neighbours[0], neighbours[1]);
            assembler.load_float(WEIGHT, value);
            for (pixel, x) in neighbours.into_iter().enumerate() {
                let sum = sum + (pixel * self.results.len()) as u8;
                assembler.multiply_add(Vector(sum), x, WEIGHT);
            }
        }
    }
}

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

/// A vector of the source: its channel, and its row and column in the windows.
type Reached = (u32, [usize; 2]);

/// Registers that take turns with vectors of the source.
struct Vectors<'a> {
    shape: &'a SegmentShape,
    /// What each holds.
    held: [Option<Reached>; MOST_VECTORS],
    /// Registers that there are: of two pixels the last one is the weight's.
    count: usize,
    turn: usize,
    /// How far the pointers have moved, in bytes.
    moved: [i32; MOST_ROWS],
}

impl<'a> Vectors<'a> {
    fn new(shape: &'a SegmentShape) -> Self {
        Self {
            shape,
            held: [None; MOST_VECTORS],
            count: MOST_VECTORS + 1 - shape.pixels,
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
        self.turn = (at + 1) % self.count;
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
