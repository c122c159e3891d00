//! Maximum and average pooling, and their gradients.

use super::Float;
use crate::window::{Axis, Window};

/// Sizes of a pooling: input `[images, channels, height, width]`, output
/// `[images, channels, output height, output width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShape {
    /// Images.
    pub images: usize,
    /// Channels, each pooled by itself.
    pub channels: usize,
    /// Rows of the input.
    pub height: usize,
    /// Columns of the input.
    pub width: usize,
    /// The window that moves over them.
    pub window: Window,
}

impl PoolShape {
    /// How the window moves over rows and columns.
    pub fn axes(&self) -> [Axis; 2] {
        self.window.axes([self.height, self.width])
    }

    /// Rows and columns of the output.
    pub fn output(&self) -> [usize; 2] {
        self.window.output([self.height, self.width])
    }

    /// Values of one image of the input.
    pub fn input_features(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Values of one image of the output.
    pub fn output_features(&self) -> usize {
        let [height, width] = self.output();
        self.channels * height * width
    }
}

/// Calls `visit` with the place of every output, and the places of the input under its window, each
/// after its place in the window (row · kernel width + column), in row-major order.
fn for_each_window(shape: &PoolShape, mut visit: impl FnMut(usize, &[(usize, usize)])) {
    let [rows, columns] = shape.axes();
    let mut output = 0;
    for plane in 0..shape.images * shape.channels {
        for y in 0..rows.output {
            for x in 0..columns.output {
                let mut places = Vec::new();
                for ky in rows.inside(y) {
                    for kx in columns.inside(x) {
                        let from_y = y * rows.stride + ky - rows.before;
                        let from_x = x * columns.stride + kx - columns.before;
                        let from = (plane * shape.height + from_y) * shape.width + from_x;
                        places.push((ky * columns.kernel + kx, from));
                    }
                }
                visit(output, &places);
                output += 1;
            }
        }
    }
}

/// The largest value under each window and its place there, row · kernel width + column: the first
/// of equals. NaN counts as larger than every number. A window has at most 256 places.
pub fn max_pool<T: Float>(shape: &PoolShape, input: &[T]) -> (Vec<T>, Vec<u8>) {
    let is_nan = |value: T| value.partial_cmp(&value).is_none();
    let (mut output, mut argmax) = (Vec::new(), Vec::new());
    for_each_window(shape, |_, places| {
        let (mut place, mut best) = (places[0].0, input[places[0].1]);
        for &(next, from) in &places[1..] {
            let value = input[from];
            if value > best || is_nan(value) && !is_nan(best) {
                (place, best) = (next, value);
            }
        }
        output.push(best);
        argmax.push(u8::try_from(place).expect("a window of at most 256 places"));
    });
    (output, argmax)
}

/// The gradient of [`max_pool`]: each output's goes to the place that it came from.
pub fn max_pool_backward<T: Float>(shape: &PoolShape, argmax: &[u8], grad_output: &[T]) -> Vec<T> {
    let mut grad_input = vec![T::ZERO; shape.images * shape.input_features()];
    for_each_window(shape, |output, places| {
        for &(place, from) in places {
            if place == usize::from(argmax[output]) {
                grad_input[from] += grad_output[output];
            }
        }
    });
    grad_input
}

/// The mean of the values under each window; places beside the image do not count.
pub fn average_pool<T: Float>(shape: &PoolShape, input: &[T]) -> Vec<T> {
    let mut output = Vec::new();
    for_each_window(shape, |_, places| {
        let mut sum = T::ZERO;
        for &(_, from) in places {
            sum += input[from];
        }
        output.push(sum / T::from_f64(places.len() as f64));
    });
    output
}

/// The gradient of [`average_pool`]: each output's is spread evenly under its window.
pub fn average_pool_backward<T: Float>(shape: &PoolShape, grad_output: &[T]) -> Vec<T> {
    let mut grad_input = vec![T::ZERO; shape.images * shape.input_features()];
    for_each_window(shape, |output, places| {
        let share = grad_output[output] / T::from_f64(places.len() as f64);
        for &(_, from) in places {
            grad_input[from] += share;
        }
    });
    grad_input
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Padding;

    fn shape(kernel: [usize; 2], stride: [usize; 2], padding: Padding) -> PoolShape {
        PoolShape {
            images: 1,
            channels: 1,
            height: 2,
            width: 3,
            window: Window {
                kernel,
                stride,
                padding,
            },
        }
    }

    const INPUT: [f64; 6] = [1.0, 5.0, 5.0, 7.0, -2.0, 3.0];

    #[test]
    fn maxima_by_hand() {
        let valid = shape([2, 2], [1, 1], Padding::Valid);
        let (output, argmax) = max_pool(&valid, &INPUT);
        assert_eq!(output, [7.0, 5.0]);
        assert_eq!(argmax, [2, 0]);
        let grad = max_pool_backward(&valid, &argmax, &[10.0, 1.0]);
        assert_eq!(grad, [0.0, 1.0, 0.0, 10.0, 0.0, 0.0]);

        let same = shape([3, 3], [1, 2], Padding::Same);
        let (output, argmax) = max_pool(&same, &INPUT);
        assert_eq!(output, [7.0, 5.0, 7.0, 5.0]);
        assert_eq!(argmax, [7, 3, 4, 0]);
        let grad = max_pool_backward(&same, &argmax, &[1.0, 2.0, 4.0, 8.0]);
        assert_eq!(grad, [0.0, 10.0, 0.0, 5.0, 0.0, 0.0]);
    }

    #[test]
    fn padding_never_wins_and_nan_always() {
        let same = shape([2, 2], [2, 2], Padding::Same);
        let (output, argmax) = max_pool(&same, &[-1.0, -2.0, -3.0, -4.0, f64::NAN, -6.0]);
        assert!(output[0].is_nan());
        assert_eq!(output[1], -3.0);
        assert_eq!(argmax, [3, 0]);
        let nothing = max_pool(&same, &[f64::NEG_INFINITY; 6]);
        assert_eq!(nothing, (vec![f64::NEG_INFINITY; 2], vec![0, 0]));
    }

    #[test]
    fn averages_by_hand() {
        let valid = shape([2, 2], [1, 1], Padding::Valid);
        assert_eq!(average_pool(&valid, &INPUT), [2.75, 2.75]);
        let grad = average_pool_backward(&valid, &[4.0, 8.0]);
        assert_eq!(grad, [1.0, 3.0, 2.0, 1.0, 3.0, 2.0]);

        let same = shape([2, 2], [2, 2], Padding::Same);
        assert_eq!(average_pool(&same, &INPUT), [2.75, 4.0]);
        let grad = average_pool_backward(&same, &[4.0, 8.0]);
        assert_eq!(grad, [1.0, 1.0, 4.0, 1.0, 1.0, 4.0]);
    }
}
