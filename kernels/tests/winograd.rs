//! Winograd's convolutions against the naive reference in f64, on every instruction set.

use std::collections::BTreeSet;

use proptest::prelude::*;
use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check::{Tolerance, assert_close, assert_close_each, noise};
use taskweave_kernels::conv2d::Conv2dShape;
use taskweave_kernels::conv2d::winograd::{self, F2, F4, Line, MOST_POINTS, Transform};
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch::{self, InstructionSet, Kernel};
use taskweave_kernels::isa::Isa;
use taskweave_kernels::lanes::lanes_len;
use taskweave_kernels::naive;
use taskweave_kernels::window::{Padding, Window};

mod common;
use common::{exact, packed, unpacked};

type Matrix = [[f64; MOST_POINTS]; MOST_POINTS];

/// The matrices of a transform, each row a value that comes out.
struct Matrices {
    input: Matrix,
    weights: Matrix,
    output: Matrix,
    grad_output: Matrix,
    grad_weights: Matrix,
}

/// Reads them off by transforming unit vectors: column `c` is what becomes of the one at `c`.
struct ReadOff<T>(T);

impl<T: Transform> Kernel for ReadOff<T> {
    type Output = Matrices;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Matrices {
        let read = |line: fn(I, Line<I::F32>) -> Line<I::F32>, columns: usize, rows: usize| {
            let mut matrix = [[0.0; MOST_POINTS]; MOST_POINTS];
            for column in 0..columns {
                let mut unit = [isa.zero(); MOST_POINTS];
                unit[column] = isa.splat(1.0);
                for (row, value) in line(isa, unit).into_iter().enumerate().take(rows) {
                    matrix[row][column] = f64::from(isa.to_array(value)[0]);
                }
            }
            matrix
        };
        Matrices {
            input: read(T::input, T::POINTS, T::POINTS),
            weights: read(T::weights, 3, T::POINTS),
            output: read(T::output, T::POINTS, T::OUTPUTS),
            grad_output: read(T::grad_output, T::OUTPUTS, T::POINTS),
            grad_weights: read(T::grad_weights, T::POINTS, 3),
        }
    }
}

/// What defines a transform: output `k` is the sum over taps `l` of `g[l] · d[k + l]`.
fn check_transform<T: Transform>(set: InstructionSet, transform: T) {
    let Matrices {
        input,
        weights,
        output,
        grad_output,
        grad_weights,
    } = set.run(ReadOff(transform));
    let [outputs, points] = [T::OUTPUTS, T::POINTS];
    for index in 0..outputs * 3 * points {
        let (k, l, j) = (index / (3 * points), index / points % 3, index % points);
        let sum: f64 = (0..points)
            .map(|i| output[k][i] * weights[i][l] * input[i][j])
            .sum();
        let expected = if j == k + l { 1.0 } else { 0.0 };
        // 1/3 and 1/15 are rounded to f32; the largest term is 8.
        assert_close(&[sum], &[expected], Tolerance::absolute(1e-6));
    }
    for i in 0..MOST_POINTS {
        for j in 0..MOST_POINTS {
            assert_eq!(grad_output[i][j], output[j][i]);
            assert_close(
                &[grad_weights[i][j]],
                &[weights[j][i]],
                Tolerance::roundings(2),
            );
        }
    }
}

#[test]
fn transforms_convolve() {
    for &set in dispatch::all() {
        check_transform(set, F2);
        check_transform(set, F4);
    }
}

/// How far results may lie off, for operands evenly spread over [-1, 1).
///
/// A sum of n products at a point has terms of variance `s²`, the product of the squared norms of
/// the rows that made them times the variances of the operands, 1/3 each. Each of its roundings has
/// a variance of at most `(u · partial sum)²`, so its error has one of at most `u² n² s² / 2`.
/// Rounding the transformed operands adds a few `u² n s²`, and so does transforming back. The
/// result sums the points with the squares of its own row. Eight standard deviations are granted.
struct Bounds {
    correlate: f64,
    grad_weights: f64,
}

