//! Convolutions of one image.

use std::ops::Range;

use super::planes::{Fill, Planes};
use crate::conv2d::Conv2dShape;
use crate::dense::{Activation, Affine};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::{for_each_by_halves, is_small};
use crate::gemm::scratch::with_scratch;
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::{LANES, check};
use crate::shared::Shared;

mod sparse;

pub use sparse::SparseConv2d;

/// Tasks to aim at: the rows of the result are shared out, too, where channels are too few.
const LEAST_TASKS: usize = 16;

/// Parts of the output channels, each of which puts the image into padded planes of its own: lines that
/// one processor fills and another reads cost more than to fill them twice.
const PARTS: usize = 2;

/// `y = activation(x ⋆ weights + bias)` of one image, from `[inputs, height, width]` to `[outputs, output
/// height, output width]`. How many images the shape has does not count.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn conv2d(
    set: InstructionSet,
    shape: &Conv2dShape,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    check("weights", layer.weights.len(), shape.weights());
    let [channels, tile] = set.run(TileSize { is_sparse: false });
    let steps = shape.weights() / shape.outputs.max(1);
    let convolution = Convolution {
        shape,
        layer,
        channels,
        tile,
        packed: steps * channels,
        work: shape.weights(),
    };
    convolution.run(set, x, y, |part, packed, sums| {
        set.run(DenseTask {
            layer,
            part,
            packed,
            sums,
        });
    });
}

/// Channels and places of a tile.
struct TileSize {
    is_sparse: bool,
}

impl Kernel for TileSize {
    type Output = [usize; 2];

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> [usize; 2] {
        if self.is_sparse {
            isa.sparse_line(self)
        } else {
            isa.conv2d_tile(self)
        }
    }
}

impl TileKernel for TileSize {
    type Output = [usize; 2];

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, _: I) -> [usize; 2] {
        [ROWS, VECTORS * LANES]
    }
}

/// What both kinds of weights have in common.
struct Convolution<'a> {
    shape: &'a Conv2dShape,
    layer: Affine<'a>,
    /// Channels of a task.
    channels: usize,
    /// Places of a tile.
    tile: usize,
    /// Floats that a task needs for its weights.
    packed: usize,
    /// Weights.
    work: usize,
}

/// What a task computes: some channels of a band of rows.
struct Part<'a> {
    planes: &'a Planes,
    /// From the first row of the band on.
    padded: &'a [f32],
    shape: &'a Conv2dShape,
    channels: Range<usize>,
    /// Whole tiles of places.
    places: usize,
}

impl Part<'_> {
    /// Holds all that tiles read to the planes: the last begins at place `places - tile`.
    fn check(&self, tile: usize) {
        let last_tap = self.planes.taps().last().unwrap_or(0);
        let last_plane = (self.shape.inputs.max(1) - 1) * self.planes.len;
        assert!(last_plane + self.places + last_tap <= self.padded.len());
        assert!(self.places.is_multiple_of(tile));
    }
}

