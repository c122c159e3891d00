//! Dense layers straight out of lanes.
//!
//! Activations lie in lanes, `[blocks][features][16]` (see [`lanes`](crate::lanes)), weights
//! row-major `[inputs, outputs]`. Whole blocks are computed, empty lanes included. So the input may
//! hold any finite values in empty lanes, while an output gradient must hold zeros there: both sums
//! over images run over all sixteen lanes.
//!
//! No result depends on the number of threads: a sum over images runs inside one task, in order.
//!
//! ```
//! use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
//! use taskweave_kernels::{dispatch, lanes};
//!
//! let set = dispatch::active();
//! let shape = DenseShape { images: 2, inputs: 3, outputs: 1 };
//! let mut x = vec![0.0; lanes::lanes_len(2, 3)];
//! lanes::pack(set, 2, 3, &[1.0, 2.0, 3.0, -4.0, -5.0, -6.0], &mut x);
//! let layer = Affine {
//!     weights: &[1.0, 1.0, 1.0],
//!     bias: Some(&[0.5]),
//!     activation: Activation::Relu,
//! };
//! let mut y = vec![0.0; lanes::lanes_len(2, 1)];
//! dense::forward(set, shape, layer, &x, &mut y);
//! assert_eq!(y[..2], [6.5, 0.0]);
//! ```

use rayon::prelude::*;

use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::driver::{Broadcasts, Product, Strips, Target, multiply, tile_size};
use crate::gemm::pack::{Source, pack, packed_len};
use crate::gemm::scratch::with_scratch;
use crate::gemm::tile::Finish;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check, lanes_len};
pub use crate::naive::DenseShape;

/// What follows the affine map of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Linear,
    /// `max(0, v)`; NaN stays NaN.
    Relu,
}

/// The parameters of a dense layer.
#[derive(Clone, Copy, Debug)]
pub struct Affine<'a> {
    /// Row-major `[inputs, outputs]`.
    pub weights: &'a [f32],
    /// `[outputs]`, or none for zeros.
    pub bias: Option<&'a [f32]>,
    /// Applied to the sum.
    pub activation: Activation,
}

/// `y = activation(x · weights + bias)`, from lanes of `inputs` to lanes of `outputs`.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn forward(
    set: InstructionSet,
    shape: DenseShape,
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    check("x", x.len(), lanes_len(images, inputs));
    check("weights", layer.weights.len(), inputs * outputs);
    check("y", y.len(), lanes_len(images, outputs));
    if let Some(bias) = layer.bias {
        check("bias", bias.len(), outputs);
    }
    let weights = Source {
        values: layer.weights,
        across: outputs,
        across_stride: 1,
        depth: inputs,
        group: inputs,
        group_stride: 0,
        depth_stride: outputs,
        scale: 1.0,
    };
    let finish = Finish {
        bias: layer.bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
        relu: layer.activation == Activation::Relu,
        ..Finish::OVERWRITE
    };
    weights_by_lanes(set, weights, x, y, finish);
}

/// `grad_input = grad_output · weightsᵀ`, from lanes of `outputs` to lanes of `inputs`.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn grad_input(
    set: InstructionSet,
    shape: DenseShape,
    grad_output: &[f32],
    weights: &[f32],
    grad_input: &mut [f32],
) {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    check("grad_output", grad_output.len(), lanes_len(images, outputs));
    check("weights", weights.len(), inputs * outputs);
    check("grad_input", grad_input.len(), lanes_len(images, inputs));
    let weights = Source {
        values: weights,
        across: inputs,
        across_stride: outputs,
        depth: outputs,
        group: outputs,
        group_stride: 0,
        depth_stride: 1,
        scale: 1.0,
    };
    weights_by_lanes(set, weights, grad_output, grad_input, Finish::OVERWRITE);
}

/// Lanes of `weights.depth` features in, lanes of `weights.across` features out.
fn weights_by_lanes(
    set: InstructionSet,
    weights: Source<'_>,
    from: &[f32],
    to: &mut [f32],
    finish: Finish,
) {
    let Source {
        across: rows,
        depth,
        ..
    } = weights;
    if to.is_empty() {
        return;
    }
    let (tile_rows, tile_vectors) = tile_size(set);
    with_scratch(packed_len(rows, depth, tile_rows), |panels| {
        pack(set, weights, tile_rows, panels);
        let product = Product {
            rows,
            vectors: to.len() / (rows * LANES),
            depth,
            a: Broadcasts::packed(panels, depth, tile_rows),
            b: Strips::lanes(from, depth, tile_vectors),
            c: Target {
                data: to.as_mut_ptr(),
                row_stride: LANES,
                vector_stride: rows * LANES,
                last_lanes: LANES,
                finish,
            },
        };
        // SAFETY: the weights are whole panels as `pack` wrote them; the callers held both lane
        // slices and the bias to the shape; `to` is borrowed mutably.
        unsafe { multiply::<1>(set, &product) };
    });
}