impl Bounds {
    fn of<T: Transform>(transform: T) -> Self {
        let matrices = dispatch::active().run(ReadOff(transform));
        let norm = |row: &[f64; MOST_POINTS]| row.iter().map(|value| value * value).sum::<f64>();
        let largest = |last: &Matrix, left: &Matrix, right: &Matrix| {
            last.iter()
                .map(|row| {
                    let terms = row.iter().zip(left).zip(right);
                    terms
                        .map(|((value, left), right)| value * value * norm(left) * norm(right))
                        .sum::<f64>()
                })
                .fold(0.0, f64::max)
        };
        Self {
            correlate: largest(&matrices.output, &matrices.input, &matrices.weights),
            grad_weights: largest(
                &matrices.grad_weights,
                &matrices.input,
                &matrices.grad_output,
            ),
        }
    }

    /// The standard deviation of a result; `factor` is one of the fields, which hold for one axis.
    fn deviation(factor: f64, terms: usize) -> f64 {
        let (unit, terms) = (f64::from(f32::EPSILON) / 2.0, terms as f64);
        unit * (terms * terms / 2.0 + 12.0 * terms).sqrt() * factor / 3.0
    }

    fn tolerance(factor: f64, terms: usize) -> Tolerance {
        Tolerance::absolute(8.0 * Self::deviation(factor, terms)).plus(Tolerance::roundings(1))
    }
}

/// Operands and what the plain loops make of them.
struct Case {
    shape: Conv2dShape,
    x: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    grad_output: Vec<f32>,
    y: Vec<f64>,
    grad_input: Vec<f64>,
    grad_weights: Vec<f64>,
    grad_bias: Vec<f64>,
}

impl Case {
    fn new(shape: Conv2dShape) -> Self {
        let images = shape.images;
        let x = noise(1, images * shape.input_features());
        let weights = noise(2, shape.weights());
        let bias = noise(3, shape.outputs);
        let grad_output = noise(4, images * shape.output_features());
        let (exact_x, exact_weights) = (exact(&x), exact(&weights));
        let exact_grad = exact(&grad_output);
        Self {
            y: naive::conv2d(&shape, &exact_x, &exact_weights, &exact(&bias)),
            grad_input: naive::conv2d_grad_input(&shape, &exact_grad, &exact_weights),
            grad_weights: naive::conv2d_grad_weights(&shape, &exact_x, &exact_grad),
            grad_bias: naive::conv2d_grad_bias(&shape, &exact_grad),
            shape,
            x,
            weights,
            bias,
            grad_output,
        }
    }

    fn check<T: Transform>(&self, set: InstructionSet, transform: T) {
        let shape = &self.shape;
        let images = shape.images;
        let bounds = Bounds::of(transform);
        let x = packed(set, images, &self.x);
        let grad_output = packed(set, images, &self.grad_output);
        for activation in [Activation::Linear, Activation::Relu] {
            let layer = Affine {
                weights: &self.weights,
                bias: Some(&self.bias),
                activation,
            };
            let mut y = vec![f32::NAN; grad_output.len()];
            winograd::forward::<T>(set, shape, layer, &x, &mut y);
            assert!(y.iter().all(|value| value.is_finite()));
            let expected = match activation {
                Activation::Linear => self.y.clone(),
                Activation::Relu => naive::relu(&self.y),
            };
            assert_close(
                &unpacked(set, images, &y, shape.output_features()),
                &expected,
                Bounds::tolerance(bounds.correlate, shape.inputs),
            );
        }

        let mut grad_input = vec![f32::NAN; x.len()];
        winograd::grad_input::<T>(set, shape, &grad_output, &self.weights, &mut grad_input);
        assert!(grad_input.iter().all(|value| value.is_finite()));
        assert_close(
            &unpacked(set, images, &grad_input, shape.input_features()),
            &self.grad_input,
            Bounds::tolerance(bounds.correlate, shape.outputs),
        );

        let mut grad_weights = vec![f32::NAN; self.weights.len()];
        let mut grad_bias = vec![f32::NAN; shape.outputs];
        let targets = (&mut *grad_weights, Some(&mut *grad_bias));
        winograd::grad_weights::<T>(set, shape, &x, &grad_output, targets.0, targets.1);
        let tiles: usize = shape
            .output()
            .map(|len| len.div_ceil(T::OUTPUTS))
            .iter()
            .product();
        assert_close(
            &grad_weights,
            &self.grad_weights,
            Bounds::tolerance(bounds.grad_weights, images * tiles),
        );
        let pixels = images * shape.output().iter().product::<usize>();
        let magnitudes: Vec<f64> = self
            .grad_output
            .iter()
            .map(|value| f64::from(value.abs()))
            .collect();
        let magnitudes = naive::conv2d_grad_bias(shape, &magnitudes);
        assert_close_each(&grad_bias, &self.grad_bias, |output| {
            Tolerance::dot(pixels, magnitudes[output])
        });
    }
}

