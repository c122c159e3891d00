//! Matrix products.

use std::io::Write;

use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
use taskweave_kernels::dispatch;
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};

use super::operands::{lanes_of_noise, noise};
use super::{Bench, Failure, Load};

/// Row-major products, then those of a dense layer.
pub(super) fn products<W: Write>(bench: &mut Bench<'_, W>) -> Result<(), Failure> {
    row_major([bench.batch(), 1_000, 1_000], bench)?;
    row_major([1_024; 3], bench)?;
    dense_layer(bench)
}

/// The general product of row-major matrices.
fn row_major<W: Write>([m, k, n]: [usize; 3], bench: &mut Bench<'_, W>) -> Result<(), Failure> {
    let (a, b, mut c) = (noise(m * k, 0), noise(k * n, 1), noise(m * n, 2));
    let name = format!("gemm {m}x{k}x{n}, row-major");
    bench.time(name, Load::MultiplyAdds(m * k * n), || {
        let product = Gemm {
            m,
            n,
            k,
            alpha: 1.0,
            a: Matrix::row_major(&a, k),
            b: Matrix::row_major(&b, n),
            beta: 0.0,
        };
        gemm(dispatch::active(), &product, &mut c, [n, 1]);
    })
}

/// The three products of a dense layer of 1,000 inputs and outputs, in lanes.
fn dense_layer<W: Write>(bench: &mut Bench<'_, W>) -> Result<(), Failure> {
    let images = bench.batch();
    let shape = DenseShape {
        images,
        inputs: 1_000,
        outputs: 1_000,
    };
    let set = dispatch::active();
    let (x, grad_output) = (
        lanes_of_noise(images, 1_000, 0),
        lanes_of_noise(images, 1_000, 1),
    );
    let (weights, bias) = (noise(1_000 * 1_000, 2), noise(1_000, 3));
    let (mut y, mut grad_weights) = (noise(x.len(), 4), noise(1_000 * 1_000, 5));
    let load = Load::MultiplyAdds(images * 1_000 * 1_000);
    let name = |pass: &str| format!("dense {images}x1000x1000, {pass}");
    bench.time(name("forward"), load, || {
        let layer = Affine {
            weights: &weights,
            bias: Some(&bias),
            activation: Activation::Relu,
        };
        dense::forward(set, shape, layer, &x, &mut y);
    })?;
    bench.time(name("grad input"), load, || {
        dense::grad_input(set, shape, &grad_output, &weights, &mut y);
    })?;
    bench.time(name("grad weights"), load, || {
        dense::grad_weights(set, shape, &x, &grad_output, &mut grad_weights);
    })
}
