//! A task whose sums are computed in tile registers.

use super::super::tile::Finish;
use super::{Epilogue, Task};
use crate::isa::Isa;
use crate::isa::amx::{SIDE, Sums, TiledKernel, Tiles};
use crate::lanes::LANES;

/// Rows of sums that are finished at a time, in vector registers.
const ROWS: usize = 8;

impl<E: Epilogue> TiledKernel for Task<'_, E> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I, tiles: &Tiles) {
        let part = self.part;
        // SAFETY: `multiply` held the operand to the product.
        unsafe {
            part.a
                .pack(isa, self.panels.start, part.steps.clone(), self.rows);
        }
        let mut sums = Sums([0.0; SIDE * SIDE]);
        for strip in self.strips.clone() {
            let first = strip * (SIDE / LANES);
            let whole = part.vectors() - first >= 2 && part.product.target.is_even::<2>(first);
            for panel in self.panels.clone() {
                let (a, b) = self.operands(panel, strip);
                if whole {
                    self.square::<I, 2>(isa, tiles, (a, b), (panel, first), &mut sums);
                } else {
                    self.square::<I, 1>(isa, tiles, (a, b), (panel, first), &mut sums);
                }
            }
        }
    }
}

impl<E: Epilogue> Task<'_, E> {
    /// Computes 32 by 32 sums and finishes them, `VECTORS` at a time.
    #[inline(always)]
    fn square<I: Isa, const VECTORS: usize>(
        &self,
        isa: I,
        tiles: &Tiles,
        (a, b): (&[f32], &[f32]),
        (panel, first): (usize, usize),
        sums: &mut Sums,
    ) {
        let part = self.part;
        let rows = panel * SIDE..(panel + 1) * SIDE;
        let vectors = (part.vectors() - first).min(SIDE / LANES);
        for vector in (0..vectors).step_by(VECTORS) {
            let result = part.result::<VECTORS>(rows.clone(), first + vector);
            E::Finish::prepare(isa, &result, VECTORS);
        }
        tiles.multiply(a, b, sums);
        for vector in (0..vectors).step_by(VECTORS) {
            for row in (0..SIDE).step_by(ROWS) {
                if rows.start + row >= part.product.rows {
                    break;
                }
                let first_row = rows.start + row;
                let result = part.result::<VECTORS>(first_row..first_row + ROWS, first + vector);
                let mut some = [[isa.zero(); VECTORS]; ROWS];
                for (r, some) in some.iter_mut().enumerate() {
                    for (v, some) in some.iter_mut().enumerate() {
                        let from = (row + r) * SIDE + (vector + v) * LANES;
                        let from = sums.0[from..].first_chunk();
                        *some = isa.load(from.expect("sums are rows of two vectors"));
                    }
                }
                // SAFETY: `multiply` held the epilogue and the result to the product, whose elements
                // do not overlap.
                unsafe { E::Finish::finish(isa, &result, some) };
            }
        }
    }
}
