//! The gradient of the weights.
//!
//! At each point it is a matrix product: transformed inputs times transformed output gradients,
//! summed over tiles and images. Inputs are broadcast, one value of one image after the other, as
//! they lie in lanes. Of the gradients each pixel of a tile, sixteen channels by sixteen images, is
//! transposed before it is transformed, so that a vector holds channels: a tile has fewer pixels than
//! points. The sums `[point][input][output]` grow by a group of tiles at a time. At the point (1, 1) a
//! transformed gradient is the sum of its tile, which the gradient of the bias adds up.

use std::marker::PhantomData;

use rayon::prelude::*;

use super::tiles::{Ahead, GradOutput, Input, Place, Plane, Square, Vectors, transform_square};
use super::transform::{MOST_POINTS, ONE, Transform};
use crate::conv2d::Conv2dShape;
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::tile::{self, Store, Tile, TileKernel, micro_kernel};
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::shared::Shared;

/// Tiles of a group at most: with 64 channels on both sides their 36 points are 885 KB, which a
/// second-level cache of 1 MB holds. Each more is one pass less over the sums.
const GROUP: usize = 3;

/// Floats from one channel of the transformed input to the next.
const CHANNEL: usize = GROUP * LANES;

/// Floats from one vector of channels of the transformed gradient to the next.
const VECTOR: usize = GROUP * LANES * LANES;

/// One vector between the points, so that they do not fall on one set of the first-level cache.
const SKEW: usize = LANES;

/// Floats of one pixel of sixteen channels by sixteen images.
const PIXEL: usize = LANES * LANES;

/// The weight gradient of a convolution, laid out.
pub(crate) struct GradPlan<T> {
    inputs: usize,
    outputs: usize,
    input: Plane,
    output: Plane,
    /// Rows and columns of tiles.
    tiles: [usize; 2],
    transform: PhantomData<T>,
}

impl<T: Transform> GradPlan<T> {
    const POINTS: usize = T::POINTS * T::POINTS;

    /// Lays out the weight gradient of a convolution.
    ///
    /// # Panics
    /// If the window is not three by three places that moves by one.
    pub(crate) fn new(shape: &Conv2dShape) -> Self {
        super::check_window(shape);
        let [rows, columns] = shape.window.axes([shape.height, shape.width]);
        Self {
            inputs: shape.inputs,
            outputs: shape.outputs,
            input: Plane {
                rows: rows.input,
                columns: columns.input,
                before: [rows.before, columns.before],
            },
            output: Plane {
                rows: rows.output,
                columns: columns.output,
                before: [0; 2],
            },
            tiles: [rows.output, columns.output].map(|len| len.div_ceil(T::OUTPUTS)),
            transform: PhantomData,
        }
    }

    /// Vectors of output channels.
    fn vectors(&self) -> usize {
        self.outputs.div_ceil(LANES)
    }

    /// Floats of the sums of one part of the batch.
    pub(crate) fn sums_len(&self) -> usize {
        Self::POINTS * self.inputs * self.vectors() * LANES
    }

    /// Floats from the transformed input of one point to that of the next: whole panels of
    /// channels, however high they are.
    fn input_stride(&self) -> usize {
        self.inputs.next_multiple_of(LANES) * CHANNEL + SKEW
    }

    /// Floats from the transformed gradient of one point to that of the next.
    fn output_stride(&self) -> usize {
        self.vectors() * VECTOR + SKEW
    }

    /// Floats of memory that [`add_grad_weights`] works in.
    pub(crate) fn scratch_len(&self) -> usize {
        Self::POINTS * (self.input_stride() + self.output_stride())
            + T::OUTPUTS * T::OUTPUTS * PIXEL
    }
}

/// One block of images.
pub(crate) struct GradBlock<'a, T> {
    pub(crate) plan: &'a GradPlan<T>,
    pub(crate) x: &'a [f32],
    /// Zero in empty lanes.
    pub(crate) grad_output: &'a [f32],
    /// Whether this is the first block of its part: then the sums are not read.
    pub(crate) first: bool,
    /// [`GradPlan::sums_len`] floats.
    pub(crate) sums: &'a mut [f32],
    /// What the sums of the gradient are added to, one for each output or none.
    pub(crate) sum_bias: &'a mut [f32],
    /// [`GradPlan::scratch_len`] floats of any content.
    pub(crate) scratch: &'a mut [f32],
}

