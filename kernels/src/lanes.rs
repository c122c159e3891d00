//! The lane layout: sixteen images ride in one vector.
//!
//! Row-major `[images][features]` becomes `[blocks][features][16]`, where block `b` holds images
//! `16 b` to `16 b + 15`. A last block that is not full is padded with empty lanes: [`pack`] and
//! [`pack_u8`] zero them, kernels compute on them whatever follows from that, and every reduction
//! over images leaves them out.

use rayon::prelude::*;

use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;

/// Images in one block: lanes of a vector.
pub const LANES: usize = 16;

/// Blocks that hold `images` images.
pub const fn blocks(images: usize) -> usize {
    images.div_ceil(LANES)
}

/// Floats in the lane layout of `images` images of `features` features.
pub const fn lanes_len(images: usize, features: usize) -> usize {
    blocks(images) * features * LANES
}

/// Row-major f32 `[images][features]` to lanes, empty lanes zeroed.
///
/// # Panics
/// If `rows` is not `images * features` long or `lanes` not [`lanes_len`].
pub fn pack(set: InstructionSet, images: usize, features: usize, rows: &[f32], lanes: &mut [f32]) {
    check("rows", rows.len(), images * features);
    check("lanes", lanes.len(), lanes_len(images, features));
    if features == 0 {
        return;
    }
    lanes
        .par_chunks_mut(features * LANES)
        .zip(rows.par_chunks(features * LANES))
        .for_each(|(block, rows)| {
            let mut sources = [&rows[..0]; LANES];
            for (source, row) in sources.iter_mut().zip(rows.chunks(features)) {
                *source = row;
            }
            set.run(PackBlock { sources, block });
        });
}

/// Lanes to row-major f32 `[images][features]`; empty lanes are left out.
///
/// # Panics
/// If `rows` is not `images * features` long or `lanes` not [`lanes_len`].
pub fn unpack(
    set: InstructionSet,
    images: usize,
    features: usize,
    lanes: &[f32],
    rows: &mut [f32],
) {
    check("rows", rows.len(), images * features);
    check("lanes", lanes.len(), lanes_len(images, features));
    if features == 0 {
        return;
    }
    rows.par_chunks_mut(features * LANES)
        .zip(lanes.par_chunks(features * LANES))
        .for_each(|(rows, block)| {
            set.run(UnpackBlock {
                block,
                rows,
                features,
            })
        });
}

/// What becomes of a pixel: `(pixel - mean) / divisor`, each step correctly rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelScale {
    /// What is taken off, in units of the pixel.
    pub mean: f32,
    /// What the rest is divided by.
    pub divisor: f32,
}

impl PixelScale {
    /// `pixel / divisor`: 255 gives values from 0 to 1.
    pub const fn divide_by(divisor: f32) -> Self {
        Self { mean: 0.0, divisor }
    }
}

/// Images to gather from a table of u8 pixels; see [`pack_u8`].
#[derive(Clone, Copy, Debug)]
pub struct PixelGather<'a> {
    /// Row-major `[images of the table][features]`, the features of an image channel after channel.
    pub pixels: &'a [u8],
    /// Bytes of one image.
    pub features: usize,
    /// Rows of the table, in the order of the batch; a row may occur more than once.
    pub indices: &'a [usize],
    /// One for every channel of `features / scales.len()` pixels; a single one serves all.
    pub scales: &'a [PixelScale],
}

/// Gathers images of u8 pixels into lanes, scaled channel by channel, empty lanes zeroed.
///
/// # Panics
/// If an index lies outside the table, `lanes` is not [`lanes_len`] of the indices, or the features
/// are not as many for every channel.
pub fn pack_u8(set: InstructionSet, gather: PixelGather<'_>, lanes: &mut [f32]) {
    let PixelGather {
        pixels,
        features,
        indices,
        scales,
    } = gather;
    assert!(
        !scales.is_empty() && features.is_multiple_of(scales.len()),
        "{features} features in {} channels",
        scales.len()
    );
    check("lanes", lanes.len(), lanes_len(indices.len(), features));
    if features == 0 {
        return;
    }
    let table = pixels.len() / features;
    if let Some(&index) = indices.iter().find(|&&index| index >= table) {
        panic!(
            "image {index} of a table of {table} images ({} bytes)",
            pixels.len()
        );
    }
    lanes
        .par_chunks_mut(features * LANES)
        .zip(indices.par_chunks(LANES))
        .for_each(|(block, indices)| {
            let mut sources = [&pixels[..0]; LANES];
            for (source, &index) in sources.iter_mut().zip(indices) {
                *source = &pixels[index * features..][..features];
            }
            set.run(PackBlockU8 {
                sources,
                scales,
                block,
            });
        });
}

