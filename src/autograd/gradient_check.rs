//! Check of an operation against a plain f64 version of itself, its gradients included.
//!
//! The f64 reference maps the inputs' values to the output's values, all in row-major order of the
//! logical shapes. The check compares the operation's forward pass with it, then its backward pass
//! with central differences of the reference, `(f(x + h) - f(x - h)) / 2h`, weighted by a gradient
//! of the output: once all ones, once random with a fixed seed. In f64 their error is near 1e-10, so
//! that what is left is the operation's own. Every set of inputs that might need a gradient is
//! asked for, every buffer holds NaN before it is written, and empty lanes hold numbers that must
//! not matter.
//!
//! At a kink (relu at zero, equal maxima) there is no derivative: keep inputs 1e-4 away from one.

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check::noise;
use thiserror::Error;

use super::{Backward, Forward, Mode, Op, OutputRead, Replaced};
use crate::tensor::{Layout, Tensor, TensorError, TensorSpec};

/// Relative to the larger of the expected value and the root mean square of its tensor: a thousand
/// f32 roundings in a row stay below, while a real mistake is a factor, a sign or a missing term.
const TOLERANCE: f64 = 1e-4;

/// Where all expected values are zero.
const ABSOLUTE_TOLERANCE: f64 = 1e-6;

/// Change of an input for a central difference, relative to it from 1 on.
const STEP: f64 = 1e-5;

/// What empty lanes of the inputs hold.
const EMPTY_LANE: f32 = 3.0;

/// Of the random gradient of the output.
const COTANGENT_SEED: u64 = 1;

/// Up to this many inputs, every set of them is asked for; beyond it each alone and all together.
const MAX_INPUTS_IN_SETS: usize = 4;

/// An operation that does not agree with its reference.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum GradientCheckError {
    /// The operation refused the inputs.
    #[error(transparent)]
    Refused(#[from] TensorError),
    /// The reference returned another number of values than the output's shape holds.
    #[error("{op}: the output holds {expected} values, but the reference returned {found}")]
    ReferenceLength {
        /// The operation.
        op: &'static str,
        /// Elements of the output.
        expected: usize,
        /// Values that the reference returned.
        found: usize,
    },
    /// A value of the forward pass is wrong.
    #[error("{op}: output {index:?} is {found}, but the reference gives {}", *expected as f32)]
    Forward {
        /// The operation.
        op: &'static str,
        /// Where in the output.
        index: Vec<usize>,
        /// The operation's value.
        found: f32,
        /// The reference's value.
        expected: f64,
    },
    /// A value of a gradient is wrong.
    #[error(
        "{op}: the gradient of input {input} at {index:?} is {found}, but central differences \
         give {} (gradients wanted of inputs {wanted:?})",
        *expected as f32
    )]
    Gradient {
        /// The operation.
        op: &'static str,
        /// Which input, from 0.
        input: usize,
        /// Where in the input.
        index: Vec<usize>,
        /// The operation's value.
        found: f32,
        /// The value by central differences.
        expected: f64,
        /// The inputs whose gradients were asked for.
        wanted: Vec<usize>,
    },
    /// An empty lane of the output is not finite.
    #[error("{op}: an empty lane of the output holds {found}; it must be finite")]
    OutputLane {
        /// The operation.
        op: &'static str,
        /// The value there.
        found: f32,
    },
    /// An empty lane of a gradient is not zero.
    #[error("{op}: an empty lane of the gradient of input {input} holds {found}; it must be zero")]
    GradientLane {
        /// The operation.
        op: &'static str,
        /// Which input, from 0.
        input: usize,
        /// The value there.
        found: f32,
    },
    /// The backward pass took a gradient away, added one or changed its shape.
    #[error(
        "{op}: the backward pass must leave shape and presence of the gradient of input {input}"
    )]
    GradientTensor {
        /// The operation.
        op: &'static str,
        /// Which input, from 0.
        input: usize,
    },
}

/// An operation, inputs, and the f64 reference to hold it to.
pub struct GradientCheck<'a> {
    op: &'a dyn Op,
    inputs: &'a [Tensor],
    reference: &'a dyn Fn(&[Vec<f64>]) -> Vec<f64>,
    constants: Vec<usize>,
    mode: Mode,
}