/// Adds one block of images to the sums of its part.
///
/// # Panics
/// If a slice has another length than the plan demands.
#[inline(always)]
pub(crate) fn add_grad_weights<I: Isa, T: Transform>(isa: I, block: GradBlock<'_, T>) {
    let plan = block.plan;
    assert_eq!(block.x.len(), plan.inputs * plan.input.len());
    assert_eq!(block.grad_output.len(), plan.outputs * plan.output.len());
    assert_eq!(block.sums.len(), plan.sums_len());
    assert!([0, plan.outputs].contains(&block.sum_bias.len()));
    assert_eq!(block.scratch.len(), plan.scratch_len());
    isa.conv2d_tile(Groups(block));
}

struct Groups<'a, T>(GradBlock<'a, T>);

impl<T: Transform> TileKernel for Groups<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Self(block) = self;
        let plan = block.plan;
        let [down, across] = plan.tiles;
        let end = down * across;
        if block.first && end == 0 {
            block.sums.fill(0.0);
        }
        let (inputs, rest) = block
            .scratch
            .split_at_mut(GradPlan::<T>::POINTS * plan.input_stride());
        let (outputs, pixels) = rest.split_at_mut(GradPlan::<T>::POINTS * plan.output_stride());
        let mut first = 0;
        while first < end {
            let left = end - first;
            let tiles = left.div_ceil(left.div_ceil(GROUP));
            let mut places: [[Place; 2]; GROUP] = Default::default();
            for (tile, place) in (first..end).zip(&mut places).take(tiles) {
                let at = [tile / across, tile % across];
                *place = [
                    plan.input.square(at, T::OUTPUTS, T::POINTS),
                    plan.output.square(at, T::OUTPUTS, T::OUTPUTS),
                ];
            }
            for channel in 0..plan.inputs {
                let plane = block.x[channel * plan.input.len()..].as_ptr();
                for (tile, [place, _]) in places.iter().enumerate().take(tiles) {
                    let to = channel * CHANNEL + tile * LANES;
                    // SAFETY: places lie on their plane, and the scratch holds every point of
                    // every tile of every channel.
                    unsafe {
                        transform_square::<I, Input<T>>(
                            isa,
                            Vectors::of(plane, &plan.input, place),
                            place,
                            (inputs.as_mut_ptr().wrapping_add(to), plan.input_stride()),
                        );
                    }
                }
            }
            for vector in 0..plan.vectors() {
                for (tile, [_, place]) in places.iter().enumerate().take(tiles) {
                    let to = &mut outputs[vector * VECTOR + tile * PIXEL..];
                    transform_outputs(isa, plan, (block.grad_output, vector), place, pixels, to);
                }
            }
            let ones = &outputs[(ONE * T::POINTS + ONE) * plan.output_stride()..];
            add_rows(isa, ones, tiles * LANES, block.sum_bias);
            let next = first + tiles;
            let mut ahead = [
                Ahead::new(&plan.input, T::POINTS, T::OUTPUTS, plan.inputs),
                Ahead::new(&plan.output, T::OUTPUTS, T::OUTPUTS, plan.outputs),
            ];
            for tile in next..next + GROUP {
                let [input, output] = &mut ahead;
                input.add_square((&plan.input, plan.tiles), block.x.as_ptr(), tile);
                let grad_output = block.grad_output.as_ptr();
                output.add_square((&plan.output, plan.tiles), grad_output, tile);
            }
            let held = if block.first && first == 0 { 0.0 } else { 1.0 };
            multiply::<I, T, ROWS, VECTORS>(
                isa,
                plan,
                (inputs, outputs),
                (tiles, held),
                block.sums,
                &mut ahead,
            );
            first += tiles;
        }
    }
}

