//! A fully connected layer over lanes.

use taskweave_kernels::dense::{self, Affine, DenseShape, bf16};
use taskweave_kernels::dispatch::active;
use taskweave_kernels::elementwise;
use taskweave_kernels::in_place::InPlace;

use super::{Precision, operands};
use crate::autograd::{Backward, Forward, Op, OutputRead, Replaced};
use crate::tensor::{Layout, Tensor, TensorError, TensorSpec};

pub use taskweave_kernels::dense::Activation;

/// `y = activation(x · weights + bias)`.
///
/// Inputs: x in lanes `[N, in]`, weights row-major `[in, out]`, bias row-major `[out]`; the output
/// is in lanes, `[N, out]`. x may have more axes, `[N, C, H, W]` with `in` values per image: these
/// count in that order, so that images need not be flattened. With z = ∂L/∂y where y > 0 (relu) or
/// everywhere (linear): ∂L/∂x = z · weightsᵀ, ∂L/∂weights = xᵀ · z, ∂L/∂bias = Σ z over the batch.
///
/// ```
/// use taskweave::{autograd::Tape, ops::{Activation, Dense, Precision}, tensor::Tensor};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?.to_lanes()?);
/// let weights = tape.parameter(Tensor::from_vec(vec![1.0, -1.0, 1.0, 0.0], [2, 2])?);
/// let bias = tape.parameter(Tensor::from_vec(vec![0.5, 0.0], [2])?);
/// let relu = Dense { activation: Activation::Relu, precision: Precision::F32 };
/// let y = tape.apply(relu, &[x, weights, bias])?;
/// assert_eq!(tape.value(y).to_row_major().data(), [3.5, 0.0, 7.5, 0.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Dense {
    /// What follows the affine map.
    pub activation: Activation,
    /// Of the three products; the gradient of the bias is summed in f32.
    pub precision: Precision,
}

fn shape_of(x: &Tensor, bias: &Tensor) -> DenseShape {
    DenseShape {
        images: x.spec().images(),
        inputs: x.spec().features(),
        outputs: bias.data().len(),
    }
}

impl Op for Dense {
    fn name(&self) -> &'static str {
        "Dense"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let specs: [&TensorSpec; 3] = operands::exactly(self.name(), inputs)?;
        let layouts = [Layout::Lanes, Layout::RowMajor, Layout::RowMajor];
        for (input, (spec, layout)) in specs.iter().zip(layouts).enumerate() {
            operands::layout(self.name(), input, spec, layout)?;
        }
        match specs.map(|spec| spec.shape.dims()) {
            [[images, _, ..], [rows, columns], [outputs]]
                if specs[0].features() == *rows && columns == outputs =>
            {
                Ok(TensorSpec::lanes([*images, *outputs]))
            }
            _ => Err(operands::misfit(
                self.name(),
                inputs,
                "x is [N, in] or has `in` values per image, weights are [in, out] and bias [out]",
            )),
        }
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let [x, weights, bias] = [pass.inputs[0], pass.inputs[1], pass.inputs[2]];
        let layer = Affine {
            weights: weights.data(),
            bias: Some(bias.data()),
            activation: self.activation,
        };
        let (set, shape) = (active(), shape_of(x, bias));
        let (x, y) = (x.data(), pass.output.data_mut());
        match self.precision {
            Precision::F32 => dense::forward(set, shape, layer, x, y),
            Precision::Bf16 => bf16::forward(set, shape.into(), layer, x, y),
        }
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let [x, weights, bias] = [pass.inputs[0], pass.inputs[1], pass.inputs[2]];
        let [grad_x, grad_weights, grad_bias] = pass.grad_inputs else {
            return;
        };
        let set = active();
        if self.activation == Activation::Relu && !pass.rectified {
            elementwise::relu_backward(set, pass.output.data(), pass.grad_output.data_mut());
        }
        let grad = pass.grad_output.data();
        if let Some(Replaced { input, rectified }) = pass.replaced {
            let shape = shape_of(input, bias);
            if let Some(grad_bias) = grad_bias {
                dense::grad_bias(set, shape, grad, grad_bias.data_mut());
            }
            let update = pass.update.expect("replaces its input with an update only");
            let x = input.data_mut();
            dense::backward_in_place(set, shape, InPlace { x, rectified }, grad, update);
            return;
        }
        let shape = shape_of(x, bias);
        if let Some(grad_weights) = grad_weights {
            let (x, target) = (x.data(), grad_weights.data_mut());
            match self.precision {
                Precision::F32 => dense::grad_weights(set, shape, x, grad, target),
                Precision::Bf16 => bf16::grad_weights(set, shape.into(), x, grad, target),
            }
        }
        if let Some(grad_bias) = grad_bias {
            dense::grad_bias(set, shape, grad, grad_bias.data_mut());
        }
        if let Some(grad_x) = grad_x {
            let weights = match &pass.update {
                Some(update) => &*update.weights,
                None => weights.data(),
            };
            let target = grad_x.data_mut();
            match self.precision {
                Precision::F32 => dense::grad_input(set, shape, grad, weights, target),
                Precision::Bf16 => bf16::grad_input(set, shape.into(), grad, weights, target),
            }
        }
        if let Some(update) = pass.update {
            let x = x.data();
            match self.precision {
                Precision::F32 => dense::update_weights(set, shape, x, grad, update),
                Precision::Bf16 => bf16::update_weights(set, shape.into(), x, grad, update),
            }
        }
    }

    fn reads_output(&self) -> OutputRead {
        self.activation.into()
    }

    fn updates(&self) -> Option<usize> {
        Some(1)
    }

    fn replaces_input(&self, inputs: &[&Tensor], updates: bool) -> bool {
        updates
            && self.precision == Precision::F32
            && dense::suits_in_place(shape_of(inputs[0], inputs[2]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_layouts_that_do_not_fit_are_named() {
        let linear = Dense {
            activation: Activation::Linear,
            precision: Precision::F32,
        };
        let message = |x: TensorSpec, weights: [usize; 2]| {
            let (weights, bias) = (TensorSpec::row_major(weights), TensorSpec::row_major([4]));
            let error = linear.output_spec(&[&x, &weights, &bias]).unwrap_err();
            error.to_string()
        };
        assert_eq!(
            message(TensorSpec::lanes([2, 3]), [5, 4]),
            "Dense: shapes [2, 3] and [5, 4] and [4] do not fit; x is [N, in] or has `in` values \
             per image, weights are [in, out] and bias [out]"
        );
        let images = message(TensorSpec::lanes([2, 3, 2, 2]), [3, 4]);
        assert!(images.starts_with("Dense: shapes [2, 3, 2, 2] and [3, 4]"));
        assert!(
            message(TensorSpec::lanes([2]), [1, 4]).starts_with("Dense: shapes [2] and [1, 4]")
        );
        assert_eq!(
            message(TensorSpec::row_major([2, 3]), [3, 4]),
            "Dense works on lanes tensors, but input 0 is row-major"
        );
    }
}
