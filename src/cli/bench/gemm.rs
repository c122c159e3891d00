//! Matrix products.

use taskweave_kernels::dense::{self, Activation, Affine, DenseShape};
use taskweave_kernels::dispatch;
use taskweave_kernels::gemm::{Gemm, Matrix, gemm};

use super::{Failure, Measurement, lanes_of_noise, measure, noise};

/// The general product of row-major matrices.
pub(super) fn row_major([m, k, n]: [usize; 3], batch: usize) -> Measurement {
    let (a, b, mut c) = (noise(m * k, 0), noise(k * n, 1), noise(m * n, 2));
    measure(
        format!("gemm {m}x{k}x{n}, row-major"),
        batch,
        m * k * n,
        || {
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
        },
    )
}

/// The three products of a dense layer of 1,000 inputs and outputs, in lanes.
pub(super) fn dense_layer(
    images: usize,
    print: &mut impl FnMut(Measurement) -> Result<(), Failure>,
) -> Result<(), Failure> {
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
    let work = images * 1_000 * 1_000;
    let name = |pass: &str| format!("dense {images}x1000x1000, {pass}");
    print(measure(name("forward"), images, work, || {
        let layer = Affine {
            weights: &weights,
            bias: Some(&bias),
            activation: Activation::Relu,
        };
        dense::forward(set, shape, layer, &x, &mut y);
    }))?;
    print(measure(name("grad input"), images, work, || {
        dense::grad_input(set, shape, &grad_output, &weights, &mut y);
    }))?;
    print(measure(name("grad weights"), images, work, || {
        dense::grad_weights(set, shape, &x, &grad_output, &mut grad_weights);
    }))
}