/// Transposes and transforms the gradient of a vector of channels at the place of one tile, whose pixels
/// `pixels` has room for; `to` are the points from that tile of the vector on.
#[inline(always)]
fn transform_outputs<I: Isa, T: Transform>(
    isa: I,
    plan: &GradPlan<T>,
    (grad_output, vector): (&[f32], usize),
    place: &Place,
    pixels: &mut [f32],
    to: &mut [f32],
) {
    let first = vector * LANES;
    let channels = LANES.min(plan.outputs - first);
    let planes = grad_output[first * plan.output.len()..].as_ptr();
    let from = Vectors::of(planes, &plan.output, place);
    for i in place.rows.clone() {
        for j in place.columns.clone() {
            let pixel = &mut pixels[(i * T::OUTPUTS + j) * PIXEL..][..PIXEL];
            // SAFETY: places lie on their plane, of which there are as many as channels.
            unsafe { transpose(isa, from.at(i, j), plan.output.len(), channels, pixel) };
        }
    }
    for image in 0..LANES {
        let from = Vectors {
            corner: pixels[image * LANES..].as_ptr(),
            row_stride: T::OUTPUTS * PIXEL,
            column_stride: PIXEL,
        };
        let to = (to[image * LANES..].as_mut_ptr(), plan.output_stride());
        // SAFETY: the pixels of this place have been written, and the scratch holds every point of every
        // tile of every vector.
        unsafe { transform_square::<I, GradOutput<T>>(isa, from, place, to) };
    }
}

/// Transposes one pixel of up to sixteen channels, `stride` floats apart; the others are zero.
///
/// # Safety
/// A vector of each channel is valid for reading.
#[inline(always)]
unsafe fn transpose<I: Isa>(
    isa: I,
    from: *const f32,
    stride: usize,
    channels: usize,
    to: &mut [f32],
) {
    let mut rows = [isa.zero(); LANES];
    for (channel, row) in rows.iter_mut().enumerate() {
        if channel < channels {
            // SAFETY: the caller vouches for this channel.
            *row = unsafe { isa.load_ptr(from.wrapping_add(channel * stride)) };
        }
    }
    let columns = isa.transpose(rows);
    for (values, column) in to.as_chunks_mut::<LANES>().0.iter_mut().zip(columns) {
        isa.store(values, column);
    }
}

/// Adds the sums of the first `rows` rows of every vector of channels.
#[inline(always)]
fn add_rows<I: Isa>(isa: I, vectors: &[f32], rows: usize, sums: &mut [f32]) {
    for (vector, sums) in vectors.chunks(VECTOR).zip(sums.chunks_mut(LANES)) {
        let mut sum = isa.zero();
        for row in &vector.as_chunks::<LANES>().0[..rows] {
            sum = isa.add(sum, isa.load(row));
        }
        for (total, sum) in sums.iter_mut().zip(isa.to_array(sum)) {
            *total += sum;
        }
    }
}

