//! Packing: a strided matrix copied into panels, in the order in which the micro-kernel reads it.
//!
//! A panel holds `width` rows of the matrix (or columns: it is all one to the strides), interleaved:
//! `[depth][width]`. The last panel is filled up with zeros.

use rayon::prelude::*;

use super::driver::LEAST_PARALLEL_WORK;
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::LANES;

/// A matrix to pack: `across` rows of `depth` values each.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) across: usize,
    pub(crate) across_stride: usize,
    pub(crate) depth: usize,
    /// The depth is cut into groups of this many values, a group apart from the next by
    /// `group_stride`: sixteen where it is images in lanes, the whole depth elsewhere.
    pub(crate) group: usize,
    pub(crate) group_stride: usize,
    pub(crate) depth_stride: usize,
    /// Every value is multiplied by this.
    pub(crate) scale: f32,
}

impl Source<'_> {
    fn reach(&self) -> usize {
        if self.across == 0 || self.depth == 0 {
            return 0;
        }
        let last = self.depth - 1;
        (self.across - 1) * self.across_stride
            + last / self.group * self.group_stride
            + last.min(self.group - 1) * self.depth_stride
            + 1
    }
}

/// Floats that [`pack`] writes.
pub(crate) fn packed_len(across: usize, depth: usize, width: usize) -> usize {
    across.next_multiple_of(width) * depth
}

/// Packs panels of `width` into `panels`, [`packed_len`] floats.
///
/// # Panics
/// If the source reaches beyond its values or `panels` has another length.
pub(crate) fn pack(set: InstructionSet, source: Source<'_>, width: usize, panels: &mut [f32]) {
    assert!(source.reach() <= source.values.len());
    assert_eq!(panels.len(), packed_len(source.across, source.depth, width));
    if panels.is_empty() {
        return;
    }
    // Panels side by side share cache lines of a matrix whose rows run across them.
    let together = (PANELS_WIDTH / width).max(1);
    let pack_some = |(index, panels): (usize, &mut [f32])| {
        set.run(PackPanels {
            source,
            first: index * together * width,
            width,
            panels,
        });
    };
    let chunks = together * width * source.depth;
    if panels.len() < LEAST_PARALLEL_WORK / 16 {
        panels.chunks_mut(chunks).enumerate().for_each(pack_some);
    } else {
        panels
            .par_chunks_mut(chunks)
            .enumerate()
            .for_each(pack_some);
    }
}

/// Floats across the panels that one task packs: four to eight cache lines of a row.
const PANELS_WIDTH: usize = 128;

struct PackPanels<'a, 'b> {
    source: Source<'a>,
    /// Row of the source that begins the first panel.
    first: usize,
    width: usize,
    panels: &'b mut [f32],
}

impl Kernel for PackPanels<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            source,
            first,
            width,
            panels,
        } = self;
        let panel_len = width * source.depth;
        // Groups outside, panels inside: then a row of the source is read in one go.
        let mut depth = 0;
        while depth < source.depth {
            let steps = STEPS
                .min(source.group - depth % source.group)
                .min(source.depth - depth);
            let offset = depth / source.group * source.group_stride
                + depth % source.group * source.depth_stride;
            for (index, panel) in panels.chunks_mut(panel_len).enumerate() {
                for column in (0..width).step_by(LANES) {
                    let across = first + index * width + column;
                    let square = Square {
                        valid: source
                            .across
                            .saturating_sub(across)
                            .min(LANES)
                            .min(width - column),
                        written: (width - column).min(LANES),
                        steps,
                    };
                    let start = offset + across * source.across_stride;
                    let target = &mut panel[depth * width + column..];
                    // SAFETY: the last value read is within the reach of the source, which `pack`
                    // holds to its values, and the last one written is
                    // `(depth + steps - 1) · width + column + written - 1 < panel_len`.
                    unsafe {
                        let from = source.values.as_ptr().wrapping_add(start);
                        pack_square(isa, &source, square, from, target.as_mut_ptr(), width);
                    }
                }
            }
            depth += steps;
        }
    }
}

/// Depth that is packed at once: a transposed square.
const STEPS: usize = LANES;

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
            for step in 0..steps {
                let values = isa.load_first_ptr(from.add(step * source.depth_stride), valid);
                isa.store_first_ptr(to.add(step * width), isa.mul(values, scale), written);
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
