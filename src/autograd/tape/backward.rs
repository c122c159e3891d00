//! The walk back over a tape.

use taskweave_kernels::update::Update;

use super::{Inputs, Learner, Source, Tape, Var};
use crate::autograd::op::{Backward, OutputRead, Replaced};
use crate::tensor::{Tensor, TensorError};

impl Tape {
    pub(super) fn walk_back(
        &mut self,
        losses: &[(Var, f32)],
        mut learner: Option<&mut dyn Learner>,
    ) -> Result<(), TensorError> {
        if self.is_evaluated && !losses.is_empty() {
            return Err(TensorError::Value {
                op: "backward",
                message: "the last pass was an evaluation, where a forward pass is needed".into(),
            });
        }
        for &(loss, _) in losses {
            self.values[loss.0].item()?;
        }
        // From here on marks are at what has a gradient.
        self.clear_marks();
        for &(loss, weight) in losses {
            let spec = self.values[loss.0].spec();
            let pool = &mut self.pool;
            let seed = self.grads[loss.0].get_or_insert_with(|| pool.take(spec, 0));
            seed.respec(spec);
            let is_first = !std::mem::replace(&mut self.marks[loss.0], true);
            let before = if is_first { 0.0 } else { seed.data()[0] };
            seed.data_mut()[0] = before + weight;
        }
        for index in (0..self.nodes.len()).rev() {
            if !self.marks[index] {
                if let Some(grad) = self.grads[index].take() {
                    self.pool.give(grad);
                }
                continue;
            }
            if self.nodes[index].needs_grad {
                let learner = learner.as_mut().map(|learner| &mut **learner as _);
                self.propagate(index, learner);
            }
            if let Some(learner) = &mut learner {
                self.hand_over(index, *learner);
                if self.nodes[index].is_computed() {
                    self.give_value(index);
                }
            }
        }
        Ok(())
    }

    /// Hands over the gradients that are complete once the walk back has been at `index`.
    fn hand_over(&mut self, index: usize, learner: &mut dyn Learner) {
        let (inputs, own) = match &self.nodes[index].source {
            Source::Op { inputs, .. } => (&inputs[..], None),
            // A parameter that is a loss itself.
            Source::Leaf => (&[][..], Some(Var(index))),
        };
        for &var in inputs.iter().chain(&own) {
            if !self.nodes[var.0].is_parameter_complete_at(index) {
                continue;
            }
            if let Some(grad) = self.grads[var.0].take() {
                learner.learn(var, &mut self.values[var.0], &grad);
                self.pool.give(grad);
            }
        }
    }

    /// Carries the gradient of one computed value to its inputs. With a learner, the operation may
    /// update a parameter on the way.
    fn propagate(&mut self, index: usize, learner: Option<&mut dyn Learner>) {
        let Some(learner) = learner else {
            return self.carry_back(index, false, None);
        };
        if let Some((position, var)) = self.updatable(index) {
            let mut value = self.take_value(var);
            let update = learner.step(var, &mut value);
            let is_updated = update.is_some();
            if let Some(update) = update {
                // One of an earlier pass must not be taken for this one's.
                if let Some(stale) = self.grads[var.0].take() {
                    self.pool.give(stale);
                }
                self.carry_back(index, true, Some((position, update)));
            }
            self.values[var.0] = value;
            if is_updated {
                return;
            }
        }
        self.carry_back(index, true, None);
    }

    /// The parameter that the operation behind a value can update: its gradient comes from nowhere
    /// else, and nothing still to be computed reads its value.
    fn updatable(&self, index: usize) -> Option<(usize, Var)> {
        let Source::Op { op, inputs } = &self.nodes[index].source else {
            return None;
        };
        let position = op.updates()?;
        let var = inputs[position];
        let occurrences = inputs.iter().filter(|input| **input == var).count();
        (occurrences == 1
            && !self.marks[var.0]
            && self.nodes[var.0].is_parameter_complete_at(index))
        .then_some((position, var))
    }

    /// Whether the gradient of the first input can take its place, and then, whether it is to be zero
    /// where that is not positive. Nobody else may read the value: neither another operation nor the
    /// one behind it.
    fn replaceable(&self, index: usize, updates: bool) -> Option<bool> {
        let Source::Op { op, inputs } = &self.nodes[index].source else {
            return None;
        };
        let node = &self.nodes[inputs.first()?.0];
        let Source::Op { op: before, .. } = &node.source else {
            return None;
        };
        let values: Inputs<'_, Tensor> = inputs.iter().map(|var| &self.values[var.0]).collect();
        let is_its_own = node.needs_grad && node.uses == 1 && !self.marks[inputs[0].0];
        match before.reads_output() {
            OutputRead::Values => None,
            _ if !is_its_own || !op.replaces_input(&values, updates) => None,
            read => Some(read == OutputRead::Sign),
        }
    }

    /// Runs the backward pass of the operation behind a value, perhaps with an update of one of its
    /// inputs, and where values are `spent`, perhaps in the place of the first.
    fn carry_back(&mut self, index: usize, spent: bool, update: Option<(usize, Update<'_>)>) {
        let Some(mut grad_output) = self.grads[index].take() else {
            return;
        };
        let (updated, update) = update.unzip();
        let rectified = match spent {
            true => self.replaceable(index, updated.is_some()),
            false => None,
        };
        let Source::Op { op, inputs } = &self.nodes[index].source else {
            self.grads[index] = Some(grad_output);
            return;
        };
        let mut grad_inputs = std::mem::take(&mut self.grad_inputs);
        for (position, var) in inputs.iter().enumerate() {
            if updated == Some(position) || rectified.is_some() && position == 0 {
                grad_inputs.push(None);
                continue;
            }
            // An input that occurs twice in one operation gets its second gradient apart.
            let shared = self.marks[var.0] || inputs[..position].contains(var);
            let own = if shared {
                None
            } else {
                self.grads[var.0].take()
            };
            grad_inputs.push(self.nodes[var.0].needs_grad.then(|| {
                let spec = self.values[var.0].spec();
                let largest = self.largest[var.0];
                let mut grad = own.unwrap_or_else(|| self.pool.take(spec, largest));
                grad.respec(spec);
                grad
            }));
        }
        let mut replaced = rectified.map(|_| {
            let empty = Tensor::zeros_row_major([0]);
            std::mem::replace(&mut self.values[inputs[0].0], empty)
        });
        let input_values: Inputs<'_, Tensor> =
            inputs.iter().map(|var| &self.values[var.0]).collect();
        op.backward(Backward {
            mode: self.mode,
            inputs: &input_values,
            output: &self.values[index],
            rectified: std::mem::take(&mut self.rectified[index]),
            saved: &mut self.saved[index],
            grad_output: &mut grad_output,
            grad_inputs: &mut grad_inputs,
            update,
            replaced: replaced.as_mut().map(|input| Replaced {
                input,
                rectified: rectified == Some(true),
            }),
        });
        drop(input_values);
        if let Some(grad) = replaced {
            grad_inputs[0] = Some(grad);
            self.rectified[inputs[0].0] = rectified == Some(true);
        }
        for (var, grad) in inputs.iter().zip(grad_inputs.drain(..)) {
            let Some(grad) = grad else { continue };
            match &mut self.grads[var.0] {
                Some(sum) if self.marks[var.0] => {
                    for (sum, addend) in sum.data_mut().iter_mut().zip(grad.data()) {
                        *sum += addend;
                    }
                    self.pool.give(grad);
                }
                slot => *slot = Some(grad),
            }
            self.marks[var.0] = true;
        }
        self.grad_inputs = grad_inputs;
        self.pool.give(grad_output);
    }
}
