//! One net, or one net per task, on a tape, with who owns which weight.

use taskweave_kernels::dispatch;
use taskweave_kernels::lanes::{self, PixelGather, PixelScale};

use super::{TaskImages, TrainError};
use crate::autograd::Tape;
use crate::multitask::Owned;
use crate::nn::{NetSpec, Network};
use crate::optim::{Optimizer, OptimizerSpec};
use crate::tensor::{Tensor, TensorSpec};

/// One task's net within a [`Model`].
pub struct TaskNet {
    name: String,
    spec: NetSpec,
    network: Network,
    owned: Option<Vec<Owned>>,
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

    /// The positions the task owns, per parameter; `None` when it owns all.
    pub fn owned(&self) -> Option<&[Owned]> {
        self.owned.as_deref()
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
pub struct Model {
    tape: Tape,
    tasks: Vec<TaskNet>,
    batch: usize,
    divisor: f32,
    /// The classes predicted for a batch.
    predictions: Vec<u32>,
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
            predictions: Vec::new(),
        }
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
        let network = Network::record(&mut self.tape, &spec, self.batch, values)?;
        self.tasks.push(TaskNet {
            name: name.to_owned(),
            spec,
            network,
            owned: None,
        });
        Ok(())
    }

    /// The tasks, in the order they were added.
    pub fn tasks(&self) -> &[TaskNet] {
        &self.tasks
    }

    /// The most images in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// A task's parameter values, in the order of [`NetSpec::parameters`].
    pub fn parameters(&self, task: usize) -> impl Iterator<Item = &Tensor> {
        let parameters = &self.tasks[task].network.parameters;
        parameters.iter().map(|&var| self.tape.value(var))
    }

    /// A task's parameter gradients after [`backward`](Self::backward); `None` where the losses did
    /// not depend on the parameter.
    pub fn gradients(&self, task: usize) -> impl Iterator<Item = Option<&Tensor>> {
        let parameters = &self.tasks[task].network.parameters;
        parameters.iter().map(|&var| self.tape.grad(var))
    }

    /// Gives a task the positions it owns, one 0/1 mask per parameter, and sets what it does not own
    /// to zero.
    ///
    /// # Panics
    /// If there is not one mask of the right length for every parameter.
    pub fn set_owned(&mut self, task: usize, owned: Vec<Owned>) {
        let net = &mut self.tasks[task];
        assert_eq!(net.network.parameters.len(), owned.len());
        for (&var, owned) in net.network.parameters.iter().zip(&owned) {
            let values = self.tape.value_mut(var).data_mut();
            assert_eq!(values.len(), owned.len());
            for (value, owned) in values.iter_mut().zip(owned) {
                if *owned == 0 {
                    *value = 0.0;
                }
            }
        }
        net.owned = Some(owned);
    }

    /// Changes one parameter's values. What the task does not own must stay zero.
    pub fn edit_parameter(&mut self, task: usize, parameter: usize, edit: impl FnOnce(&mut [f32])) {
        let var = self.tasks[task].network.parameters[parameter];
        edit(self.tape.value_mut(var).data_mut());
    }

    /// Sets a task's next batch: the images at `indices`, of pixels.
    ///
    /// # Panics
    /// If an index lies outside the images.
    pub fn set_batch(&mut self, task: usize, images: &TaskImages<'_>, indices: &[usize]) {
        let network = &self.tasks[task].network;
        let inputs = self.tape.value_mut(network.images);
        inputs.respec(&TensorSpec::lanes([indices.len(), images.features()]));
        lanes::pack_u8(
            dispatch::active(),
            PixelGather {
                pixels: images.pixels(),
                features: images.features(),
                indices,
                scales: &[PixelScale::divide_by(self.divisor)],
            },
            inputs.data_mut(),
        );
        let labels = self.tape.value_mut(network.labels);
        labels.respec(&TensorSpec::row_major([indices.len()]));
        for (label, &index) in labels.data_mut().iter_mut().zip(indices) {
            *label = f32::from(images.labels()[index]);
        }
    }

    /// Sets a task's next batch from values that need no division: row-major `[N, inputs]`.
    ///
    /// # Panics
    /// If the values are not a whole number of labelled images.
    pub fn set_values(&mut self, task: usize, values: &[f32], labels: &[f32]) {
        let network = &self.tasks[task].network;
        let features = self.tasks[task].spec.inputs;
        let inputs = self.tape.value_mut(network.images);
        inputs.respec(&TensorSpec::lanes([labels.len(), features]));
        lanes::pack(
            dispatch::active(),
            labels.len(),
            features,
            values,
            inputs.data_mut(),
        );
        let target = self.tape.value_mut(network.labels);
        target.respec(&TensorSpec::row_major([labels.len()]));
        target.data_mut().copy_from_slice(labels);
    }

    /// Computes the losses of these tasks' batches; others are not touched.
    ///
    /// # Errors
    /// When images are not of their net's size, a batch holds none, or a label is no class.
    pub fn forward(&mut self, tasks: &[usize]) -> Result<(), TrainError> {
        let losses: Vec<_> = tasks
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

    /// Updates the parameters for which the last backward pass computed a gradient.
    pub fn update(&mut self, optimizer: &mut Optimizer) {
        optimizer.begin_step();
        let mut slot = 0;
        for task in &self.tasks {
            for (index, &var) in task.network.parameters.iter().enumerate() {
                let (value, grad) = self.tape.value_and_grad(var);
                if let Some(grad) = grad {
                    let owned = task.owned.as_ref().map(|owned| owned[index].as_slice());
                    optimizer.update(slot, value.data_mut(), grad.data(), owned);
                }
                slot += 1;
            }
        }
    }

    /// An optimiser's state for all parameters of this model.
    pub fn optimizer(&self, spec: OptimizerSpec) -> Optimizer {
        let lens = (0..self.tasks.len()).flat_map(|task| self.parameters(task));
        Optimizer::new(spec, lens.map(|value| value.data().len()))
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

    /// The class predicted for each of a task's images.
    ///
    /// # Errors
    /// When the images are not of the net's size, or a label is no class of the net.
    pub fn predict(
        &mut self,
        task: usize,
        images: &TaskImages<'_>,
    ) -> Result<Vec<u32>, TrainError> {
        let mut predictions = Vec::with_capacity(images.len());
        let indices: Vec<usize> = (0..images.len()).collect();
        for batch in indices.chunks(self.batch) {
            self.set_batch(task, images, batch);
            self.forward(&[task])?;
            predictions.extend_from_slice(self.predictions(task));
        }
        Ok(predictions)
    }
}
