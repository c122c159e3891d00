//! What reductions over axes share.

use super::operands;
use super::strided::{Walk, row_major_strides, sum_f64};
use crate::tensor::{Tensor, TensorError, TensorSpec};

/// The axes that a reduction runs over.
#[derive(Clone, Debug)]
pub(super) struct Axes {
    /// `None` stands for all of them.
    reduced: Option<Vec<usize>>,
    keep_dims: bool,
}

impl Axes {
    pub(super) fn all() -> Self {
        Self {
            reduced: None,
            keep_dims: false,
        }
    }

    pub(super) fn over(axes: impl Into<Vec<usize>>) -> Self {
        Self {
            reduced: Some(axes.into()),
            keep_dims: false,
        }
    }

    pub(super) fn keep_dims(mut self) -> Self {
        self.keep_dims = true;
        self
    }

    fn reduces(&self, axis: usize) -> bool {
        self.reduced
            .as_ref()
            .is_none_or(|axes| axes.contains(&axis))
    }

    pub(super) fn output_spec(
        &self,
        op: &'static str,
        inputs: &[&TensorSpec],
    ) -> Result<TensorSpec, TensorError> {
        let [input] = operands::row_major(op, inputs)?;
        for (position, &axis) in self.reduced.iter().flatten().enumerate() {
            operands::axis(op, axis, input)?;
            if self
                .reduced
                .iter()
                .flatten()
                .take(position)
                .any(|&earlier| earlier == axis)
            {
                return Err(TensorError::Value {
                    op,
                    message: format!("axis {axis} is given twice; each axis is reduced once"),
                });
            }
        }
        let dims = input.shape.dims().iter().enumerate();
        let kept = dims.filter_map(|(axis, &dim)| match (self.reduces(axis), self.keep_dims) {
            (false, _) => Some(dim),
            (true, true) => Some(1),
            (true, false) => None,
        });
        Ok(TensorSpec::row_major(kept.collect::<Vec<_>>()))
    }

    /// As [`output_spec`](Self::output_spec), for reductions that have no value over no elements.
    pub(super) fn nonempty_output_spec(
        &self,
        op: &'static str,
        inputs: &[&TensorSpec],
    ) -> Result<TensorSpec, TensorError> {
        let spec = self.output_spec(op, inputs)?;
        if inputs[0].shape.elements() == 0 && spec.shape.elements() > 0 {
            return Err(TensorError::Value {
                op,
                message: format!(
                    "it has no value over the axes of size 0 in {}",
                    inputs[0].shape
                ),
            });
        }
        Ok(spec)
    }

    /// Input elements behind each output element.
    pub(super) fn count(&self, input: &Tensor) -> usize {
        let dims = input.shape().dims().iter().enumerate();
        dims.filter(|(axis, _)| self.reduces(*axis))
            .map(|(_, &dim)| dim)
            .product()
    }

    /// A walk over the input (operand 0) together with the output element that it belongs to
    /// (operand 1).
    pub(super) fn walk(&self, input: &Tensor) -> Walk<2> {
        let dims = input.shape().dims();
        let mut to_output = vec![0; dims.len()];
        let mut stride = 1;
        for axis in (0..dims.len()).rev() {
            if !self.reduces(axis) {
                to_output[axis] = stride;
                stride *= dims[axis];
            }
        }
        Walk::new(dims, [&row_major_strides(dims), &to_output])
    }

    /// `output = scale · sum of input`, summed in f64.
    pub(super) fn sum(&self, input: &Tensor, scale: f64, output: &mut Tensor) {
        let mut sums = vec![0.0; output.data().len()];
        let values = input.data();
        self.walk(input).for_each_run(|run| {
            let [from, to] = run.offsets;
            let values = &values[from..from + run.len];
            if run.strides[1] == 0 {
                sums[to] += sum_f64(values);
            } else {
                for (i, &value) in values.iter().enumerate() {
                    sums[to + i * run.strides[1]] += f64::from(value);
                }
            }
        });
        for (output, sum) in output.data_mut().iter_mut().zip(sums) {
            *output = (scale * sum) as f32;
        }
    }

    /// `grad_input = scale · grad_output`, repeated along the reduced axes.
    pub(super) fn spread(&self, grad_output: &Tensor, scale: f32, grad_input: &mut Tensor) {
        let walk = self.walk(grad_input);
        let (grad_output, grad_input) = (grad_output.data(), grad_input.data_mut());
        walk.for_each_run(|run| {
            for [to, from] in run.places() {
                grad_input[to] = scale * grad_output[from];
            }
        });
    }
}

/// The constructors of a reduction, a tuple struct of its [`Axes`].
macro_rules! reduction_constructors {
    ($reduction:ident) => {
        impl $reduction {
            /// Over all axes: the output is a scalar.
            pub fn all() -> Self {
                Self(Axes::all())
            }

            /// Over the given axes, counted from 0.
            pub fn over(axes: impl Into<Vec<usize>>) -> Self {
                Self(Axes::over(axes))
            }

            /// Keeps the reduced axes with size 1, so that the output broadcasts against the input.
            pub fn keep_dims(self) -> Self {
                Self(self.0.keep_dims())
            }
        }
    };
}
pub(super) use reduction_constructors;

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(axes: Axes, dims: &[usize]) -> Result<Vec<usize>, String> {
        let spec = axes.nonempty_output_spec("Mean", &[&TensorSpec::row_major(dims)]);
        spec.map(|spec| spec.shape.dims().to_vec())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn reduced_axes_vanish_or_stay_with_size_one() {
        assert_eq!(spec(Axes::all(), &[2, 3]), Ok(vec![]));
        assert_eq!(spec(Axes::all().keep_dims(), &[2, 3]), Ok(vec![1, 1]));
        assert_eq!(spec(Axes::over([2, 0]), &[2, 3, 4]), Ok(vec![3]));
        assert_eq!(spec(Axes::over([]), &[2, 3]), Ok(vec![2, 3]));
    }

    #[test]
    fn impossible_axes_are_named() {
        let outside = spec(Axes::over([2]), &[2, 3]).unwrap_err();
        assert_eq!(outside, "Mean: axis 2 does not exist in shape [2, 3]");
        let twice = spec(Axes::over([1, 1]), &[2, 3]).unwrap_err();
        assert_eq!(
            twice,
            "Mean: axis 1 is given twice; each axis is reduced once"
        );
        assert!(
            spec(Axes::over([1]), &[2, 0])
                .unwrap_err()
                .contains("size 0 in [2, 0]")
        );
        assert_eq!(spec(Axes::over([1]), &[0, 3]), Ok(vec![0]));
    }
}
