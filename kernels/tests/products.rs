//! Every matrix product against the naive reference in f64, on every instruction set of the machine.

use std::collections::BTreeSet;

use proptest::prelude::*;
use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};
use taskweave_kernels::lanes::{blocks, lanes_len, pack, unpack};
use taskweave_kernels::naive;

/// Around every edge: tile heights 2, 6 and 14, one and two vectors, a block of lanes.
const EDGES: [usize; 17] = [0, 1, 2, 3, 5, 6, 7, 13, 14, 15, 16, 17, 28, 31, 32, 33, 49];
/// The rows and vectors of a task, a block of depth, and two of them.
const LONG: [usize; 11] = [55, 56, 57, 127, 128, 129, 511, 512, 513, 1000, 1025];

/// The sizes that each dimension takes on while the others stay small.
fn shapes() -> Vec<[usize; 3]> {
    let mut shapes = vec![[130, 140, 530], [140, 130, 530], [33, 513, 129], [0, 0, 0]];
    // Long sums of whole vectors, and rows a quarter of a page and a page apart.
    shapes.extend([[9, 64, 1040], [20, 48, 2100], [9, 256, 600], [5, 1024, 70]]);
    for size in EDGES.into_iter().chain(LONG) {
        shapes.extend([[size, 17, 19], [18, size, 35], [21, 13, size]]);
    }
    shapes
}

fn exact(values: &[f32]) -> Vec<f64> {
    naive::convert(values)
}

fn magnitudes(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value).abs()).collect()
}

/// A general product and what its strides are.
#[derive(Clone, Debug)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    alpha: f32,
    beta: f32,
    transposed: [bool; 3],
    /// Floats left out between elements of a row, and after each row.
    gaps: [usize; 2],
}

impl Case {
    fn plain([m, n, k]: [usize; 3]) -> Self {
        Self {
            m,
            n,
            k,
            alpha: 1.0,
            beta: 0.0,
            transposed: [false; 3],
            gaps: [0; 2],
        }
    }

    fn strides(&self, which: usize, rows: usize, cols: usize) -> [usize; 2] {
        let step = self.gaps[0] + 1;
        if self.transposed[which] {
            [step, rows * step + self.gaps[1]]
        } else {
            [cols * step + self.gaps[1], step]
        }
    }
}

fn check_gemm(set: InstructionSet, case: &Case) {
    let &Case { m, n, k, .. } = case;
    let [a_strides, b_strides, c_strides] = [
        case.strides(0, m, k),
        case.strides(1, k, n),
        case.strides(2, m, n),
    ];
    let len = |rows: usize, cols: usize, strides: [usize; 2]| match rows.min(cols) {
        0 => 0,
        _ => (rows - 1) * strides[0] + (cols - 1) * strides[1] + 1,
    };
    // What lies between the elements must not be read as one.
    let matrix = |seed: u64, rows: usize, cols: usize, strides: [usize; 2]| {
        let mut values = noise(seed, len(rows, cols, strides));
        let place = |at: usize| at / cols * strides[0] + at % cols * strides[1];
        let elements: BTreeSet<usize> = (0..rows * cols).map(place).collect();
        let gaps = (0..values.len()).filter(|at| !elements.contains(at));
        gaps.for_each(|at| values[at] = f32::NAN);
        values
    };
    let a = matrix(1, m, k, a_strides);
    let b = matrix(2, k, n, b_strides);
    let before = noise(3, len(m, n, c_strides));

    fn product<'a, T: naive::Float>(case: &Case, a: &'a [T], b: &'a [T]) -> Gemm<'a, T> {
        let &Case { m, n, k, .. } = case;
        let matrix = |values, [row_stride, col_stride]: [usize; 2]| Matrix {
            values,
            row_stride,
            col_stride,
        };
        Gemm {
            m,
            n,
            k,
            alpha: T::from_f64(case.alpha.into()),
            a: matrix(a, case.strides(0, m, k)),
            b: matrix(b, case.strides(1, k, n)),
            beta: T::from_f64(case.beta.into()),
        }
    }
    let mut expected = exact(&before);
    naive::gemm(
        &product(case, &exact(&a), &exact(&b)),
        &mut expected,
        c_strides,
    );
    let mut magnitude = magnitudes(&before);
    let positive = Case {
        alpha: case.alpha.abs(),
        beta: case.beta.abs(),
        ..case.clone()
    };
    let (a_size, b_size) = (magnitudes(&a), magnitudes(&b));
    naive::gemm(
        &product(&positive, &a_size, &b_size),
        &mut magnitude,
        c_strides,
    );

    // With beta zero the old content, here NaN, must not be read; the gaps stay.
    let mut c = before.clone();
    let mut element = vec![false; c.len()];
    for i in 0..m {
        for j in 0..n {
            let place = i * c_strides[0] + j * c_strides[1];
            element[place] = true;
            if case.beta == 0.0 {
                c[place] = f32::NAN;
            }
        }
    }
    gemm(set, &product(case, &a, &b), &mut c, c_strides);
    assert_close_each(&c, &expected, |index| {
        if element[index] {
            Tolerance::dot(k + 1, magnitude[index])
        } else {
            Tolerance::EXACT
        }
    });
}

