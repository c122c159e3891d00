//! The tape: recorded operations, their values and gradients.

use smallvec::SmallVec;
use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::dispatch;
use taskweave_kernels::update::Update;

use super::op::{Forward, Mode, Op};
use super::pool::Pool;
use crate::tensor::{Tensor, TensorError, TensorSpec};

mod backward;

/// A value on a [`Tape`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Var(usize);

enum Source {
    Leaf,
    Op { op: Box<dyn Op>, inputs: Vec<Var> },
}

struct Node {
    source: Source,
    needs_grad: bool,
    /// The first operation that takes the value: the last one that adds to its gradient.
    first_use: Option<usize>,
    /// How many times operations take the value.
    uses: usize,
}

/// Changes parameters by their gradients, each as soon as its gradient is complete.
pub trait Learner {
    /// The step to take of a parameter, whose value is this; `None` leaves it as it is. An operation
    /// that can takes the step on its way, and the gradient is never stored.
    fn step<'a>(&'a mut self, parameter: Var, value: &'a mut Tensor) -> Option<Update<'a>>;

    /// Takes a gradient that was stored.
    fn learn(&mut self, parameter: Var, value: &mut Tensor, grad: &Tensor) {
        if let Some(update) = self.step(parameter, value) {
            update.apply(dispatch::active(), grad.data());
        }
    }
}

impl Node {
    /// What the operation behind the value takes; nothing if there is none.
    fn inputs(&self) -> &[Var] {
        match &self.source {
            Source::Op { inputs, .. } => inputs,
            Source::Leaf => &[],
        }
    }

    fn is_computed(&self) -> bool {
        matches!(self.source, Source::Op { .. })
    }

    fn is_parameter(&self) -> bool {
        self.needs_grad && !self.is_computed()
    }

    /// Whether this is a parameter whose gradient is complete once the walk back has been at `index`.
    fn is_parameter_complete_at(&self, index: usize) -> bool {
        self.is_parameter() && self.first_use.is_none_or(|first| first == index)
    }
}

/// A record of operations that can be replayed forward and backward.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.parameter(Tensor::from_vec(vec![1.0, -2.0, 3.0], [3])?);
/// let squares = tape.apply(ops::Mul, &[x, x])?;
/// let sum = tape.apply(ops::Sum::all(), &[squares])?;
/// assert_eq!(tape.value(sum).item()?, 14.0);
/// tape.backward(&[(sum, 1.0)])?;
/// assert_eq!(tape.grad(x).unwrap().data(), [2.0, -4.0, 6.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
pub struct Tape {
    mode: Mode,
    nodes: Vec<Node>,
    values: Vec<Tensor>,
    /// The most floats that each value has needed.
    largest: Vec<usize>,
    /// What each operation keeps for its backward pass.
    saved: Vec<Buffer>,
    grads: Vec<Option<Tensor>>,
    /// The memory of values and gradients that nobody reads any more.
    pool: Pool,
    /// A mark per node, for the pass at hand.
    marks: Vec<bool>,
    /// Whether the gradient of a value took its place and was zeroed where that was not positive.
    rectified: Vec<bool>,
    /// The gradients that the operation at hand writes.
    grad_inputs: Vec<Option<Tensor>>,
    /// Per node, how often the evaluation at hand will still read its value.
    reads: Vec<usize>,
    /// Whether the last pass was an evaluation.
    is_evaluated: bool,
}

/// What an operation takes, without memory of its own for up to as many as a batch norm has.
type Inputs<'a, T> = SmallVec<[&'a T; 5]>;

impl Default for Tape {
    fn default() -> Self {
        Self {
            mode: Mode::Training { step: 0 },
            nodes: Vec::new(),
            values: Vec::new(),
            largest: Vec::new(),
            saved: Vec::new(),
            grads: Vec::new(),
            pool: Pool::default(),
            marks: Vec::new(),
            rectified: Vec::new(),
            grad_inputs: Vec::new(),
            reads: Vec::new(),
            is_evaluated: false,
        }
    }
}

impl Tape {
    /// An empty tape, for training.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the passes from now on are for.
    pub fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    /// Records a value that needs no gradient: an input, a label.
    pub fn leaf(&mut self, value: Tensor) -> Var {
        self.push(Source::Leaf, value, false)
    }

    /// Records a value whose gradient [`backward`](Self::backward) computes.
    pub fn parameter(&mut self, value: Tensor) -> Var {
        self.push(Source::Leaf, value, true)
    }