/// Checks an operation whose inputs are all differentiable; see [`GradientCheck::run`].
///
/// ```
/// use taskweave::{autograd::gradient_check::check_gradients, ops, tensor::Tensor};
/// let a = Tensor::from_vec(vec![1.0, -2.0, 3.0], [3])?;
/// let b = Tensor::from_vec(vec![0.5, 4.0, -1.0], [3])?;
/// let product = |x: &[Vec<f64>]| x[0].iter().zip(&x[1]).map(|(a, b)| a * b).collect();
/// check_gradients(&ops::Mul, &[a.clone(), b.clone()], &product)?;
/// assert!(check_gradients(&ops::Add, &[a, b], &product).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`GradientCheckError`], which names the first value that disagrees.
pub fn check_gradients(
    op: &dyn Op,
    inputs: &[Tensor],
    reference: &dyn Fn(&[Vec<f64>]) -> Vec<f64>,
) -> Result<(), GradientCheckError> {
    GradientCheck::new(op, inputs, reference).run()
}

impl<'a> GradientCheck<'a> {
    /// A check of all inputs.
    pub fn new(
        op: &'a dyn Op,
        inputs: &'a [Tensor],
        reference: &'a dyn Fn(&[Vec<f64>]) -> Vec<f64>,
    ) -> Self {
        Self {
            op,
            inputs,
            reference,
            constants: Vec::new(),
            mode: Mode::Training { step: 0 },
        }
    }

    /// Input number `input` has no gradient: class labels, for instance.
    pub fn constant(mut self, input: usize) -> Self {
        self.constants.push(input);
        self
    }

    /// What the passes are for; the first step of training if not said.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Runs the check.
    ///
    /// # Errors
    /// [`GradientCheckError`], which names the first value that disagrees. NaN never agrees.
    pub fn run(self) -> Result<(), GradientCheckError> {
        let inputs: Vec<Tensor> = self.inputs.iter().map(with_filled_lanes).collect();
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let specs: Vec<&TensorSpec> = inputs.iter().map(|input| input.spec()).collect();
        let mut run = Run {
            op: self.op,
            mode: self.mode,
            output: Tensor::zeros(self.op.output_spec(&specs)?),
            inputs,
            saved: Buffer::zeroed(64),
        };
        run.saved.fill(f32::NAN);

        let values: Vec<Vec<f64>> = self.inputs.iter().map(values_f64).collect();
        let expected = self.reference_output(&values, &run.output)?;
        run.forward()?;
        run.compare_output(&expected)?;

        let differentiable: Vec<usize> = (0..self.inputs.len())
            .filter(|input| !self.constants.contains(input))
            .collect();
        let elements = run.output.shape().elements();
        for cotangent in [vec![1.0; elements], random_cotangent(elements)] {
            let expected = self.central_differences(&values, &differentiable, &cotangent);
            for wanted in sets_of(&differentiable) {
                for way in run.ways(&wanted) {
                    // The backward pass may have used up what the forward pass saved.
                    run.forward()?;
                    run.compare_gradients(way, &wanted, &cotangent, &expected)?;
                }
            }
        }
        Ok(())
    }

    fn reference_output(
        &self,
        values: &[Vec<f64>],
        output: &Tensor,
    ) -> Result<Vec<f64>, GradientCheckError> {
        let expected = (self.reference)(values);
        if expected.len() == output.shape().elements() {
            return Ok(expected);
        }
        Err(GradientCheckError::ReferenceLength {
            op: self.op.name(),
            expected: output.shape().elements(),
            found: expected.len(),
        })
    }

    /// Per input the gradient of `Σ cotangent · output`, empty for constants.
    fn central_differences(
        &self,
        values: &[Vec<f64>],
        differentiable: &[usize],
        cotangent: &[f32],
    ) -> Vec<Vec<f64>> {
        let mut values = values.to_vec();
        let mut gradients = vec![Vec::new(); values.len()];
        for &input in differentiable {
            for element in 0..values[input].len() {
                let value = values[input][element];
                let step = STEP * value.abs().max(1.0);
                values[input][element] = value + step;
                let above = (self.reference)(&values);
                values[input][element] = value - step;
                let below = (self.reference)(&values);
                values[input][element] = value;
                let change = above.iter().zip(&below).zip(cotangent);
                let change: f64 = change.map(|((a, b), &c)| (a - b) * f64::from(c)).sum();
                gradients[input].push(change / (2.0 * step));
            }
        }
        gradients
    }
}

