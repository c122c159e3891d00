//! Times convolutions on every instruction set of the machine, alone and with a max pooling behind
//! them, after checking their answers.
//!
//! `cargo bench -p taskweave-kernels --bench conv2d`; `cargo test --benches` only runs each once.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::check::{Tolerance, assert_close, noise};
use taskweave_kernels::conv2d::{self, Conv2dShape, Gradients, MaxPooled, Recorded};
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch::{self, InstructionSet};
use taskweave_kernels::lanes::lanes_len;
use taskweave_kernels::naive::{self, PoolShape};
use taskweave_kernels::window::{Padding, Window};

#[path = "../tests/common/mod.rs"]
mod common;
use common::{exact, packed, unpacked};

const SAME: Window = Window {
    kernel: [3, 3],
    stride: [1, 1],
    padding: Padding::Same,
};

/// The second layer of the convolutional net, which goes by Winograd's method; four blocks of images.
const WINOGRAD: Conv2dShape = Conv2dShape {
    images: 64,
    inputs: 32,
    outputs: 32,
    height: 28,
    width: 28,
    window: SAME,
};

/// The layers of the convolutional net, of which the first goes by the direct method, and two more
/// that do: by their stride and their kernel.
const SHAPES: [(&str, Conv2dShape); 6] = [
    (
        "1_to_32",
        Conv2dShape {
            inputs: 1,
            ..WINOGRAD
        },
    ),
    ("32_to_32", WINOGRAD),
    (
        "32_to_64",
        Conv2dShape {
            outputs: 64,
            height: 27,
            width: 27,
            ..WINOGRAD
        },
    ),
    (
        "64_to_64",
        Conv2dShape {
            inputs: 64,
            outputs: 64,
            height: 27,
            width: 27,
            ..WINOGRAD
        },
    ),
    (
        "32_to_32_by_2",
        Conv2dShape {
            window: Window {
                stride: [2, 2],
                ..SAME
            },
            ..WINOGRAD
        },
    ),
    (
        "32_to_32_of_1x1",
        Conv2dShape {
            window: Window {
                kernel: [1, 1],
                ..SAME
            },
            ..WINOGRAD
        },
    ),
];

/// The pooling of the convolutional net.
const POOL: Window = Window {
    kernel: [2, 2],
    stride: [1, 1],
    padding: Padding::Valid,
};

/// Images whose answers are checked: the naive loops over all would take longer than the bench.
const CHECKED: usize = 2;

fn pool_shape(shape: &Conv2dShape) -> PoolShape {
    let [height, width] = shape.output();
    PoolShape {
        images: shape.images,
        channels: shape.outputs,
        height,
        width,
        window: POOL,
    }
}

fn affine<'a>(weights: &'a [f32], bias: &'a [f32]) -> Affine<'a> {
    Affine {
        weights,
        bias: Some(bias),
        activation: Activation::Relu,
    }
}

/// Holds values to the expected ones. The root mean square error of Winograd's method is documented
/// as 1.1e-6 of that of the values; that of a single value is at most 1.5e-5 here, of which twice as
/// much is granted. A product too few or too many is off by some 1e-1.
fn hold(actual: &[f32], expected: &[f64]) {
    let squares: f64 = expected.iter().map(|value| value * value).sum();
    let typical = (squares / expected.len() as f64).sqrt();
    assert_close(actual, expected, Tolerance::absolute(3e-5 * typical));
}

/// A few images, and what the plain loops make of them.
struct Case {
    shape: Conv2dShape,
    x: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    y: Vec<f64>,
}

impl Case {
    fn new(shape: &Conv2dShape) -> Self {
        let shape = Conv2dShape {
            images: CHECKED,
            ..*shape
        };
        let x = noise(1, CHECKED * shape.input_features());
        let (weights, bias) = (noise(2, shape.weights()), noise(3, shape.outputs));
        let sums = naive::conv2d(&shape, &exact(&x), &exact(&weights), &exact(&bias));
        Self {
            y: naive::relu(&sums),
            shape,
            x,
            weights,
            bias,
        }
    }

