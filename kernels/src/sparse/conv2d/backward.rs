//! The backward pass, block by block of sixteen images and a few rows at a time: what the gradient of
//! the values, that of the bias and that of the input have in common is then read from memory once.

use std::ops::Range;
use std::slice;

use rayon::prelude::*;

use super::{Correlation, Pattern, Sampling, back, check_pattern, output_sheets, sampling};
use crate::conv2d::{Conv2dShape, MaxPooled, Pooled, Pooling, add_parts, part_blocks};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::in_place::InPlace;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check, lanes_len};
use crate::shared::{Shared, is_streamed};
use crate::sparse::index::tile;
use crate::sparse::sample::SLACK;

/// The input of a pass back, in lanes, and where its gradient goes.
#[derive(Debug)]
pub enum Input<'a> {
    /// It stays, and its gradient, if anybody needs it, goes elsewhere.
    Kept {
        /// The input.
        x: &'a [f32],
        /// Its gradient, in lanes.
        grad: Option<&'a mut [f32]>,
    },
    /// Its gradient takes its place.
    Replaced(InPlace<'a>),
}

impl<'a> Input<'a> {
    fn x(&self) -> &[f32] {
        match self {
            Self::Kept { x, .. } => x,
            Self::Replaced(input) => input.x,
        }
    }

    /// Where the gradient goes, and whether it is zero where what it replaces is not positive.
    fn target(&mut self) -> Option<(&mut [f32], bool)> {
        match self {
            Self::Kept { grad, .. } => Some((grad.as_deref_mut()?, false)),
            Self::Replaced(input) => Some((input.x, input.rectified)),
        }
    }
}

/// The gradients to compute beside that of the input; what nobody needs is `None`.
#[derive(Debug, Default)]
pub struct Gradients<'a> {
    /// Of the values.
    pub values: Option<&'a mut [f32]>,
    /// Of the bias, `[outputs]`.
    pub bias: Option<&'a mut [f32]>,
}

