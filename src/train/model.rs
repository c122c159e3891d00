//! One net, or one net per task, with who owns which weight.

use std::borrow::Cow;

use smallvec::SmallVec;
use taskweave_kernels::lanes::PixelScale;

mod compact;
mod inference;
mod inputs;
mod net;
mod ownership;
mod single;
mod turns;

pub(super) use net::BatchResult;
pub use net::TaskNet;
pub use turns::tasks_at_once;

use super::TrainError;
use crate::autograd::{Mode, Pool, Tape, Var};
use crate::nn::{NetSpec, Network, Recording};
use crate::ops::Precision;
use crate::optim::{Optimizer, OptimizerSpec};
use crate::tensor::Tensor;

/// The nets of one or more tasks, which step together.
///
/// No parameter belongs to two tasks, so a step goes through one task after the other: its
/// [batch](Self::set_batch), [`forward`](Self::forward), [`learn`](Self::learn), and then
/// [`release`](Self::release), by which the next task gets the memory of its activations. Where these are
/// small, an epoch takes several tasks at the same time.
pub struct Model {
    tasks: Vec<TaskNet>,
    batch: usize,
    divisor: f32,
    seed: u64,
    index: u8,
    precision: Precision,
    mode: Mode,
    /// Memory between the passes of one task and those of the next, for each that takes its turn at the
    /// same time.
    pools: Vec<Pool>,
    single: single::Single,
    /// Another number whenever weights may have changed, never zero.
    weights_version: u64,
}

impl Model {
    /// A model without tasks, for batches of up to `batch` images whose pixels are divided by
    /// `divisor` first. With batches of no image, tasks cannot be added.
    pub fn new(batch: usize, divisor: f32) -> Self {
        Self {
            tasks: Vec::new(),
            batch,
            divisor,
            seed: 0,
            index: 0,
            precision: Precision::default(),
            mode: Mode::Training { step: 0 },
            pools: vec![Pool::default()],
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
        let mut tape = Tape::new();
        tape.set_mode(self.mode);
        let network = Network::record(&mut tape, &spec, recording, values)?;
        // Memory is taken by the passes.
        tape.release(&[network.loss]);
        tape.trim();
        self.tasks.push(TaskNet {
            name: name.to_owned(),
            spec,
            network,
            tape,
            owned: None,
            compact: Vec::new(),
            scales: vec![PixelScale::divide_by(self.divisor)],
            predictions: Vec::new(),
            augmented: Vec::new(),
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
        self.mode = mode;
        for net in &mut self.tasks {
            net.tape.set_mode(mode);
        }
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
        self.tasks[task].parameter(parameter)
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
        let TaskNet { network, tape, .. } = &self.tasks[task];
        network.states.iter().map(|&var| tape.value(var))
    }

    /// Changes one of a task's moving averages.
    pub fn edit_state(&mut self, task: usize, state: usize, edit: impl FnOnce(&mut [f32])) {
        let TaskNet { network, tape, .. } = &mut self.tasks[task];
        edit(tape.value_mut(network.states[state]).data_mut());
    }

    /// A task's parameter gradients after [`backward`](Self::backward), zero for what sparse operations
    /// do not own; `None` where the losses did not depend on the parameter.
    pub fn gradients(&self, task: usize) -> impl Iterator<Item = Option<Cow<'_, [f32]>>> {
        let net = &self.tasks[task];
        let parameters = net.network.parameters.iter().enumerate();
        parameters.map(|(parameter, &var)| {
            let grad = net.tape.grad(var)?;
            Some(net.expand(parameter, grad.data()))
        })
    }

    /// The optimiser's number of a task's first parameter; behind the last task, of all parameters.
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
        let net = &mut self.tasks[task];
        let stored = net.tape.value_mut(net.network.parameters[parameter]);
        match net.compact.get(parameter) {
            None | Some(None) => edit(stored.data_mut()),
            Some(Some(compact)) => {
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
        for &task in tasks {
            let net = &mut self.tasks[task];
            net.tape.take_pool(&mut self.pools[0]);
            net.forward()?;
        }
        Ok(())
    }

    /// Computes the loss and the logits of a task's batch, and keeps nothing for a backward pass.
    fn evaluate(&mut self, task: usize) -> Result<(), TrainError> {
        let net = &mut self.tasks[task];
        net.tape.take_pool(&mut self.pools[0]);
        net.evaluate()?;
        Ok(())
    }

    /// Computes the gradients of the sum of the losses, each times its weight.
    ///
    /// # Errors
    /// Never for losses that were computed.
    pub fn backward(&mut self, weights: &[(usize, f32)]) -> Result<(), TrainError> {
        for (task, TaskNet { network, tape, .. }) in self.tasks.iter_mut().enumerate() {
            let own = weights.iter().filter(|&&(of, _)| of == task);
            let losses: SmallVec<[(Var, f32); 1]> =
                own.map(|&(_, weight)| (network.loss, weight)).collect();
            // Without a loss, a tape drops the gradients of the pass before.
            tape.backward(&losses)?;
        }
        Ok(())
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
        let net = &mut self.tasks[task];
        let part = optimizer.part(first..first + net.network.parameters.len());
        Ok(net.learn(weight, part)?)
    }

    /// Gives the memory of a task's activations and gradients to whatever is computed next. Its
    /// loss, logits, predictions and gradients are gone until the next passes.
    pub fn release(&mut self, task: usize) {
        let net = &mut self.tasks[task];
        net.release();
        net.tape.give_pool(&mut self.pools[0]);
    }

    /// Gives memory that only passes use back to the system; the next one takes it anew.
    pub fn trim(&mut self) {
        self.pools.fill_with(Pool::default);
        for net in &mut self.tasks {
            net.tape.trim();
        }
    }

    /// An optimiser for all parameters of this model.
    pub fn optimizer(&self, spec: OptimizerSpec) -> Optimizer {
        Optimizer::new(spec, self.first_slot(self.tasks.len()))
    }

    /// The loss of a task's last batch.
    pub fn loss(&self, task: usize) -> f32 {
        self.tasks[task].loss()
    }

    /// The classes predicted for a task's last batch.
    pub fn predictions(&mut self, task: usize) -> &[u32] {
        self.tasks[task].predictions()
    }

    /// The logits of a task's last batch, in lanes `[N, classes]`.
    pub fn logits(&self, task: usize) -> &Tensor {
        let TaskNet { network, tape, .. } = &self.tasks[task];
        tape.value(network.logits)
    }

    /// The outputs of a task's relu layers for its last batch, in lanes.
    pub fn hidden(&self, task: usize) -> impl Iterator<Item = &Tensor> {
        let TaskNet { network, tape, .. } = &self.tasks[task];
        network.hidden.iter().map(|&var| tape.value(var))
    }
}
