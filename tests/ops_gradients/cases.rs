//! The registry: cases for the gradient check of every operation.

use std::any::type_name;

use taskweave::autograd::gradient_check::{GradientCheck, GradientCheckError};
use taskweave::autograd::{Mode, Op};
use taskweave::ops;
use taskweave::tensor::{Tensor, TensorSpec};
use taskweave_kernels::check::noise;
use taskweave_kernels::naive::{self, DenseShape};

use super::naive as plain;

mod convolved;
mod normalised;
mod pooled;
mod sparse;

type Reference = Box<dyn Fn(&[Vec<f64>]) -> Vec<f64>>;

/// One operation with inputs and its f64 version.
pub(crate) struct Case {
    /// The name of the operation's type.
    pub(crate) operation: &'static str,
    op: Box<dyn Op>,
    inputs: Vec<Tensor>,
    constants: Vec<usize>,
    mode: Mode,
    reference: Reference,
}

impl Case {
    fn new<O: Op + 'static>(
        op: O,
        inputs: Vec<Tensor>,
        reference: impl Fn(&[Vec<f64>]) -> Vec<f64> + 'static,
    ) -> Self {
        let path = type_name::<O>();
        Self {
            operation: path.rsplit("::").next().unwrap_or(path),
            op: Box::new(op),
            inputs,
            constants: vec![],
            mode: Mode::Training { step: 0 },
            reference: Box::new(reference),
        }
    }

    fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Operation and inputs, for messages.
    pub(crate) fn describe(&self) -> String {
        let specs: Vec<String> = self
            .inputs
            .iter()
            .map(|input| input.spec().to_string())
            .collect();
        format!("{} of {}", self.operation, specs.join(", "))
    }

    pub(crate) fn check(&self) -> Result<(), GradientCheckError> {
        let check = GradientCheck::new(&*self.op, &self.inputs, &self.reference).mode(self.mode);
        let constants = self.constants.iter();
        constants
            .fold(check, |check, &input| check.constant(input))
            .run()
    }
}

/// Values in (-2, 2), at least 0.05 away from zero, different for each input.
fn tensor(dims: &[usize], input: u64) -> Tensor {
    let mut values = noise(input + 10, dims.iter().product());
    for value in &mut values {
        *value = 1.9 * *value + 0.05f32.copysign(*value);
    }
    Tensor::from_vec(values, dims).unwrap()
}

/// Values in (0.5, 2.5): for logarithms, roots and denominators.
fn positive(dims: &[usize], input: u64) -> Tensor {
    let mut values = noise(input + 20, dims.iter().product());
    for value in &mut values {
        *value += 1.5;
    }
    Tensor::from_vec(values, dims).unwrap()
}

/// Values a step of 0.25 apart in a mixed order: no two are nearly equal.
fn distinct(dims: &[usize]) -> Tensor {
    let count: usize = dims.iter().product();
    let value = |i: usize| ((i * 37 + 11) % 101) as f32 * 0.25 - 12.0;
    assert!(count <= 101);
    Tensor::from_vec((0..count).map(value).collect(), dims).unwrap()
}

fn lanes(rows: &Tensor) -> Tensor {
    rows.to_lanes().unwrap()
}

/// Every case of every operation.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    arithmetic(&mut cases);
    functions(&mut cases);
    reductions(&mut cases);
    shapes(&mut cases);
    matrix_products(&mut cases);
    network(&mut cases);
    convolved::add(&mut cases);
    sparse::add(&mut cases);
    normalised::add(&mut cases);
    pooled::add(&mut cases);
    cases
}

/// Shapes of both operands and of the output.
const BROADCASTS: [[&[usize]; 3]; 9] = [
    [&[], &[], &[]],
    [&[5], &[5], &[5]],
    [&[4, 3], &[3], &[4, 3]],
    [&[], &[2, 3], &[2, 3]],
    [&[4, 1], &[1, 3], &[4, 3]],
    [&[2, 1, 3], &[4, 1], &[2, 4, 3]],
    [&[1, 1], &[1], &[1, 1]],
    [&[3, 1, 2, 1], &[1, 2, 1, 3], &[3, 2, 2, 3]],
    [&[0, 3], &[3], &[0, 3]],
];

