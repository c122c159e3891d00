//! Operations with products in bf16 beside the same ones in f32: they differ by what rounding their
//! operands explains, and they do differ.

use proptest::prelude::*;
use taskweave::autograd::{Op, Tape};
use taskweave::ops::{Activation, Conv2d, Dense, Mul, Precision, Sum, Unpack};
use taskweave::tensor::Tensor;
use taskweave_kernels::check::{Tolerance, assert_close_each, noise};
use taskweave_kernels::naive::{self, Conv2dShape};
use taskweave_kernels::window::{Padding, Window};

/// Half a unit in the last place of bf16, which has eight bits: what rounding an operand costs at
/// most, relative to it.
const ROUNDOFF: f64 = 1.0 / 256.0;

/// What both operands of a product cost together, relative to it.
const OF_A_PRODUCT: f64 = 2.0 * ROUNDOFF + ROUNDOFF * ROUNDOFF;

#[derive(Clone, Copy, Debug)]
struct Sizes {
    images: usize,
    pixels: usize,
    inputs: usize,
    outputs: usize,
}

/// Output, and gradients of x, weights and bias, of an operation without activation.
fn results(op: impl Op + 'static, dense: bool, sizes: Sizes) -> [Vec<f32>; 4] {
    let Sizes {
        images,
        pixels,
        inputs,
        outputs,
    } = sizes;
    let tensor = |seed, dims: &[usize]| {
        Tensor::from_vec(noise(seed, dims.iter().product()), dims.to_vec()).unwrap()
    };
    let mut tape = Tape::new();
    let (x, weights, output) = match dense {
        true => (
            tensor(1, &[images, inputs]),
            tensor(2, &[inputs, outputs]),
            vec![images, outputs],
        ),
        false => (
            tensor(1, &[images, inputs, 1, pixels]),
            tensor(2, &[1, 1, inputs, outputs]),
            vec![images, outputs, 1, pixels],
        ),
    };
    let x = tape.parameter(x.to_lanes().unwrap());
    let weights = tape.parameter(weights);
    let bias = tape.parameter(tensor(3, &[outputs]));
    let grad = tape.leaf(tensor(4, &output));
    let y = tape.apply(op, &[x, weights, bias]).unwrap();
    let rows = tape.apply(Unpack, &[y]).unwrap();
    let product = tape.apply(Mul, &[rows, grad]).unwrap();
    let loss = tape.apply(Sum::all(), &[product]).unwrap();
    tape.backward(&[(loss, 1.0)]).unwrap();
    let grad = |var| tape.grad(var).unwrap().to_row_major().data().to_vec();
    [
        tape.value(rows).data().to_vec(),
        grad(x),
        grad(weights),
        grad(bias),
    ]
}

fn check(dense: bool, sizes: Sizes) {
    let Sizes {
        images,
        pixels,
        inputs,
        outputs,
    } = sizes;
    let of = |precision| {
        let activation = Activation::Linear;
        if dense {
            let op = Dense {
                activation,
                precision,
            };
            results(op, dense, sizes)
        } else {
            let op = Conv2d {
                stride: [1, 1],
                padding: Padding::Same,
                activation,
                max_pool: None,
                precision,
            };
            results(op, dense, sizes)
        }
    };
    let (exact, rounded) = (of(Precision::F32), of(Precision::Bf16));
    let magnitudes = |seed, len| -> Vec<f64> {
        let values = noise(seed, len).into_iter();
        values.map(|value| f64::from(value).abs()).collect()
    };
    let x = magnitudes(1, images * inputs * pixels);
    let weights = magnitudes(2, inputs * outputs);
    let grad = magnitudes(4, images * outputs * pixels);
    let window = Window {
        kernel: [1, 1],
        stride: [1, 1],
        padding: Padding::Valid,
    };
    let shape = Conv2dShape {
        images,
        inputs,
        outputs,
        height: 1,
        width: pixels,
        window,
    };
    let sums = [
        naive::conv2d(&shape, &x, &weights, &vec![1.0; outputs]),
        naive::conv2d_grad_input(&shape, &grad, &weights),
        naive::conv2d_grad_weights(&shape, &x, &grad),
    ];
    let terms = [inputs, outputs, images * pixels];
    for (which, sums) in sums.iter().enumerate() {
        assert_close_each(&rounded[which], &exact[which], |index| {
            // Both are also summed in f32, each with an error of its own.
            let summed = Tolerance::dot(terms[which], sums[index]).times(2.0);
            Tolerance::absolute(OF_A_PRODUCT * sums[index]).plus(summed)
        });
        assert!(rounded[which] != exact[which], "nothing was rounded");
    }
    assert_eq!(rounded[3], exact[3], "the gradient of the bias is f32");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn dense_differs_by_the_rounding(images in 1_usize..40, inputs in 1_usize..50, outputs in 1_usize..40) {
        check(true, Sizes { images, pixels: 1, inputs, outputs });
    }

    #[test]
    fn convolutions_of_single_pixels_differ_by_the_rounding(
        images in 1_usize..20,
        pixels in 1_usize..12,
        inputs in 1_usize..20,
        outputs in 1_usize..20,
    ) {
        check(false, Sizes { images, pixels, inputs, outputs });
    }
}

/// Windows of more than a pixel, strides and pooling compute in f32 whatever the precision is.
#[test]
fn other_convolutions_stay_as_they_are() {
    let tensor = |seed, dims: [usize; 4]| {
        Tensor::from_vec(noise(seed, dims.iter().product()), dims).unwrap()
    };
    let pool = Window {
        kernel: [2, 2],
        stride: [2, 2],
        padding: Padding::Valid,
    };
    for (kernel, stride, max_pool) in [(3, 1, None), (1, 2, None), (1, 1, Some(pool))] {
        let output = |precision| {
            let op = Conv2d {
                stride: [stride; 2],
                padding: Padding::Same,
                activation: Activation::Relu,
                max_pool,
                precision,
            };
            let mut tape = Tape::new();
            let x = tape.leaf(tensor(1, [3, 4, 6, 6]).to_lanes().unwrap());
            let weights = tape.parameter(tensor(2, [kernel, kernel, 4, 5]));
            let y = tape.apply(op, &[x, weights]).unwrap();
            tape.value(y).data().to_vec()
        };
        assert_eq!(output(Precision::F32), output(Precision::Bf16));
    }
}
