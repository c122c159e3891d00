//! The weights of a mask as each kernel wants them.

use std::sync::{Arc, OnceLock};

use super::code::{Program, Sampler, Strides};
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
        match Program::new(set, &outline, entries) {
            Ok(program) => Self {
                outline,
                way: Way::Code(program),
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
    set: InstructionSet,
    pub(super) index: Arc<Index>,
    /// What computes the same by code, made for the images that come first.
    sampler: OnceLock<Option<Sampler>>,
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
            set,
            index,
            sampler: OnceLock::new(),
        }
    }

    /// The same by lists alone.
    #[cfg(test)]
    fn by_lists(&self) -> Self {
        Self {
            set: self.set,
            index: self.index.clone(),
            sampler: OnceLock::from(None),
        }
    }

    /// Code for a gradient of the result that lies like this, if there is any: it is made once, for the
    /// images of a net are of one size.
    pub(super) fn sampler(&self, strides: Strides) -> Option<&Sampler> {
        let sampler = || Sampler::new(self.set, &self.index, strides);
        let sampler = self.sampler.get_or_init(sampler).as_ref();
        sampler.filter(|sampler| sampler.strides() == strides)
    }
}

#[cfg(test)]
mod tests;