fn arithmetic(cases: &mut Vec<Case>) {
    for [a, b, output] in BROADCASTS {
        let inputs = || vec![tensor(a, 0), tensor(b, 1)];
        let reference = |function: fn(f64, f64) -> f64| {
            move |x: &[Vec<f64>]| plain::broadcast(x, [a, b], output, function)
        };
        cases.push(Case::new(ops::Add, inputs(), reference(|a, b| a + b)));
        cases.push(Case::new(ops::Sub, inputs(), reference(|a, b| a - b)));
        cases.push(Case::new(ops::Mul, inputs(), reference(|a, b| a * b)));
        let ratio = vec![tensor(a, 0), positive(b, 1)];
        cases.push(Case::new(ops::Div, ratio, reference(|a, b| a / b)));
    }
}

fn functions(cases: &mut Vec<Case>) {
    fn each(function: fn(f64) -> f64) -> impl Fn(&[Vec<f64>]) -> Vec<f64> {
        move |x| x[0].iter().map(|&x| function(x)).collect()
    }
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let shapes: [&[usize]; 5] = [&[], &[7], &[17, 3], &[2, 1, 4], &[0, 2]];
    for dims in shapes {
        let x = || vec![tensor(dims, 0)];
        cases.push(Case::new(ops::Neg, x(), each(|x| -x)));
        cases.push(Case::new(ops::Exp, x(), each(f64::exp)));
        cases.push(Case::new(ops::Tanh, x(), each(f64::tanh)));
        cases.push(Case::new(ops::Sigmoid, x(), each(sigmoid)));
        cases.push(Case::new(ops::Relu, x(), each(|x| x.max(0.0))));
        cases.push(Case::new(ops::Log, vec![positive(dims, 0)], each(f64::ln)));
        cases.push(Case::new(
            ops::Sqrt,
            vec![positive(dims, 0)],
            each(f64::sqrt),
        ));
    }
    for images in [1, 15, 16, 17, 33] {
        let x = || vec![lanes(&tensor(&[images, 3], 0))];
        cases.push(Case::new(ops::Neg, x(), each(|x| -x)));
        cases.push(Case::new(ops::Tanh, x(), each(f64::tanh)));
        cases.push(Case::new(ops::Sigmoid, x(), each(sigmoid)));
        cases.push(Case::new(ops::Relu, x(), each(|x| x.max(0.0))));
    }
    for (dims, classes) in [(&[3][..], 3), (&[4, 5], 5), (&[2, 3, 1], 1), (&[0, 4], 4)] {
        let softmax = move |x: &[Vec<f64>]| naive::softmax(classes, &x[0]);
        let log = move |x: &[Vec<f64>]| softmax(x).into_iter().map(f64::ln).collect();
        cases.push(Case::new(ops::Softmax, vec![tensor(dims, 0)], softmax));
        cases.push(Case::new(ops::LogSoftmax, vec![tensor(dims, 0)], log));
    }
}

fn reductions(cases: &mut Vec<Case>) {
    fn sum(group: Vec<f64>) -> f64 {
        group.into_iter().sum()
    }
    fn mean(group: Vec<f64>) -> f64 {
        let count = group.len() as f64;
        sum(group) / count
    }
    fn max(group: Vec<f64>) -> f64 {
        group.into_iter().fold(f64::NEG_INFINITY, f64::max)
    }
    let reduced: [(&'static [usize], &'static [usize]); 8] = [
        (&[7], &[0]),
        (&[4, 5], &[0]),
        (&[4, 5], &[1]),
        (&[2, 3, 4], &[1]),
        (&[2, 3, 4], &[2, 0]),
        (&[1, 3, 1], &[0, 2]),
        (&[2, 3], &[]),
        (&[0, 3], &[1]),
    ];
    for (dims, axes) in reduced {
        let each = |function: fn(Vec<f64>) -> f64| {
            move |x: &[Vec<f64>]| {
                let groups = plain::groups(&x[0], dims, axes);
                groups.into_iter().map(function).collect()
            }
        };
        let x = || vec![distinct(dims)];
        cases.push(Case::new(ops::Sum::over(axes), x(), each(sum)));
        cases.push(Case::new(ops::Mean::over(axes), x(), each(mean)));
        cases.push(Case::new(ops::Max::over(axes), x(), each(max)));
        cases.push(Case::new(ops::Sum::over(axes).keep_dims(), x(), each(sum)));
        cases.push(Case::new(
            ops::Mean::over(axes).keep_dims(),
            x(),
            each(mean),
        ));
        cases.push(Case::new(ops::Max::over(axes).keep_dims(), x(), each(max)));
    }
    let shapes: [&[usize]; 4] = [&[], &[1], &[9], &[2, 3, 4]];
    for dims in shapes {
        let x = || vec![distinct(dims)];
        cases.push(Case::new(ops::Sum::all(), x(), |x| vec![sum(x[0].clone())]));
        cases.push(Case::new(ops::Mean::all(), x(), |x| {
            vec![mean(x[0].clone())]
        }));
        cases.push(Case::new(ops::Max::all(), x(), |x| vec![max(x[0].clone())]));
    }
    let nothing = vec![tensor(&[0, 3], 0)];
    cases.push(Case::new(ops::Sum::over([0]), nothing, |_| vec![0.0; 3]));
}