/// The operation under check with its buffers.
struct Run<'a> {
    op: &'a dyn Op,
    mode: Mode,
    inputs: Vec<&'a Tensor>,
    output: Tensor,
    saved: Buffer,
}

/// How a backward pass is run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From the output and its gradient.
    Plain,
    /// Without the output, from a gradient that is zero already where the sign of the output says so.
    WithoutOutput,
    /// With the gradient of the first input in its place.
    InPlace,
}

impl Run<'_> {
    /// The ways in which the operation says it can be run.
    fn ways(&self, wanted: &[usize]) -> Vec<Way> {
        let mut ways = vec![Way::Plain];
        if self.op.reads_output() != OutputRead::Values {
            ways.push(Way::WithoutOutput);
        }
        if wanted.contains(&0) && self.op.replaces_input(&self.inputs, false) {
            ways.push(Way::InPlace);
        }
        ways
    }

    fn forward(&mut self) -> Result<(), TensorError> {
        self.output.data_mut().fill(f32::NAN);
        self.op.forward(Forward {
            mode: self.mode,
            inputs: &self.inputs,
            output: &mut self.output,
            saved: &mut self.saved,
            is_evaluation: false,
        })
    }

    fn compare_output(&self, expected: &[f64]) -> Result<(), GradientCheckError> {
        let op = self.op.name();
        if let Some((element, found)) = first_mismatch(&self.output, expected) {
            return Err(GradientCheckError::Forward {
                op,
                index: index_of(element, self.output.spec()),
                found,
                expected: expected[element],
            });
        }
        match empty_lanes(&self.output).find(|value| !value.is_finite()) {
            Some(found) => Err(GradientCheckError::OutputLane { op, found }),
            None => Ok(()),
        }
    }

    fn compare_gradients(
        &mut self,
        way: Way,
        wanted: &[usize],
        cotangent: &[f32],
        expected: &[Vec<f64>],
    ) -> Result<(), GradientCheckError> {
        let op = self.op.name();
        let mut grad_output = laid_out(cotangent, self.output.spec())?;
        let empty = Tensor::zeros_row_major([0]);
        let rectified = way == Way::WithoutOutput && self.op.reads_output() == OutputRead::Sign;
        if rectified {
            let grads = grad_output.data_mut().iter_mut();
            for (grad, y) in grads.zip(self.output.data()) {
                *grad = if *y > 0.0 { *grad } else { 0.0 };
            }
        }
        let mut replaced = (way == Way::InPlace).then(|| self.inputs[0].clone());
        let mut inputs = self.inputs.clone();
        if replaced.is_some() {
            inputs[0] = &empty;
        }
        let values = self.inputs.iter().enumerate();
        let mut grads: Vec<Option<Tensor>> = values
            .map(|(input, value)| {
                let beside = wanted.contains(&input) && (input > 0 || way != Way::InPlace);
                beside.then(|| {
                    let mut grad = Tensor::zeros(value.spec().clone());
                    grad.data_mut().fill(f32::NAN);
                    grad
                })
            })
            .collect();
        self.op.backward(Backward {
            mode: self.mode,
            inputs: &inputs,
            output: if way == Way::WithoutOutput {
                &empty
            } else {
                &self.output
            },
            rectified,
            saved: &mut self.saved,
            grad_output: &mut grad_output,
            grad_inputs: &mut grads,
            update: None,
            replaced: replaced.as_mut().map(|input| Replaced {
                input,
                rectified: false,
            }),
        });
        if replaced.is_some() {
            grads[0] = replaced;
        }
        for (input, grad) in grads.iter().enumerate() {
            let spec = wanted.contains(&input).then(|| self.inputs[input].spec());
            if grad.as_ref().map(Tensor::spec) != spec {
                return Err(GradientCheckError::GradientTensor { op, input });
            }
            let Some(grad) = grad else { continue };
            if let Some((element, found)) = first_mismatch(grad, &expected[input]) {
                return Err(GradientCheckError::Gradient {
                    op,
                    input,
                    index: index_of(element, grad.spec()),
                    found,
                    expected: expected[input][element],
                    wanted: wanted.to_vec(),
                });
            }
            if let Some(found) = empty_lanes(grad).find(|value| *value != 0.0) {
                return Err(GradientCheckError::GradientLane { op, input, found });
            }
        }
        Ok(())
    }
}