/// Adds the products of a group of tiles to the sums, `held` times what these hold.
#[inline(always)]
fn multiply<I: Isa, T: Transform, const ROWS: usize, const VECTORS: usize>(
    isa: I,
    plan: &GradPlan<T>,
    (inputs, outputs): (&[f32], &[f32]),
    (tiles, held): (usize, f32),
    sums: &mut [f32],
    ahead: &mut [Ahead<GROUP>; 2],
) {
    let vectors = plan.vectors();
    let strips = vectors.div_ceil(VECTORS);
    let calls = GradPlan::<T>::POINTS * strips * plan.inputs.div_ceil(ROWS);
    for ahead in &mut *ahead {
        ahead.spread_over(calls);
    }
    for point in 0..GradPlan::<T>::POINTS {
        let a = &inputs[point * plan.input_stride()..];
        let b = &outputs[point * plan.output_stride()..];
        let c = point * plan.inputs * vectors * LANES;
        let mut first = 0;
        for strip in 0..strips {
            // As equal as can be: 2 and 2, not 3 and 1.
            let used = (vectors - first).div_ceil(strips - strip);
            let mut row = 0;
            while row < plan.inputs {
                let tile = Tile {
                    a: a[row * CHANNEL..].as_ptr(),
                    a_row: CHANNEL,
                    a_outer: 0,
                    b: b[first * VECTOR..].as_ptr(),
                    b_vector: VECTOR,
                    b_step: LANES,
                    outer: 1,
                    inner: tiles * LANES,
                    ahead: tile::Ahead::NONE,
                    c: sums[c + (row * vectors + first) * LANES..].as_mut_ptr(),
                    c_row: vectors * LANES,
                    c_vector: LANES,
                    rows: ROWS.min(plan.inputs - row),
                    last_lanes: LANES,
                    finish: Store {
                        held,
                        ..Store::PLAIN
                    },
                };
                // SAFETY: the transformed input has room for whole panels, both operands hold
                // sixteen images of every tile, and only rows that there are are written.
                unsafe {
                    match used {
                        1 => micro_kernel::<I, _, ROWS, 1, CHANNEL, false>(isa, &tile),
                        2 => micro_kernel::<I, _, ROWS, 2, CHANNEL, false>(isa, &tile),
                        _ => micro_kernel::<I, _, ROWS, VECTORS, CHANNEL, false>(isa, &tile),
                    }
                }
                for ahead in &mut *ahead {
                    ahead.fetch(isa);
                }
                row += ROWS;
            }
            first += used;
        }
    }
}

/// Adds the sums of all parts in order, which are at the start of every `part_len` floats, and
/// transforms them back, into `[3, 3, inputs, outputs]`.
///
/// # Panics
/// If a slice has another length than the plan demands.
pub(crate) fn sum_parts<T: Transform>(
    set: InstructionSet,
    plan: &GradPlan<T>,
    parts: &[f32],
    part_len: usize,
    grad_weights: &mut [f32],
) {
    assert_eq!(grad_weights.len(), 9 * plan.inputs * plan.outputs);
    if grad_weights.is_empty() {
        return;
    }
    assert!(parts.len().is_multiple_of(part_len) && part_len >= plan.sums_len());
    let target = Shared::new(grad_weights.as_mut_ptr());
    (0..plan.inputs).into_par_iter().for_each(|input| {
        set.run(FinishInput {
            plan,
            parts,
            part_len,
            input,
            target: target.start(),
        });
    });
}

/// One input channel of the result.
struct FinishInput<'a, T> {
    plan: &'a GradPlan<T>,
    parts: &'a [f32],
    part_len: usize,
    input: usize,
    /// The whole result; this task writes one row of each of its nine matrices.
    target: *mut f32,
}

impl<T: Transform> Kernel for FinishInput<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plan = self.plan;
        for vector in 0..plan.vectors() {
            let first = vector * LANES;
            let lanes = LANES.min(plan.outputs - first);
            let mut half: Square<I::F32> = [[isa.zero(); MOST_POINTS]; MOST_POINTS];
            for (j, half) in half.iter_mut().enumerate().take(T::POINTS) {
                let mut column = [isa.zero(); MOST_POINTS];
                for (i, sum) in column.iter_mut().enumerate().take(T::POINTS) {
                    let row = (i * T::POINTS + j) * plan.inputs + self.input;
                    let at = (row * plan.vectors() + vector) * LANES;
                    for part in self.parts.chunks_exact(self.part_len) {
                        let values = part[at..].first_chunk().expect("whole vectors");
                        *sum = isa.add(*sum, isa.load(values));
                    }
                }
                *half = T::grad_weights(isa, column);
            }
            for i in 0..3 {
                let line = T::grad_weights(isa, half.map(|column| column[i]));
                for (j, &value) in line.iter().enumerate().take(3) {
                    let row = (i * 3 + j) * plan.inputs + self.input;
                    let to = self.target.wrapping_add(row * plan.outputs + first);
                    // SAFETY: `sum_parts` held the result to its length, and each input channel
                    // belongs to one task.
                    unsafe { isa.store_first_ptr(to, value, lanes) };
                }
            }
        }
    }
}
