//! Kernels that a tape holds without what their task does not own.

use std::sync::Arc;

use taskweave_kernels::dispatch;
use taskweave_kernels::sparse::{self, Pattern};
use taskweave_kernels::window::Window;

use crate::autograd::Tape;
use crate::multitask::Owned;
use crate::nn::{Network, Weighted, WeightedOp};
use crate::ops::{Precision, SparseConv2d, SparseDense};
use crate::tensor::{Shape, Tensor, TensorSpec};

/// A kernel of which the tape holds the owned values alone, in the order of a pattern.
pub(super) struct Compact {
    pub(super) pattern: Arc<Pattern>,
    /// The shape of the whole.
    shape: Shape,
}

impl Compact {
    /// The whole kernel, zero where nothing is owned.
    pub(super) fn scatter(&self, values: &[f32]) -> Vec<f32> {
        let mut whole = vec![0.0; self.shape.elements()];
        self.pattern.scatter(values, &mut whole);
        whole
    }

    /// The owned values of a whole kernel.
    pub(super) fn gather(&self, whole: &[f32], values: &mut [f32]) {
        self.pattern.gather(whole, values);
    }
}

/// Puts sparse operations in the place of those dense ones whose kernels are owned so sparsely that this
/// is faster, and has the tape hold their owned values alone. Per parameter, what became of it.
pub(super) fn replace_dense(
    tape: &mut Tape,
    network: &Network,
    owned: &[Owned],
) -> Vec<Option<Compact>> {
    let mut compact: Vec<Option<Compact>> = owned.iter().map(|_| None).collect();
    for weighted in &network.weighted {
        compact[weighted.kernel] = replace(tape, network, weighted, &owned[weighted.kernel]);
    }
    compact
}

fn replace(
    tape: &mut Tape,
    network: &Network,
    weighted: &Weighted,
    owned: &[u8],
) -> Option<Compact> {
    let kernel = network.parameters[weighted.kernel];
    let shape = tape.value(kernel).shape().clone();
    let set = dispatch::active();
    let owned_count = owned.iter().filter(|&&owned| owned != 0).count();
    let density = owned_count as f64 / owned.len().max(1) as f64;
    // No parameter before it wants a gradient.
    let is_first = weighted.kernel == 0;
    let (pattern, passes) = match (weighted.op, shape.dims()) {
        (WeightedOp::Dense(op), &[inputs, outputs]) => {
            let features = [inputs, outputs];
            let layer = sparse::Layer::Dense { features, is_first };
            let passes = sparse::choose(set, layer, density);
            if op.precision != Precision::F32 || !passes.any() {
                return None;
            }
            (Pattern::dense(set, features, owned), passes)
        }
        (WeightedOp::Conv2d(op), &[height, width, inputs, outputs]) => {
            let window = Window {
                kernel: [height, width],
                stride: op.stride,
                padding: op.padding,
            };
            let is_bf16 = op.precision == Precision::Bf16 && op.is_pointwise(window.kernel);
            let layer = sparse::Layer::Conv2d {
                window,
                channels: [inputs, outputs],
                is_pooled: op.max_pool.is_some(),
                is_first,
            };
            let passes = sparse::choose(set, layer, density);
            if is_bf16 || !passes.any() {
                return None;
            }
            let channels = [inputs, outputs];
            (Pattern::conv2d(set, window, channels, owned), passes)
        }
        _ => return None,
    };
    let pattern = Arc::new(pattern);
    match weighted.op {
        WeightedOp::Dense(op) => {
            let sparse = SparseDense {
                pattern: Arc::clone(&pattern),
                activation: op.activation,
            };
            tape.replace(weighted.output, sparse);
        }
        WeightedOp::Conv2d(op) => {
            let sparse = SparseConv2d {
                pattern: Arc::clone(&pattern),
                passes,
                padding: op.padding,
                activation: op.activation,
                max_pool: op.max_pool,
            };
            tape.replace(weighted.output, sparse);
        }
    }
    let compact = Compact { pattern, shape };
    let mut values = Tensor::zeros_row_major([compact.pattern.len()]);
    compact.gather(tape.value(kernel).data(), values.data_mut());
    *tape.value_mut(kernel) = values;
    Some(compact)
}

/// Puts the dense operations back, and has the tape hold whole kernels again.
pub(super) fn restore_dense(tape: &mut Tape, network: &Network, compact: &[Option<Compact>]) {
    for weighted in &network.weighted {
        let Some(Some(compact)) = compact.get(weighted.kernel) else {
            continue;
        };
        let kernel = network.parameters[weighted.kernel];
        let mut whole = Tensor::zeros(TensorSpec::row_major(compact.shape.dims()));
        let values = tape.value(kernel).data();
        compact.pattern.scatter(values, whole.data_mut());
        *tape.value_mut(kernel) = whole;
        match weighted.op {
            WeightedOp::Dense(op) => tape.replace(weighted.output, op),
            WeightedOp::Conv2d(op) => tape.replace(weighted.output, op),
        }
    }
}