fn shape(images: usize, channels: [usize; 2], size: [usize; 2], padding: Padding) -> Conv2dShape {
    Conv2dShape {
        images,
        inputs: channels[0],
        outputs: channels[1],
        height: size[0],
        width: size[1],
        window: Window {
            kernel: [3, 3],
            stride: [1, 1],
            padding,
        },
    }
}

/// Images around a block, channels around the tiles, sizes around those of Winograd's tiles.
fn shapes() -> Vec<Conv2dShape> {
    let mut shapes = Vec::new();
    for padding in [Padding::Same, Padding::Valid] {
        for images in [0, 1, 16, 17] {
            shapes.push(shape(images, [3, 5], [5, 6], padding));
        }
        for channels in [1, 3, 8, 14, 16, 17, 33] {
            shapes.push(shape(2, [channels, 4], [6, 5], padding));
            shapes.push(shape(2, [3, channels], [5, 6], padding));
        }
        for size in 1..=10 {
            shapes.push(shape(2, [2, 3], [size, 4], padding));
            shapes.push(shape(2, [2, 3], [7, size], padding));
        }
        for size in [26, 27, 28] {
            shapes.push(shape(3, [4, 3], [size, size], padding));
        }
    }
    shapes
}

#[test]
fn convolutions_match_naive_on_every_set() {
    let mut covered = BTreeSet::new();
    for case in shapes().into_iter().map(Case::new) {
        for &set in dispatch::all() {
            case.check(set, F4);
            case.check(set, F2);
            covered.insert(set.name());
        }
    }
    let present: BTreeSet<&str> = dispatch::all().iter().map(|set| set.name()).collect();
    assert_eq!(covered, present, "a set of this machine was not run");
}

/// Root mean square errors relative to the root mean square of the results, of 576 products each.
#[test]
fn errors_are_as_small_as_documented() {
    let shape = shape(3, [64, 16], [28, 28], Padding::Same);
    let case = Case::new(shape);
    let set = dispatch::active();
    let square = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
    let x = packed(set, 3, &case.x);
    let layer = Affine {
        weights: &case.weights,
        bias: Some(&case.bias),
        activation: Activation::Linear,
    };
    let error = |run: fn(InstructionSet, &Conv2dShape, Affine<'_>, &[f32], &mut [f32])| {
        let mut y = vec![f32::NAN; lanes_len(3, shape.output_features())];
        run(set, &shape, layer, &x, &mut y);
        let y = exact(&unpacked(set, 3, &y, shape.output_features()));
        let errors: Vec<f64> = y.iter().zip(&case.y).map(|(y, exact)| y - exact).collect();
        (square(&errors) / square(&case.y)).sqrt()
    };
    let [f4, f2] = [winograd::forward::<F4>, winograd::forward::<F2>].map(error);
    assert!((5e-7..1.5e-6).contains(&f4), "{f4:e}");
    assert!((1e-7..3.5e-7).contains(&f2), "{f2:e}");
}