#[test]
fn gemm_matches_naive_around_every_edge() {
    for &set in dispatch::all() {
        for shape in shapes() {
            check_gemm(set, &Case::plain(shape));
            let everything = Case {
                alpha: -1.5,
                beta: 0.5,
                transposed: [true, true, false],
                ..Case::plain(shape)
            };
            check_gemm(set, &everything);
        }
    }
}

fn any_case() -> impl Strategy<Value = Case> {
    let size = || prop_oneof![0_usize..70, 100_usize..140, 500_usize..530];
    let factor = || prop_oneof![Just(0.0_f32), Just(1.0), Just(-0.75)];
    (
        [size(), size(), size()],
        [factor(), factor()],
        proptest::array::uniform3(any::<bool>()),
        [0_usize..3, 0_usize..20],
    )
        .prop_map(|([m, n, k], [alpha, beta], transposed, gaps)| Case {
            m,
            n,
            k,
            alpha,
            beta,
            transposed,
            gaps,
        })
}

fn any_dense() -> impl Strategy<Value = DenseShape> {
    let features = || prop_oneof![0_usize..70, 100_usize..140, 500_usize..530];
    (0_usize..70, features(), features()).prop_map(|(images, inputs, outputs)| DenseShape {
        images,
        inputs,
        outputs,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn gemm_matches_naive(case in any_case()) {
        for &set in dispatch::all() {
            check_gemm(set, &case);
        }
    }

    #[test]
    fn dense_matches_naive(shape in any_dense()) {
        for &set in dispatch::all() {
            check_dense(set, shape);
        }
    }
}

/// Lanes of row-major values; what the empty lanes hold is `empty`.
fn in_lanes(set: InstructionSet, images: usize, rows: &[f32], empty: f32) -> Vec<f32> {
    let features = rows.len().checked_div(images).unwrap_or(0);
    let mut lanes = vec![f32::NAN; lanes_len(images, features)];
    pack(set, images, features, rows, &mut lanes);
    let last = lanes.len().saturating_sub(features * 16);
    for vector in lanes[last..].chunks_mut(16) {
        vector[images - (blocks(images) - 1) * 16..].fill(empty);
    }
    lanes
}

fn out_of_lanes(set: InstructionSet, images: usize, features: usize, lanes: &[f32]) -> Vec<f32> {
    let mut rows = vec![f32::NAN; images * features];
    unpack(set, images, features, lanes, &mut rows);
    rows
}

fn check_dense(set: InstructionSet, shape: DenseShape) {
    let DenseShape {
        images,
        inputs,
        outputs,
    } = shape;
    let x = noise(1, images * inputs);
    let weights = noise(2, inputs * outputs);
    let bias = noise(3, outputs);
    let grad = noise(4, images * outputs);
    // Empty lanes: anything finite in the input, zeros in the gradient.
    let x_lanes = in_lanes(set, images, &x, 7.0);
    let grad_lanes = in_lanes(set, images, &grad, 0.0);
    let (x64, weights64, bias64, grad64) = (exact(&x), exact(&weights), exact(&bias), exact(&grad));
    let (x_size, weights_size, bias_size, grad_size) = (
        magnitudes(&x),
        magnitudes(&weights),
        magnitudes(&bias),
        magnitudes(&grad),
    );

    let magnitude = naive::dense(shape, &x_size, &weights_size, &bias_size);
    let zeros = vec![0.0; outputs];
    for bias in [Some((&bias, &bias64)), None] {
        for activation in [Activation::Linear, Activation::Relu] {
            let layer = Affine {
                weights: &weights,
                bias: bias.map(|(bias, _)| bias.as_slice()),
                activation,
            };
            let mut y = vec![f32::NAN; grad_lanes.len()];
            dense::forward(set, shape, layer, &x_lanes, &mut y);
            let bias64 = bias.map_or(&zeros, |(_, bias)| bias);
            let mut expected = naive::dense(shape, &x64, &weights64, bias64);
            if activation == Activation::Relu {
                expected = naive::relu(&expected);
            }
            let y = out_of_lanes(set, images, outputs, &y);
            assert_close_each(&y, &expected, |index| {
                Tolerance::dot(inputs, magnitude[index])
            });
        }
    }

    let mut grad_x = vec![f32::NAN; x_lanes.len()];
    dense::grad_input(set, shape, &grad_lanes, &weights, &mut grad_x);
    let magnitude = naive::dense_grad_input(shape, &grad_size, &weights_size);
    assert_close_each(
        &out_of_lanes(set, images, inputs, &grad_x),
        &naive::dense_grad_input(shape, &grad64, &weights64),
        |index| Tolerance::dot(outputs, magnitude[index]),
    );

    let mut grad_weights = vec![f32::NAN; weights.len()];
    dense::grad_weights(set, shape, &x_lanes, &grad_lanes, &mut grad_weights);
    let magnitude = naive::dense_grad_weights(shape, &x_size, &grad_size);
    assert_close_each(
        &grad_weights,
        &naive::dense_grad_weights(shape, &x64, &grad64),
        |index| Tolerance::dot(images, magnitude[index]),
    );

    let mut grad_bias = vec![f32::NAN; outputs];
    dense::grad_bias(set, shape, &grad_lanes, &mut grad_bias);
    let magnitude = naive::dense_grad_bias(shape, &grad_size);
    assert_close_each(
        &grad_bias,
        &naive::dense_grad_bias(shape, &grad64),
        |index| Tolerance::dot(images, magnitude[index]),
    );
}

#[test]
fn dense_matches_naive_around_every_edge() {
    for &set in dispatch::all() {
        for [images, inputs, outputs] in shapes() {
            check_dense(
                set,
                DenseShape {
                    images,
                    inputs,
                    outputs,
                },
            );
        }
    }
}

#[test]
fn dense_matches_naive_where_long_sums_are_cut_into_parts() {
    // The steps of the last part are fewer, or the rows more than those of a task, or the parts many.
    for [images, inputs, outputs] in [[17, 4_096, 3], [33, 6_150, 300], [1, 40_000, 10]] {
        for &set in dispatch::all() {
            check_dense(
                set,
                DenseShape {
                    images,
                    inputs,
                    outputs,
                },
            );
        }
    }
}

#[test]
fn relu_and_sums_keep_nan() {
    let shape = DenseShape {
        images: 1,
        inputs: 1,
        outputs: 1,
    };
    for &set in dispatch::all() {
        let layer = Affine {
            weights: &[f32::NAN],
            bias: None,
            activation: Activation::Relu,
        };
        let mut y = [0.0; 16];
        dense::forward(set, shape, layer, &[1.0; 16], &mut y);
        assert!(y[0].is_nan(), "{set:?}: {}", y[0]);
    }
}

/// The properties above iterate `dispatch::all`: this fails if it leaves out a set that the processor
/// reports.
#[test]
fn every_set_of_this_machine_was_run() {
    let run: BTreeSet<_> = dispatch::all().iter().map(|set| set.name()).collect();
    let mut present = BTreeSet::from(["portable"]);
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
        {
            present.insert("avx2");
        }
        if std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512dq")
            && std::arch::is_x86_feature_detected!("avx512vl")
        {
            present.insert("avx512");
        }
        // The processor's word, and the system's, which lends the registers.
        let known = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let has = |flag: &str| known.split_whitespace().any(|word| word == flag);
        if ["avx512_bf16", "amx_tile", "amx_bf16"].into_iter().all(has) {
            present.insert("amx");
        }
    }
    assert_eq!(run, present, "sets that were run, and sets of this machine");
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let shape = DenseShape {
        images: 200,
        inputs: 500,
        outputs: 300,
    };
    let deep = DenseShape {
        images: 40,
        inputs: 5_000,
        outputs: 20,
    };
    let x = noise(1, lanes_len(200, 500).max(lanes_len(40, 5_000)));
    let deep_x = &x[..lanes_len(40, 5_000)];
    let x = &x[..lanes_len(200, 500)];
    let grad = noise(2, lanes_len(200, 300));
    let weights = noise(3, 500 * 300);
    for &set in dispatch::all() {
        let results = [1, 2, 3].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("a pool of a few threads");
            pool.install(|| {
                let layer = Affine {
                    weights: &weights,
                    bias: None,
                    activation: Activation::Relu,
                };
                let mut y = vec![0.0; grad.len()];
                dense::forward(set, shape, layer, x, &mut y);
                let layer = Affine {
                    weights: &weights[..5_000 * 20],
                    ..layer
                };
                let mut deep_y = vec![0.0; lanes_len(40, 20)];
                dense::forward(set, deep, layer, deep_x, &mut deep_y);
                let mut grad_x = vec![0.0; x.len()];
                dense::grad_input(set, shape, &grad, &weights, &mut grad_x);
                let mut grad_weights = vec![0.0; weights.len()];
                dense::grad_weights(set, shape, x, &grad, &mut grad_weights);
                let mut grad_bias = vec![0.0; 300];
                dense::grad_bias(set, shape, &grad, &mut grad_bias);
                let args = Gemm {
                    m: 200,
                    n: 300,
                    k: 500,
                    alpha: 0.7,
                    a: Matrix::row_major(x, 500),
                    b: Matrix::row_major(&weights, 300),
                    beta: 0.0,
                };
                let mut product = vec![0.0; 200 * 300];
                gemm(set, &args, &mut product, [300, 1]);
                [y, deep_y, grad_x, grad_weights, grad_bias, product]
                    .map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            })
        });
        assert!(results[0] == results[1], "{set:?}: 1 and 2 threads differ");
        assert!(results[0] == results[2], "{set:?}: 1 and 3 threads differ");
    }
}

