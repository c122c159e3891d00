//! Packing for bf16: an operand rounded, its steps in pairs, in the order in which the micro-kernel or
//! the tile registers read them.
//!
//! What an operand lacks to whole panels and pairs is zero.

use std::ops::Range;

use super::operand::Operand;
use crate::isa::{Isa, amx};
use crate::lanes::LANES;

/// Pairs of one square of 16 by 16 values.
const PAIRS: usize = LANES / 2;

/// Steps ahead at which rows of a matrix are asked for, of which so many run side by side that the hardware does
/// not follow them.
const STEPS_AHEAD: usize = 64;

/// How the pairs of a panel lie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `[pairs][width]`, pairs of neighbouring steps.
    Vectors,
    /// Tiles of 32 steps by sixteen values across, `[blocks][tiles][16][16]`. The sixteen pairs of a tile
    /// are of a step and the one sixteen later; each is a row of sixteen values across.
    TilesByPair,
    /// The same, each value across a row of sixteen pairs.
    TilesByValue,
}

impl Form {
    /// Pairs of so many steps.
    fn pairs(self, steps: usize) -> usize {
        match self {
            Self::Vectors => steps.div_ceil(2),
            Self::TilesByPair | Self::TilesByValue => steps.div_ceil(amx::STEPS) * LANES,
        }
    }
}

/// What to pack.
#[derive(Clone, Copy)]
pub(super) struct Packing<'a> {
    pub(super) operand: Operand<'a>,
    /// Values of the operand across.
    pub(super) across: usize,
    /// Those of a panel; of tiles a multiple of sixteen.
    pub(super) width: usize,
    pub(super) form: Form,
}

