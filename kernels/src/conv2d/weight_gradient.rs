//! The weight gradient by the method that suits a shape.

use super::correlation::Method;
use super::winograd::{self, GradBlock, GradPlan, Transform};
use super::{Conv2dShape, grad_weights};
use crate::dispatch::InstructionSet;
use crate::isa::Isa;

/// How the weight gradient of a convolution is summed: block by block into the sums of a part, and
/// at the end over all parts.
pub(super) enum WeightGradient<'a, T> {
    Direct(&'a Conv2dShape),
    Winograd(GradPlan<T>),
}

impl<'a, T: Transform> WeightGradient<'a, T> {
    pub(super) fn new(shape: &'a Conv2dShape, method: Method) -> Self {
        match method {
            Method::Direct => Self::Direct(shape),
            Method::Winograd => Self::Winograd(GradPlan::new(shape)),
        }
    }

    /// Floats of the sums of a part.
    pub(super) fn sums_len(&self) -> usize {
        match self {
            Self::Direct(shape) => shape.weights(),
            Self::Winograd(plan) => plan.sums_len(),
        }
    }

    /// Floats of memory that [`add_block`](Self::add_block) works in.
    pub(super) fn scratch_len(&self) -> usize {
        match self {
            Self::Direct(shape) => grad_weights::padded_len(shape),
            Self::Winograd(plan) => plan.scratch_len(),
        }
    }

    /// Adds one block of images, `x` and the gradient of the sums, to a part, of which it may be the
    /// first: then the sums of the weights may hold anything. Those of the bias, one for each output or
    /// none, are always added to.
    #[inline(always)]
    pub(super) fn add_block<I: Isa>(
        &self,
        isa: I,
        [x, grad_output]: [&[f32]; 2],
        first: bool,
        (sums, sum_bias): (&mut [f32], &mut [f32]),
        scratch: &mut [f32],
    ) {
        match self {
            Self::Direct(shape) => {
                if first {
                    sums.fill(0.0);
                }
                grad_weights::add_block(isa, shape, x, grad_output, scratch, sums);
                super::backward::add_planes(isa, grad_output, sum_bias);
            }
            Self::Winograd(plan) => winograd::add_grad_weights(
                isa,
                GradBlock {
                    plan,
                    x,
                    grad_output,
                    first,
                    sums,
                    sum_bias,
                    scratch,
                },
            ),
        }
    }

    /// The gradient, `[kh, kw, inputs, outputs]`, from the sums of all parts, added in order: they
    /// are at the start of every `part_len` floats.
    pub(super) fn finish(
        &self,
        set: InstructionSet,
        parts: &[f32],
        part_len: usize,
        grad_weights: &mut [f32],
    ) {
        match self {
            Self::Direct(_) => {
                let parts = parts.chunks_exact(part_len);
                super::backward::add_parts(grad_weights, parts);
            }
            Self::Winograd(plan) => {
                winograd::sum_parts(set, plan, parts, part_len, grad_weights);
            }
        }
    }
}
