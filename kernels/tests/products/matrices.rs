//! General products by any strides.

use std::collections::BTreeSet;

use proptest::prelude::*;
use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};
use taskweave_kernels::naive;

use crate::{exact, magnitudes, shapes};

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn gemm_matches_naive(case in any_case()) {
        for &set in dispatch::all() {
            check_gemm(set, &case);
        }
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
