//! How the code of a group ends: what becomes of its sums.

use std::mem::offset_of;

use super::assembler::{Assembler, FLOAT, Lanes, Place, Register, VECTOR, Vector};
use super::program::{Frame, SUMS, in_frame, sum_place};

const TARGET: Register = Register::Rsi;
const TARGET_STEP: Register = Register::Rax;
const BIAS: Register = Register::R8;

/// Registers that hold no sum.
const FLOOR: Vector = Vector(31);
const ZERO: Vector = Vector(30);

/// Where the endings for groups of so many results begin.
#[derive(Clone, Debug)]
pub(super) struct Endings {
    sums: u32,
    /// For one pixel, and for as many as there are at most.
    results: [[u32; 4]; 2],
}

/// What becomes of the sums of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// Those of one pixel wait for the next chunk.
    Sums,
    /// They become results.
    Results {
        /// Zero where what lies in their place is not positive.
        rectified: bool,
        /// Written past the caches.
        streamed: bool,
        pixels: usize,
    },
}

impl Endings {
    /// Appends all of them, for so many pixels at most, one or two, and so many results.
    pub(super) fn assemble(assembler: &mut Assembler, [pixels, results]: [usize; 2]) -> Self {
        let sums = assembler.len() as u32;
        assembler.load_register(SUMS, in_frame(offset_of!(Frame, sums)));
        for sum in 0..results as u8 {
            assembler.store(Vector(sum), sum_place(sum));
        }
        assembler.ret();
        let mut for_pixels = |pixels| {
            std::array::from_fn(|number| {
                let start = assembler.len() as u32;
                let (rectified, streamed) = (number & 2 != 0, number & 1 != 0);
                assemble_results(assembler, [pixels, results], rectified, streamed);
                start
            })
        };
        let first = for_pixels(1);
        let all = match pixels {
            1 => first,
            _ => for_pixels(pixels),
        };
        Self {
            sums,
            results: [first, all],
        }
    }

    /// Where an ending begins.
    pub(super) fn start(&self, ending: Ending) -> u32 {
        match ending {
            Ending::Sums => self.sums,
            Ending::Results {
                rectified,
                streamed,
                pixels,
            } => self.results[pixels - 1][usize::from(rectified) << 1 | usize::from(streamed)],
        }
    }
}

fn assemble_results(
    assembler: &mut Assembler,
    [pixels, results]: [usize; 2],
    rectified: bool,
    streamed: bool,
) {
    assembler.load_register(TARGET, in_frame(offset_of!(Frame, target)));
    assembler.load_register(TARGET_STEP, in_frame(offset_of!(Frame, target_step)));
    assembler.load_register(BIAS, in_frame(offset_of!(Frame, bias)));
    assembler.load_float(FLOOR, in_frame(offset_of!(Frame, floor)));
    assembler.clear(ZERO);
    for result in 0..results {
        let bias = Place {
            base: BIAS,
            offset: result as i32 * FLOAT,
        };
        for pixel in 0..pixels {
            let value = Vector((pixel * results + result) as u8);
            let target = Place {
                base: TARGET,
                offset: pixel as i32 * VECTOR,
            };
            assembler.add_float(value, bias);
            if rectified {
                assembler.compare_less(ZERO, target);
                assembler.raise(value, FLOOR, Lanes::Compared);
            } else {
                assembler.raise(value, FLOOR, Lanes::All);
            }
            match streamed {
                true => assembler.stream(value, target),
                false => assembler.store(value, target),
            }
        }
        assembler.add_register(TARGET, TARGET_STEP);
    }
    assembler.ret();
}