fn shapes(cases: &mut Vec<Case>) {
    let same = |x: &[Vec<f64>]| x[0].clone();
    let reshaped: [(&[usize], &[usize]); 4] = [
        (&[2, 3], &[3, 2]),
        (&[6], &[1, 2, 3]),
        (&[1, 1], &[]),
        (&[0, 2], &[5, 0]),
    ];
    for (from, to) in reshaped {
        cases.push(Case::new(ops::Reshape::to(to), vec![tensor(from, 0)], same));
    }
    let flat = ops::Reshape::inferring([None, Some(6)]).unwrap();
    cases.push(Case::new(flat, vec![tensor(&[4, 2, 3], 0)], same));

    let permuted: [(&'static [usize], &'static [usize]); 6] = [
        (&[2, 3], &[1, 0]),
        (&[2, 3, 4], &[2, 0, 1]),
        (&[2, 3, 4], &[0, 2, 1]),
        (&[3, 1, 2], &[1, 2, 0]),
        (&[], &[]),
        (&[0, 2], &[1, 0]),
    ];
    for (dims, axes) in permuted {
        let reference = move |x: &[Vec<f64>]| plain::transpose(&x[0], dims, axes);
        let transpose = ops::Transpose::axes(axes);
        cases.push(Case::new(transpose, vec![tensor(dims, 0)], reference));
    }

    let x = || vec![tensor(&[4, 3, 2], 0)];
    let part = |starts: [usize; 3], ends: [usize; 3]| {
        move |x: &[Vec<f64>]| plain::slice(&x[0], &[4, 3, 2], &starts, &ends)
    };
    let corner = ops::Slice::new([1..3, 0..2, 1..2]);
    cases.push(Case::new(corner, x(), part([1, 0, 1], [3, 2, 2])));
    let rows = ops::Slice::new([2..4, 0..3]);
    cases.push(Case::new(rows, x(), part([2, 0, 0], [4, 3, 2])));
    let last = ops::Slice::along(2, 1..2);
    cases.push(Case::new(last, x(), part([0, 0, 1], [4, 3, 2])));
    let nothing = ops::Slice::along(1, 3..3);
    cases.push(Case::new(nothing, x(), part([0, 3, 0], [4, 3, 2])));

    let joined: [(&[&[usize]], usize); 6] = [
        (&[&[2], &[3]], 0),
        (&[&[2, 3], &[1, 3], &[2, 3]], 0),
        (&[&[2, 3], &[2, 1]], 1),
        (&[&[2, 1, 3], &[2, 0, 3], &[2, 2, 3]], 1),
        (&[&[2, 3]], 1),
        // More inputs than the check takes in every combination.
        (&[&[2, 1], &[2, 2], &[2, 1], &[2, 3], &[2, 1]], 1),
    ];
    for (shapes, axis) in joined {
        let dims: Vec<Vec<usize>> = shapes.iter().map(|dims| dims.to_vec()).collect();
        let inputs = (0..)
            .zip(shapes)
            .map(|(input, dims)| tensor(dims, input))
            .collect();
        let reference = move |x: &[Vec<f64>]| plain::concat(x, &dims, axis);
        cases.push(Case::new(ops::Concat { axis }, inputs, reference));
    }

    for images in [0, 1, 15, 16, 17, 33] {
        let rows = tensor(&[images, 2, 3], 0);
        cases.push(Case::new(ops::Unpack, vec![lanes(&rows)], same));
        cases.push(Case::new(ops::Pack, vec![rows], same));
    }
    cases.push(Case::new(ops::Pack, vec![tensor(&[5], 0)], same));
}

