//! General matrix multiplication with strides.

use super::Float;

/// A matrix somewhere in a slice: element (i, j) is `values[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a, T> {
    /// The slice that holds it.
    pub values: &'a [T],
    /// Elements from one row to the next.
    pub row_stride: usize,
    /// Elements from one column to the next.
    pub col_stride: usize,
}

impl<'a, T: Float> Matrix<'a, T> {
    /// A dense row-major matrix of `cols` columns.
    pub fn row_major(values: &'a [T], cols: usize) -> Self {
        Self {
            values,
            row_stride: cols,
            col_stride: 1,
        }
    }

    /// The same elements with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        Self {
            values: self.values,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }

    fn at(&self, row: usize, col: usize) -> T {
        self.values[row * self.row_stride + col * self.col_stride]
    }
}

/// `c = alpha · a · b + beta · c`, with `a` of m×k, `b` of k×n and `c` of m×n.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a, T> {
    /// Rows of `a` and `c`.
    pub m: usize,
    /// Columns of `b` and `c`.
    pub n: usize,
    /// Columns of `a`, rows of `b`.
    pub k: usize,
    /// Factor of the product.
    pub alpha: T,
    /// Left factor, m×k.
    pub a: Matrix<'a, T>,
    /// Right factor, k×n.
    pub b: Matrix<'a, T>,
    /// Factor of what `c` held. Zero ignores it, NaN included, as in BLAS.
    pub beta: T,
}

/// Runs `args` into `c`, whose element (i, j) is `c[i * row_stride + j * col_stride]` for
/// `c_strides = [row_stride, col_stride]`. Elements of `c` between strides stay as they are.
pub fn gemm<T: Float>(args: &Gemm<'_, T>, c: &mut [T], c_strides: [usize; 2]) {
    for i in 0..args.m {
        for j in 0..args.n {
            let mut sum = T::ZERO;
            for p in 0..args.k {
                sum += args.a.at(i, p) * args.b.at(p, j);
            }
            let element = &mut c[i * c_strides[0] + j * c_strides[1]];
            let kept = if args.beta == T::ZERO {
                T::ZERO
            } else {
                args.beta * *element
            };
            *element = args.alpha * sum + kept;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The plain product of row-major factors.
    fn product<'a, T: Float>([m, n, k]: [usize; 3], a: &'a [T], b: &'a [T]) -> Gemm<'a, T> {
        Gemm {
            m,
            n,
            k,
            alpha: T::ONE,
            a: Matrix::row_major(a, k),
            b: Matrix::row_major(b, n),
            beta: T::ZERO,
        }
    }

    #[test]
    fn two_by_two_by_hand() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]);
        let mut args = product([2, 2, 2], &a, &b);
        let mut c = [f64::NAN; 4];
        gemm(&args, &mut c, [2, 1]);
        assert_eq!(c, [19.0, 22.0, 43.0, 50.0]);

        args.a = args.a.transposed();
        args.alpha = 2.0;
        args.beta = -1.0;
        gemm(&args, &mut c, [2, 1]);
        assert_eq!(c, [33.0, 38.0, 33.0, 38.0]);
    }

    #[test]
    fn strides_leave_the_gaps_alone() {
        let (a, b) = ([1.0, 2.0], [3.0, 4.0]);
        let args = product([2, 2, 1], &a, &b);
        let mut c = [9.0_f32; 7];
        gemm(&args, &mut c, [4, 2]);
        assert_eq!(c, [3.0, 9.0, 4.0, 9.0, 6.0, 9.0, 8.0]);
    }

    #[test]
    fn empty_sum_is_zero() {
        let args = product([1, 1, 0], &[], &[]);
        let mut c = [7.0_f32];
        gemm(&args, &mut c, [1, 1]);
        assert_eq!(c, [0.0]);
    }
}
