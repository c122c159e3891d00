//! Packing: a strided matrix copied into panels, in the order in which the micro-kernel reads it.
//!
//! A panel holds `width` rows of the matrix (or columns: it is all one to the strides), interleaved:
//! `[depth][width]`. The last panel is filled up with zeros.

use std::ops::Range;

use rayon::prelude::*;

use super::driver::is_small;
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::LANES;

/// A matrix to pack: rows of as many values as the sum has steps.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) values: &'a [f32],
    /// Rows; a panel holds some of them side by side.
    pub(crate) across: usize,
    pub(crate) across_stride: usize,
    pub(crate) depth: usize,
    pub(crate) depth_stride: usize,
    /// The depth is cut into groups of this many values, a group apart from the next by
    /// `group_stride`: sixteen where it is images in lanes, the whole depth elsewhere.
    pub(crate) group: usize,
    pub(crate) group_stride: usize,
    /// Every value is multiplied by this.
    pub(crate) scale: f32,
}

impl<'a> Source<'a> {
    /// A matrix of `across` rows and `depth` columns at the given strides.
    pub(crate) fn strided(values: &'a [f32], size: [usize; 2], strides: [usize; 2]) -> Self {
        Self {
            values,
            across: size[0],
            across_stride: strides[0],
            depth: size[1],
            depth_stride: strides[1],
            group: size[1],
            group_stride: 0,
            scale: 1.0,
        }
    }

    /// Holds the source to the size that a product demands, and its values to that size.
    pub(crate) fn check(&self, across: usize, depth: usize) {
        assert_eq!([self.across, self.depth], [across, depth]);
        if across == 0 || depth == 0 {
            return;
        }
        let last = depth - 1;
        let reach = (across - 1) * self.across_stride
            + last / self.group * self.group_stride
            + last % self.group * self.depth_stride;
        let within = (across - 1) * self.across_stride + (self.group - 1) * self.depth_stride;
        assert!(reach.max(if last < self.group { 0 } else { within }) < self.values.len());
    }
}

/// Floats that [`pack`] writes.
pub(crate) fn packed_len(across: usize, depth: usize, width: usize) -> usize {
    across.next_multiple_of(width) * depth
}

/// Packs the whole depth into panels of `width`, [`packed_len`] floats.
///
/// # Panics
/// If the source reaches beyond its values or `panels` has another length.
pub(crate) fn pack(set: InstructionSet, source: Source<'_>, width: usize, panels: &mut [f32]) {
    source.check(source.across, source.depth);
    assert_eq!(panels.len(), packed_len(source.across, source.depth, width));
    if panels.is_empty() {
        return;
    }
    // Panels side by side share the cache lines of a matrix whose rows run across them.
    let together = match source.across_stride {
        1 => (PANELS_WIDTH / width).max(1),
        _ => 1,
    };
    let chunk = together * width * source.depth;
    let pack_some = |(index, panels): (usize, &mut [f32])| {
        set.run(PackPanels {
            source,
            first: index * together * width,
            width,
            panels,
        });
    };
    if is_small(panels.len() * PACK_WORK) {
        panels.chunks_mut(chunk).enumerate().for_each(pack_some);
    } else {
        panels.par_chunks_mut(chunk).enumerate().for_each(pack_some);
    }
}

/// Floats across the panels that one task of [`pack`] packs: eight cache lines of a row.
const PANELS_WIDTH: usize = 128;

/// Multiply-adds in the time that one value is packed, roughly.
const PACK_WORK: usize = 16;

struct PackPanels<'a, 'b> {
    source: Source<'a>,
    first: usize,
    width: usize,
    panels: &'b mut [f32],
}

impl Kernel for PackPanels<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let steps = 0..self.source.depth;
        // SAFETY: `pack` held the source to its values.
        unsafe {
            pack_block(
                isa,
                &self.source,
                self.first,
                steps,
                self.width,
                self.panels,
            )
        };
    }
}