impl Convolution<'_> {
    /// Has `sum` fill the sums of each part, `[channels][places]`, and finishes them.
    fn run(
        &self,
        set: InstructionSet,
        x: &[f32],
        y: &mut [f32],
        sum: impl Fn(&Part<'_>, &mut [f32], &mut [f32]) + Sync,
    ) {
        let shape = self.shape;
        check("x", x.len(), shape.input_features());
        check("y", y.len(), shape.output_features());
        if let Some(bias) = self.layer.bias {
            check("bias", bias.len(), shape.outputs);
        }
        if y.is_empty() {
            return;
        }
        let planes = &Planes::new(shape);
        let [down, across] = planes.axes;
        let is_small = is_small(self.work * down.output * across.output);
        let groups = shape.outputs.div_ceil(self.channels);
        let rows = down.output.div_ceil(LEAST_TASKS.div_ceil(groups));
        let bands = down.output.div_ceil(rows);
        let target = Shared::new(y.as_mut_ptr());
        let task = |padded: &[f32], group: usize, band: Range<usize>| {
            let first = group * self.channels;
            let part = Part {
                planes,
                padded: &padded[band.start * down.stride * planes.columns..],
                shape,
                channels: first..shape.outputs.min(first + self.channels),
                places: planes.flat_len(band.len()).next_multiple_of(self.tile),
            };
            with_scratch(self.packed + self.channels * part.places, |scratch| {
                let (packed, sums) = scratch.split_at_mut(self.packed);
                sum(&part, packed, sums);
                set.run(Finish {
                    part: &part,
                    layer: self.layer,
                    band,
                    sums,
                    target,
                });
            });
        };
        let threads = if is_small {
            1
        } else {
            rayon::current_num_threads()
        };
        let of_part = groups.div_ceil(PARTS.min(threads));
        for_each_by_halves(groups.div_ceil(of_part), threads > 1, |part| {
            let groups = part * of_part..groups.min((part + 1) * of_part);
            with_scratch(planes.padded_len(self.tile), |padded| {
                set.run(Fill {
                    planes,
                    image: x,
                    padded,
                });
                let padded = &*padded;
                for_each_by_halves(groups.len() * bands, threads > PARTS, |index| {
                    let (group, band) = (index % groups.len(), index / groups.len() * rows);
                    let band = band..down.output.min(band + rows);
                    task(padded, groups.start + group, band);
                });
            });
        });
    }
}

/// Takes the sums of a part where the window stands, and brings them to their end.
struct Finish<'a> {
    part: &'a Part<'a>,
    layer: Affine<'a>,
    /// Rows of the result.
    band: Range<usize>,
    sums: &'a [f32],
    /// The whole result.
    target: Shared,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { part, layer, .. } = self;
        let Planes { axes, columns, .. } = *part.planes;
        let [down, across] = axes;
        let parts = self.sums.chunks_exact(part.places);
        for (channel, sums) in part.channels.clone().zip(parts) {
            let bias = layer.bias.map_or(0.0, |bias| bias[channel]);
            let sums = sums.chunks(down.stride * columns);
            for (row, sums) in self.band.clone().zip(sums) {
                let place = (channel * down.output + row) * across.output;
                // SAFETY: rows of channels lie within the result, whose length was checked, and each is
                // written by the one task that has it.
                let y = unsafe {
                    std::slice::from_raw_parts_mut(self.target.start().add(place), across.output)
                };
                if across.stride == 1 {
                    finish_row(isa, &sums[..y.len()], bias, layer.activation, y);
                } else {
                    let sums = sums.iter().step_by(across.stride);
                    y.iter_mut()
                        .zip(sums)
                        .for_each(|(y, &sum)| *y = layer.activation.apply(sum + bias));
                }
            }
        }
    }
}

/// `y = activation(sums + bias)`.
#[inline(always)]
fn finish_row<I: Isa>(isa: I, sums: &[f32], bias: f32, activation: Activation, y: &mut [f32]) {
    assert_eq!(sums.len(), y.len());
    let bias = isa.splat(bias);
    for at in (0..y.len()).step_by(LANES) {
        let lanes = LANES.min(y.len() - at);
        // SAFETY: both have so many values from `at` on.
        unsafe {
            let mut sum = isa.load_first_ptr(sums.as_ptr().add(at), lanes);
            sum = isa.add(sum, bias);
            if activation == Activation::Relu {
                sum = isa.max(isa.zero(), sum);
            }
            isa.store_first_ptr(y.as_mut_ptr().add(at), sum, lanes);
        }
    }
}

/// A part by all weights: a tile of channels by vectors of places stays in registers.
struct DenseTask<'a> {
    layer: Affine<'a>,
    part: &'a Part<'a>,
    packed: &'a mut [f32],
    sums: &'a mut [f32],
}

impl Kernel for DenseTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.conv2d_tile(self);
    }
}