fn matrix_products(cases: &mut Vec<Case>) {
    let shapes: [[&'static [usize]; 3]; 9] = [
        [&[1, 1], &[1, 1], &[]],
        [&[2, 3], &[3, 4], &[]],
        [&[5, 17], &[17, 3], &[]],
        [&[3, 2, 4], &[4, 5], &[3]],
        [&[3, 2, 4], &[3, 4, 5], &[3]],
        [&[2, 4], &[3, 4, 1], &[3]],
        [&[2, 1, 2, 3], &[4, 3, 2], &[2, 4]],
        [&[2, 0], &[0, 3], &[]],
        [&[0, 2], &[2, 3], &[]],
    ];
    for [a, b, batch] in shapes {
        let inputs = vec![tensor(a, 0), tensor(b, 1)];
        let reference = move |x: &[Vec<f64>]| plain::matmul(x, [a, b], batch);
        cases.push(Case::new(ops::MatMul, inputs, reference));
    }
}

fn network(cases: &mut Vec<Case>) {
    let sizes = [
        (1, 1, 1),
        (2, 3, 4),
        (15, 5, 2),
        (16, 4, 17),
        (17, 7, 3),
        (33, 2, 5),
        (20, 19, 33),
        (0, 3, 2),
        (3, 0, 2),
        (3, 2, 0),
    ];
    for (images, inputs, outputs) in sizes {
        let shape = DenseShape {
            images,
            inputs,
            outputs,
        };
        let operands = || {
            let x = lanes(&tensor(&[images, inputs], 0));
            vec![x, tensor(&[inputs, outputs], 1), tensor(&[outputs], 2)]
        };
        let linear = move |x: &[Vec<f64>]| naive::dense(shape, &x[0], &x[1], &x[2]);
        let rectified = move |x: &[Vec<f64>]| naive::relu(&linear(x));
        let op = |activation| ops::Dense {
            activation,
            precision: ops::Precision::F32,
        };
        if inputs == 4 {
            let mut images_of_pixels = operands();
            images_of_pixels[0] = lanes(&tensor(&[images, 1, 2, 2], 0));
            let op = op(ops::Activation::Linear);
            cases.push(Case::new(op, images_of_pixels, linear));
        }
        cases.push(Case::new(op(ops::Activation::Linear), operands(), linear));
        cases.push(Case::new(op(ops::Activation::Relu), operands(), rectified));
    }
    for (images, classes) in [(1, 1), (1, 4), (15, 3), (16, 10), (17, 2), (33, 5)] {
        let labels: Vec<u32> = (0..images as u32).map(|i| i * 7 % classes as u32).collect();
        let values = labels.iter().map(|&label| label as f32).collect();
        let labels_tensor = Tensor::from_vec(values, [images]).unwrap();
        let logits = lanes(&tensor(&[images, classes], 0));
        let reference =
            move |x: &[Vec<f64>]| vec![naive::softmax_cross_entropy(classes, &x[0], &labels).0];
        let mut case = Case::new(
            ops::SoftmaxCrossEntropy,
            vec![logits, labels_tensor],
            reference,
        );
        case.constants.push(1);
        cases.push(case);
    }
}

#[test]
fn the_inputs_keep_away_from_kinks() {
    assert!(tensor(&[10, 100], 0).data().iter().all(|x| x.abs() >= 0.05));
    assert!(positive(&[10, 100], 0).data().iter().all(|x| *x >= 0.5));
    let mut values = distinct(&[101]).data().to_vec();
    values.sort_by(f32::total_cmp);
    assert!(values.windows(2).all(|pair| pair[1] - pair[0] >= 0.25));
    assert_eq!(
        lanes(&tensor(&[3, 2], 0)).spec(),
        &TensorSpec::lanes([3, 2])
    );
}
