//! One task's net on a tape of its own.

use std::borrow::Cow;

use taskweave_kernels::lanes::PixelScale;
use taskweave_kernels::update::Update;

use super::compact::Compact;
use crate::autograd::{Learner, Tape, Var};
use crate::multitask::Owned;
use crate::nn::{NetSpec, Network};
use crate::optim::OptimizerPart;
use crate::tensor::{Tensor, TensorError};

/// One task's net within a [`Model`](super::Model).
pub struct TaskNet {
    pub(super) name: String,
    pub(super) spec: NetSpec,
    pub(super) network: Network,
    pub(super) tape: Tape,
    pub(super) owned: Option<Vec<Owned>>,
    /// Per parameter, what the tape holds of it: see [`compact`](super::compact).
    pub(super) compact: Vec<Option<Compact>>,
    /// How pixels become inputs, one for every channel or one for all.
    pub(super) scales: Vec<PixelScale>,
    /// The classes predicted for a batch.
    pub(super) predictions: Vec<u32>,
    /// The changed images of a batch.
    pub(super) augmented: Vec<u8>,
}

impl TaskNet {
    /// The task's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The net.
    pub fn spec(&self) -> &NetSpec {
        &self.spec
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.network.classes()
    }

    /// The positions the task owns, per parameter; `None` when it owns all.
    pub fn owned(&self) -> Option<&[Owned]> {
        self.owned.as_deref()
    }

    /// How pixels become inputs, one for every channel or one for all.
    pub fn scales(&self) -> &[PixelScale] {
        &self.scales
    }

    /// How the tape holds a parameter, if not whole.
    pub(super) fn compact(&self, parameter: usize) -> Option<&Compact> {
        self.compact.get(parameter)?.as_ref()
    }

    /// All values of a parameter from those that the tape holds.
    pub(super) fn expand<'a>(&self, parameter: usize, stored: &'a [f32]) -> Cow<'a, [f32]> {
        match self.compact(parameter) {
            Some(compact) => compact.scatter(stored).into(),
            None => stored.into(),
        }
    }

    /// Number of weights and biases that the task owns.
    pub fn owned_count(&self) -> usize {
        match &self.owned {
            None => self.spec.parameter_count(),
            Some(owned) => owned.iter().flatten().filter(|&&owned| owned == 1).count(),
        }
    }

    /// See [`Model::parameter`](super::Model::parameter).
    pub(super) fn parameter(&self, parameter: usize) -> Cow<'_, [f32]> {
        let var = self.network.parameters[parameter];
        self.expand(parameter, self.tape.value(var).data())
    }

    /// See [`Model::forward`](super::Model::forward).
    pub(in crate::train) fn forward(&mut self) -> Result<(), TensorError> {
        self.tape.forward(&[self.network.loss])
    }

    /// Computes loss and logits, and keeps nothing else.
    pub(in crate::train) fn evaluate(&mut self) -> Result<(), TensorError> {
        self.tape
            .evaluate(&[self.network.loss, self.network.logits])
    }

    /// See [`Model::learn`](super::Model::learn).
    pub(in crate::train) fn learn(
        &mut self,
        weight: f32,
        optimizer: OptimizerPart<'_>,
    ) -> Result<(), TensorError> {
        let Self {
            network,
            tape,
            owned,
            compact,
            ..
        } = self;
        let mut learner = Learning {
            network,
            owned: owned.as_deref(),
            compact,
            optimizer,
        };
        tape.learn(&[(network.loss, weight)], &mut learner)?;
        network.update_states(tape);
        Ok(())
    }

    /// See [`Model::release`](super::Model::release).
    pub(in crate::train) fn release(&mut self) {
        self.tape.release(&[self.network.loss]);
    }

    /// The loss of the last batch.
    pub(super) fn loss(&self) -> f32 {
        self.tape.value(self.network.loss).data()[0]
    }

    /// The classes predicted for the last batch.
    pub(super) fn predictions(&mut self) -> &[u32] {
        self.network.predict(&self.tape, &mut self.predictions);
        &self.predictions
    }

    pub(in crate::train) fn batch_result(&mut self) -> BatchResult {
        self.network.predict(&self.tape, &mut self.predictions);
        let labels = self.tape.value(self.network.labels).data();
        let pairs = self.predictions.iter().zip(labels);
        BatchResult {
            images: labels.len(),
            loss: self.loss(),
            correct: pairs
                .filter(|(found, label)| **found as f32 == **label)
                .count(),
        }
    }
}

/// An optimiser at work on the parameters of one task.
struct Learning<'a> {
    network: &'a Network,
    owned: Option<&'a [Owned]>,
    compact: &'a [Option<Compact>],
    optimizer: OptimizerPart<'a>,
}

impl Learner for Learning<'_> {
    fn step<'a>(&'a mut self, parameter: Var, value: &'a mut Tensor) -> Option<Update<'a>> {
        let parameters = &self.network.parameters;
        let index = parameters.iter().position(|&var| var == parameter)?;
        let owned = match self.compact.get(index) {
            // All that the tape holds is owned.
            Some(Some(_)) => None,
            _ => self.owned.map(|owned| owned[index].as_slice()),
        };
        Some(self.optimizer.step_of(index, value.data_mut(), owned))
    }
}

/// How many images a batch had, their mean loss, and how many were classified rightly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::train) struct BatchResult {
    pub(in crate::train) images: usize,
    pub(in crate::train) loss: f32,
    pub(in crate::train) correct: usize,
}