    /// Records an operation without computing it; its value is zeros until [`forward`](Self::forward).
    ///
    /// # Errors
    /// When the operation does not take these inputs.
    pub fn record(&mut self, op: impl Op + 'static, inputs: &[Var]) -> Result<Var, TensorError> {
        let specs: Vec<&TensorSpec> = inputs.iter().map(|var| self.value(*var).spec()).collect();
        let spec = op.output_spec(&specs)?;
        let needs_grad = inputs.iter().any(|var| self.nodes[var.0].needs_grad);
        let source = Source::Op {
            op: Box::new(op),
            inputs: inputs.to_vec(),
        };
        let index = self.nodes.len();
        for input in inputs {
            let node = &mut self.nodes[input.0];
            node.first_use.get_or_insert(index);
            node.uses += 1;
        }
        Ok(self.push(source, Tensor::zeros(spec), needs_grad))
    }

    /// Puts another operation in the place of the one behind a value. From the next
    /// [`forward`](Self::forward) on, which holds it to its inputs, it computes the value from the same
    /// inputs.
    ///
    /// # Panics
    /// If no operation is behind the value.
    pub fn replace(&mut self, var: Var, op: impl Op + 'static) {
        let Source::Op { op: before, .. } = &mut self.nodes[var.0].source else {
            panic!("a leaf has no operation that another could replace");
        };
        *before = Box::new(op);
    }

    /// Records an operation and computes its value.
    ///
    /// # Errors
    /// When the operation does not take these inputs, by shape or by value.
    pub fn apply(&mut self, op: impl Op + 'static, inputs: &[Var]) -> Result<Var, TensorError> {
        let var = self.record(op, inputs)?;
        self.compute(var.0, false)?;
        Ok(var)
    }

    /// A value as it was last computed or set.
    pub fn value(&self, var: Var) -> &Tensor {
        &self.values[var.0]
    }

    /// A leaf's or parameter's value, to change before the next [`forward`](Self::forward); it may
    /// take another shape there. Changing a computed value has no lasting effect.
    pub fn value_mut(&mut self, var: Var) -> &mut Tensor {
        &mut self.values[var.0]
    }

    /// What the operation behind a value saved in its last forward pass; empty for a leaf.
    pub fn saved(&self, var: Var) -> &[f32] {
        &self.saved[var.0]
    }

    /// What the operation behind a value saved, with another value to change.
    pub fn saved_and_value_mut(&mut self, saved: Var, value: Var) -> (&[f32], &mut Tensor) {
        (&self.saved[saved.0], &mut self.values[value.0])
    }

    /// The gradient of a parameter after [`backward`](Self::backward); `None` where the losses do
    /// not depend on it, and of a value that is no parameter: gradients of computed values are not
    /// kept.
    pub fn grad(&self, var: Var) -> Option<&Tensor> {
        let is_parameter = self.nodes[var.0].is_parameter();
        self.grads[var.0].as_ref().filter(|_| is_parameter)
    }

    /// A parameter's value, to update, together with its gradient.
    pub fn value_and_grad(&mut self, var: Var) -> (&mut Tensor, Option<&Tensor>) {
        let is_parameter = self.nodes[var.0].is_parameter();
        let grad = self.grads[var.0].as_ref().filter(|_| is_parameter);
        (&mut self.values[var.0], grad)
    }

    /// Computes the targets and everything they depend on, in recorded order. What no target
    /// depends on is not computed.
    ///
    /// # Errors
    /// When a leaf was changed to a shape or value that an operation does not take.
    pub fn forward(&mut self, targets: &[Var]) -> Result<(), TensorError> {
        self.is_evaluated = false;
        self.mark_ancestors(targets);
        for index in 0..self.nodes.len() {
            if self.marks[index] {
                self.compute(index, false)?;
            }
        }
        Ok(())
    }