#[test]
#[should_panic(expected = "b, 3×4 at strides 4 and 1, does not fit in 11 values")]
fn gemm_refuses_a_matrix_that_does_not_fit() {
    let args = Gemm {
        m: 2,
        n: 4,
        k: 3,
        alpha: 1.0,
        a: Matrix::row_major(&[0.0; 6], 3),
        b: Matrix::row_major(&[0.0; 11], 4),
        beta: 0.0,
    };
    gemm(dispatch::active(), &args, &mut [0.0; 8], [4, 1]);
}

#[test]
fn gemm_refuses_elements_that_share_a_place() {
    for strides in [[3, 1], [1, 1], [0, 1], [4, 0]] {
        let args = Gemm {
            m: 2,
            n: 4,
            k: 1,
            alpha: 1.0,
            a: Matrix::row_major(&[0.0; 2], 1),
            b: Matrix::row_major(&[0.0; 4], 4),
            beta: 0.0,
        };
        let call = || gemm(dispatch::active(), &args, &mut [0.0; 8], strides);
        assert!(std::panic::catch_unwind(call).is_err(), "{strides:?}");
    }
}

#[test]
#[should_panic(expected = "weights holds 11 values where the shape demands 12")]
fn dense_refuses_a_wrong_length() {
    let shape = DenseShape {
        images: 1,
        inputs: 3,
        outputs: 4,
    };
    dense::grad_input(
        dispatch::active(),
        shape,
        &[0.0; 64],
        &[0.0; 11],
        &mut [0.0; 48],
    );
}
