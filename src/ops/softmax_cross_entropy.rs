//! The loss of a classifier: softmax and cross-entropy in one pass.

use std::cell::Cell;

use taskweave_kernels::dispatch::active;
use taskweave_kernels::softmax::{SoftmaxShape, cross_entropy};

use super::operands;
use crate::autograd::{Backward, Forward, Op};
use crate::tensor::{Layout, Tensor, TensorError, TensorSpec};

/// The mean over the batch of `-ln softmax(logits)[label]`, a row-major scalar.
///
/// Inputs: logits in lanes `[N, classes]`, and labels row-major `[N]`, class indices as f32 (exact
/// up to 2²⁴). ∂L/∂logits = ∂L/∂y · (softmax - onehot) / N, zero in empty lanes, is computed in the
/// forward pass, in one sweep with the loss. Labels have no gradient; where one is asked for, it is
/// zero.
///
/// ```
/// use taskweave::{autograd::Tape, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let logits = Tensor::from_vec(vec![0.0; 20], [2, 10])?;
/// let logits = tape.parameter(logits.to_lanes()?);
/// let labels = tape.leaf(Tensor::from_vec(vec![3.0, 9.0], [2])?);
/// let loss = tape.apply(ops::SoftmaxCrossEntropy, &[logits, labels])?;
/// assert!((tape.value(loss).item()? - 10.0f32.ln()).abs() < 1e-6);
///
/// let labels = tape.leaf(Tensor::from_vec(vec![3.0, 10.0], [2])?);
/// let error = tape.apply(ops::SoftmaxCrossEntropy, &[logits, labels]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "SoftmaxCrossEntropy: label 10 of image 1 is no class; labels are whole numbers from 0 to 9"
/// );
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SoftmaxCrossEntropy;

thread_local! {
    /// The labels as indices; kept so that a step allocates nothing.
    static INDICES: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

impl Op for SoftmaxCrossEntropy {
    fn name(&self) -> &'static str {
        "SoftmaxCrossEntropy"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let [logits, labels] = operands::exactly(self.name(), inputs)?;
        operands::layout(self.name(), 0, logits, Layout::Lanes)?;
        operands::layout(self.name(), 1, labels, Layout::RowMajor)?;
        match (logits.shape.dims(), labels.shape.dims()) {
            ([images, classes], [count]) if images == count && *images > 0 && *classes > 0 => {
                Ok(TensorSpec::row_major([]))
            }
            _ => Err(operands::misfit(
                self.name(),
                inputs,
                "logits are [N, classes] and labels [N], with at least one image and class",
            )),
        }
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let [logits, labels] = [pass.inputs[0], pass.inputs[1]];
        let shape = SoftmaxShape {
            images: logits.spec().images(),
            classes: logits.spec().features(),
        };
        let grad = (!pass.is_evaluation).then(|| {
            pass.saved.resize(shape.len());
            &mut pass.saved[..]
        });
        let mut indices = INDICES.take();
        let loss = class_indices(labels, shape.classes, &mut indices).and_then(|()| {
            cross_entropy(active(), shape, logits.data(), &indices, grad)
                .map_err(|error| error.to_string())
        });
        INDICES.set(indices);
        let loss = loss.map_err(|message| TensorError::Value {
            op: self.name(),
            message,
        })?;
        pass.output.data_mut()[0] = loss as f32;
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let scale = pass.grad_output.data()[0];
        let [grad_logits, grad_labels] = pass.grad_inputs else {
            return;
        };
        if let Some(grad_logits) = grad_logits {
            for (grad, saved) in grad_logits.data_mut().iter_mut().zip(pass.saved.iter()) {
                *grad = scale * saved;
            }
        }
        if let Some(grad_labels) = grad_labels {
            grad_labels.data_mut().fill(0.0);
        }
    }
}

/// Labels as indices, or the sentence that says which one is wrong.
fn class_indices(labels: &Tensor, classes: usize, indices: &mut Vec<u32>) -> Result<(), String> {
    indices.clear();
    for (image, &label) in labels.data().iter().enumerate() {
        // NaN is no whole number, and negative ones lie outside the range.
        if label.fract() != 0.0 || !(0.0..classes as f32).contains(&label) {
            return Err(format!(
                "label {label} of image {image} is no class; labels are whole numbers from 0 to {}",
                classes - 1
            ));
        }
        indices.push(label as u32);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;

    fn loss_of(labels: Vec<f32>, classes: usize) -> Result<f32, TensorError> {
        let mut tape = Tape::new();
        let logits = Tensor::zeros(TensorSpec::lanes([labels.len(), classes]));
        let logits = tape.leaf(logits);
        let count = labels.len();
        let labels = tape.leaf(Tensor::from_vec(labels, [count])?);
        let loss = tape.apply(SoftmaxCrossEntropy, &[logits, labels])?;
        tape.value(loss).item()
    }

    #[test]
    fn what_is_no_class_is_refused() {
        for label in [-1.0, 0.5, 3.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let message = loss_of(vec![0.0, label], 3).unwrap_err().to_string();
            let expected = format!(
                "SoftmaxCrossEntropy: label {label} of image 1 is no class; labels are whole \
                 numbers from 0 to 2"
            );
            assert_eq!(message, expected);
        }
        assert_eq!(
            loss_of(vec![0.0, -0.0, 2.0], 3).unwrap(),
            3.0f64.ln() as f32
        );
        assert!(loss_of(vec![], 3).is_err());
    }

    #[test]
    fn the_gradient_is_scaled_by_the_weight_of_the_loss() {
        let mut tape = Tape::new();
        let logits = tape.parameter(Tensor::zeros(TensorSpec::lanes([1, 2])));
        let labels = tape.leaf(Tensor::from_vec(vec![1.0], [1]).unwrap());
        let loss = tape.apply(SoftmaxCrossEntropy, &[logits, labels]).unwrap();
        for weight in [1.0, 4.0] {
            tape.backward(&[(loss, weight)]).unwrap();
            let grad = tape.grad(logits).unwrap().to_row_major();
            assert_eq!(grad.data(), [0.5 * weight, -0.5 * weight]);
        }
    }
}
