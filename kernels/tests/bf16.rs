//! Products of bf16 against the naive reference in f64 over rounded operands, on every instruction
//! set of the machine, and all sets against each other to the last bit, but for `amx`, which is held to
//! its own order of the sum.

use proptest::prelude::*;
use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::dense::bf16::PointwiseShape;
use taskweave_kernels::dense::{Activation, Affine, DenseShape, bf16};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::gemm::{Gemm, Matrix, gemm_bf16};
use taskweave_kernels::isa::bf16::{multiply_add, round, widen};
use taskweave_kernels::lanes::{blocks, lanes_len};
use taskweave_kernels::naive::{self, Conv2dShape};
use taskweave_kernels::window::{Padding, Window};

mod common;

use common::{exact, packed, unpacked};

/// Around every edge: tile heights 2, 6 and 14, one and two vectors, pairs, a block of lanes.
const EDGES: [usize; 15] = [0, 1, 2, 3, 6, 7, 13, 14, 15, 16, 17, 31, 32, 33, 49];
/// The rows of a task, a block of steps, and two of them.
const LONG: [usize; 7] = [55, 56, 57, 113, 1023, 1025, 2049];

/// What a product makes of its operands, exactly.
fn rounded(values: &[f32]) -> Vec<f64> {
    values
        .iter()
        .map(|&value| widen(round(value)).into())
        .collect()
}

