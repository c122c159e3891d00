//! Softmax with its cross-entropy in one pass, probabilities and argmax, over lanes of logits.
//!
//! Logits are `[ceil(images/16)][classes][16]`, so an image's classes lie in one lane of `classes`
//! vectors and no sum runs across lanes. A block of sixteen images takes three sweeps over vectors
//! that stay in L1: the maximum m, then eˣ⁻ᵐ and its sum s, then the gradient
//! `(eˣ⁻ᵐ/s - onehot) / images`. The loss of an image, `(m - logit[label]) + ln s`, is taken in f64,
//! and losses are summed in f64 in the order of the images, over chunks that depend on the shape alone.
//!
//! A logit that is NaN or +∞ makes the loss and the image's gradient NaN, never a plausible number.

use thiserror::Error;

use crate::chunks::{CHUNK, Split, for_each_chunk};
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::{Isa, exp};
use crate::lanes::{LANES, blocks, check, lanes_len};

/// Chunks of a batch at most, so that their sums fit an array on the stack.
const MAX_CHUNKS: usize = 64;

/// Classes at most: an index of a class travels in an f32 vector, exact to 2²⁴.
pub const MAX_CLASSES: usize = 1 << 24;

/// Sizes of a batch of logits, `[ceil(images/16)][classes][16]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoftmaxShape {
    /// Images in the batch; lanes beyond them are empty.
    pub images: usize,
    /// Classes, each of one logit.
    pub classes: usize,
}

impl SoftmaxShape {
    /// Floats of the logits, empty lanes included.
    pub fn len(&self) -> usize {
        lanes_len(self.images, self.classes)
    }

    /// Whether there are no logits at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn blocks(&self) -> usize {
        blocks(self.images)
    }

    fn block_len(&self) -> usize {
        self.classes * LANES
    }

    /// Blocks that a task takes, a function of the shape alone.
    fn chunk_blocks(&self) -> usize {
        let worthwhile = (CHUNK / self.block_len().max(1)).max(1);
        worthwhile.max(self.blocks().div_ceil(MAX_CHUNKS))
    }
}

/// Why labels do not fit the logits.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum LabelError {
    /// A label names a class that does not exist.
    #[error(
        "label {label} of image {image} is out of range: with {classes} classes, labels are below {classes}"
    )]
    OutOfRange {
        /// Position of the image in the batch.
        image: usize,
        /// Its label.
        label: u32,
        /// Number of classes.
        classes: usize,
    },
    /// Not every image has one label.
    #[error("{labels} labels were given for {images} images, where each needs one")]
    Count {
        /// Number of labels.
        labels: usize,
        /// Number of images.
        images: usize,
    },
}

/// The mean cross-entropy of `softmax(logits)` with `labels` over the images, and, where
/// `grad_logits` is given, its gradient, exactly zero in empty lanes, and of classes whose share of it is
/// below 2^-80. No images: loss zero.
///
/// # Errors
/// [`LabelError`] if a label is not below `shape.classes` or their number is not `shape.images`;
/// nothing is written then.
///
/// # Panics
/// If `logits` or `grad_logits` is not of `shape.len()` floats.
pub fn cross_entropy(
    set: InstructionSet,
    shape: SoftmaxShape,
    logits: &[f32],
    labels: &[u32],
    grad_logits: Option<&mut [f32]>,
) -> Result<f64, LabelError> {
    check("logits", logits.len(), shape.len());
    if let Some(grad) = &grad_logits {
        check("grad_logits", grad.len(), shape.len());
    }
    check_labels(shape, labels)?;
    if shape.images == 0 {
        return Ok(0.0);
    }
    let mut sums = [0.0; MAX_CHUNKS];
    let chunk_blocks = shape.chunk_blocks();
    let batch = Blocks {
        shape,
        chunk_blocks,
        logits,
        labels,
        grad_logits,
        sums: &mut sums[..shape.blocks().div_ceil(chunk_blocks)],
    };
    for_each_chunk(batch, chunk_blocks, &|part: Blocks| {
        set.run(CrossEntropy(part))
    });
    Ok(sums.iter().sum::<f64>() / shape.images as f64)
}

