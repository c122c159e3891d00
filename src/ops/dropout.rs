//! Dropout.

use rayon::prelude::*;
use taskweave_kernels::dispatch::active;
use taskweave_kernels::elementwise::scale_selected;
use taskweave_kernels::lanes::LANES;

use super::operands;
use crate::autograd::{Backward, Forward, Mode, Op};
use crate::random::{Purpose, Stream};
use crate::tensor::{Layout, TensorError, TensorSpec};

/// Layers are numbered below this, blocks of sixteen images too: both are part of one index.
const MAX_LAYERS: u64 = 1 << 32;

/// In training each element becomes zero with probability `rate`, else x / (1 - rate), so that its
/// mean is x; in inference y = x (N. Srivastava et al., "Dropout", 2014, with the scaling moved to
/// training).
///
/// The input is in lanes, `[N, features...]`. ∂L/∂x is ∂L/∂y / (1 - rate) where the element was
/// kept, else zero.
///
/// What is dropped follows from the seed, the layer, the step of [`Mode::Training`] and the place
/// of the element alone: each block of sixteen images has a random stream of its own. So no other
/// layer, number of threads or batch size changes it.
///
/// ```
/// use taskweave::{autograd::{Mode, Tape}, ops, tensor::Tensor};
/// let mut tape = Tape::new();
/// let ones = Tensor::from_vec(vec![1.0; 1000], [10, 100])?;
/// let x = tape.leaf(ones.to_lanes()?);
/// let y = tape.apply(ops::Dropout { rate: 0.75, seed: 0, layer: 0 }, &[x])?;
/// let rows = tape.value(y).to_row_major();
/// assert!(rows.data().iter().all(|&value| value == 0.0 || value == 4.0));
/// let mean = rows.data().iter().sum::<f32>() / 1000.0;
/// assert!((mean - 1.0).abs() < 0.2);
///
/// tape.set_mode(Mode::Inference);
/// tape.forward(&[y])?;
/// assert_eq!(tape.value(y).to_row_major().data(), ones.data());
/// # Ok::<(), taskweave::tensor::TensorError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// The share of elements that become zero: at least 0, below 1.
    pub rate: f32,
    /// The seed of the run.
    pub seed: u64,
    /// Tells this layer from the others of the run; below 2³².
    pub layer: u64,
}

impl Dropout {
    /// The step, where the pass drops anything.
    fn step(&self, mode: Mode) -> Option<u64> {
        match mode {
            Mode::Training { step } if self.rate > 0.0 => Some(step),
            _ => None,
        }
    }

    fn factor(&self) -> f32 {
        1.0 / (1.0 - self.rate)
    }
}

