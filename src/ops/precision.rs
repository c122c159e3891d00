//! The precision of products.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The precision of the operands of a matrix product. Its sums, and all that is no product, are f32
/// in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// Operands are rounded to bf16 on their way into a product: see
    /// [`dense::bf16`](taskweave_kernels::dense::bf16). Weights, activations and gradients stay f32.
    Bf16,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}
