//! Dense layers straight out of lanes.
//!
//! Activations lie in lanes, `[blocks][features][16]` (see [`lanes`](crate::lanes)), weights
//! row-major `[inputs, outputs]`. Whole blocks are computed, empty lanes included. So the input may
//! hold any finite values in empty lanes, while an output gradient must hold zeros there: both sums
//! over images run over all sixteen lanes.
//!
//! No result depends on the number of threads: a sum over images runs inside one task, in order.
//!
//! [`bf16`] has the same three products of operands rounded to half the bits.
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
use crate::gemm::deep::multiply_deep;
use crate::gemm::driver::{Broadcast, DEPTH, Product, Vectors, multiply};
use crate::gemm::epilogue::{Epilogue, Stored, WeightProduct, take_step};
use crate::gemm::pack::Source;
use crate::isa::Isa;
use crate::lanes::{LANES, blocks, check, lanes_len};
pub use crate::naive::DenseShape;
use crate::update::Update;

pub mod bf16;
mod in_place;

pub use in_place::{backward_in_place, suits_in_place};

/// What follows the affine map of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Linear,
    /// `max(0, v)`; NaN stays NaN.
    Relu,
}

impl Activation {
    /// What becomes of a single value.
    #[inline(always)]
    pub fn apply(self, value: f32) -> f32 {
        match self {
            // Written so that NaN stays NaN.
            Self::Relu if value < 0.0 => 0.0,
            _ => value,
        }
    }
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

/// Blocks of images, 128, for which a layer reads its weights where they lie: packing them would take longer
/// than it saves.
const FEW_BLOCKS: usize = 8;

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
    let product = Product {
        epilogue: Stored {
            bias: layer.bias,
            relu: layer.activation == Activation::Relu,
            ..Stored::PLAIN
        },
        ..by_lanes(
            Source::strided(layer.weights, [outputs, inputs], [1, outputs]),
            x,
            images,
        )
    };
    if multiply_deep(set, &product, y) {
        return;
    }
    let product = in_place_if_few(product, Broadcast::Columns);
    // SAFETY: every output has a vector of its own in each block.
    unsafe { multiply(set, &product, y) };
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
    let product = by_lanes(transposed(weights, shape), grad_output, images);
    let product = in_place_if_few(product, Broadcast::Rows);
    // SAFETY: every input has a vector of its own in each block.
    unsafe { multiply(set, &product, grad_input) };
}

/// A product that reads its weights where they lie, if images are few: the same sums, bit for bit.
fn in_place_if_few<'a>(
    product: Product<'a>,
    in_place: fn(Source<'a>) -> Broadcast<'a>,
) -> Product<'a> {
    match product.a {
        Broadcast::Matrix(weights) if product.vectors <= FEW_BLOCKS => Product {
            a: in_place(weights),
            ..product
        },
        _ => product,
    }
}

/// Weights, a row for each input.
fn transposed(weights: &[f32], shape: DenseShape) -> Source<'_> {
    let DenseShape {
        inputs, outputs, ..
    } = shape;
    Source::strided(weights, [inputs, outputs], [outputs, 1])
}

/// The product of weights, a row for each feature of the result, and lanes, into lanes.
fn by_lanes<'a>(weights: Source<'a>, lanes: &'a [f32], images: usize) -> Product<'a> {
    Product {
        rows: weights.across,
        vectors: blocks(images),
        depth: weights.depth,
        a: Broadcast::Matrix(weights),
        b: Vectors::Lanes(lanes),
        row_stride: LANES,
        vector_stride: weights.across * LANES,
        last_lanes: LANES,
        epilogue: Stored::PLAIN,
        ahead: None,
    }
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
    let len = shape.inputs * shape.outputs;
    check("grad_weights", grad_weights.len(), len);
    let product = ByImages {
        set,
        shape,
        x,
        grad_output,
    };
    product.store(grad_weights);
}

/// Takes one step of an optimiser over the weights by [`grad_weights`], which itself is not stored
/// where there are at most 512 images. The weights end as they do from the gradient and
/// [`Update::apply`], bit for bit.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn update_weights(
    set: InstructionSet,
    shape: DenseShape,
    x: &[f32],
    grad_output: &[f32],
    update: Update<'_>,
) {
    let len = shape.inputs * shape.outputs;
    check("weights", update.weights.len(), len);
    let product = ByImages {
        set,
        shape,
        x,
        grad_output,
    };
    take_step(set, product, update);
}

/// The product of activations and gradients, summed over images, into rows of outputs.
#[derive(Clone, Copy)]
struct ByImages<'a> {
    set: InstructionSet,
    shape: DenseShape,
    x: &'a [f32],
    grad_output: &'a [f32],
}

impl WeightProduct for ByImages<'_> {
    fn has_whole_sums(self) -> bool {
        blocks(self.shape.images) * LANES <= DEPTH
    }

    fn multiply<E: Epilogue>(self, epilogue: E, result: &mut [f32]) {
        let DenseShape { images, inputs, .. } = self.shape;
        check("x", self.x.len(), lanes_len(images, inputs));
        let outputs = Vectors::Matrix(rows_of_outputs(self.shape, self.grad_output));
        let product = by_images(self.shape, self.x, outputs, epilogue);
        if !result.is_empty() {
            // SAFETY: rows of the result are `outputs` apart, its vectors sixteen.
            unsafe { multiply(self.set, &product, result) };
        }
    }

    fn store(self, grad: &mut [f32]) {
        self.multiply(Stored::PLAIN, grad);
    }
}

/// See [`ByImages`].
fn by_images<'a, E: Epilogue>(
    shape: DenseShape,
    x: &'a [f32],
    b: Vectors<'a>,
    epilogue: E,
) -> Product<'a, E> {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    let vectors = outputs.div_ceil(LANES);
    Product {
        rows: inputs,
        vectors,
        depth: blocks(images) * LANES,
        a: Broadcast::Lanes(x),
        b,
        row_stride: outputs,
        vector_stride: LANES,
        last_lanes: outputs - vectors.saturating_sub(1) * LANES,
        epilogue,
        ahead: None,
    }
}

/// A gradient in lanes of outputs, as rows of images.
fn rows_of_outputs(shape: DenseShape, grad_output: &[f32]) -> Source<'_> {
    let DenseShape {
        images, outputs, ..
    } = shape;
    check("grad_output", grad_output.len(), lanes_len(images, outputs));
    let depth = blocks(images) * LANES;
    Source {
        group: LANES,
        group_stride: outputs * LANES,
        ..Source::strided(grad_output, [outputs, depth], [LANES, 1])
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