/// Elements of one block of images, at least 1, so that the blocks of an empty tensor can be
/// walked.
fn block_len(spec: &TensorSpec) -> usize {
    (spec.features() * LANES).max(1)
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "Dropout"
    }

    fn output_spec(&self, inputs: &[&TensorSpec]) -> Result<TensorSpec, TensorError> {
        let value_error = |message| TensorError::Value {
            op: self.name(),
            message,
        };
        if !(0.0..1.0).contains(&self.rate) {
            return Err(value_error(format!(
                "the rate is {}; it must be at least 0 and below 1",
                self.rate
            )));
        }
        if self.layer >= MAX_LAYERS {
            return Err(value_error(format!(
                "the layer is number {}; layers are numbered below {MAX_LAYERS}",
                self.layer
            )));
        }
        let [x] = operands::exactly(self.name(), inputs)?;
        operands::layout(self.name(), 0, x, Layout::Lanes)?;
        Ok(x.clone())
    }

    fn forward(&self, pass: Forward<'_>) -> Result<(), TensorError> {
        let x = pass.inputs[0];
        let Some(step) = self.step(pass.mode) else {
            pass.output.data_mut().copy_from_slice(x.data());
            return Ok(());
        };
        let block_len = block_len(x.spec());
        pass.saved.resize(x.data().len().div_ceil(size_of::<f32>()));
        let kept = &mut pass.saved.bytes_mut()[..x.data().len()];
        let sources = x.data().par_chunks(block_len);
        let targets = pass.output.data_mut().par_chunks_mut(block_len);
        kept.par_chunks_mut(block_len)
            .zip(targets.zip(sources))
            .enumerate()
            .for_each(|(block, (kept, (target, source)))| {
                let index = self.layer << 32 | block as u64;
                let mut stream = Stream::new(self.seed, Purpose::Dropout, step, index);
                stream.fill_chances(1.0 - f64::from(self.rate), kept);
                scale_selected(active(), target, self.factor(), source, kept);
            });
        Ok(())
    }

    fn backward(&self, pass: Backward<'_>) {
        let Some(grad_input) = &mut pass.grad_inputs[0] else {
            return;
        };
        let grad = pass.grad_output;
        if self.step(pass.mode).is_none() {
            std::mem::swap(grad, grad_input);
            return;
        }
        let kept = &pass.saved.bytes()[..grad.data().len()];
        let target = grad_input.data_mut();
        scale_selected(active(), target, self.factor(), grad.data(), kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::tensor::Tensor;

    const HALF: Dropout = Dropout {
        rate: 0.5,
        seed: 3,
        layer: 7,
    };

    /// Which elements of `[images, features]` are kept, row-major.
    fn kept(op: Dropout, mode: Mode, images: usize, features: usize) -> Vec<bool> {
        let ones = Tensor::from_vec(vec![1.0; images * features], [images, features]).unwrap();
        let mut tape = Tape::new();
        tape.set_mode(mode);
        let x = tape.leaf(ones.to_lanes().unwrap());
        let y = tape.apply(op, &[x]).unwrap();
        let rows = tape.value(y).to_row_major();
        rows.data().iter().map(|&value| value != 0.0).collect()
    }

    #[test]
    fn every_part_of_the_key_matters_and_nothing_else() {
        let step = |step| Mode::Training { step };
        let base = kept(HALF, step(1), 40, 9);
        for (op, mode) in [
            (Dropout { seed: 4, ..HALF }, step(1)),
            (Dropout { layer: 8, ..HALF }, step(1)),
            (HALF, step(2)),
        ] {
            let other = kept(op, mode, 40, 9);
            let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!((100..260).contains(&same), "{same} of 360 are the same");
        }
        assert_eq!(kept(HALF, step(1), 23, 9), base[..23 * 9]);
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build();
        assert_eq!(alone.unwrap().install(|| kept(HALF, step(1), 40, 9)), base);
        assert!(kept(HALF, Mode::Inference, 40, 9).iter().all(|&kept| kept));
        let nothing = Dropout { rate: 0.0, ..HALF };
        assert!(kept(nothing, step(1), 40, 9).iter().all(|&kept| kept));
    }

    #[test]
    fn as_many_are_kept_as_the_rate_says() {
        for rate in [0.01, 0.3, 0.5, 0.99] {
            let op = Dropout { rate, ..HALF };
            let kept = kept(op, Mode::Training { step: 0 }, 100, 1000);
            let share = kept.iter().filter(|&&kept| kept).count() as f64 / 1e5;
            let keep = 1.0 - f64::from(rate);
            // Five standard deviations of a binomial share.
            let allowed = 5.0 * (keep * (1.0 - keep) / 1e5).sqrt();
            assert!(
                (share - keep).abs() < allowed,
                "{share} for a rate of {rate}"
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let message = |op: Dropout, x: TensorSpec| op.output_spec(&[&x]).unwrap_err().to_string();
        for rate in [-0.1, 1.0, f32::NAN] {
            assert_eq!(
                message(Dropout { rate, ..HALF }, TensorSpec::lanes([2, 3])),
                format!("Dropout: the rate is {rate}; it must be at least 0 and below 1")
            );
        }
        let layer = 1 << 32;
        assert_eq!(
            message(Dropout { layer, ..HALF }, TensorSpec::lanes([2, 3])),
            "Dropout: the layer is number 4294967296; layers are numbered below 4294967296"
        );
        assert_eq!(
            message(HALF, TensorSpec::row_major([2, 3])),
            "Dropout works on lanes tensors, but input 0 is row-major"
        );
    }
}
