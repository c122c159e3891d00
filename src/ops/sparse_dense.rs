//! A fully connected layer over lanes with few weights.

use std::sync::Arc;

use taskweave_kernels::dense::{self, Affine, DenseShape};
use taskweave_kernels::dispatch::active;
use taskweave_kernels::elementwise;
use taskweave_kernels::in_place::InPlace;
use taskweave_kernels::sparse::{self, Pattern};

use super::{Activation, operands};
use crate::autograd::{Backward, Forward, Op, OutputRead, Replaced};
use crate::tensor::{Layout, Tensor, TensorError, TensorSpec};

/// [`Dense`](super::Dense) where only the weights of a pattern are there, the others zero.
///
/// Inputs: x in lanes `[N, in]`, or with `in` values per image; the values of the pattern in its order,
/// row-major `[weights]`; bias row-major `[out]`. The output is in lanes, `[N, out]`. Gradients are those
/// of the masked layer; that of the values is computed at their positions alone.
///
/// ```
/// use std::sync::Arc;
/// use taskweave::{autograd::Tape, ops::{Activation, SparseDense}, tensor::Tensor};
/// use taskweave_kernels::{dispatch, sparse::Pattern};
/// let mut tape = Tape::new();
/// let x = tape.leaf(Tensor::from_vec(vec![1.0, 2.0, 3.0, 4.0], [2, 2])?.to_lanes()?);
/// // Only the weight from the second input to the first output.
/// let pattern = Pattern::dense(dispatch::active(), [2, 2], &[0, 0, 1, 0]);
/// let values = tape.parameter(Tensor::from_vec(vec![10.0], [1])?);
/// let bias = tape.parameter(Tensor::from_vec(vec![0.5, 0.0], [2])?);
/// let layer = SparseDense { pattern: Arc::new(pattern), activation: Activation::Linear };
/// let y = tape.apply(layer, &[x, values, bias])?;
/// assert_eq!(tape.value(y).to_row_major().data(), [20.5, 0.0, 40.5, 0.0]);
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SparseDense {
    /// Which weights there are.
    pub pattern: Arc<Pattern>,
    /// What follows the affine map.
    pub activation: Activation,
}

impl Op for SparseDense {
    fn name(&self) -> &'static str {
        "SparseDense"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let specs: [&TensorSpec; 3] = operands::exactly(self.name(), inputs)?;
        let layouts = [Layout::Lanes, Layout::RowMajor, Layout::RowMajor];
        for (input, (spec, layout)) in specs.iter().zip(layouts).enumerate() {
            operands::layout(self.name(), input, spec, layout)?;
        }
        let [height, width, rows, columns] = self.pattern.dims();
        match specs.map(|spec| spec.shape.dims()) {
            [[images, _, ..], [weights], [outputs]]
                if (height, width) == (1, 1)
                    && specs[0].features() == rows
                    && *weights == self.pattern.len()
                    && *outputs == columns =>
            {
                Ok(TensorSpec::lanes([*images, columns]))
            }
            _ => Err(operands::misfit(
                self.name(),
                inputs,
                format!(
                    "of the pattern {height}×{width}×{rows}×{columns} of a dense layer with {} \
                     weights, x has {rows} values per image, weights are [{}] and bias [{columns}]",
                    self.pattern.len(),
                    self.pattern.len()
                ),
            )),
        }
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let [x, values, bias] = [pass.inputs[0], pass.inputs[1], pass.inputs[2]];
        let layer = Affine {
            weights: values.data(),
            bias: Some(bias.data()),
            activation: self.activation,
        };
        let (images, y) = (x.spec().images(), pass.output.data_mut());
        sparse::dense::forward(active(), &self.pattern, images, layer, x.data(), y);
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let [values, bias] = [pass.inputs[1], pass.inputs[2]];
        let [grad_x, grad_values, grad_bias] = pass.grad_inputs else {
            return;
        };
        let x = match &pass.replaced {
            Some(replaced) => &*replaced.input,
            None => pass.inputs[0],
        };
        let (set, images) = (active(), x.spec().images());
        if self.activation == Activation::Relu && !pass.rectified {
            elementwise::relu_backward(set, pass.output.data(), pass.grad_output.data_mut());
        }
        let grad = pass.grad_output.data();
        if let Some(target) = grad_values {
            let target = target.data_mut();
            sparse::dense::grad_values(set, &self.pattern, images, x.data(), grad, target);
        }
        if let Some(target) = grad_bias {
            let shape = DenseShape {
                images,
                inputs: x.spec().features(),
                outputs: bias.data().len(),
            };
            dense::grad_bias(set, shape, grad, target.data_mut());
        }
        let (pattern, values) = (&*self.pattern, values.data());
        if let Some(Replaced { input, rectified }) = pass.replaced {
            let x = input.data_mut();
            let input = InPlace { x, rectified };
            sparse::dense::grad_input_in_place(set, pattern, images, grad, values, input);
        } else if let Some(target) = grad_x {
            sparse::dense::grad_input(set, pattern, images, grad, values, target.data_mut());
        }
    }

    fn replaces_input(&self, _: &[&Tensor], _: bool) -> bool {
        true
    }

    fn reads_output(&self) -> OutputRead {
        self.activation.into()
    }
}
