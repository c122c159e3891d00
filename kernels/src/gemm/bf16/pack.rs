//! Packing for bf16: an operand rounded, its neighbouring steps in pairs, in the order in which the
//! micro-kernel reads them.
//!
//! A panel is `[pairs][width]`; what an operand lacks to whole panels and pairs is zero.

use std::ops::Range;

use super::operand::Operand;
use crate::isa::Isa;
use crate::lanes::LANES;

/// Pairs of one square of 16 by 16 values.
const PAIRS: usize = LANES / 2;

/// What to pack.
#[derive(Clone, Copy)]
pub(super) struct Packing<'a> {
    pub(super) operand: Operand<'a>,
    /// Values of the operand across.
    pub(super) across: usize,
    /// Those of a panel.
    pub(super) width: usize,
}

impl Packing<'_> {
    /// Floats of so many panels of the given steps, a pair in each.
    pub(super) fn len(&self, panels: usize, steps: &Range<usize>) -> usize {
        panels * self.width * steps.len().div_ceil(2)
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
        let width = self.width;
        let panel_len = width * steps.len().div_ceil(2);
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
    /// Steps that there are, from one on; the others are zero.
    steps: usize,
}

impl Operand<'_> {
    /// A square as vectors across, one for each pair of steps.
    ///
    /// # Safety
    /// The square lies within the operand; that of lanes begins at a vector.
    #[inline(always)]
    unsafe fn pairs<I: Isa>(&self, isa: I, square: Square) -> [I::F32; PAIRS] {
        let Square {
            across,
            used,
            step,
            steps,
        } = square;
        let mut vectors = [isa.zero(); LANES];
        // SAFETY: all reads lie within the square, for which the caller vouches.
        unsafe {
            match self {
                Self::Matrix(matrix) => {
                    let from = across * matrix.row_stride + step * matrix.col_stride;
                    let from = matrix.values.as_ptr().wrapping_add(from);
                    if matrix.row_stride == 1 {
                        for (step, vector) in vectors.iter_mut().enumerate() {
                            if step < steps {
                                let from = from.wrapping_add(step * matrix.col_stride);
                                // Rows far apart are no stream that the hardware would follow by
                                // itself.
                                isa.prefetch(from.wrapping_add(LANES * matrix.col_stride));
                                *vector = isa.load_first_ptr(from, used);
                            }
                        }
                        return in_pairs(isa, vectors);
                    }
                    for (row, vector) in vectors.iter_mut().enumerate() {
                        if row < used {
                            let from = from.wrapping_add(row * matrix.row_stride);
                            *vector = match matrix.col_stride {
                                1 => isa.load_first_ptr(from, steps),
                                stride => load_apart(isa, from, stride, steps),
                            };
                        }
                    }
                    in_pairs(isa, isa.transpose(vectors))
                }
                Self::Images(values, layout) => {
                    let from = layout.at(step, across / LANES);
                    let from = values.as_ptr().wrapping_add(from);
                    for (step, vector) in vectors.iter_mut().enumerate() {
                        if step < steps && used > 0 {
                            *vector =
                                isa.load_ptr(from.wrapping_add(step * layout.channel_stride()));
                        }
                    }
                    in_pairs(isa, vectors)
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
                    in_pairs(isa, isa.transpose(vectors))
                }
            }
        }
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
