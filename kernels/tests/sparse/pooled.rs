//! Pooling behind a sparse convolution.

use taskweave_kernels::check::noise;
use taskweave_kernels::conv2d::{self, Conv2dShape, MaxPooled};
use taskweave_kernels::dense::{Activation, Affine};
use taskweave_kernels::dispatch;
use taskweave_kernels::in_place::InPlace;
use taskweave_kernels::lanes::lanes_len;
use taskweave_kernels::naive::{self, PoolShape};
use taskweave_kernels::pool;
use taskweave_kernels::sparse::{self, Pattern};
use taskweave_kernels::window::Padding;

use super::{hold, mask, packed, replacement, window};

/// A convolution with pooling is the convolution, then pooling of what it gave.
#[test]
fn pooling_behind_a_convolution_changes_nothing_else() {
    let pools = [
        window([2, 2], [1, 1], Padding::Valid),
        // Between whose windows there are rows that none of them reaches.
        window([2, 3], [3, 2], Padding::Same),
    ];
    for (&set, pool) in dispatch::all()
        .iter()
        .flat_map(|set| pools.map(|pool| (set, pool)))
    {
        let [pooled_height, pooled_width] = pool.output([6, 9]);
        let pooled_features = 5 * pooled_height * pooled_width;
        // More blocks than are pooled at a time.
        for images in [3, 70] {
            let shape = Conv2dShape {
                images,
                inputs: 3,
                outputs: 5,
                height: 6,
                width: 9,
                window: window([3, 3], [1, 1], Padding::Same),
            };
            let owned = mask(shape.weights(), 0.3);
            let pattern = Pattern::conv2d(set, shape.window, [3, 5], &owned);
            let values = noise(1, pattern.len());
            let bias = noise(3, 5);
            let x = packed(set, images, &noise(2, images * shape.input_features()), 0.0);
            let layer = Affine {
                weights: &values,
                bias: Some(&bias),
                activation: Activation::Relu,
            };
            let mut plain = vec![f32::NAN; lanes_len(images, shape.output_features())];
            sparse::conv2d::forward(set, &pattern, &shape, layer, &x, &mut plain);
            let pooling = PoolShape {
                images,
                channels: 5,
                height: 6,
                width: 9,
                window: pool,
            };
            let pooled_len = lanes_len(images, pooled_features);
            let (mut expected, mut expected_places) =
                (vec![f32::NAN; pooled_len], vec![9; pooled_len]);
            let places = Some(&mut expected_places[..]);
            pool::max_forward(set, &pooling, &plain, &mut expected, places);
            let (mut y, mut argmax) = (vec![f32::NAN; pooled_len], vec![9; pooled_len]);
            let operands = (&pattern, &shape);
            sparse::conv2d::forward_max_pool(
                set,
                operands,
                layer,
                pool,
                &x,
                &mut y,
                Some(&mut argmax),
            );
            assert_eq!((&y, &argmax), (&expected, &expected_places));
            y.fill(f32::NAN);
            sparse::conv2d::forward_max_pool(set, operands, layer, pool, &x, &mut y, None);
            assert_eq!(y, expected, "without the places");

            let grad = packed(set, images, &noise(4, images * pooled_features), 0.0);
            let mut unpooled = vec![f32::NAN; plain.len()];
            pool::max_backward(set, &pooling, &argmax, &grad, &mut unpooled);
            let mut expected_x = vec![f32::NAN; x.len()];
            sparse::conv2d::grad_input(set, &pattern, &shape, &unpooled, &values, &mut expected_x);
            let mut expected_values = vec![f32::NAN; pattern.len()];
            sparse::conv2d::grad_values(set, &pattern, &shape, &x, &unpooled, &mut expected_values);
            let mut expected_bias = [f32::NAN; 5];
            conv2d::grad_bias(set, &shape, &unpooled, &mut expected_bias);
            let (mut grad_x, mut grad_values) =
                (vec![f32::NAN; x.len()], vec![f32::NAN; pattern.len()]);
            let mut grad_bias = [f32::NAN; 5];
            let gradients = sparse::conv2d::Gradients {
                values: Some(&mut grad_values),
                bias: Some(&mut grad_bias),
            };
            let max_pooled = MaxPooled {
                window: pool,
                argmax: &argmax,
            };
            let kept = sparse::conv2d::Input::Kept {
                x: &x,
                grad: Some(&mut grad_x),
            };
            let recorded = (kept, &values[..]);
            sparse::conv2d::backward_max_pool(
                set, operands, recorded, max_pooled, &grad, gradients,
            );
            assert_eq!(grad_x, expected_x);
            for rectified in [false, true] {
                let mut replaced = x.clone();
                let input = InPlace {
                    x: &mut replaced,
                    rectified,
                };
                let recorded = (sparse::conv2d::Input::Replaced(input), &values[..]);
                let mut beside = vec![f32::NAN; pattern.len()];
                let gradients = sparse::conv2d::Gradients {
                    values: Some(&mut beside),
                    bias: None,
                };
                sparse::conv2d::backward_max_pool(
                    set, operands, recorded, max_pooled, &grad, gradients,
                );
                assert_eq!(replaced, replacement(&x, &expected_x, rectified));
                assert_eq!(beside, grad_values);
            }
            // Sums over images in parts of other sizes.
            let near = |actual: &[f32], expected: &[f32]| {
                let magnitude = (images * 54) as f64 * 4.0;
                hold(
                    actual,
                    &naive::convert(expected),
                    &vec![magnitude; expected.len()],
                    images * 54,
                );
            };
            near(&grad_values, &expected_values);
            near(&grad_bias, &expected_bias);
        }
    }
}
