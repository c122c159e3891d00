//! One net, or one net per task, on a tape, with who owns which weight.

use std::borrow::Cow;

use smallvec::SmallVec;
use taskweave_kernels::lanes::PixelScale;
use taskweave_kernels::update::Update;

mod compact;
mod inference;
mod inputs;
mod ownership;
mod single;

use compact::Compact;

use super::TrainError;
use crate::autograd::{Learner, Mode, Tape, Var};
use crate::multitask::Owned;
use crate::nn::{NetSpec, Network, Recording};
use crate::ops::Precision;
use crate::optim::{Optimizer, OptimizerSpec};
use crate::tensor::Tensor;

/// One task's net within a [`Model`].
pub struct TaskNet {
    name: String,
    spec: NetSpec,
    network: Network,
    owned: Option<Vec<Owned>>,
    /// Per parameter, what the tape holds of it: see [`compact`].
    compact: Vec<Option<Compact>>,
    /// How pixels become inputs, one for every channel or one for all.
    scales: Vec<PixelScale>,
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
    fn compact(&self, parameter: usize) -> Option<&Compact> {
        self.compact.get(parameter)?.as_ref()
    }

    /// All values of a parameter from those that the tape holds.
    fn expand<'a>(&self, parameter: usize, stored: &'a [f32]) -> Cow<'a, [f32]> {
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
}

/// The nets of one or more tasks, which step together.
///
/// No parameter belongs to two tasks, so a step goes through one task after the other: its
/// [batch](Self::set_batch), [`forward`](Self::forward), [`learn`](Self::learn), and then
/// [`release`](Self::release), by which the next task gets the memory of its activations.
pub struct Model {
    tape: Tape,
    tasks: Vec<TaskNet>,
    batch: usize,
    divisor: f32,
    seed: u64,
    index: u8,
    precision: Precision,
    /// The classes predicted for a batch.
    predictions: Vec<u32>,
    /// The changed images of a batch.
    augmented: Vec<u8>,
    single: single::Single,
    /// Another number whenever weights may have changed, never zero.
    weights_version: u64,
}

/// An optimiser at work on the parameters of one task.
struct Learning<'a> {
    net: &'a TaskNet,
    /// The optimiser's number of the task's first parameter.
    first: usize,
    optimizer: &'a mut Optimizer,
}

impl Learner for Learning<'_> {
    fn step<'a>(&'a mut self, parameter: Var, value: &'a mut Tensor) -> Option<Update<'a>> {
        let parameters = &self.net.network.parameters;
        let index = parameters.iter().position(|&var| var == parameter)?;
        let owned = match self.net.compact(index) {
            // All that the tape holds is owned.
            Some(_) => None,
            None => self.net.owned.as_ref().map(|owned| owned[index].as_slice()),
        };
        let slot = self.first + index;
        Some(self.optimizer.step_of(slot, value.data_mut(), owned))
    }
}

/// How many images a batch had, their mean loss, and how many were classified rightly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BatchResult {
    pub(crate) images: usize,
    pub(crate) loss: f32,
    pub(crate) correct: usize,
}

impl Model {
    /// A model without tasks, for batches of up to `batch` images whose pixels are divided by
    /// `divisor` first. With batches of no image, tasks cannot be added.
    pub fn new(batch: usize, divisor: f32) -> Self {
        Self {
            tape: Tape::new(),
            tasks: Vec::new(),
            batch,
            divisor,
            seed: 0,
            index: 0,
            precision: Precision::default(),
            predictions: Vec::new(),
            augmented: Vec::new(),
            single: single::Single::default(),
            weights_version: 1,
        }
    }

    /// The same model before its first task, with the seed of what its layers draw at random, and an
    /// index that tells it from the other models of a run.
    pub fn with_seed(self, seed: u64, index: u8) -> Self {
        Self {
            seed,
            index,
            ..self
        }
    }