fn check_labels(shape: SoftmaxShape, labels: &[u32]) -> Result<(), LabelError> {
    if labels.len() != shape.images {
        return Err(LabelError::Count {
            labels: labels.len(),
            images: shape.images,
        });
    }
    match labels
        .iter()
        .position(|&label| label as usize >= shape.classes)
    {
        None => Ok(()),
        Some(image) => Err(LabelError::OutOfRange {
            image,
            label: labels[image],
            classes: shape.classes,
        }),
    }
}

/// Some blocks of a batch with all that belongs to them.
struct Blocks<'a> {
    shape: SoftmaxShape,
    chunk_blocks: usize,
    logits: &'a [f32],
    labels: &'a [u32],
    grad_logits: Option<&'a mut [f32]>,
    /// One sum of losses per chunk.
    sums: &'a mut [f64],
}

impl Split for Blocks<'_> {
    fn len(&self) -> usize {
        self.labels.len().div_ceil(LANES)
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let floats = mid * self.shape.block_len();
        let (logits, logits_right) = self.logits.split_at(floats);
        let (labels, labels_right) = self.labels.split_at(mid * LANES);
        let (grad, grad_right) = self
            .grad_logits
            .map(|grad| grad.split_at_mut(floats))
            .unzip();
        let (sums, sums_right) = self.sums.split_at_mut(mid / self.chunk_blocks);
        let left = Self {
            logits,
            labels,
            grad_logits: grad,
            sums,
            ..self
        };
        let right = Self {
            logits: logits_right,
            labels: labels_right,
            grad_logits: grad_right,
            sums: sums_right,
            ..self
        };
        (left, right)
    }
}

/// Shares of a class below this, 2^-80, have no gradient: no weight of 24 bits would move by it, while the
/// layers below would make subnormal numbers of it, which many processors compute with a hundred times as
/// slowly.
const LEAST: f32 = 1.0 / (1_u128 << 80) as f32;

struct CrossEntropy<'a>(Blocks<'a>);

impl Kernel for CrossEntropy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Blocks {
            shape,
            logits,
            labels,
            mut grad_logits,
            sums,
            ..
        } = self.0;
        let inverse_images = 1.0 / shape.images as f32;
        let mut sum = 0.0;
        for (block, labels) in labels.chunks(LANES).enumerate() {
            let range = block * shape.block_len()..(block + 1) * shape.block_len();
            let logits = logits[range.clone()].as_chunks::<LANES>().0;
            let grad = grad_logits.as_deref_mut().map(|grad| &mut grad[range]);
            let maxima = maximum(isa, logits);
            let exponentials = match grad {
                None => sum_exp(isa, logits, maxima),
                Some(grad) => {
                    let grad = grad.as_chunks_mut::<LANES>().0;
                    let sums = store_exp(isa, logits, maxima, grad);
                    let factor = isa.div(isa.splat(inverse_images), sums);
                    for vector in grad.iter_mut() {
                        let value = isa.mul(isa.load(vector), factor);
                        // In this order NaN stays NaN.
                        let value = isa.select_lt(value, isa.splat(LEAST), isa.zero(), value);
                        isa.store(vector, value);
                    }
                    for (lane, &label) in labels.iter().enumerate() {
                        grad[label as usize][lane] -= inverse_images;
                    }
                    if labels.len() < LANES {
                        for vector in grad {
                            vector[labels.len()..].fill(0.0);
                        }
                    }
                    sums
                }
            };
            let maxima = isa.to_array(maxima);
            let exponentials = isa.to_array(exponentials);
            for (lane, &label) in labels.iter().enumerate() {
                let below = f64::from(maxima[lane]) - f64::from(logits[label as usize][lane]);
                sum += below + f64::from(exponentials[lane]).ln();
            }
        }
        sums[0] = sum;
    }
}

/// The largest logit of each lane, NaN left out.
#[inline(always)]
fn maximum<I: Isa>(isa: I, logits: &[[f32; LANES]]) -> I::F32 {
    let mut maxima = isa.splat(f32::NEG_INFINITY);
    for logit in logits {
        maxima = isa.max(isa.load(logit), maxima);
    }
    maxima
}