    /// Computes the targets as [`forward`](Self::forward) does, but keeps nothing for a backward pass:
    /// operations save nothing, and the memory of each computed value on the way goes on to the next ones
    /// once it was read for the last time. Those values are empty until the next forward pass.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn evaluate(&mut self, targets: &[Var]) -> Result<(), TensorError> {
        self.is_evaluated = true;
        self.mark_ancestors(targets);
        self.reads.clear();
        self.reads.resize(self.nodes.len(), 0);
        // Whoever wants the targets reads them last.
        for target in targets {
            self.reads[target.0] += 1;
        }
        for (node, &is_marked) in self.nodes.iter().zip(&self.marks) {
            for input in node.inputs().iter().filter(|_| is_marked) {
                self.reads[input.0] += 1;
            }
        }
        for index in 0..self.nodes.len() {
            if !self.marks[index] {
                continue;
            }
            self.compute(index, true)?;
            for at in 0..self.nodes[index].inputs().len() {
                let input = self.nodes[index].inputs()[at].0;
                self.reads[input] -= 1;
                if self.reads[input] == 0 && self.nodes[input].is_computed() {
                    self.give_value(input);
                }
            }
        }
        Ok(())
    }

    /// Computes the gradients of the weighted sum of scalar losses, `[(loss, weight), ...]`, with
    /// respect to every parameter they depend on. Gradients of the backward pass before are
    /// replaced. Uses the values of the last forward pass.
    ///
    /// # Errors
    /// When a loss has more than one element, or the last pass was an [evaluation](Self::evaluate).
    pub fn backward(&mut self, losses: &[(Var, f32)]) -> Result<(), TensorError> {
        self.walk_back(losses, None)
    }

    /// Like [`backward`](Self::backward), but lets a learner change each parameter as soon as its
    /// gradient is complete, when nothing that is still to be computed reads the value. Keeps no
    /// gradient, and gives the memory of each computed value on once it was read for the last time:
    /// those values are empty until the next [`forward`](Self::forward).
    ///
    /// # Errors
    /// When a loss has more than one element, or the last pass was an [evaluation](Self::evaluate);
    /// nothing has changed then.
    pub fn learn(
        &mut self,
        losses: &[(Var, f32)],
        learner: &mut impl Learner,
    ) -> Result<(), TensorError> {
        self.walk_back(losses, Some(learner))
    }

    /// Gives the memory of the computed values behind the targets, and of the gradients of the
    /// parameters there, to whatever is computed next. Those values are empty until the next
    /// [`forward`](Self::forward), those gradients `None`.
    ///
    /// So branches that are computed one after the other share their memory.
    pub fn release(&mut self, targets: &[Var]) {
        self.mark_ancestors(targets);
        for index in 0..self.nodes.len() {
            if !self.marks[index] {
                continue;
            }
            if self.nodes[index].is_computed() {
                self.give_value(index);
            }
            if let Some(grad) = self.grads[index].take() {
                self.pool.give(grad);
            }
        }
    }

    /// Takes over memory that no other tape uses.
    pub fn take_pool(&mut self, pool: &mut Pool) {
        self.pool.append(pool);
    }

    /// Hands on the memory that nobody uses now, for the passes of another tape.
    pub fn give_pool(&mut self, pool: &mut Pool) {
        pool.append(&mut self.pool);
    }

    /// Floats of all computed values, had each memory of its own.
    pub fn computed_len(&self) -> usize {
        let nodes = self.nodes.iter().zip(&self.largest);
        nodes
            .filter(|(node, _)| node.is_computed())
            .map(|(_, largest)| largest)
            .sum()
    }

    fn give_value(&mut self, index: usize) {
        let value = self.take_value(Var(index));
        self.pool.give(value);
    }

    /// Gives memory that nobody uses now back to the system: that of released values and gradients,
    /// and what operations saved for a backward pass.
    pub fn trim(&mut self) {
        self.pool = Pool::default();
        self.saved.fill(Buffer::default());
    }

    fn push(&mut self, source: Source, value: Tensor, needs_grad: bool) -> Var {
        self.nodes.push(Node {
            source,
            needs_grad,
            first_use: None,
            uses: 0,
        });
        self.largest.push(value.spec().storage_len());
        self.values.push(value);
        self.saved.push(Buffer::default());
        self.grads.push(None);
        self.rectified.push(false);
        Var(self.nodes.len() - 1)
    }

    fn clear_marks(&mut self) {
        self.marks.clear();
        self.marks.resize(self.nodes.len(), false);
    }

    /// Marks the targets and all that they depend on.
    fn mark_ancestors(&mut self, targets: &[Var]) {
        self.clear_marks();
        for target in targets {
            self.marks[target.0] = true;
        }
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if self.marks[index] {
                for input in node.inputs() {
                    self.marks[input.0] = true;
                }
            }
        }
    }

    fn compute(&mut self, index: usize, is_evaluation: bool) -> Result<(), TensorError> {
        let Source::Op { op, inputs } = &self.nodes[index].source else {
            return Ok(());
        };
        // Inputs precede their operation on the tape.
        let (before, rest) = self.values.split_at_mut(index);
        let inputs: Inputs<'_, Tensor> = inputs.iter().map(|var| &before[var.0]).collect();
        let specs: Inputs<'_, TensorSpec> = inputs.iter().map(|input| input.spec()).collect();
        let output = &mut rest[0];
        let spec = op.output_spec(&specs)?;
        let largest = self.largest[index].max(spec.storage_len());
        self.largest[index] = largest;
        if output.capacity() < spec.storage_len() {
            let larger = self.pool.take(&spec, largest);
            self.pool.give(std::mem::replace(output, larger));
        }
        output.respec(&spec);
        op.forward(Forward {
            mode: self.mode,
            inputs: &inputs,
            output,
            saved: &mut self.saved[index],
            is_evaluation,
        })
    }

    fn take_value(&mut self, var: Var) -> Tensor {
        std::mem::replace(&mut self.values[var.0], Tensor::zeros_row_major([0]))
    }
}