    /// The same model before its first task, with the precision of its products.
    pub fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// Adds a task with a net and its initial weights, in the order of [`NetSpec::parameters`].
    ///
    /// # Errors
    /// When a value does not have the shape of its parameter, or batches are to hold no image.
    pub fn add_task(
        &mut self,
        name: &str,
        spec: NetSpec,
        values: Vec<Tensor>,
    ) -> Result<(), TrainError> {
        let recording = Recording {
            batch: self.batch,
            seed: self.seed,
            index: u16::from(self.index) << 8 | self.tasks.len() as u16,
            precision: self.precision,
        };
        let network = Network::record(&mut self.tape, &spec, recording, values)?;
        // Tasks take the memory of their activations in turn, not each its own.
        self.tape.release(&[network.loss]);
        self.tape.trim();
        self.tasks.push(TaskNet {
            name: name.to_owned(),
            spec,
            network,
            owned: None,
            compact: Vec::new(),
            scales: vec![PixelScale::divide_by(self.divisor)],
        });
        Ok(())
    }

    /// Scales a task's pixels in another way than by the model's divisor: one scale for every
    /// channel, or one for all.
    ///
    /// # Errors
    /// When there is another number of scales than of channels.
    pub fn set_scales(&mut self, task: usize, scales: Vec<PixelScale>) -> Result<(), TrainError> {
        let channels = self.tasks[task].spec.input.channels;
        if scales.len() != 1 && scales.len() != channels {
            return Err(TrainError::Data(format!(
                "{} scales of pixels were given for images of {channels} channels",
                scales.len()
            )));
        }
        self.tasks[task].scales = scales;
        Ok(())
    }

    /// What the next passes are for; a new model is set to training.
    pub fn set_mode(&mut self, mode: Mode) {
        self.tape.set_mode(mode);
    }

    /// The tasks, in the order they were added.
    pub fn tasks(&self) -> &[TaskNet] {
        &self.tasks
    }

