//! Cases of the poolings.

use taskweave::ops;
use taskweave::tensor::Tensor;
use taskweave_kernels::naive::{self, PoolShape};
use taskweave_kernels::window::{Padding, Window};

use super::{Case, lanes, tensor};

/// Values 0.01 apart in a mixed order: no two are nearly equal, however large the tensor.
fn spread(dims: &[usize]) -> Tensor {
    let count: usize = dims.iter().product();
    // Coprime to every count below it.
    const STEP: usize = 7919;
    assert!(count < STEP);
    let value = |at: usize| ((at + 1) * STEP % count.max(1)) as f32 * 0.01 - 2.0;
    Tensor::from_vec((0..count).map(value).collect(), dims).unwrap()
}

pub(super) fn add(cases: &mut Vec<Case>) {
    for (images, channels, size, kernel, stride, padding) in [
        (1, 1, [3, 3], [2, 2], [1, 1], Padding::Valid),
        (16, 2, [4, 3], [2, 2], [1, 1], Padding::Valid),
        (17, 1, [3, 4], [3, 2], [2, 1], Padding::Same),
        (3, 3, [5, 4], [3, 3], [1, 1], Padding::Same),
        (15, 2, [4, 5], [2, 2], [2, 2], Padding::Same),
        (2, 1, [5, 5], [1, 2], [3, 3], Padding::Valid),
        (0, 2, [3, 3], [2, 2], [1, 1], Padding::Valid),
        (2, 2, [0, 3], [2, 2], [1, 1], Padding::Same),
    ] {
        let window = Window {
            kernel,
            stride,
            padding,
        };
        let shape = PoolShape {
            images,
            channels,
            height: size[0],
            width: size[1],
            window,
        };
        let dims = [images, channels, size[0], size[1]];
        let max = move |x: &[Vec<f64>]| naive::max_pool(&shape, &x[0]).0;
        let inputs = vec![lanes(&spread(&dims))];
        cases.push(Case::new(ops::MaxPool { window }, inputs, max));
        let average = move |x: &[Vec<f64>]| naive::average_pool(&shape, &x[0]);
        let inputs = vec![lanes(&tensor(&dims, 0))];
        cases.push(Case::new(ops::AveragePool { window }, inputs, average));
    }
}

#[test]
fn spread_values_keep_apart() {
    let mut values = spread(&[17, 5, 4]).data().to_vec();
    values.sort_by(f32::total_cmp);
    assert!(values.windows(2).all(|pair| pair[1] - pair[0] > 0.009));
}