impl TileKernel for DenseTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Self {
            layer,
            part,
            packed,
            sums,
        } = self;
        let Part {
            planes,
            shape,
            padded,
            ..
        } = *part;
        let taps = planes.axes[0].kernel * planes.axes[1].kernel;
        // `[input][tap][channel]`, zeros where there is no channel.
        let (panel, _) = packed.as_chunks_mut::<ROWS>();
        for (step, weights) in panel.iter_mut().enumerate() {
            let (input, tap) = (step / taps, step % taps);
            let row = (tap * shape.inputs + input) * shape.outputs;
            let row = &layer.weights[row + part.channels.start..row + part.channels.end];
            match row.first_chunk() {
                Some(row) => *weights = *row,
                None => {
                    *weights = [0.0; ROWS];
                    weights[..row.len()].copy_from_slice(row);
                }
            }
        }
        let tile = VECTORS * LANES;
        part.check(tile);
        assert!(panel.len() == shape.inputs * taps && sums.len() >= ROWS * part.places);
        let walk = Walk {
            x: padded.as_ptr(),
            inputs: shape.inputs,
            plane: planes.len,
            rows: planes.axes[0].kernel,
            columns: planes.axes[1].kernel,
            row: planes.columns,
        };
        for start in (0..part.places).step_by(tile) {
            let walk = Walk {
                x: walk.x.wrapping_add(start),
                ..walk
            };
            // SAFETY: the furthest place that any tap reads was held to the planes, and the panel to the
            // steps.
            let totals: [[I::F32; VECTORS]; ROWS] = unsafe {
                match walk.columns {
                    3 => sum_tile::<I, ROWS, VECTORS, 3>(isa, walk, panel.as_ptr()),
                    _ => sum_tile::<I, ROWS, VECTORS, 0>(isa, walk, panel.as_ptr()),
                }
            };
            for (r, total) in totals.iter().enumerate() {
                for (v, &total) in total.iter().enumerate() {
                    let at = r * part.places + start + v * LANES;
                    // SAFETY: there are sums for `ROWS` channels, each with whole tiles of places.
                    unsafe { isa.store_ptr(sums.as_mut_ptr().add(at), total) };
                }
            }
        }
    }
}

/// What a tile reads: from `x` on, `inputs` planes, of each `rows` rows of `columns` places.
#[derive(Clone, Copy)]
struct Walk {
    x: *const f32,
    inputs: usize,
    /// Places from one plane to the next.
    plane: usize,
    rows: usize,
    columns: usize,
    /// Places from one row to the next.
    row: usize,
}

/// The sums of one tile over all inputs and taps. `COLUMNS` are those of the window, or zero to take them
/// from the walk.
///
/// # Safety
/// Every tap of the walk, with as many places behind it as the tile has, and a row of weights for each is
/// valid for reading.
#[inline(always)]
unsafe fn sum_tile<I: Isa, const ROWS: usize, const VECTORS: usize, const COLUMNS: usize>(
    isa: I,
    walk: Walk,
    mut weights: *const [f32; ROWS],
) -> [[I::F32; VECTORS]; ROWS] {
    let columns = if COLUMNS == 0 { walk.columns } else { COLUMNS };
    let mut totals = [[isa.zero(); VECTORS]; ROWS];
    for input in 0..walk.inputs {
        let mut x = walk.x.wrapping_add(input * walk.plane);
        for _ in 0..walk.rows {
            for column in 0..columns {
                let mut pixels = [isa.zero(); VECTORS];
                for (v, pixel) in pixels.iter_mut().enumerate() {
                    // SAFETY: the caller vouches for every tap.
                    *pixel = unsafe { isa.load_ptr(x.add(column + v * LANES)) };
                }
                for (r, total) in totals.iter_mut().enumerate() {
                    // SAFETY: the caller vouches for a row of weights for every tap.
                    let weight = isa.splat(unsafe { (*weights)[r] });
                    for (total, pixel) in total.iter_mut().zip(pixels) {
                        *total = isa.mul_add(weight, pixel, *total);
                    }
                }
                weights = weights.wrapping_add(1);
            }
            x = x.wrapping_add(walk.row);
        }
    }
    totals
}