    /// The most images in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// A task's parameter values, in the order of [`NetSpec::parameters`]; zero where it owns nothing.
    pub fn parameters(&self, task: usize) -> impl Iterator<Item = Cow<'_, [f32]>> {
        let count = self.tasks[task].network.parameters.len();
        (0..count).map(move |parameter| self.parameter(task, parameter))
    }

    /// One parameter's values, zero where the task owns nothing.
    pub fn parameter(&self, task: usize, parameter: usize) -> Cow<'_, [f32]> {
        let net = &self.tasks[task];
        let var = net.network.parameters[parameter];
        net.expand(parameter, self.tape.value(var).data())
    }

    /// A task's parameters as whole tensors, in the order of [`NetSpec::parameters`].
    pub fn whole(&self, task: usize) -> Vec<Tensor> {
        let specs = self.tasks[task].spec.parameters();
        let values = specs.iter().zip(self.parameters(task));
        values
            .map(|(spec, values)| {
                let mut tensor = Tensor::zeros_row_major(spec.shape.clone());
                tensor.data_mut().copy_from_slice(&values);
                tensor
            })
            .collect()
    }

    /// A task's moving averages, in the order of [`NetSpec::states`].
    pub fn states(&self, task: usize) -> impl Iterator<Item = &Tensor> {
        let states = &self.tasks[task].network.states;
        states.iter().map(|&var| self.tape.value(var))
    }

    /// Changes one of a task's moving averages.
    pub fn edit_state(&mut self, task: usize, state: usize, edit: impl FnOnce(&mut [f32])) {
        let var = self.tasks[task].network.states[state];
        edit(self.tape.value_mut(var).data_mut());
    }

    /// A task's parameter gradients after [`backward`](Self::backward), zero for what sparse operations
    /// do not own; `None` where the losses did not depend on the parameter.
    pub fn gradients(&self, task: usize) -> impl Iterator<Item = Option<Cow<'_, [f32]>>> {
        let net = &self.tasks[task];
        let parameters = net.network.parameters.iter().enumerate();
        parameters.map(|(parameter, &var)| {
            let grad = self.tape.grad(var)?;
            Some(net.expand(parameter, grad.data()))
        })
    }

    /// The optimiser's number of a task's first parameter.
    fn first_slot(&self, task: usize) -> usize {
        let before = &self.tasks[..task];
        before
            .iter()
            .map(|task| task.network.parameters.len())
            .sum()
    }

    /// Changes one parameter's values. What the task does not own must stay zero.
    pub fn edit_parameter(&mut self, task: usize, parameter: usize, edit: impl FnOnce(&mut [f32])) {
        self.weights_version += 1;
        let net = &self.tasks[task];
        let stored = self.tape.value_mut(net.network.parameters[parameter]);
        match net.compact(parameter) {
            None => edit(stored.data_mut()),
            Some(compact) => {
                let mut values = compact.scatter(stored.data());
                edit(&mut values);
                compact.gather(&values, stored.data_mut());
            }
        }
    }

    /// Computes the losses of these tasks' batches; others are not touched.
    ///
    /// # Errors
    /// When a batch holds no image, or a label is no class.
    pub fn forward(&mut self, tasks: &[usize]) -> Result<(), TrainError> {
        let losses: SmallVec<[Var; 8]> = tasks
            .iter()
            .map(|&task| self.tasks[task].network.loss)
            .collect();
        Ok(self.tape.forward(&losses)?)
    }

    /// Computes the gradients of the sum of the losses, each times its weight.
    ///
    /// # Errors
    /// Never for losses that were computed.
    pub fn backward(&mut self, weights: &[(usize, f32)]) -> Result<(), TrainError> {
        let losses: Vec<_> = weights
            .iter()
            .map(|&(task, weight)| (self.tasks[task].network.loss, weight))
            .collect();
        Ok(self.tape.backward(&losses)?)
    }

    /// Computes the gradients of a task's loss times this weight, for training, updates its parameters
    /// by them, each as soon as its gradient is there, and then its moving averages. A parameter that
    /// the loss does not depend on stays as it is. The loss, logits and hidden values are gone.
    ///
    /// # Errors
    /// Never for a loss that was computed.
    pub fn learn(
        &mut self,
        task: usize,
        weight: f32,
        optimizer: &mut Optimizer,
    ) -> Result<(), TrainError> {
        self.weights_version += 1;
        let first = self.first_slot(task);
        let net = &self.tasks[task];
        let mut learner = Learning {
            net,
            first,
            optimizer,
        };
        self.tape
            .learn(&[(net.network.loss, weight)], &mut learner)?;
        net.network.update_states(&mut self.tape);
        Ok(())
    }

    /// Gives the memory of a task's activations and gradients to whatever is computed next. Its
    /// loss, logits, predictions and gradients are gone until the next passes.
    pub fn release(&mut self, task: usize) {
        self.tape.release(&[self.tasks[task].network.loss]);
    }

    /// Gives memory that only passes use back to the system; the next one takes it anew.
    pub fn trim(&mut self) {
        self.tape.trim();
    }

    /// An optimiser for all parameters of this model.
    pub fn optimizer(&self, spec: OptimizerSpec) -> Optimizer {
        let tasks = self.tasks.iter();
        Optimizer::new(spec, tasks.map(|task| task.network.parameters.len()).sum())
    }

    /// The loss of a task's last batch.
    pub fn loss(&self, task: usize) -> f32 {
        self.tape.value(self.tasks[task].network.loss).data()[0]
    }

    /// The classes predicted for a task's last batch.
    pub fn predictions(&mut self, task: usize) -> &[u32] {
        let network = &self.tasks[task].network;
        network.predict(&self.tape, &mut self.predictions);
        &self.predictions
    }

    /// The logits of a task's last batch, in lanes `[N, classes]`.
    pub fn logits(&self, task: usize) -> &Tensor {
        self.tape.value(self.tasks[task].network.logits)
    }

    /// The outputs of a task's relu layers for its last batch, in lanes.
    pub fn hidden(&self, task: usize) -> impl Iterator<Item = &Tensor> {
        let hidden = &self.tasks[task].network.hidden;
        hidden.iter().map(|&var| self.tape.value(var))
    }

    pub(crate) fn batch_result(&mut self, task: usize) -> BatchResult {
        let network = &self.tasks[task].network;
        network.predict(&self.tape, &mut self.predictions);
        let labels = self.tape.value(network.labels).data();
        let pairs = self.predictions.iter().zip(labels);
        BatchResult {
            images: labels.len(),
            loss: self.loss(task),
            correct: pairs
                .filter(|(found, label)| **found as f32 == **label)
                .count(),
        }
    }
}
