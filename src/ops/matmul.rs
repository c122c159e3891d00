//! Matrix multiplication.

use taskweave_kernels::dispatch::active;
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};

use super::broadcast::{broadcast_dims, broadcast_strides};
use super::operands;
use super::strided::{Walk, row_major_strides};
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{Tensor, TensorError, TensorSpec};

/// `y = a · b` over the last two axes, row-major: `[..., m, k] · [..., k, n] -> [..., m, n]`. The
/// axes before them are batches and broadcast as in NumPy.
///
/// ∂L/∂a = ∂L/∂y · bᵀ and ∂L/∂b = aᵀ · ∂L/∂y, summed over batches that were broadcast.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let a = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?);
/// let b = tape.leaf(Tensor::from_vec(vec![5.0, 6.0], [2, 1])?);
/// let y = tape.apply(ops::MatMul, &[a, b])?;
/// assert_eq!(tape.value(y).data(), [17.0, 39.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct MatMul;

/// The sizes of one product, and where each of them lies in a, b and y.
struct Products {
    m: usize,
    k: usize,
    n: usize,
    batches: Walk<3>,
}

impl Products {
    fn new(a: &Tensor, b: &Tensor, output: &Tensor) -> Self {
        let (a_batch, [m, k]) = batch_and_matrix(a.shape().dims());
        let (b_batch, [_, n]) = batch_and_matrix(b.shape().dims());
        let (batch, _) = batch_and_matrix(output.shape().dims());
        if b_batch.iter().all(|&dim| dim == 1) {
            // One right factor for all: the batches of a and y are one tall matrix.
            return Self {
                m: a_batch.iter().product::<usize>() * m,
                k,
                n,
                batches: Walk::new(&[], [&[]; 3]),
            };
        }
        let scaled = |strides: Vec<usize>, size: usize| -> Vec<usize> {
            strides.into_iter().map(|stride| stride * size).collect()
        };
        let to_a = scaled(broadcast_strides(a_batch, batch.len()), m * k);
        let to_b = scaled(broadcast_strides(b_batch, batch.len()), k * n);
        let to_output = scaled(row_major_strides(batch), m * n);
        Self {
            m,
            k,
            n,
            batches: Walk::new(batch, [&to_a, &to_b, &to_output]),
        }
    }

    /// Offsets of a, b and y, product by product.
    fn for_each(&self, mut visit: impl FnMut([usize; 3])) {
        self.batches.for_each_run(|run| {
            for offsets in run.places() {
                visit(offsets);
            }
        });
    }
}

/// The dimensions of batches and those of one matrix; `output_spec` has made sure of two axes.
fn batch_and_matrix(dims: &[usize]) -> (&[usize], [usize; 2]) {
    match dims {
        [batch @ .., rows, columns] => (batch, [*rows, *columns]),
        _ => (&[], [1, 1]),
    }
}

/// `c = a · b + beta · c`, all of them contiguous, with `sizes` of `[m, k, n]`.
fn multiply(
    [m, k, n]: [usize; 3],
    a: Matrix<'_, f32>,
    b: Matrix<'_, f32>,
    beta: f32,
    c: &mut [f32],
) {
    let product = Gemm {
        m,
        n,
        k,
        alpha: 1.0,
        a,
        b,
        beta,
    };
    gemm(active(), &product, c, [n, 1]);
}

impl Op for MatMul {
    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let [a, b] = operands::row_major(self.name(), inputs)?;
        let misfit = |expected| Err(operands::misfit(self.name(), inputs, expected));
        if a.shape.rank() < 2 || b.shape.rank() < 2 {
            return misfit("both need at least two axes");
        }
        let (a_batch, [m, k]) = batch_and_matrix(a.shape.dims());
        let (b_batch, [rows, n]) = batch_and_matrix(b.shape.dims());
        if k != rows {
            return misfit("the last axis of the first must equal the last but one of the second");
        }
        match broadcast_dims(a_batch, b_batch) {
            Some(mut dims) => {
                dims.extend([m, n]);
                Ok(TensorSpec::row_major(dims))
            }
            None => misfit("aligned at the matrices, batch sizes must be equal or 1"),
        }
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let products = Products::new(pass.inputs[0], pass.inputs[1], pass.output);
        let Products { m, k, n, .. } = products;
        let (a, b) = (pass.inputs[0].data(), pass.inputs[1].data());
        let output = pass.output.data_mut();
        products.for_each(|[at_a, at_b, at]| {
            let a = Matrix::row_major(&a[at_a..at_a + m * k], k);
            let b = Matrix::row_major(&b[at_b..at_b + k * n], n);
            multiply([m, k, n], a, b, 0.0, &mut output[at..at + m * n]);
        });
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let products = Products::new(pass.inputs[0], pass.inputs[1], pass.output);
        let Products { m, k, n, .. } = products;
        let (a, b) = (pass.inputs[0].data(), pass.inputs[1].data());
        let grad_output = pass.grad_output.data();
        let [grad_a, grad_b] = pass.grad_inputs else {
            return;
        };
        // Zeros first, because several batches may add to one matrix.
        if let Some(grad_a) = grad_a {
            let grad_a = grad_a.data_mut();
            grad_a.fill(0.0);
            products.for_each(|[at_a, at_b, at]| {
                let grad = Matrix::row_major(&grad_output[at..at + m * n], n);
                let b = Matrix::row_major(&b[at_b..at_b + k * n], n).transposed();
                multiply([m, n, k], grad, b, 1.0, &mut grad_a[at_a..at_a + m * k]);
            });
        }
        if let Some(grad_b) = grad_b {
            let grad_b = grad_b.data_mut();
            grad_b.fill(0.0);
            products.for_each(|[at_a, at_b, at]| {
                let a = Matrix::row_major(&a[at_a..at_a + m * k], k).transposed();
                let grad = Matrix::row_major(&grad_output[at..at + m * n], n);
                multiply([k, m, n], a, grad, 1.0, &mut grad_b[at_b..at_b + k * n]);
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
        let (a, b) = (TensorSpec::row_major(a), TensorSpec::row_major(b));
        let spec = MatMul.output_spec(&[&a, &b]);
        spec.map(|spec| spec.shape.dims().to_vec())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn batches_broadcast_and_matrices_must_fit() {
        assert_eq!(shape(&[2, 3], &[3, 4]), Ok(vec![2, 4]));
        assert_eq!(shape(&[5, 1, 2, 3], &[7, 3, 4]), Ok(vec![5, 7, 2, 4]));
        assert_eq!(
            shape(&[2, 3], &[2, 3]).unwrap_err(),
            "MatMul: shapes [2, 3] and [2, 3] do not fit; the last axis of the first must equal \
             the last but one of the second"
        );
        assert!(shape(&[3], &[3, 4]).unwrap_err().contains("two axes"));
        assert!(shape(&[2, 2, 3], &[5, 3, 4]).is_err());
    }
}