/// Packs some steps of the rows from `first` on into as many panels of `width` as `panels` holds,
/// those beyond the last row filled with zeros. Steps begin at a group.
///
/// # Safety
/// The source passes its own [`check`](Source::check) and has those steps.
#[inline(always)]
pub(crate) unsafe fn pack_block<I: Isa>(
    isa: I,
    source: &Source<'_>,
    first: usize,
    steps: Range<usize>,
    width: usize,
    panels: &mut [f32],
) {
    if steps.is_empty() {
        return;
    }
    // Else a whole vector that reaches into the next step would overwrite what stands there already.
    debug_assert!(width < LANES || width.is_multiple_of(LANES));
    // Steps outside, panels inside: then a row of the source is read in one go.
    for start in steps.clone().step_by(LANES) {
        let count = LANES.min(steps.end - start);
        let offset =
            start / source.group * source.group_stride + start % source.group * source.depth_stride;
        let depth = start - steps.start;
        for (index, panel) in panels.chunks_mut(width * steps.len()).enumerate() {
            for column in (0..width).step_by(LANES) {
                let across = first + index * width + column;
                let written = LANES.min(width - column);
                let square = Square {
                    valid: source.across.saturating_sub(across).min(written),
                    written,
                    steps: count,
                };
                let from = source
                    .values
                    .as_ptr()
                    .wrapping_add(offset + across * source.across_stride);
                let target = &mut panel[depth * width + column..][..(count - 1) * width + written];
                // SAFETY: `valid` rows from `across` on are rows of the source, which its values
                // hold; the target has the length that the square writes.
                unsafe { pack_square(isa, source, square, from, target.as_mut_ptr(), width) };
            }
        }
    }
}

/// The part of a panel that one call packs.
#[derive(Clone, Copy)]
struct Square {
    /// Rows of the source, at most sixteen.
    valid: usize,
    /// Rows of the panel, at most sixteen: the ones beyond `valid` become zero.
    written: usize,
    /// Depth, at most sixteen.
    steps: usize,
}

/// # Safety
/// `from` is valid for `valid` rows of `steps` values at the strides of the source, `to` for writing
/// `written` floats at each of `steps` multiples of `width`.
#[inline(always)]
unsafe fn pack_square<I: Isa>(
    isa: I,
    source: &Source<'_>,
    square: Square,
    from: *const f32,
    to: *mut f32,
    width: usize,
) {
    let Square {
        valid,
        written,
        steps,
    } = square;
    let scale = isa.splat(source.scale);
    let mut columns = [isa.zero(); LANES];
    // SAFETY: all reads and writes lie where the caller vouches for them.
    unsafe {
        if source.across_stride == 1 {
            if valid == LANES && written == LANES {
                for step in 0..steps {
                    let from = from.wrapping_add(step * source.depth_stride);
                    // Rows far apart are no stream that the hardware would follow by itself.
                    isa.prefetch(from.wrapping_add(LANES * source.depth_stride));
                    isa.store_ptr(to.add(step * width), isa.mul(isa.load_ptr(from), scale));
                }
                return;
            }
            let end = (steps - 1) * width + written;
            for step in 0..steps {
                let from = from.wrapping_add(step * source.depth_stride);
                isa.prefetch(from.wrapping_add(LANES * source.depth_stride));
                let values = isa.mul(isa.load_first_ptr(from, valid), scale);
                store_step(
                    isa,
                    to.add(step * width),
                    values,
                    written,
                    end - step * width,
                );
            }
            return;
        }
        if source.depth_stride == 1 && steps == LANES {
            for (row, column) in columns.iter_mut().enumerate() {
                if row < valid {
                    let from = from.add(row * source.across_stride);
                    // Rows far apart are no streams that the hardware would follow by itself.
                    isa.prefetch_to_l2(from.wrapping_add(2 * LANES));
                    *column = isa.load_ptr(from);
                }
            }
            let rows = isa.transpose(columns);
            let end = (LANES - 1) * width + written;
            for (step, &row) in rows.iter().enumerate() {
                let row = isa.mul(row, scale);
                store_step(isa, to.add(step * width), row, written, end - step * width);
            }
            return;
        }
        let mut row = 0;
        while row < valid {
            let from = from.add(row * source.across_stride);
            columns[row] = if source.depth_stride == 1 {
                isa.load_first_ptr(from, steps)
            } else {
                let mut values = [0.0; LANES];
                for (step, value) in values.iter_mut().enumerate().take(steps) {
                    *value = *from.add(step * source.depth_stride);
                }
                isa.load(&values)
            };
            row += 1;
        }
        let rows = isa.transpose(columns);
        let mut step = 0;
        while step < steps {
            isa.store_first_ptr(to.add(step * width), isa.mul(rows[step], scale), written);
            step += 1;
        }
    }
}

/// Writes the `written` floats of one step of a panel, of whose steps `left` floats are still to come.
/// What a whole vector writes too much, the next step overwrites.
///
/// # Safety
/// `to` is valid for writing `left` floats, at least `written`.
#[inline(always)]
unsafe fn store_step<I: Isa>(isa: I, to: *mut f32, values: I::F32, written: usize, left: usize) {
    // SAFETY: the caller vouches for so many floats.
    unsafe {
        if left >= LANES {
            isa.store_ptr(to, values);
        } else {
            isa.store_first_ptr(to, values, written);
        }
    }
}
