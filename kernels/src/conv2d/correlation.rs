//! One direction of a convolution by the method that suits its shape.

use std::env;
use std::ops::Range;
use std::sync::OnceLock;

use super::direct::{self, RowTarget};
use super::taps::Direction;
use super::winograd::{self, PlaneTarget, Transform};
use super::{Conv2dShape, Epilogue};
use crate::dispatch::InstructionSet;
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;

/// The environment variable that forces a method where the shape allows it.
pub const ENV: &str = "TASKWEAVE_CONV";

/// Channels of source and of result from which on the transforms cost less than the products that
/// they save.
const LEAST_CHANNELS: usize = 16;

/// A way to compute a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Every product of the definition.
    Direct,
    /// Winograd's minimal filtering, for windows of 3×3 that move by one: see
    /// [`winograd`](super::winograd).
    Winograd,
}

/// A request for a method that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown way to convolve '{name}' in {ENV}: direct and winograd are known")]
pub struct UnknownMethod {
    /// What was asked for.
    pub name: String,
}

/// The method that the environment forces, if it does; an empty value forces none.
///
/// # Errors
/// When the variable holds anything but `direct` or `winograd`.
pub fn method_from_env() -> Result<Option<Method>, UnknownMethod> {
    let Some(name) = env::var_os(ENV).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let mut methods = [Method::Direct, Method::Winograd].into_iter();
    match methods.find(|method| name == method.name()) {
        Some(method) => Ok(Some(method)),
        None => Err(UnknownMethod {
            name: name.to_string_lossy().into_owned(),
        }),
    }
}

impl Method {
    /// The name that [`ENV`] knows this method by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Winograd => "winograd",
        }
    }

    /// The method for a shape: what the environment forces, read once, else what is faster.
    pub fn of(shape: &Conv2dShape) -> Self {
        static FORCED: OnceLock<Option<Method>> = OnceLock::new();
        let forced = *FORCED.get_or_init(|| method_from_env().unwrap_or(None));
        let suits = shape.inputs.min(shape.outputs) >= LEAST_CHANNELS;
        match forced {
            _ if !winograd::computes(shape) => Self::Direct,
            Some(method) => method,
            None if suits => Self::Winograd,
            None => Self::Direct,
        }
    }
}

/// A convolution, or its input gradient, laid out for one instruction set.
#[expect(
    clippy::large_enum_variant,
    reason = "one lives at a time, on the stack, so that a call allocates nothing"
)]
pub(super) enum Correlation<'a, T> {
    Direct(direct::Plan<'a>),
    Winograd {
        plan: winograd::Plan<T>,
        /// Transformed.
        weights: &'a [f32],
    },
}

/// Lays out one direction of a convolution with these weights, `[kh, kw, inputs, outputs]`, for the
/// time of a call.
pub(super) fn with_correlation<T: Transform, R>(
    set: InstructionSet,
    (shape, method): (&Conv2dShape, Method),
    direction: Direction,
    weights: &[f32],
    use_it: impl FnOnce(&Correlation<'_, T>) -> R,
) -> R {
    match method {
        Method::Direct => with_scratch(direct::panels_len(set, shape, direction), |panels| {
            direct::pack_weights(set, shape, direction, weights, panels);
            let plan = direct::Plan::new(set, shape, direction, panels);
            use_it(&Correlation::Direct(plan))
        }),
        Method::Winograd => {
            let plan = winograd::Plan::new(set, shape, direction);
            with_scratch(plan.weights_len(), |transformed| {
                winograd::transform_weights(set, &plan, weights, transformed);
                let weights = &*transformed;
                use_it(&Correlation::Winograd { plan, weights })
            })
        }
    }
}

impl<T: Transform> Correlation<'_, T> {
    /// Rows and columns of the result.
    pub(super) fn result_size(&self) -> [usize; 2] {
        match self {
            Self::Direct(plan) => [plan.result_rows, plan.result_columns],
            Self::Winograd { plan, .. } => plan.result_size(),
        }
    }

    /// Floats of the source for one block of images.
    pub(super) fn source_len(&self) -> usize {
        match self {
            Self::Direct(plan) => plan.source_len(),
            Self::Winograd { plan, .. } => plan.source_len(),
        }
    }

    /// Floats of the result for one block of images.
    pub(super) fn result_len(&self) -> usize {
        match self {
            Self::Direct(plan) => plan.result_len(),
            Self::Winograd { plan, .. } => plan.result_len(),
        }
    }

    /// Rows that are computed together.
    pub(super) fn band(&self) -> usize {
        match self {
            Self::Direct(_) => 1,
            Self::Winograd { .. } => T::OUTPUTS,
        }
    }

    /// Floats of memory that [`rows`](Self::rows) works in.
    pub(super) fn scratch_len(&self) -> usize {
        match self {
            Self::Direct(_) => 0,
            Self::Winograd { plan, .. } => plan.scratch_len(),
        }
    }

    /// Computes the rows of some [bands](Self::band) of the result for one block of images.
    ///
    /// # Panics
    /// If the source or the scratch has another length than it should.
    ///
    /// # Safety
    /// The target is valid for writing those of these rows that the result has, in every channel, and
    /// for reading them if they are rectified.
    #[inline(always)]
    pub(super) unsafe fn rows<I: Isa>(
        &self,
        isa: I,
        source: &[f32],
        bands: Range<usize>,
        epilogue: Epilogue<'_>,
        target: PlaneTarget,
        scratch: &mut [f32],
    ) {
        match self {
            Self::Direct(plan) => {
                for y in bands {
                    let row = RowTarget {
                        start: target.start.wrapping_add(y * target.row_stride),
                        channel_stride: target.channel_stride,
                    };
                    // SAFETY: the caller vouches for the rows of the target.
                    unsafe { direct::row(isa, plan, source, y, epilogue, row) };
                }
            }
            Self::Winograd { plan, weights } => {
                let band = winograd::Band {
                    plan,
                    weights,
                    source,
                    epilogue,
                    tile_rows: bands,
                    target,
                    scratch,
                };
                // SAFETY: the caller vouches for the rows of the target; a band is a row of tiles.
                unsafe { winograd::correlate(isa, band) };
            }
        }
    }
}
