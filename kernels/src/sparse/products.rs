//! The weights of a mask as each kernel wants them.

use std::sync::Arc;

use super::code::{Program, Sampler};
use super::index::{Entry, Index, Order, Outline};
use crate::dispatch::InstructionSet;

/// The products of one direction.
#[derive(Clone, Debug)]
pub(super) struct Products {
    pub(super) outline: Outline,
    pub(super) way: Way,
}

/// How products are computed: to the same bits.
#[derive(Clone, Debug)]
pub(super) enum Way {
    Code(Program),
    Lists(Arc<Index>),
}

impl Products {
    /// Code where the machine runs it, lists elsewhere.
    pub(super) fn new(set: InstructionSet, outline: Outline, entries: Vec<Entry>) -> Self {
        match Program::new(set, &outline, entries.clone()) {
            Some(program) => Self {
                outline,
                way: Way::Code(program),
            },
            None => Self::by_lists(outline, entries),
        }
    }

    pub(super) fn by_lists(outline: Outline, entries: Vec<Entry>) -> Self {
        let index = Index::new(outline, entries);
        Self {
            outline,
            way: Way::Lists(Arc::new(index)),
        }
    }

    /// The order in which they read the values.
    pub(super) fn order(&self) -> &Order {
        match &self.way {
            Way::Code(program) => &program.order,
            Way::Lists(index) => &index.order,
        }
    }
}

/// The gradient of the values.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    pub(super) index: Arc<Index>,
    /// What computes the same by code.
    pub(super) sampler: Option<Sampler>,
}

impl Samples {
    /// Of weights whose products `forward` computes.
    pub(super) fn new(
        set: InstructionSet,
        forward: &Products,
        entries: impl FnOnce() -> Vec<Entry>,
    ) -> Self {
        let index = match &forward.way {
            Way::Lists(index) => index.clone(),
            Way::Code(_) => Arc::new(Index::new(forward.outline, entries())),
        };
        Self {
            sampler: Sampler::new(set, &index),
            index,
        }
    }
}

#[cfg(test)]
mod tests;
