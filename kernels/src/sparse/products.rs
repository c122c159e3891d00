//! The weights of a mask as each kernel wants them.

use std::sync::Arc;

use super::code::Program;
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
    Code(Arc<Program>),
    Lists(Arc<Index>),
}

impl Products {
    /// Code where the machine runs it, lists elsewhere.
    pub(super) fn new(set: InstructionSet, outline: Outline, entries: Vec<Entry>) -> Self {
        match Program::new(set, &outline, entries) {
            Ok(program) => Self {
                outline,
                way: Way::Code(Arc::new(program)),
            },
            Err(entries) => Self::by_lists(outline, entries),
        }
    }

    pub(super) fn by_lists(outline: Outline, entries: Vec<Entry>) -> Self {
        let index = Index::new(outline, entries);
        Self {
            outline,
            way: Way::Lists(Arc::new(index)),
        }
    }

    /// Whether [rows](super::correlate::Correlation::run_rows) of the source are read with the first rows of
    /// the result that want them, and not again.
    pub(super) fn read_once(&self) -> bool {
        matches!(self.way, Way::Code(_))
    }

    /// The order in which they read the values.
    pub(super) fn order(&self) -> &Order {
        match &self.way {
            Way::Code(program) => &program.order,
            Way::Lists(index) => &index.order,
        }
    }
}

#[cfg(test)]
mod tests;