#[test]
fn the_same_numbers_at_any_number_of_threads() {
    let set = dispatch::active();
    let shape = shape(300, [3, 10], [7, 7], Padding::Same);
    let x = packed(set, 300, &noise(1, 300 * shape.input_features()));
    let weights = noise(2, shape.weights());
    let layer = Affine {
        weights: &weights,
        bias: None,
        activation: Activation::Relu,
    };
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let mut y = vec![0.0; lanes_len(300, shape.output_features())];
            winograd::forward::<F4>(set, &shape, layer, &x, &mut y);
            let mut grad_input = vec![0.0; x.len()];
            winograd::grad_input::<F4>(set, &shape, &y, &weights, &mut grad_input);
            let mut grad_weights = vec![0.0; weights.len()];
            let mut grad_bias = vec![0.0; shape.outputs];
            let targets = (&mut *grad_weights, Some(&mut *grad_bias));
            winograd::grad_weights::<F4>(set, &shape, &x, &y, targets.0, targets.1);
            (y, grad_input, grad_weights, grad_bias)
        })
    };
    let alone = run(1);
    for threads in [2, 3, 8] {
        assert!(run(threads) == alone, "{threads} threads");
    }
}

#[test]
#[should_panic(expected = "windows of 3×3 that move by one")]
fn another_window_is_refused() {
    let mut shape = shape(1, [1, 1], [4, 4], Padding::Same);
    shape.window.stride = [2, 1];
    let x = vec![0.0; lanes_len(1, shape.input_features())];
    let grad_output = vec![0.0; lanes_len(1, shape.output_features())];
    winograd::grad_weights::<F4>(
        dispatch::active(),
        &shape,
        &x,
        &grad_output,
        &mut [0.0; 9],
        None,
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_convolution_matches_naive(
        images in 1..20_usize,
        channels in [1..20_usize, 1..20_usize],
        size in [1..13_usize, 1..13_usize],
        same in any::<bool>(),
    ) {
        let padding = if same { Padding::Same } else { Padding::Valid };
        let case = Case::new(shape(images, channels, size, padding));
        for &set in dispatch::all() {
            case.check(set, F4);
            case.check(set, F2);
        }
    }
}

/// From 32 MB on, aligned results go past the caches; in parts, or from an odd float on, they do not.
#[test]
fn large_results_are_those_of_their_parts() {
    let window = Window {
        kernel: [3, 3],
        stride: [1, 1],
        padding: Padding::Same,
    };
    let shape = Conv2dShape {
        images: 512,
        inputs: 17,
        outputs: 17,
        height: 31,
        width: 32,
        window,
    };
    let part = Conv2dShape {
        images: 64,
        ..shape
    };
    let [len, part_len] =
        [shape, part].map(|shape| lanes_len(shape.images, shape.input_features()));
    assert!(len >= 8 << 20);
    let x = noise(1, len);
    let weights = noise(2, shape.weights());
    let bias = noise(3, shape.outputs);
    let layer = Affine {
        weights: &weights,
        bias: Some(&bias),
        activation: Activation::Relu,
    };
    let mut parts = vec![f32::NAN; len];
    let mut whole = Buffer::zeroed(len);
    let mut odd = vec![f32::NAN; len + 1];
    assert!((whole.as_ptr() as usize).is_multiple_of(64));
    for &set in dispatch::all() {
        winograd::forward::<F4>(set, &shape, layer, &x, &mut whole);
        for (x, y) in x.chunks(part_len).zip(parts.chunks_mut(part_len)) {
            winograd::forward::<F4>(set, &part, layer, x, y);
        }
        assert!(*whole == *parts, "{set:?}, forward");
        let start = usize::from((odd.as_ptr() as usize).is_multiple_of(64));
        winograd::forward::<F4>(set, &shape, layer, &x, &mut odd[start..][..len]);
        assert!(
            odd[start..][..len] == *parts,
            "{set:?}, forward to an odd place"
        );

        winograd::grad_input::<F4>(set, &shape, &x, &weights, &mut whole);
        for (x, y) in x.chunks(part_len).zip(parts.chunks_mut(part_len)) {
            winograd::grad_input::<F4>(set, &part, x, &weights, y);
        }
        assert!(*whole == *parts, "{set:?}, input gradient");
    }
}