/// The first value that is off, or NaN, in row-major order.
fn first_mismatch(found: &Tensor, expected: &[f64]) -> Option<(usize, f32)> {
    let squares: f64 = expected.iter().map(|value| value * value).sum();
    let typical = (squares / expected.len().max(1) as f64).sqrt();
    let found = found.to_row_major();
    let mut pairs = found.data().iter().zip(expected).enumerate();
    let mismatch = pairs.find(|(_, (found, expected))| {
        let error = (f64::from(**found) - **expected).abs();
        let within = error <= TOLERANCE * expected.abs().max(typical) + ABSOLUTE_TOLERANCE;
        !within || !expected.is_finite()
    });
    mismatch.map(|(element, (found, _))| (element, *found))
}

fn values_f64(tensor: &Tensor) -> Vec<f64> {
    let rows = tensor.to_row_major();
    rows.data().iter().map(|&value| f64::from(value)).collect()
}

/// Row-major values under a shape and layout; empty lanes are zero.
fn laid_out(values: &[f32], spec: &TensorSpec) -> Result<Tensor, TensorError> {
    let rows = Tensor::from_vec(values.to_vec(), spec.shape.clone())?;
    match spec.layout {
        Layout::RowMajor => Ok(rows),
        Layout::Lanes => rows.to_lanes(),
    }
}

fn with_filled_lanes(input: &Tensor) -> Tensor {
    let mut input = input.clone();
    for place in empty_lane_places(input.spec()) {
        input.data_mut()[place] = EMPTY_LANE;
    }
    input
}

fn empty_lanes(tensor: &Tensor) -> impl Iterator<Item = f32> {
    let places = empty_lane_places(tensor.spec());
    places.into_iter().map(|place| tensor.data()[place])
}

/// Where the storage of a tensor holds no element of it.
fn empty_lane_places(spec: &TensorSpec) -> Vec<usize> {
    let lanes = taskweave_kernels::lanes::LANES;
    let used = spec.images() % lanes;
    if spec.layout == Layout::RowMajor || used == 0 {
        return Vec::new();
    }
    let last_block = spec.storage_len() - lanes * spec.features();
    (last_block..spec.storage_len())
        .filter(|place| place % lanes >= used)
        .collect()
}

/// The index per axis of an element in row-major order.
fn index_of(element: usize, spec: &TensorSpec) -> Vec<usize> {
    let mut rest = element;
    let mut index: Vec<usize> = spec
        .shape
        .dims()
        .iter()
        .rev()
        .map(|&dim| {
            let here = rest % dim;
            rest /= dim;
            here
        })
        .collect();
    index.reverse();
    index
}

/// Values of either sign between 0.5 and 1.5 in size: none is so small that it hides an error.
fn random_cotangent(elements: usize) -> Vec<f32> {
    let mut cotangent = noise(COTANGENT_SEED, elements);
    for value in &mut cotangent {
        *value += 0.5f32.copysign(*value);
    }
    cotangent
}

/// The sets of inputs whose gradients are asked for together.
fn sets_of(inputs: &[usize]) -> Vec<Vec<usize>> {
    if inputs.len() > MAX_INPUTS_IN_SETS {
        let each = inputs.iter().map(|&input| vec![input]);
        return each.chain([inputs.to_vec()]).collect();
    }
    let member = |set: usize, bit: usize| set >> bit & 1 == 1;
    (1..1 << inputs.len())
        .map(|set| {
            let bits = (0..inputs.len()).filter(|&bit| member(set, bit));
            bits.map(|bit| inputs[bit]).collect()
        })
        .collect()
}