impl Packing<'_> {
    /// Floats of so many panels of the given steps, a pair in each.
    pub(super) fn len(&self, panels: usize, steps: &Range<usize>) -> usize {
        panels * self.panel_len(steps)
    }

    /// Floats of one.
    #[inline(always)]
    pub(super) fn panel_len(&self, steps: &Range<usize>) -> usize {
        self.width * self.form.pairs(steps.len())
    }

    /// Packs some steps of as many panels as `target` holds, from `first_panel` on. Steps begin at a
    /// multiple of sixteen.
    ///
    /// # Safety
    /// The operand passes its [`check`](Operand::check) for so many values across, at least up to the
    /// last of the steps.
    #[inline(always)]
    pub(super) unsafe fn pack<I: Isa>(
        &self,
        isa: I,
        first_panel: usize,
        steps: Range<usize>,
        target: &mut [f32],
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            match self.form {
                Form::Vectors => self.pack_vectors(isa, first_panel, steps, target),
                Form::TilesByPair | Form::TilesByValue => {
                    self.pack_tiles(isa, first_panel, steps, target)
                }
            }
        }
    }

    /// # Safety
    /// As [`pack`](Self::pack).
    #[inline(always)]
    unsafe fn pack_tiles<I: Isa>(
        &self,
        isa: I,
        first_panel: usize,
        steps: Range<usize>,
        target: &mut [f32],
    ) {
        let panel_len = self.panel_len(&steps);
        if panel_len == 0 {
            return;
        }
        let transposed = self.operand.lies_across() != (self.form == Form::TilesByPair);
        for (block, start) in steps.clone().step_by(amx::STEPS).enumerate() {
            for (index, panel) in target.chunks_exact_mut(panel_len).enumerate() {
                let first = (first_panel + index) * self.width;
                let block = &mut panel[block * self.width * LANES..][..self.width * LANES];
                let (tiles, _) = block.as_chunks_mut::<{ amx::TILE }>();
                for (tile, place) in tiles.iter_mut().enumerate() {
                    let across = first + tile * LANES;
                    let square = |from: usize| Square {
                        across,
                        used: self.across.saturating_sub(across).min(LANES),
                        step: from,
                        steps: steps.end.saturating_sub(from).min(LANES),
                    };
                    let squares = [square(start), square(start + LANES)];
                    // SAFETY: the squares lie within the operand, as the caller vouches.
                    let [low, high] = unsafe {
                        [
                            self.operand.read(isa, squares[0]),
                            self.operand.read(isa, squares[1]),
                        ]
                    };
                    let mut rows = [isa.zero(); LANES];
                    for (row, vector) in rows.iter_mut().enumerate() {
                        *vector = isa.pair_bf16(low[row], high[row]);
                    }
                    if transposed {
                        rows = isa.transpose(rows);
                    }
                    let (places, _) = place.as_chunks_mut::<LANES>();
                    for (place, &row) in places.iter_mut().zip(&rows) {
                        isa.store(place, row);
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`pack`](Self::pack).
    #[inline(always)]
    unsafe fn pack_vectors<I: Isa>(
        &self,
        isa: I,
        first_panel: usize,
        steps: Range<usize>,
        target: &mut [f32],
    ) {
        let width = self.width;
        let panel_len = self.panel_len(&steps);
        if panel_len == 0 {
            return;
        }
        // Steps outside, panels inside: then a row of a matrix is read in one go.
        for start in steps.clone().step_by(LANES) {
            let count = LANES.min(steps.end - start);
            for (index, panel) in target.chunks_exact_mut(panel_len).enumerate() {
                let first = (first_panel + index) * width;
                let panel = &mut panel[(start - steps.start) / 2 * width..];
                for column in (0..width).step_by(LANES) {
                    let square = Square {
                        across: first + column,
                        used: self.across.saturating_sub(first + column).min(LANES),
                        step: start,
                        steps: count,
                    };
                    // SAFETY: the square lies within the operand, as the caller vouches.
                    let pairs = unsafe { self.operand.pairs(isa, square) };
                    let written = LANES.min(width - column);
                    for (pair, &vector) in pairs.iter().enumerate().take(count.div_ceil(2)) {
                        let place = &mut panel[pair * width + column..][..written];
                        // SAFETY: the slice holds so many floats.
                        unsafe { isa.store_first_ptr(place.as_mut_ptr(), vector, written) };
                    }
                }
            }
        }
    }
}

/// A part of an operand: at most 16 values across by at most 16 steps.
#[derive(Clone, Copy)]
struct Square {
    across: usize,
    /// Values across that there are; the others are zero.
    used: usize,
    step: usize,
    /// Steps that there are; the others are zero.
    steps: usize,
}

impl Operand<'_> {
    /// A square as vectors across, one for each pair of neighbouring steps.
    ///
    /// # Safety
    /// As [`read`](Self::read).
    #[inline(always)]
    unsafe fn pairs<I: Isa>(&self, isa: I, square: Square) -> [I::F32; PAIRS] {
        // SAFETY: as the caller vouches.
        let vectors = unsafe { self.read(isa, square) };
        match self.lies_across() {
            true => in_pairs(isa, vectors),
            false => in_pairs(isa, isa.transpose(vectors)),
        }
    }

    /// A square: a vector across for each step where it [lies across](Self::lies_across), else a vector of
    /// steps for each value across.
    ///
    /// # Safety
    /// The square lies within the operand; that of lanes begins at a vector.
    #[inline(always)]
    unsafe fn read<I: Isa>(&self, isa: I, square: Square) -> [I::F32; LANES] {
        let Square {
            across,
            used,
            step,
            steps,
        } = square;
        let mut vectors = [isa.zero(); LANES];
        if steps == 0 || used == 0 {
            return vectors;
        }
        // SAFETY: all reads lie within the square, for which the caller vouches.
        unsafe {
            match self {
                Self::Matrix(matrix) => {
                    let from = across * matrix.row_stride + step * matrix.col_stride;
                    let from = matrix.values.as_ptr().wrapping_add(from);
                    if self.lies_across() {
                        for (step, vector) in vectors.iter_mut().enumerate() {
                            if step < steps {
                                let from = from.wrapping_add(step * matrix.col_stride);
                                // Rows far apart are no stream that the hardware would follow by
                                // itself.
                                isa.prefetch(from.wrapping_add(LANES * matrix.col_stride));
                                *vector = isa.load_first_ptr(from, used);
                            }
                        }
                        return vectors;
                    }
                    for (row, vector) in vectors.iter_mut().enumerate() {
                        if row < used {
                            let from = from.wrapping_add(row * matrix.row_stride);
                            *vector = match matrix.col_stride {
                                1 => {
                                    isa.prefetch(from.wrapping_add(STEPS_AHEAD));
                                    isa.load_first_ptr(from, steps)
                                }
                                stride => load_apart(isa, from, stride, steps),
                            };
                        }
                    }
                }
                Self::Images(values, layout) => {
                    let from = layout.at(step, across / LANES);
                    let from = values.as_ptr().wrapping_add(from);
                    for (step, vector) in vectors.iter_mut().enumerate() {
                        if step < steps {
                            *vector =
                                isa.load_ptr(from.wrapping_add(step * layout.channel_stride()));
                        }
                    }
                }
                Self::Channels(values, layout) => {
                    let from = layout.at(across, step / LANES);
                    let from = values.as_ptr().wrapping_add(from);
                    for (row, vector) in vectors.iter_mut().enumerate() {
                        if row < used {
                            *vector =
                                isa.load_ptr(from.wrapping_add(row * layout.channel_stride()));
                        }
                    }
                }
            }
        }
        vectors
    }
}

/// Sixteen steps as eight pairs of neighbours.
#[inline(always)]
fn in_pairs<I: Isa>(isa: I, steps: [I::F32; LANES]) -> [I::F32; PAIRS] {
    let mut pairs = [isa.zero(); PAIRS];
    for (pair, vector) in pairs.iter_mut().enumerate() {
        *vector = isa.pair_bf16(steps[2 * pair], steps[2 * pair + 1]);
    }
    pairs
}

/// Reads `count` values, at most sixteen, `stride` apart, into the first lanes.
///
/// # Safety
/// They are valid for reading.
#[inline(always)]
unsafe fn load_apart<I: Isa>(isa: I, from: *const f32, stride: usize, count: usize) -> I::F32 {
    let mut values = [0.0; LANES];
    for (index, value) in values.iter_mut().enumerate().take(count) {
        // SAFETY: the caller vouches for so many values.
        *value = unsafe { *from.wrapping_add(index * stride) };
    }
    isa.load(&values)
}
