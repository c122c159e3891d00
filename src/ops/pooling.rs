//! What the poolings share: their operand and their shapes.

use taskweave_kernels::buffer::Buffer;
use taskweave_kernels::pool::{MAX_PLACES, PoolShape};
use taskweave_kernels::window::Window;

use super::operands;
use crate::tensor::{Layout, TensorError, TensorSpec};

/// Rows and columns of a window, and places that it moves by, at most: no product of two overflows.
const MAX_SIDE: usize = 1 << 15;

/// The sizes of a pooling whose operand [`output_spec`] accepted.
///
/// # Panics
/// If it did not.
pub(super) fn shape(window: Window, x: &TensorSpec) -> PoolShape {
    let &[images, channels, height, width] = x.shape.dims() else {
        panic!("output_spec accepted the operand");
    };
    PoolShape {
        images,
        channels,
        height,
        width,
        window,
    }
}

/// Lanes `[N, C, H', W']` for an operand in lanes, `[N, C, H, W]`.
pub(super) fn output_spec(
    op: &'static str,
    window: Window,
    inputs: &[&TensorSpec],
) -> Result<TensorSpec, TensorError> {
    let [x] = operands::exactly(op, inputs)?;
    operands::layout(op, 0, x, Layout::Lanes)?;
    let &[images, channels, height, width] = x.shape.dims() else {
        return Err(operands::misfit(op, inputs, "x is [N, C, H, W]"));
    };
    let output = output_size(op, window, inputs, [height, width])?;
    Ok(TensorSpec::lanes([images, channels, output[0], output[1]]))
}

/// Where a forward pass saves the place of the largest value in each of so many windows, for a backward pass.
pub(super) fn argmax(saved: &mut Buffer, windows: usize, is_evaluation: bool) -> Option<&mut [u8]> {
    (!is_evaluation).then(|| {
        saved.resize(windows.div_ceil(size_of::<f32>()));
        &mut saved.bytes_mut()[..windows]
    })
}

/// Rows and columns of what a window makes of images of this height and width.
pub(super) fn output_size(
    op: &'static str,
    window: Window,
    inputs: &[&TensorSpec],
    [height, width]: [usize; 2],
) -> Result<[usize; 2], TensorError> {
    let Window { kernel, stride, .. } = window;
    let mut sides = kernel.into_iter().chain(stride);
    if !sides.all(|side| (1..=MAX_SIDE).contains(&side)) {
        return Err(TensorError::Value {
            op,
            message: format!(
                "a window of {} × {} that moves by {} × {}; each is from 1 to {MAX_SIDE}",
                kernel[0], kernel[1], stride[0], stride[1]
            ),
        });
    }
    let output = window.output([height, width]);
    if height * width > 0 && output.contains(&0) {
        let message = format!(
            "the window of {} × {} is larger than the image",
            kernel[0], kernel[1]
        );
        return Err(operands::misfit(op, inputs, message));
    }
    Ok(output)
}

/// Refuses a window with more places than a maximum is taken of.
pub(super) fn check_places(op: &'static str, window: Window) -> Result<(), TensorError> {
    let [height, width] = window.kernel;
    let places = height.saturating_mul(width);
    if places <= MAX_PLACES {
        return Ok(());
    }
    Err(TensorError::Value {
        op,
        message: format!(
            "a window of {height} × {width} has {places} places; a maximum is taken of at most \
             {MAX_PLACES}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use taskweave_kernels::window::Padding;

    use super::*;

    #[test]
    fn what_does_not_fit_is_named() {
        let message = |kernel, stride, x: TensorSpec| {
            let window = Window {
                kernel,
                stride,
                padding: Padding::Valid,
            };
            output_spec("Pool", window, &[&x]).unwrap_err().to_string()
        };
        let image = TensorSpec::lanes([2, 3, 5, 4]);
        assert_eq!(
            message([3, 5], [1, 1], image.clone()),
            "Pool: shapes [2, 3, 5, 4] do not fit; the window of 3 × 5 is larger than the image"
        );
        for (kernel, stride) in [
            ([0, 2], [1, 1]),
            ([2, 2], [1, 0]),
            ([2, usize::MAX], [1, 1]),
        ] {
            let expected = format!(
                "Pool: a window of {} × {} that moves by {} × {}; each is from 1 to 32768",
                kernel[0], kernel[1], stride[0], stride[1]
            );
            assert_eq!(message(kernel, stride, image.clone()), expected);
        }
        assert_eq!(
            message([2, 2], [1, 1], TensorSpec::lanes([2, 12])),
            "Pool: shapes [2, 12] do not fit; x is [N, C, H, W]"
        );
        assert_eq!(
            message([2, 2], [1, 1], TensorSpec::row_major([2, 3, 5, 4])),
            "Pool works on lanes tensors, but input 0 is row-major"
        );
    }
}