    /// Holds the gradients to the naive ones of the gradient of the sums.
    fn check_gradients(&self, set: InstructionSet, run: Backward<'_>, grad: &[f32]) {
        let shape = &self.shape;
        let mut sums = (
            vec![f32::NAN; run.recorded.x.len()],
            vec![f32::NAN; self.weights.len()],
            vec![f32::NAN; self.bias.len()],
        );
        let gradients = Gradients {
            input: Some(&mut sums.0),
            weights: Some(&mut sums.1),
            bias: Some(&mut sums.2),
        };
        conv2d::backward(set, shape, run.recorded, run.grad_output, gradients);
        let (grad, weights) = (exact(grad), exact(&self.weights));
        hold(
            &unpacked(set, CHECKED, &sums.0, shape.input_features()),
            &naive::conv2d_grad_input(shape, &grad, &weights),
        );
        hold(
            &sums.1,
            &naive::conv2d_grad_weights(shape, &exact(&self.x), &grad),
        );
        hold(&sums.2, &naive::conv2d_grad_bias(shape, &grad));
    }

    fn check(&self, set: InstructionSet) {
        let shape = &self.shape;
        let x = packed(set, CHECKED, &self.x);
        let mut y = vec![f32::NAN; lanes_len(CHECKED, shape.output_features())];
        conv2d::forward(set, shape, affine(&self.weights, &self.bias), &x, &mut y);
        let rows = unpacked(set, CHECKED, &y, shape.output_features());
        hold(&rows, &self.y);
        let grad_output = noise(4, rows.len());
        let run = Backward {
            recorded: Recorded {
                x: &x,
                weights: &self.weights,
                y: &y,
                activation: Activation::Relu,
                max_pool: None,
            },
            grad_output: &packed(set, CHECKED, &grad_output),
        };
        let grad = naive::relu_backward(&rows, &grad_output);
        self.check_gradients(set, run, &grad);
    }

    fn check_pooled(&self, set: InstructionSet) {
        let (shape, pool) = (&self.shape, pool_shape(&self.shape));
        let x = packed(set, CHECKED, &self.x);
        let mut y = vec![f32::NAN; lanes_len(CHECKED, pool.output_features())];
        let mut argmax = vec![0; y.len()];
        let layer = affine(&self.weights, &self.bias);
        conv2d::forward_max_pool(set, shape, layer, POOL, &x, &mut y, Some(&mut argmax));
        let rows = unpacked(set, CHECKED, &y, pool.output_features());
        hold(&rows, &naive::max_pool(&pool, &self.y).0);
        // Where two values all but tie, rounding decides which is the largest.
        let places: Vec<f32> = argmax.iter().map(|&place| f32::from(place)).collect();
        let places: Vec<u8> = unpacked(set, CHECKED, &places, pool.output_features())
            .iter()
            .map(|&place| place as u8)
            .collect();
        let grad_output = noise(4, rows.len());
        let run = Backward {
            recorded: Recorded {
                x: &x,
                weights: &self.weights,
                y: &y,
                activation: Activation::Relu,
                max_pool: Some(MaxPooled {
                    window: POOL,
                    argmax: &argmax,
                }),
            },
            grad_output: &packed(set, CHECKED, &grad_output),
        };
        let gated = naive::relu_backward(&rows, &grad_output);
        let grad = naive::max_pool_backward(&pool, &places, &gated);
        self.check_gradients(set, run, &grad);
    }
}

/// The operands of a backward pass.
#[derive(Clone, Copy)]
struct Backward<'a> {
    recorded: Recorded<'a>,
    grad_output: &'a [f32],
}

/// Whole blocks of images, so that the noise lies in no empty lane.
fn lanes_of_noise(seed: u64, images: usize, features: usize) -> Buffer {
    Buffer::from_slice(&noise(seed, lanes_len(images, features)))
}

