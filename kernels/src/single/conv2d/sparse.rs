//! Convolutions of one image and few weights.

use super::super::lists::Lists;
use super::super::planes::Planes;
use super::{Convolution, Part, TileSize};
use crate::conv2d::Conv2dShape;
use crate::dense::{Activation, Affine};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::tile::TileKernel;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::sparse::Pattern;
use crate::sparse::conv2d::check_pattern;

/// Channels of a task, which find what a tile reaches of the image in the first-level cache.
const CHANNELS: usize = 8;

/// The weights of a convolution, few of which are there, by output channel: each with the place that it
/// is multiplied with. They are brought here once for many images.
///
/// Memory: 12 bytes for each weight.
///
/// ```
/// use taskweave_kernels::conv2d::Conv2dShape;
/// use taskweave_kernels::dense::Activation;
/// use taskweave_kernels::window::{Padding, Window};
/// use taskweave_kernels::{dispatch, single, sparse::Pattern};
/// let window = Window { kernel: [1, 3], stride: [1, 1], padding: Padding::Same };
/// let shape = Conv2dShape { images: 1, inputs: 1, outputs: 1, height: 1, width: 3, window };
/// let pattern = Pattern::conv2d(dispatch::active(), window, [1, 1], &[0, 1, 1]);
/// let mut layer = single::SparseConv2d::new(&pattern, &shape);
/// layer.set_values(&[2.0, 3.0]);
/// let mut y = [0.0; 3];
/// layer.forward(dispatch::active(), None, Activation::Linear, &[1.0, 10.0, 100.0], &mut y);
/// assert_eq!(y, [32.0, 320.0, 200.0]);
/// ```
#[derive(Clone, Debug)]
pub struct SparseConv2d {
    shape: Conv2dShape,
    /// By output channel; a place is counted from the first of all planes.
    lists: Lists<u32>,
}

impl SparseConv2d {
    /// The weights of a pattern, all of them zero, for images of this shape, of which the number does not
    /// count.
    ///
    /// # Panics
    /// If the pattern is none of the shape's weights, or a padded image has 2³² places or more.
    pub fn new(pattern: &Pattern, shape: &Conv2dShape) -> Self {
        check_pattern(pattern, shape);
        let planes = Planes::new(shape);
        let taps: Vec<usize> = planes.taps().collect();
        assert!(
            u32::try_from(planes.channels * planes.len).is_ok(),
            "{} planes of {} places, where a place is a number of 32 bits",
            planes.channels,
            planes.len
        );
        let weights = pattern.positions().iter().map(|&position| {
            let (rest, output) = (
                position as usize / shape.outputs,
                position as usize % shape.outputs,
            );
            let (tap, input) = (rest / shape.inputs, rest % shape.inputs);
            (output, (input * planes.len + taps[tap]) as u32)
        });
        Self {
            shape: *shape,
            lists: Lists::new(shape.outputs, weights),
        }
    }

    /// Takes the values of the pattern, in its order.
    ///
    /// # Panics
    /// If there is not a value for every weight.
    pub fn set_values(&mut self, values: &[f32]) {
        self.lists.set_values(values);
    }

    /// `y = activation(x ⋆ weights + bias)` of one image, from `[inputs, height, width]` to `[outputs,
    /// output height, output width]`.
    ///
    /// # Panics
    /// If a slice has another length than the shape demands.
    pub fn forward(
        &self,
        set: InstructionSet,
        bias: Option<&[f32]>,
        activation: Activation,
        x: &[f32],
        y: &mut [f32],
    ) {
        let [_, tile] = set.run(TileSize { is_sparse: true });
        let convolution = Convolution {
            shape: &self.shape,
            layer: Affine {
                weights: self.lists.values(),
                bias,
                activation,
            },
            channels: CHANNELS,
            tile,
            packed: 0,
            work: self.lists.values().len(),
        };
        convolution.run(set, x, y, |part, _, sums| {
            set.run(Task {
                layer: self,
                part,
                sums,
            });
        });
    }
}

/// A part of the result: many places of one channel stay in registers.
struct Task<'a> {
    layer: &'a SparseConv2d,
    part: &'a Part<'a>,
    sums: &'a mut [f32],
}

impl Kernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        isa.sparse_line(self);
    }
}

impl TileKernel for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa, const ROWS: usize, const VECTORS: usize>(self, isa: I) {
        let Self { layer, part, sums } = self;
        part.check(VECTORS * LANES);
        let tile = VECTORS * LANES;
        for start in (0..part.places).step_by(tile) {
            let first = part.padded.as_ptr().wrapping_add(start);
            for (index, channel) in part.channels.clone().enumerate() {
                let sums = &mut sums[index * part.places + start..][..tile];
                let (places, values) = layer.lists.list(channel);
                let mut totals = [isa.zero(); VECTORS];
                for (&place, &value) in places.iter().zip(values) {
                    let value = isa.splat(value);
                    let x = isa.address(first, place as usize);
                    for (v, total) in totals.iter_mut().enumerate() {
                        // SAFETY: the furthest place that any tap reads was held to the planes.
                        let pixels = unsafe { isa.load_ptr(x.add(v * LANES)) };
                        *total = isa.mul_add(value, pixels, *total);
                    }
                }
                let (vectors, _) = sums.as_chunks_mut::<LANES>();
                for (target, &total) in vectors.iter_mut().zip(&totals) {
                    isa.store(target, total);
                }
            }
        }
    }
}