/// Σ eˣ⁻ᵐ of each lane.
#[inline(always)]
fn sum_exp<I: Isa>(isa: I, logits: &[[f32; LANES]], maxima: I::F32) -> I::F32 {
    let mut sums = isa.zero();
    for logit in logits {
        sums = isa.add(sums, exp(isa, isa.sub(isa.load(logit), maxima)));
    }
    sums
}

/// Σ eˣ⁻ᵐ of each lane, its terms stored as they are added.
#[inline(always)]
fn store_exp<I: Isa>(
    isa: I,
    logits: &[[f32; LANES]],
    maxima: I::F32,
    terms: &mut [[f32; LANES]],
) -> I::F32 {
    let mut sums = isa.zero();
    for (logit, term) in logits.iter().zip(terms) {
        let value = exp(isa, isa.sub(isa.load(logit), maxima));
        isa.store(term, value);
        sums = isa.add(sums, value);
    }
    sums
}

/// `softmax(logits)` into `probabilities`, lanes to lanes; empty lanes hold that of theirs.
///
/// # Panics
/// If a slice is not of `shape.len()` floats.
pub fn probabilities(
    set: InstructionSet,
    shape: SoftmaxShape,
    logits: &[f32],
    probabilities: &mut [f32],
) {
    check("logits", logits.len(), shape.len());
    check("probabilities", probabilities.len(), shape.len());
    let chunk = (shape.chunk_blocks() * shape.block_len()).max(1);
    for_each_chunk((probabilities, logits), chunk, &|(
        probabilities,
        logits,
    )| {
        set.run(Probabilities {
            shape,
            logits,
            probabilities,
        });
    });
}

struct Probabilities<'a> {
    shape: SoftmaxShape,
    logits: &'a [f32],
    probabilities: &'a mut [f32],
}

impl Kernel for Probabilities<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let block_len = self.shape.block_len();
        let blocks = self.logits.chunks_exact(block_len);
        for (logits, outputs) in blocks.zip(self.probabilities.chunks_exact_mut(block_len)) {
            let logits = logits.as_chunks::<LANES>().0;
            let outputs = outputs.as_chunks_mut::<LANES>().0;
            let sums = store_exp(isa, logits, maximum(isa, logits), outputs);
            let factor = isa.div(isa.splat(1.0), sums);
            for vector in outputs {
                isa.store(vector, isa.mul(isa.load(vector), factor));
            }
        }
    }
}

/// The class of each image's largest logit into `classes`: the first of equals, never a NaN; 0 if no
/// logit exceeds −∞. (The loss of such an image is NaN: it does not pass in silence.)
///
/// # Panics
/// If `logits` is not of `shape.len()` floats, `classes` not of `shape.images`, or there are more
/// than [`MAX_CLASSES`] classes.
pub fn argmax(set: InstructionSet, shape: SoftmaxShape, logits: &[f32], classes: &mut [u32]) {
    check("logits", logits.len(), shape.len());
    check("classes", classes.len(), shape.images);
    assert!(
        shape.classes <= MAX_CLASSES,
        "{} classes, where at most {MAX_CLASSES} can be told apart",
        shape.classes
    );
    set.run(Argmax {
        shape,
        logits,
        classes,
    });
}

struct Argmax<'a> {
    shape: SoftmaxShape,
    logits: &'a [f32],
    classes: &'a mut [u32],
}

impl Kernel for Argmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let block_len = self.shape.block_len();
        for (block, classes) in self.classes.chunks_mut(LANES).enumerate() {
            let logits = self.logits[block * block_len..(block + 1) * block_len]
                .as_chunks::<LANES>()
                .0;
            let mut best = isa.splat(f32::NEG_INFINITY);
            let mut index = isa.zero();
            for (class, logit) in logits.iter().enumerate() {
                let logit = isa.load(logit);
                index = isa.select_lt(best, logit, isa.splat(class as f32), index);
                best = isa.max(logit, best);
            }
            for (class, index) in classes.iter_mut().zip(isa.to_array(index)) {
                *class = index as u32;
            }
        }
    }
}

#[cfg(test)]
mod tests;