fn convolutions(criterion: &mut Criterion) {
    for (name, shape) in &SHAPES {
        let case = Case::new(shape);
        let x = lanes_of_noise(1, shape.images, shape.input_features());
        let grad_output = lanes_of_noise(4, shape.images, shape.output_features());
        let mut y = Buffer::zeroed(grad_output.len());
        let mut grad_x = Buffer::zeroed(x.len());
        let mut grad_weights = case.weights.clone();
        let mut grad_bias = case.bias.clone();
        let taps: usize = shape.window.kernel.iter().product();
        let products = shape.images * shape.output_features() * taps * shape.inputs;
        let mut group = criterion.benchmark_group(format!("conv2d_{name}"));
        group.throughput(Throughput::Elements(products as u64));
        for &set in dispatch::all() {
            case.check(set);
            let layer = affine(&case.weights, &case.bias);
            group.bench_function(BenchmarkId::new(set.name(), "forward"), |bencher| {
                bencher.iter(|| conv2d::forward(set, shape, layer, &x, &mut y));
            });
            let recorded = Recorded {
                x: &x,
                weights: &case.weights,
                y: &y,
                activation: Activation::Relu,
                max_pool: None,
            };
            group.bench_function(BenchmarkId::new(set.name(), "grad_input"), |bencher| {
                bencher.iter(|| {
                    let gradients = Gradients {
                        input: Some(&mut grad_x),
                        ..Gradients::default()
                    };
                    conv2d::backward(set, shape, recorded, &grad_output, gradients);
                });
            });
            group.bench_function(BenchmarkId::new(set.name(), "grad_weights"), |bencher| {
                bencher.iter(|| {
                    let gradients = Gradients {
                        weights: Some(&mut grad_weights),
                        bias: Some(&mut grad_bias),
                        ..Gradients::default()
                    };
                    conv2d::backward(set, shape, recorded, &grad_output, gradients);
                });
            });
        }
        group.finish();
    }
}

fn pooled_convolutions(criterion: &mut Criterion) {
    // The two layers of the convolutional net that a pooling follows.
    for (name, shape) in [SHAPES[1], SHAPES[3]] {
        let (case, pool) = (Case::new(&shape), pool_shape(&shape));
        let x = lanes_of_noise(1, shape.images, shape.input_features());
        let grad_output = lanes_of_noise(4, shape.images, pool.output_features());
        let mut y = Buffer::zeroed(grad_output.len());
        let mut argmax = vec![0; y.len()];
        let mut grad_x = Buffer::zeroed(x.len());
        let mut grad_weights = case.weights.clone();
        let mut grad_bias = case.bias.clone();
        let products = shape.images * shape.output_features() * 9 * shape.inputs;
        let mut group = criterion.benchmark_group(format!("conv2d_max_pool_{name}"));
        for &set in dispatch::all() {
            case.check_pooled(set);
            let layer = affine(&case.weights, &case.bias);
            group.throughput(Throughput::Elements(products as u64));
            group.bench_function(BenchmarkId::new(set.name(), "forward"), |bencher| {
                bencher.iter(|| {
                    conv2d::forward_max_pool(
                        set,
                        &shape,
                        layer,
                        POOL,
                        &x,
                        &mut y,
                        Some(&mut argmax),
                    );
                });
            });
            let recorded = Recorded {
                x: &x,
                weights: &case.weights,
                y: &y,
                activation: Activation::Relu,
                max_pool: Some(MaxPooled {
                    window: POOL,
                    argmax: &argmax,
                }),
            };
            group.throughput(Throughput::Elements(2 * products as u64));
            group.bench_function(BenchmarkId::new(set.name(), "gradients"), |bencher| {
                bencher.iter(|| {
                    let gradients = Gradients {
                        input: Some(&mut grad_x),
                        weights: Some(&mut grad_weights),
                        bias: Some(&mut grad_bias),
                    };
                    conv2d::backward(set, &shape, recorded, &grad_output, gradients);
                });
            });
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = convolutions, pooled_convolutions
}
criterion_main!(benches);
