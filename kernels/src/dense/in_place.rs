//! The way back through a layer with many features: the gradient of the input, which replaces the
//! input, and a step over the weights, both a few features at a time.
//!
//! Each task copies its features of the input, then computes their gradient into its place and the
//! gradient of their weights, which updates these. So input and weights come from memory once, and no
//! gradient of either size ever exists.

use std::ptr;
use std::slice;

use super::{DenseShape, by_images, by_lanes, rows_of_outputs, transposed};
use crate::chunks::{Split, for_each_chunk};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::{DEPTH, LanesAhead, Product, Vectors, multiply_here, tile_size};
use crate::gemm::epilogue::Updated;
use crate::gemm::pack::{pack, packed_len};
use crate::gemm::scratch::with_scratch;
use crate::in_place::InPlace;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check, lanes_len};
use crate::shared::Shared;
use crate::update::{Rule, Update, WithRule};

/// Features of a task: whole panels of every set, and at 512 images 172 KB of the input, which a
/// second-level cache of 1 MB holds beside the packed gradient of 256 outputs.
const FEATURES: usize = 84;

/// Floats of the input from which on it is not in the caches any more when its gradient is written.
const LEAST_INPUT: usize = 2 << 20;

/// Whether [`backward_in_place`] takes this shape and is the faster way.
pub fn suits_in_place(shape: DenseShape) -> bool {
    has_whole_sums(shape) && lanes_len(shape.images, shape.inputs) >= LEAST_INPUT
}

/// Whether the sums over images have one block, so that they can update weights.
fn has_whole_sums(shape: DenseShape) -> bool {
    blocks(shape.images) * LANES <= DEPTH
}

/// [`grad_input`](super::grad_input), in the place of the input, and
/// [`update_weights`](super::update_weights), from the gradient of `x · weights + bias` in lanes, zero
/// in empty lanes. Each value is that of those two, bit for bit, or zero if the input came out of a
/// relu and was not positive.
///
/// # Panics
/// If a slice has another length than the shape demands, or there are more than 512 images.
pub fn backward_in_place(
    set: InstructionSet,
    shape: DenseShape,
    input: InPlace<'_>,
    grad_output: &[f32],
    update: Update<'_>,
) {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    assert!(has_whole_sums(shape), "{images} images are too many");
    check("x", input.x.len(), lanes_len(images, inputs));
    check("grad_output", grad_output.len(), lanes_len(images, outputs));
    check("weights", update.weights.len(), inputs * outputs);
    if inputs == 0 || outputs == 0 {
        input.x.fill(0.0);
        return;
    }
    let rows = rows_of_outputs(shape, grad_output);
    let (_, tile_vectors) = tile_size(set);
    let width = tile_vectors * LANES;
    with_scratch(packed_len(outputs, rows.depth, width), |packed| {
        pack(set, rows, width, packed);
        update.with_rule(Layer {
            set,
            shape,
            x: Shared::new(input.x.as_mut_ptr()),
            rectified: input.rectified,
            grad_output,
            packed,
        });
    });
}

/// What all tasks share.
#[derive(Clone, Copy)]
struct Layer<'a> {
    set: InstructionSet,
    shape: DenseShape,
    x: Shared,
    rectified: bool,
    grad_output: &'a [f32],
    /// The same in strips of outputs.
    packed: &'a [f32],
}

/// Some features with their weights.
struct Features<'a> {
    first: usize,
    outputs: usize,
    update: Update<'a>,
}

impl Split for Features<'_> {
    fn len(&self) -> usize {
        self.update.weights.len() / self.outputs
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let Self { first, outputs, .. } = self;
        let (left, right) = self.update.split_at(mid * outputs);
        let features = |first, update| Self {
            first,
            outputs,
            update,
        };
        (features(first, left), features(first + mid, right))
    }
}

impl WithRule for Layer<'_> {
    fn run<R: Rule>(self, rule: R, update: Update<'_>) {
        update.check::<R>();
        let features = Features {
            first: 0,
            outputs: self.shape.outputs,
            update,
        };
        for_each_chunk(features, FEATURES, &|features: Features| {
            self.replace(rule, features);
        });
    }
}

impl Layer<'_> {
    /// Replaces some features and updates their weights.
    fn replace<R: Rule>(&self, rule: R, mut features: Features<'_>) {
        let shape = DenseShape {
            inputs: features.len(),
            ..self.shape
        };
        let block_len = shape.inputs * LANES;
        let stride = self.shape.inputs * LANES;
        let start = self.x.start().wrapping_add(features.first * LANES);
        let places = (0..blocks(shape.images)).map(|block| start.wrapping_add(block * stride));
        with_scratch(lanes_len(shape.images, shape.inputs), |x| {
            for (copy, place) in x.chunks_exact_mut(block_len).zip(places.clone()) {
                // SAFETY: these features of the block, which belong to this task.
                unsafe { ptr::copy_nonoverlapping(place, copy.as_mut_ptr(), block_len) };
            }
            let weights = transposed(features.update.weights, shape);
            let grad_input = Product {
                vector_stride: stride,
                ..by_lanes(weights, self.grad_output, shape.images)
            };
            // SAFETY: every feature has a vector of its own in each block of the input, and no other
            // task goes there.
            unsafe { multiply_here(self.set, &grad_input, start) };
            if self.rectified {
                for (x, place) in x.chunks_exact(block_len).zip(places) {
                    // SAFETY: as above; what was computed there is not in use elsewhere.
                    let grad = unsafe { slice::from_raw_parts_mut(place, block_len) };
                    self.set.run(Rectify { x, grad });
                }
            }
            let epilogue = Updated::new(rule, &mut features.update);
            let update = Product {
                ahead: Some(LanesAhead {
                    start: Shared::new(start.wrapping_add(block_len)),
                    features: shape.inputs,
                    block_stride: stride,
                }),
                ..by_images(shape, x, Vectors::Packed(self.packed), epilogue)
            };
            // SAFETY: rows of the weights are `outputs` apart, their vectors sixteen, and the rows of
            // these features belong to this task.
            unsafe { multiply_here(self.set, &update, features.update.weights.as_mut_ptr()) };
        });
    }
}

/// The gradient behind a relu: none where its output was not positive.
struct Rectify<'a> {
    x: &'a [f32],
    grad: &'a mut [f32],
}

impl Kernel for Rectify<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (grads, _) = self.grad.as_chunks_mut::<LANES>();
        for (grad, x) in grads.iter_mut().zip(self.x.as_chunks::<LANES>().0) {
            isa.store(grad, isa.select_gt_zero(isa.load(x), isa.load(grad)));
        }
    }
}