/// `grad_weights = Σ over images of xᵀ · grad_output`, row-major `[inputs, outputs]`. Empty lanes of
/// `grad_output` must be zero and of `x` finite.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn grad_weights(
    set: InstructionSet,
    shape: DenseShape,
    x: &[f32],
    grad_output: &[f32],
    grad_weights: &mut [f32],
) {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    check("x", x.len(), lanes_len(images, inputs));
    check("grad_output", grad_output.len(), lanes_len(images, outputs));
    check("grad_weights", grad_weights.len(), inputs * outputs);
    if grad_weights.is_empty() {
        return;
    }
    let (tile_rows, tile_vectors) = tile_size(set);
    let strip = tile_vectors * LANES;
    let depth = blocks(images) * LANES;
    let transposed = Source {
        values: grad_output,
        across: outputs,
        across_stride: LANES,
        depth,
        group: LANES,
        group_stride: outputs * LANES,
        depth_stride: 1,
        scale: 1.0,
    };
    let vectors = outputs.div_ceil(LANES);
    with_scratch(packed_len(outputs, depth, strip), |strips| {
        pack(set, transposed, strip, strips);
        with_scratch(tile_rows * depth, |last_rows| {
            let whole = inputs / tile_rows * tile_rows;
            copy_last_rows(x, inputs, whole, tile_rows, last_rows);
            let product = Product {
                rows: inputs,
                vectors,
                depth,
                a: Broadcasts {
                    data: x.as_ptr(),
                    panel_stride: tile_rows * LANES,
                    group: LANES,
                    group_stride: inputs * LANES,
                    step: 1,
                    last: Some((last_rows.as_ptr(), tile_rows * LANES)),
                },
                b: Strips::packed(strips, depth, strip),
                c: Target {
                    data: grad_weights.as_mut_ptr(),
                    row_stride: outputs,
                    vector_stride: LANES,
                    last_lanes: outputs - (vectors - 1) * LANES,
                    finish: Finish::OVERWRITE,
                },
            };
            // SAFETY: whole panels of x lie inside it and the last rows in a panel of their own;
            // the strips are as `pack` wrote them; the result is held to the shape and borrowed
            // mutably.
            unsafe { multiply::<LANES>(set, &product) };
        });
    });
}

/// Features from `first` on, fewer than `rows`, as a panel `[blocks][rows][16]` filled up with zeros.
fn copy_last_rows(x: &[f32], features: usize, first: usize, rows: usize, panel: &mut [f32]) {
    let used = (features - first) * LANES;
    if used == 0 {
        return;
    }
    for (block, target) in x
        .chunks_exact(features * LANES)
        .zip(panel.chunks_exact_mut(rows * LANES))
    {
        target[..used].copy_from_slice(&block[first * LANES..]);
        target[used..].fill(0.0);
    }
}

/// `grad_bias = Σ over images of grad_output`, `[outputs]`. Empty lanes must be zero.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn grad_bias(
    set: InstructionSet,
    shape: DenseShape,
    grad_output: &[f32],
    grad_bias: &mut [f32],
) {
    let DenseShape {
        images, outputs, ..
    } = shape;
    check("grad_output", grad_output.len(), lanes_len(images, outputs));
    check("grad_bias", grad_bias.len(), outputs);
    grad_bias
        .par_chunks_mut(BIAS_CHUNK)
        .enumerate()
        .for_each(|(chunk, sums)| {
            set.run(SumLanes {
                grad_output,
                outputs,
                first: chunk * BIAS_CHUNK,
                sums,
            });
        });
}

/// Outputs that one task sums: 16 KB of each block.
const BIAS_CHUNK: usize = 256;

struct SumLanes<'a> {
    grad_output: &'a [f32],
    outputs: usize,
    first: usize,
    sums: &'a mut [f32],
}

impl Kernel for SumLanes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (vectors, _) = self.grad_output.as_chunks::<LANES>();
        for (index, sum) in self.sums.iter_mut().enumerate() {
            let mut lanes = isa.zero();
            for vector in vectors
                .iter()
                .skip(self.first + index)
                .step_by(self.outputs)
            {
                lanes = isa.add(lanes, isa.load(vector));
            }
            *sum = isa.sum(lanes);
        }
    }
}
