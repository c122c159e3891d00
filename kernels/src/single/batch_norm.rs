//! Batch normalisation of one image.

use crate::batch_norm::{BatchNormShape, Channel, Normalization, check_normalization};
use crate::chunks::padded;
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::{LANES, check};

/// `y = (x - mean) · inverse deviation · gamma + beta` of one image, `[channels, pixels]`, to the bits of
/// [`batch_norm::forward`](crate::batch_norm::forward). How many images the shape has does not count.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn batch_norm(
    set: InstructionSet,
    shape: BatchNormShape,
    normalization: Normalization<'_, f32>,
    x: &[f32],
    y: &mut [f32],
) {
    check("x", x.len(), shape.features());
    check("y", y.len(), shape.features());
    check_normalization(shape, &normalization);
    if !y.is_empty() {
        set.run(Normalize {
            shape,
            normalization,
            x,
            y,
        });
    }
}

struct Normalize<'a> {
    shape: BatchNormShape,
    normalization: Normalization<'a, f32>,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plane = self.shape.pixels;
        let planes = self
            .y
            .chunks_exact_mut(plane)
            .zip(self.x.chunks_exact(plane));
        for (channel, (y, x)) in planes.enumerate() {
            let channel = Channel::new(isa, &self.normalization, channel);
            let (vectors, rest) = x.as_chunks::<LANES>();
            let (targets, rest_target) = y.as_chunks_mut::<LANES>();
            for (target, x) in targets.iter_mut().zip(vectors) {
                isa.store(target, channel.normalize(isa, isa.load(x)));
            }
            let values = isa.to_array(channel.normalize(isa, isa.load(&padded(rest))));
            rest_target.copy_from_slice(&values[..rest.len()]);
        }
    }
}
