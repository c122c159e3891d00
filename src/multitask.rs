//! Sharing one tensor between tasks: who owns which weight.
//!
//! Every task of a multitask net has weight tensors of its own, but only the *positions* that it
//! owns are ever non-zero, and no position has two owners, so that all tasks' weights fit into one
//! tensor the size of a single net. The method is the MANN / RSN2 of BeyondML ("reduction of
//! sub-network neuroplasticity").

mod budgets;
mod importance;
mod owners;
mod shared;
mod weave;

pub use budgets::{Budget, share, shares};
pub use importance::MeanGradient;
pub use owners::{Owned, OwnerError, choose_owners};
pub use shared::{SharedLayer, Sharer, shared_layers};
pub use weave::{Part, WeaveError, Woven, count_owned, owner_bits, owner_bytes, unweave, weave};