/// Holds a slice to the length its shape demands.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub(crate) fn check(what: &str, actual: usize, expected: usize) {
    assert!(
        actual == expected,
        "{what} holds {actual} values where the shape demands {expected}"
    );
}

/// One block from sixteen rows, each a whole row or empty.
struct PackBlock<'a> {
    sources: [&'a [f32]; LANES],
    block: &'a mut [f32],
}

impl Kernel for PackBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { sources, block } = self;
        let (vectors, _) = block.as_chunks_mut::<LANES>();
        let mut start = 0;
        for square in vectors.chunks_mut(LANES) {
            let mut rows = [isa.zero(); LANES];
            for (row, source) in rows.iter_mut().zip(&sources) {
                if let Some(values) = source.get(start..start + square.len()) {
                    // SAFETY: the slice holds `square.len()` floats, at most sixteen.
                    *row = unsafe { isa.load_first_ptr(values.as_ptr(), values.len()) };
                }
            }
            store_columns(isa, rows, square);
            start += LANES;
        }
    }
}

/// One block from sixteen rows of bytes, each a whole row or empty.
struct PackBlockU8<'a> {
    sources: [&'a [u8]; LANES],
    scales: &'a [PixelScale],
    block: &'a mut [f32],
}

impl Kernel for PackBlockU8<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            sources,
            scales,
            block,
        } = self;
        let (vectors, _) = block.as_chunks_mut::<LANES>();
        let plane = vectors.len() / scales.len();
        let mut start = 0;
        for (channel, scale) in vectors.chunks_mut(plane).zip(scales) {
            let (mean, divisor) = (isa.splat(scale.mean), isa.splat(scale.divisor));
            for square in channel.chunks_mut(LANES) {
                let mut rows = [isa.zero(); LANES];
                for (row, source) in rows.iter_mut().zip(&sources) {
                    if let Some(values) = source.get(start..start + square.len()) {
                        let mut bytes = [0; LANES];
                        bytes[..values.len()].copy_from_slice(values);
                        *row = isa.div(isa.sub(isa.load_u8(&bytes), mean), divisor);
                    }
                }
                store_columns(isa, rows, square);
                start += square.len();
            }
        }
    }
}

/// The first columns of a 16×16 matrix, as many as there are targets.
#[inline(always)]
fn store_columns<I: Isa>(isa: I, rows: [I::F32; LANES], targets: &mut [[f32; LANES]]) {
    let columns = isa.transpose(rows);
    for (target, column) in targets.iter_mut().zip(columns) {
        isa.store(target, column);
    }
}

/// Up to sixteen rows from one block.
struct UnpackBlock<'a> {
    block: &'a [f32],
    rows: &'a mut [f32],
    features: usize,
}

impl Kernel for UnpackBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            block,
            rows,
            features,
        } = self;
        let (vectors, _) = block.as_chunks::<LANES>();
        let mut start = 0;
        for square in vectors.chunks(LANES) {
            let mut columns = [isa.zero(); LANES];
            for (column, source) in columns.iter_mut().zip(square) {
                *column = isa.load(source);
            }
            let images = isa.transpose(columns);
            for (row, values) in rows.chunks_mut(features).zip(images) {
                let target = &mut row[start..start + square.len()];
                // SAFETY: the slice holds `square.len()` floats, at most sixteen.
                unsafe { isa.store_first_ptr(target.as_mut_ptr(), values, target.len()) };
            }
            start += LANES;
        }
    }
}

#[cfg(test)]
mod tests;