fn magnitudes(values: &[f32]) -> Vec<f64> {
    rounded(values).into_iter().map(f64::abs).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Lanes whose empty ones hold something.
fn with_empty_lanes(images: usize, mut lanes: Vec<f32>, empty: f32) -> Vec<f32> {
    let used = images - blocks(images).saturating_sub(1) * 16;
    let block = lanes.len() / blocks(images).max(1);
    let last = lanes.len() - block;
    for vector in lanes[last..].chunks_mut(16) {
        vector[used..].fill(empty);
    }
    lanes
}

/// All four results of a layer.
struct Results {
    forward: Vec<f32>,
    relu: Vec<f32>,
    grad_input: Vec<f32>,
    grad_weights: Vec<f32>,
}

struct Case {
    shape: PointwiseShape,
    x: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    grad: Vec<f32>,
}

impl Case {
    fn new(shape: PointwiseShape) -> Self {
        let PointwiseShape {
            images,
            pixels,
            inputs,
            outputs,
        } = shape;
        Self {
            shape,
            x: noise(1, images * inputs * pixels),
            weights: noise(2, inputs * outputs),
            bias: noise(3, outputs),
            grad: noise(4, images * outputs * pixels),
        }
    }

    fn results(&self, set: InstructionSet) -> Results {
        let shape = self.shape;
        let PointwiseShape {
            images,
            pixels,
            inputs,
            outputs,
        } = shape;
        // Empty lanes: anything finite in the input, zeros in the gradient.
        let x = with_empty_lanes(images, packed(set, images, &self.x), 7.0);
        let grad = packed(set, images, &self.grad);
        let forward = |bias, activation| {
            let layer = Affine {
                weights: &self.weights,
                bias,
                activation,
            };
            let mut y = vec![f32::NAN; lanes_len(images, outputs * pixels)];
            bf16::forward(set, shape, layer, &x, &mut y);
            unpacked(set, images, &y, outputs * pixels)
        };
        let mut grad_input = vec![f32::NAN; x.len()];
        bf16::grad_input(set, shape, &grad, &self.weights, &mut grad_input);
        let mut grad_weights = vec![f32::NAN; self.weights.len()];
        bf16::grad_weights(set, shape, &x, &grad, &mut grad_weights);
        Results {
            forward: forward(None, Activation::Linear),
            relu: forward(Some(&self.bias), Activation::Relu),
            grad_input: unpacked(set, images, &grad_input, inputs * pixels),
            grad_weights,
        }
    }

    /// Holds every set to the reference, and to the bits of the first one where they sum alike.
    fn check(&self) {
        let PointwiseShape {
            images,
            pixels,
            inputs,
            outputs,
        } = self.shape;
        let shape = Conv2dShape {
            images,
            inputs,
            outputs,
            height: 1,
            width: pixels,
            window: Window {
                kernel: [1, 1],
                stride: [1, 1],
                padding: Padding::Valid,
            },
        };
        let [x, weights, grad] = [&self.x, &self.weights, &self.grad].map(|v| rounded(v));
        let [x_size, weights_size, grad_size] =
            [&self.x, &self.weights, &self.grad].map(|v| magnitudes(v));
        let bias = exact(&self.bias);
        let bias_size: Vec<f64> = bias.iter().map(|bias| bias.abs()).collect();
        let zeros = vec![0.0; outputs];
        let expected = [
            naive::conv2d(&shape, &x, &weights, &zeros),
            naive::relu(&naive::conv2d(&shape, &x, &weights, &bias)),
            naive::conv2d_grad_input(&shape, &grad, &weights),
            naive::conv2d_grad_weights(&shape, &x, &grad),
        ];
        let size = [
            naive::conv2d(&shape, &x_size, &weights_size, &zeros),
            naive::conv2d(&shape, &x_size, &weights_size, &bias_size),
            naive::conv2d_grad_input(&shape, &grad_size, &weights_size),
            naive::conv2d_grad_weights(&shape, &x_size, &grad_size),
        ];
        let terms = [inputs, inputs, outputs, blocks(images) * 16 * pixels];
        let mut first: Option<[Vec<u32>; 4]> = None;
        for &set in dispatch::all() {
            let results = self.results(set);
            let results = [
                results.forward,
                results.relu,
                results.grad_input,
                results.grad_weights,
            ];
            for (which, actual) in results.iter().enumerate() {
                assert_close_each(actual, &expected[which], |index| {
                    Tolerance::dot(terms[which], size[which][index])
                });
            }
            if set.name() == "amx" {
                continue;
            }
            let results = results.map(|values| bits(&values));
            match &first {
                Some(first) => assert!(*first == results, "{set:?}, {:?}", self.shape),
                None => first = Some(results),
            }
        }
    }
}

fn check_dense([images, inputs, outputs]: [usize; 3]) {
    let shape = DenseShape {
        images,
        inputs,
        outputs,
    };
    Case::new(shape.into()).check();
}

#[test]
fn dense_matches_naive_around_every_edge() {
    check_dense([0, 0, 0]);
    check_dense([140, 130, 10]);
    for size in EDGES.into_iter().chain(LONG) {
        check_dense([size, 17, 19]);
        check_dense([18, size, 35]);
        check_dense([21, 13, size]);
    }
}

#[test]
fn pointwise_matches_naive_around_every_edge() {
    for size in EDGES.into_iter().chain([64]) {
        for [images, pixels, inputs, outputs] in [
            [size, 5, 3, 4],
            [17, size, 7, 15],
            [33, 9, size, 2],
            [16, 6, 5, size],
        ] {
            Case::new(PointwiseShape {
                images,
                pixels,
                inputs,
                outputs,
            })
            .check();
        }
    }
}

/// A weight gradient in parts, the last of them shorter, and a result of more than one chunk of
/// packed vectors.
#[test]
fn pointwise_over_many_pixels_matches_naive() {
    for [images, pixels, inputs, outputs] in [[65, 400, 3, 5], [33, 3_000, 20, 3]] {
        Case::new(PointwiseShape {
            images,
            pixels,
            inputs,
            outputs,
        })
        .check();
    }
}

fn any_layer() -> impl Strategy<Value = PointwiseShape> {
    let channels = || prop_oneof![0_usize..70, 100_usize..140];
    (0_usize..70, 0_usize..6, channels(), channels()).prop_map(
        |(images, pixels, inputs, outputs)| PointwiseShape {
            images,
            pixels,
            inputs,
            outputs,
        },
    )
}

fn check_gemm(size: [usize; 3], transposed: [bool; 2], gap: usize) {
    let [m, n, k] = size;
    let (a, b) = (noise(1, m * k * (gap + 1)), noise(2, k * n * (gap + 1)));
    fn matrix<T: naive::Float>(
        values: &[T],
        [rows, cols]: [usize; 2],
        transposed: bool,
        gap: usize,
    ) -> Matrix<'_, T> {
        let step = gap + 1;
        let [row_stride, col_stride] = if transposed {
            [step, rows * step]
        } else {
            [cols * step, step]
        };
        Matrix {
            values,
            row_stride,
            col_stride,
        }
    }
    let product = |a: &[f64], b: &[f64]| {
        let mut c = vec![0.0; m * n];
        let args = Gemm {
            m,
            n,
            k,
            alpha: 1.0,
            a: matrix(a, [m, k], transposed[0], gap),
            b: matrix(b, [k, n], transposed[1], gap),
            beta: 0.0,
        };
        naive::gemm(&args, &mut c, [n, 1]);
        c
    };
    let expected = product(&rounded(&a), &rounded(&b));
    let size_of_terms = product(&magnitudes(&a), &magnitudes(&b));
    for &set in dispatch::all() {
        let factors = [
            matrix(&a, [m, k], transposed[0], gap),
            matrix(&b, [k, n], transposed[1], gap),
        ];
        let mut c = vec![f32::NAN; m * n];
        gemm_bf16(set, size, factors, &mut c);
        assert_close_each(&c, &expected, |index| {
            Tolerance::dot(k, size_of_terms[index])
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn layers_match_naive(shape in any_layer()) {
        Case::new(shape).check();
    }

    #[test]
    fn gemm_matches_naive(
        size in [0_usize..70, 0_usize..70, 0_usize..70],
        transposed in any::<[bool; 2]>(),
        gap in 0_usize..3,
    ) {
        check_gemm(size, transposed, gap);
    }
}

/// The sum as tile registers compute it, in blocks of 32 steps, and those in larger ones.
fn in_tiles(steps: &[[f32; 2]]) -> f32 {
    const DEPTH: usize = 1024;
    let blocks = steps.len().div_ceil(DEPTH).max(1);
    let block = steps.len().div_ceil(blocks).next_multiple_of(32).max(32);
    let half = |steps: &[[f32; 2]]| {
        steps.iter().fold(0.0, |sum, values| {
            let [a, b] = values.map(|value| widen(round(value)));
            multiply_add(sum, a, b)
        })
    };
    let sums = steps.chunks(block).map(|steps| {
        steps.chunks(32).fold(0.0, |sum, steps| {
            let (low, high) = steps.split_at(steps.len().min(16));
            multiply_add(sum, multiply_add(half(low), half(high), 1.0), 1.0)
        })
    });
    sums.reduce(|sum, block| block + sum).unwrap_or(0.0)
}

#[test]
fn tiles_sum_in_their_own_order() {
    let Ok(set) = InstructionSet::by_name("amx") else {
        return;
    };
    for size in [
        [1, 1, 1],
        [33, 31, 16],
        [16, 70, 33],
        [40, 33, 1000],
        [5, 3, 2100],
    ] {
        let [m, n, k] = size;
        let (a, b) = (noise(1, m * k), noise(2, k * n));
        for transposed in [false, true] {
            let factors = match transposed {
                false => [Matrix::row_major(&a, k), Matrix::row_major(&b, n)],
                true => [
                    Matrix::row_major(&a, m).transposed(),
                    Matrix::row_major(&b, k).transposed(),
                ],
            };
            let mut c = vec![f32::NAN; m * n];
            gemm_bf16(set, size, factors, &mut c);
            let at = |matrix: &Matrix<'_, f32>, i: usize, j: usize| {
                matrix.values[i * matrix.row_stride + j * matrix.col_stride]
            };
            for (index, &actual) in c.iter().enumerate() {
                let (i, j) = (index / n, index % n);
                let steps: Vec<_> = (0..k)
                    .map(|step| [at(&factors[0], i, step), at(&factors[1], step, j)])
                    .collect();
                assert_eq!(actual, in_tiles(&steps), "{size:?} at ({i}, {j})");
            }
        }
    }
}

#[test]
fn nan_infinity_and_what_rounds_to_it_arrive() {
    let shape = DenseShape {
        images: 1,
        inputs: 1,
        outputs: 4,
    };
    for &set in dispatch::all() {
        let layer = Affine {
            weights: &[f32::NAN, f32::INFINITY, f32::MAX, f32::MIN_POSITIVE / 2.0],
            bias: None,
            activation: Activation::Relu,
        };
        let mut y = [-1.0; 64];
        bf16::forward(set, shape.into(), layer, &[1.0; 16], &mut y);
        assert!(y[0].is_nan(), "{set:?}: {}", y[0]);
        assert_eq!([y[16], y[32], y[48]], [f32::INFINITY, f32::INFINITY, 0.0]);
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let cases = [
        Case::new(PointwiseShape {
            images: 100,
            pixels: 1,
            inputs: 300,
            outputs: 200,
        }),
        Case::new(PointwiseShape {
            images: 40,
            pixels: 500,
            inputs: 8,
            outputs: 20,
        }),
    ];
    let set = dispatch::active();
    for case in cases {
        let results = [1, 2, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let results = pool.expect("a few threads").install(|| case.results(set));
            [
                results.forward,
                results.relu,
                results.grad_input,
                results.grad_weights,
            ]
            .map(|values| bits(&values))
        });
        assert!(results[0] == results[1], "1 and 2 threads differ");
        assert!(results[0] == results[2], "1 and 3 threads differ");
    }
}

#[test]
#[should_panic(expected = "weights holds 11 values where the shape demands 12")]
fn a_wrong_length_is_refused() {
    let shape = DenseShape {
        images: 1,
        inputs: 3,
        outputs: 4,
    };
    let set = dispatch::active();
    bf16::grad_input(set, shape.into(), &[0.0; 64], &[0.0; 11], &mut [0.0; 48]);
}
