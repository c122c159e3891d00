//! Sliding windows: what a convolution and a pooling have in common.
//!
//! A window of `kernel` places moves over an axis by `stride` places at a time. With
//! [`Padding::Same`] there are `⌈input / stride⌉` outputs, and the padding that this takes stands
//! half before the axis and half behind it, the odd place behind, as in TensorFlow and Keras. With
//! [`Padding::Valid`] no window reaches past an edge.
//!
//! ```
//! use taskweave_kernels::window::{Padding, Window};
//! let window = Window { kernel: [3, 3], stride: [2, 2], padding: Padding::Same };
//! let [rows, _] = window.axes([28, 28]);
//! assert_eq!((rows.output, rows.before), (14, 0));
//! assert_eq!(rows.inside(0), 0..3);
//! assert_eq!(rows.inside(13), 0..2);
//! ```

use std::ops::Range;

/// What stands around an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Padding {
    /// As many places as make `⌈input / stride⌉` outputs.
    Same,
    /// Nothing.
    Valid,
}

/// A window over rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Rows and columns that it covers, at least one each.
    pub kernel: [usize; 2],
    /// Rows and columns that it moves by, at least one each.
    pub stride: [usize; 2],
    /// What it finds past the edges.
    pub padding: Padding,
}

impl Window {
    /// How the window moves over images of this height and width.
    ///
    /// # Panics
    /// If a kernel or stride is zero.
    pub fn axes(self, [height, width]: [usize; 2]) -> [Axis; 2] {
        let axis =
            |at: usize, input| Axis::new(input, self.kernel[at], self.stride[at], self.padding);
        [axis(0, height), axis(1, width)]
    }

    /// Height and width of the output for images of this height and width; zero where the window is
    /// larger than an image that is not padded.
    ///
    /// # Panics
    /// If a kernel or stride is zero.
    pub fn output(self, size: [usize; 2]) -> [usize; 2] {
        self.axes(size).map(|axis| axis.output)
    }
}

/// A window on one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Axis {
    /// Places of the input.
    pub input: usize,
    /// Places of the output.
    pub output: usize,
    /// Places that the window covers.
    pub kernel: usize,
    /// Places that it moves by.
    pub stride: usize,
    /// Places of padding before the first one of the input.
    pub before: usize,
}

impl Axis {
    fn new(input: usize, kernel: usize, stride: usize, padding: Padding) -> Self {
        assert!(
            kernel > 0 && stride > 0,
            "a window of {kernel} places that moves by {stride}"
        );
        let (output, before) = match padding {
            Padding::Same => {
                let output = input.div_ceil(stride);
                let covered = output.saturating_sub(1) * stride + kernel;
                (output, covered.saturating_sub(input) / 2)
            }
            Padding::Valid => ((input + stride).saturating_sub(kernel) / stride, 0),
        };
        Self {
            input,
            output: if input == 0 { 0 } else { output },
            kernel,
            stride,
            before,
        }
    }

    /// The places where the whole window lies on the input.
    pub fn whole(&self) -> Range<usize> {
        let first = self.before.div_ceil(self.stride);
        let end = (self.input + self.before + self.stride).saturating_sub(self.kernel);
        let last = (end / self.stride).min(self.output);
        first.min(last)..last
    }

    /// The places of the window that lie on the input when it stands at `output`; place `k` lies on
    /// `output · stride + k - before`. Empty if the padding alone is covered.
    pub fn inside(&self, output: usize) -> Range<usize> {
        let start = output * self.stride;
        let first = self.before.saturating_sub(start).min(self.kernel);
        let last = (self.input + self.before)
            .saturating_sub(start)
            .min(self.kernel);
        first..last.max(first)
    }

    /// The places where the window stands while it covers place `input`; none if it never does.
    pub fn covering(&self, input: usize) -> Range<usize> {
        let place = input + self.before;
        let first = (place + 1)
            .saturating_sub(self.kernel)
            .div_ceil(self.stride);
        let last = (place / self.stride + 1).min(self.output);
        first..last.max(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_as_in_keras() {
        for (input, kernel, stride, padding, output, before) in [
            (28, 3, 1, Padding::Same, 28, 1),
            (28, 2, 1, Padding::Valid, 27, 0),
            (28, 3, 2, Padding::Same, 14, 0),
            (27, 3, 2, Padding::Same, 14, 1),
            (28, 5, 2, Padding::Same, 14, 1),
            (28, 3, 2, Padding::Valid, 13, 0),
            (5, 2, 1, Padding::Same, 5, 0),
            (4, 1, 3, Padding::Same, 2, 0),
            (2, 3, 1, Padding::Valid, 0, 0),
            (3, 3, 5, Padding::Valid, 1, 0),
            (0, 3, 1, Padding::Same, 0, 1),
            (0, 1, 1, Padding::Valid, 0, 0),
        ] {
            let axis = Axis::new(input, kernel, stride, padding);
            assert_eq!((axis.output, axis.before), (output, before), "{axis:?}");
        }
    }

    proptest! {
        #[test]
        fn windows_are_where_they_are_said_to_be(
            (input, kernel, stride) in (1..12_usize, 1..6_usize, 1..4_usize),
            same in any::<bool>(),
        ) {
            let padding = if same { Padding::Same } else { Padding::Valid };
            let axis = Axis::new(input, kernel, stride, padding);
            for output in 0..axis.output {
                let on_input = |k: &usize| {
                    let place = output * stride + k;
                    place >= axis.before && place - axis.before < input
                };
                let expected: Vec<usize> = (0..kernel).filter(on_input).collect();
                prop_assert_eq!(axis.inside(output).collect::<Vec<_>>(), expected);
            }
            let is_whole = |output: &usize| axis.inside(*output).len() == kernel;
            let expected: Vec<usize> = (0..axis.output).filter(is_whole).collect();
            prop_assert_eq!(axis.whole().collect::<Vec<_>>(), expected);
            for place in 0..input {
                let covers = |output: &usize| {
                    let on_input = |k| output * stride + k == place + axis.before;
                    axis.inside(*output).any(on_input)
                };
                let expected: Vec<usize> = (0..axis.output).filter(covers).collect();
                prop_assert_eq!(axis.covering(place).collect::<Vec<_>>(), expected);
            }
        }
    }
}