/// The gradients of [`forward`](super::forward) from that of its sums, in lanes, zero in empty lanes.
///
/// # Panics
/// If a slice has another length than the shape demands, or the pattern is none of its weights.
pub fn backward(
    set: InstructionSet,
    layer: (&Pattern, &Conv2dShape),
    operands: (Input<'_>, &[f32]),
    grad_output: &[f32],
    gradients: Gradients<'_>,
) {
    by_blocks(set, layer, operands, (None, grad_output), gradients);
}

/// The gradients of [`forward_max_pool`](super::forward_max_pool) with relu or without, from that of the
/// pooled output, in lanes, zero in empty lanes and wherever the output was not positive if there was a
/// relu.
///
/// # Panics
/// If a slice has another length than the shape demands, or the pattern is none of its weights.
pub fn backward_max_pool(
    set: InstructionSet,
    layer: (&Pattern, &Conv2dShape),
    operands: (Input<'_>, &[f32]),
    max_pooled: MaxPooled<'_>,
    grad_output: &[f32],
    gradients: Gradients<'_>,
) {
    let output = (Some(max_pooled), grad_output);
    by_blocks(set, layer, operands, output, gradients);
}

fn by_blocks(
    set: InstructionSet,
    (pattern, shape): (&Pattern, &Conv2dShape),
    (mut input, values): (Input<'_>, &[f32]),
    (max_pooled, grad_output): (Option<MaxPooled<'_>>, &[f32]),
    gradients: Gradients<'_>,
) {
    check_pattern(pattern, shape);
    check("values", values.len(), pattern.len());
    let pooling = max_pooled.map(|pooled| (Pooling::new(shape, pooled.window), pooled.argmax));
    let output_len = match &pooling {
        Some((pooling, _)) => pooling.output_len(),
        None => shape.output_features() * LANES,
    };
    let blocks = blocks(shape.images);
    check("grad_output", grad_output.len(), blocks * output_len);
    if let Some((_, argmax)) = pooling {
        check("argmax", argmax.len(), grad_output.len());
    }
    let input_len = lanes_len(shape.images, shape.input_features());
    check("x", input.x().len(), input_len);
    if let Some((target, _)) = input.target() {
        check("grad_input", target.len(), input_len);
    }
    if let Some(target) = &gradients.values {
        check("grad_values", target.len(), pattern.len());
    }
    if let Some(target) = &gradients.bias {
        check("grad_bias", target.len(), shape.outputs);
    }
    let wants_input = input.target().is_some();
    let work = Work {
        set,
        pattern,
        shape,
        pooling,
        grad_output,
        output_len,
        places: Places::new(&mut input),
        ordered: None,
    };
    match wants_input {
        true => pattern.gradient().order().with_ordered(values, |ordered| {
            let ordered = Some(ordered);
            Work { ordered, ..work }.run(gradients);
        }),
        false => work.run(gradients),
    }
}

/// Where the input lies, and where its gradient goes.
#[derive(Clone, Copy)]
enum Places<'a> {
    Kept {
        x: &'a [f32],
        grad: Option<Shared>,
        streamed: bool,
    },
    Replaced {
        x: Shared,
        rectified: bool,
    },
}

impl<'a> Places<'a> {
    fn new(input: &'a mut Input<'_>) -> Self {
        match input {
            Input::Kept { x, grad } => Self::Kept {
                x,
                streamed: grad
                    .as_ref()
                    .is_some_and(|grad| is_streamed(grad.as_ptr(), grad.len())),
                grad: grad.as_mut().map(|grad| Shared::new(grad.as_mut_ptr())),
            },
            Input::Replaced(input) => Self::Replaced {
                x: Shared::new(input.x.as_mut_ptr()),
                rectified: input.rectified,
            },
        }
    }

    /// What lies at these floats, and whether to write past the caches.
    ///
    /// # Safety
    /// They are some of the input, and nobody else has them while this is used.
    unsafe fn part(&self, range: Range<usize>) -> (Input<'_>, bool) {
        // SAFETY: as the caller vouches.
        let part = |place: Shared| unsafe {
            slice::from_raw_parts_mut(place.start().add(range.start), range.len())
        };
        match *self {
            Self::Kept { x, grad, streamed } => {
                let grad = grad.map(part);
                let x = &x[range.clone()];
                (Input::Kept { x, grad }, streamed)
            }
            Self::Replaced { x, rectified } => {
                let x = part(x);
                (Input::Replaced(InPlace { x, rectified }), false)
            }
        }
    }
}

/// A backward pass over a batch.
struct Work<'a> {
    set: InstructionSet,
    pattern: &'a Pattern,
    shape: &'a Conv2dShape,
    /// How the output was pooled, and the place of each maximum.
    pooling: Option<(Pooling, &'a [u8])>,
    grad_output: &'a [f32],
    /// Floats of a block of it.
    output_len: usize,
    places: Places<'a>,
    /// The values as the gradient of the input wants them, if it is wanted.
    ordered: Option<&'a [f32]>,
}

impl Work<'_> {
    fn run(&self, gradients: Gradients<'_>) {
        let Self { pattern, shape, .. } = self;
        let Gradients { values, bias } = gradients;
        let blocks = blocks(shape.images);
        let values_len = values.as_ref().map_or(0, |_| pattern.len() + SLACK);
        let bias_len = bias.as_ref().map_or(0, |_| shape.outputs);
        // A part without sums still needs its turn, and so a float.
        let part_len = (values_len + bias_len).max(1);
        // The same parts whichever gradients are wanted.
        let part_blocks = part_blocks(blocks, pattern.len() + shape.outputs);
        with_scratch(blocks.div_ceil(part_blocks) * part_len, |sums| {
            let parts = sums.par_chunks_mut(part_len).enumerate().with_max_len(1);
            parts.for_each(|(part, sums)| {
                sums.fill(0.0);
                let first = part * part_blocks;
                for block in first..blocks.min(first + part_blocks) {
                    let (sum_values, rest) = sums.split_at_mut(values_len);
                    self.block(block, sum_values, &mut rest[..bias_len]);
                }
            });
            let parts = || sums.chunks_exact(part_len);
            if let Some(target) = values {
                let order = &pattern.samples().order;
                order.with_unordered(target, |sums| add_parts(sums, parts()));
            }
            if let Some(target) = bias {
                add_parts(target, parts().map(|part| &part[values_len..]));
            }
        });
    }

    /// One block: adds to sums of values and of the bias, if there are any.
    fn block(&self, block: usize, sum_values: &mut [f32], sum_bias: &mut [f32]) {
        let Self {
            set,
            pattern,
            shape,
            ..
        } = *self;
        let whole = &Conv2dShape {
            images: LANES,
            ..*shape
        };
        let input_len = shape.input_features() * LANES;
        // SAFETY: each block belongs to one task, and the places were held to the batch.
        let (mut input, streamed) =
            unsafe { self.places.part(block * input_len..(block + 1) * input_len) };
        let output = block * self.output_len..(block + 1) * self.output_len;
        let grad_output = &self.grad_output[output.clone()];
        let [rows, columns] = shape.output();
        let band = tile(set, shape.window.kernel)[0];
        // Rows that are unpooled are read while they are near, and give place to those behind them.
        let give_place =
            self.pooling.is_some() && (self.ordered.is_none() || pattern.gradient().read_once());
        let held_rows = if give_place { band.min(rows) } else { rows };
        let grad_len = match self.pooling {
            Some(_) => shape.outputs * held_rows * columns * LANES,
            None => 0,
        };
        let vertical = shape.window.axes([shape.height, shape.width])[0];
        let samples_len = match sum_values.is_empty() {
            true => 0,
            false => sampling(pattern, whole, [input.x(), &[]]).packed_len(),
        };
        let back_len = self.ordered.map_or(0, |ordered| {
            back(pattern, whole, (&[], ordered), false).rows_len()
        });
        let lens = [grad_len, samples_len, back_len, sum_bias.len() * LANES];
        with_scratch(lens.iter().sum(), |scratch| {
            let (unpooled, scratch) = scratch.split_at_mut(grad_len);
            let (packed, scratch) = scratch.split_at_mut(samples_len);
            let (back_scratch, lanes) = scratch.split_at_mut(back_len);
            lanes.fill(0.0);
            let mut done = 0;
            // Without any row, the gradient of the input is zero.
            for first in (0..rows.max(1)).step_by(band) {
                let end = rows.min(first + band);
                let held = match give_place {
                    true => first..end,
                    false => 0..rows,
                };
                let grad_sheets = output_sheets(whole).of_rows(held.clone());
                if let Some((pooling, argmax)) = &self.pooling {
                    set.run(Unpool {
                        pooling,
                        argmax: &argmax[output.clone()],
                        grad_output,
                        rows: first..end,
                        held: held.clone(),
                        grad: &mut *unpooled,
                    });
                }
                let grad = match self.pooling {
                    Some(_) => &*unpooled,
                    None => grad_output,
                };
                if !sum_values.is_empty() {
                    let sampling = Sampling {
                        grad_sheets,
                        ..sampling(pattern, whole, [input.x(), grad])
                    };
                    sampling.add_rows(set, first..end, (&mut *packed, &mut *sum_values));
                }
                set.run(AddRows {
                    grad,
                    size: [held.len(), columns],
                    rows: first - held.start..end - held.start,
                    lanes: &mut *lanes,
                });
                // No row of the gradient that is still to come reaches those before.
                let behind = match end == rows {
                    true => shape.height,
                    false => (end * vertical.stride).saturating_sub(vertical.before),
                };
                let behind = behind.min(shape.height);
                if let (Some(ordered), Some((target, rectified))) = (self.ordered, input.target()) {
                    let back = Correlation {
                        sheets: grad_sheets,
                        ..back(pattern, whole, (grad, ordered), rectified)
                    };
                    let target = (target, streamed);
                    done = back.run_rows(set, (done, behind), &mut *back_scratch, target);
                }
            }
            set.run(SumLanes { lanes, sum_bias });
        });
    }
}

/// Some rows of the gradient before pooling of a block.
struct Unpool<'a> {
    pooling: &'a Pooling,
    argmax: &'a [u8],
    grad_output: &'a [f32],
    rows: Range<usize>,
    /// The rows of each channel that there is room for.
    held: Range<usize>,
    grad: &'a mut [f32],
}

impl Kernel for Unpool<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let pooled = Pooled {
            output: &[],
            argmax: self.argmax,
            relu: false,
        };
        let (rows, target) = (self.rows, (self.held, self.grad));
        self.pooling
            .unpool(isa, pooled, self.grad_output, rows, target);
    }
}

/// Adds some rows of each channel of a block to a vector for each.
struct AddRows<'a> {
    grad: &'a [f32],
    /// Rows and columns.
    size: [usize; 2],
    rows: Range<usize>,
    lanes: &'a mut [f32],
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [rows, columns] = self.size;
        let place = self.rows.start * columns..self.rows.end * columns;
        let planes = self
            .grad
            .as_chunks::<LANES>()
            .0
            .chunks_exact((rows * columns).max(1));
        for (lanes, plane) in self.lanes.as_chunks_mut::<LANES>().0.iter_mut().zip(planes) {
            let mut sum = isa.load(lanes);
            for vector in &plane[place.clone()] {
                sum = isa.add(sum, isa.load(vector));
            }
            isa.store(lanes, sum);
        }
    }
}

/// Adds the lanes of each vector to the sum of a channel.
struct SumLanes<'a> {
    lanes: &'a [f32],
    sum_bias: &'a mut [f32],
}

impl Kernel for SumLanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (sum, lanes) in self.sum_bias.iter_mut().zip(self.lanes.as_chunks().0) {
            *sum += isa.sum(isa.load(lanes));
        }
    }
}
