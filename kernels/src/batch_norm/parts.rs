//! Sums over the values of every channel, in parts of a few blocks.

use std::ops::Range;

use rayon::prelude::*;

use super::BatchNormShape;
use crate::chunks::CHUNK;
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks};

/// Vectors of a channel that a part should have at least, so that the work of merging it in scalars
/// is small beside that of summing it.
pub(super) const PART_VECTORS: usize = 64;

/// How the values of a batch are divided into parts.
#[derive(Clone, Copy)]
pub(super) struct Parts {
    shape: BatchNormShape,
    /// Blocks of one part.
    pub(super) blocks: usize,
}

impl Parts {
    pub(super) fn new(shape: BatchNormShape) -> Self {
        Self {
            shape,
            blocks: PART_VECTORS.div_ceil(shape.pixels.max(1)),
        }
    }

    /// Parts of one channel.
    fn count(self) -> usize {
        blocks(self.shape.images).div_ceil(self.blocks)
    }

    /// Images in part number `part`.
    fn images(self, part: usize) -> usize {
        let size = self.blocks * LANES;
        (self.shape.images - part * size).min(size)
    }

    /// Sums every channel of every part in parallel, then merges the parts of each channel in
    /// order, `merge(channel, [(values in the part, its sums), ...])`.
    pub(super) fn sum<S: PartSums>(
        self,
        set: InstructionSet,
        sums: S,
        mut merge: impl FnMut(usize, &mut dyn Iterator<Item = (f64, [f32; 3])>),
    ) {
        let (shape, count) = (self.shape, self.count());
        let part_len = self.blocks * shape.pixels * LANES;
        let per_task = (CHUNK / part_len.max(1)).max(1);
        with_scratch(count * shape.channels * 3, |results| {
            results
                .par_chunks_mut(per_task * 3)
                .enumerate()
                .for_each(|(task, results)| {
                    set.run(SomeParts {
                        parts: self,
                        first: task * per_task,
                        sums,
                        results: results.as_chunks_mut().0,
                    });
                });
            let results = results.as_chunks().0;
            for channel in 0..shape.channels {
                let mut parts = (0..count).map(|part| {
                    let values = self.images(part) * shape.pixels;
                    (values as f64, results[part * shape.channels + channel])
                });
                merge(channel, &mut parts);
            }
        });
    }
}

/// Sums over the values of one channel in one part.
pub(super) trait PartSums: Copy + Send + Sync {
    /// Three of them; `values` lists where the vectors of the part lie, with the lanes that hold
    /// images.
    fn sum<I: Isa>(self, isa: I, channel: usize, values: PartVectors) -> [f32; 3];
}

/// The vectors of one channel in some blocks.
#[derive(Clone, Copy)]
pub(super) struct PartVectors {
    pub(super) shape: BatchNormShape,
    channel: usize,
    first_block: usize,
    /// Images in these blocks.
    pub(super) images: usize,
}

impl PartVectors {
    /// Of each block: where its vectors lie in the batch, and how many lanes hold images.
    #[inline(always)]
    pub(super) fn runs(self) -> impl Iterator<Item = (Range<usize>, usize)> {
        let BatchNormShape {
            channels, pixels, ..
        } = self.shape;
        (0..blocks(self.images)).map(move |block| {
            let start = ((self.first_block + block) * channels + self.channel) * pixels;
            let lanes = (self.images - block * LANES).min(LANES);
            (start..start + pixels, lanes)
        })
    }
}

struct SomeParts<'a, S> {
    parts: Parts,
    first: usize,
    sums: S,
    results: &'a mut [[f32; 3]],
}

impl<S: PartSums> Kernel for SomeParts<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let shape = self.parts.shape;
        for (index, result) in self.results.iter_mut().enumerate() {
            let (part, channel) = (
                (self.first + index) / shape.channels,
                (self.first + index) % shape.channels,
            );
            let vectors = PartVectors {
                shape,
                channel,
                first_block: part * self.parts.blocks,
                images: self.parts.images(part),
            };
            *result = self.sums.sum(isa, channel, vectors);
        }
    }
}
