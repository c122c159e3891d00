//! Batch normalisation over lanes, forward and backward (S. Ioffe, C. Szegedy, "Batch
//! Normalization", 2015).
//!
//! Activations lie in lanes, `[blocks][channels][pixels][16]` (see [`lanes`](crate::lanes)).
//!
//! Mean and variance come from one sweep over memory. A *part* is one channel of a few blocks,
//! small enough to stay in a cache: it is summed for its mean, then for the squared distances from
//! that mean, with the correction of what rounding the mean left over (T. Chan, G. Golub, R.
//! LeVeque, "Algorithms for Computing the Sample Variance", 1983). Parts are then merged in f64 by
//! the pairwise formula of the same paper. So a large mean does not swallow the variance, as it
//! does in the difference of mean square and squared mean.
//!
//! Sums run over the images alone: empty lanes are masked, or zero in gradients. They run within a
//! part and over parts in order, whatever the number of threads.

use rayon::prelude::*;

use crate::chunks::CHUNK;
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::{LANES, check, lanes_len};
pub use crate::naive::{BatchNormShape, Normalization};

mod parts;

use parts::{PartSums, PartVectors, Parts};

/// Where the first `count` lanes are.
#[inline(always)]
fn first_lanes<I: Isa>(isa: I, count: usize) -> I::Mask {
    let mut lanes = [0.0; LANES];
    lanes[..count].fill(1.0);
    isa.lt(isa.zero(), isa.load(&lanes))
}

/// The mean and the biased variance of every channel over images and pixels, `[channels]` each, as
/// in Keras; zero where there are no images. Empty lanes of `x` may hold anything.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn statistics(
    set: InstructionSet,
    shape: BatchNormShape,
    x: &[f32],
    mean: &mut [f32],
    variance: &mut [f32],
) {
    check("x", x.len(), lanes_len(shape.images, shape.features()));
    check("mean", mean.len(), shape.channels);
    check("variance", variance.len(), shape.channels);
    let x = x.as_chunks().0;
    Parts::new(shape).sum(set, Moments { x }, |channel, parts| {
        let (mut count, mut center, mut squares) = (0.0, 0.0, 0.0);
        for (values, [about, rest, part_squares]) in parts {
            if values == 0.0 {
                continue;
            }
            let rest = f64::from(rest);
            let part_center = f64::from(about) + rest / values;
            let distance = part_center - center;
            let total = count + values;
            squares += f64::from(part_squares) - rest * rest / values;
            squares += distance * distance * count * values / total;
            center += distance * values / total;
            count = total;
        }
        mean[channel] = center as f32;
        // Rounding may leave a little less than zero of a constant; NaN stays NaN.
        let squares = if squares < 0.0 { 0.0 } else { squares };
        variance[channel] = (squares / f64::max(count, 1.0)) as f32;
    });
}

/// A mean m of a part, Σ (x - m) and Σ (x - m)².
#[derive(Clone, Copy)]
struct Moments<'a> {
    x: &'a [[f32; LANES]],
}

impl PartSums for Moments<'_> {
    #[inline(always)]
    fn sum<I: Isa>(self, isa: I, _: usize, vectors: PartVectors) -> [f32; 3] {
        let mut sum = isa.zero();
        for (run, lanes) in vectors.runs() {
            let valid = first_lanes(isa, lanes);
            for x in &self.x[run] {
                sum = isa.add(sum, isa.select(valid, isa.load(x), isa.zero()));
            }
        }
        let count = (vectors.images * vectors.shape.pixels) as f32;
        let about = isa.sum(sum) / count;
        let (mut rest, mut squares) = (isa.zero(), isa.zero());
        for (run, lanes) in vectors.runs() {
            let valid = first_lanes(isa, lanes);
            for x in &self.x[run] {
                let distance = isa.sub(isa.load(x), isa.splat(about));
                let distance = isa.select(valid, distance, isa.zero());
                rest = isa.add(rest, distance);
                squares = isa.mul_add(distance, distance, squares);
            }
        }
        [about, isa.sum(rest), isa.sum(squares)]
    }
}

/// `1 / √(variance + epsilon)` of every channel into `inverse`, rounded once.
///
/// # Panics
/// If the slices differ in length.
pub fn inverse_deviation(variance: &[f32], epsilon: f32, inverse: &mut [f32]) {
    check("inverse", inverse.len(), variance.len());
    for (inverse, &variance) in inverse.iter_mut().zip(variance) {
        *inverse = (1.0 / (f64::from(variance) + f64::from(epsilon)).sqrt()) as f32;
    }
}

pub(crate) fn check_normalization(shape: BatchNormShape, normalization: &Normalization<'_, f32>) {
    for (what, values) in [
        ("mean", normalization.mean),
        ("inverse_deviation", normalization.inverse_deviation),
        ("gamma", normalization.gamma),
        ("beta", normalization.beta),
    ] {
        check(what, values.len(), shape.channels);
    }
}

/// Planes, one channel of one block each, that a task takes: a function of the shape alone.
fn planes_per_task(shape: BatchNormShape) -> usize {
    (CHUNK / (shape.pixels * LANES)).max(1)
}

/// `y = (x - mean) · inverse deviation · gamma + beta`, lanes to lanes.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn forward(
    set: InstructionSet,
    shape: BatchNormShape,
    normalization: Normalization<'_, f32>,
    x: &[f32],
    y: &mut [f32],
) {
    let len = lanes_len(shape.images, shape.features());
    check("x", x.len(), len);
    check("y", y.len(), len);
    check_normalization(shape, &normalization);
    if len == 0 {
        return;
    }
    let per_task = planes_per_task(shape);
    let task_len = per_task * shape.pixels * LANES;
    y.par_chunks_mut(task_len)
        .zip(x.par_chunks(task_len))
        .enumerate()
        .for_each(|(task, (y, x))| {
            set.run(Normalize {
                shape,
                normalization,
                first: task * per_task,
                x,
                y,
            });
        });
}

/// What normalises the values of one channel.
pub(crate) struct Channel<I: Isa> {
    mean: I::F32,
    scale: I::F32,
    beta: I::F32,
}

impl<I: Isa> Channel<I> {
    #[inline(always)]
    pub(crate) fn new(isa: I, normalization: &Normalization<'_, f32>, channel: usize) -> Self {
        let Normalization {
            mean,
            inverse_deviation,
            gamma,
            beta,
        } = normalization;
        Self {
            mean: isa.splat(mean[channel]),
            scale: isa.splat(inverse_deviation[channel] * gamma[channel]),
            beta: isa.splat(beta[channel]),
        }
    }

    #[inline(always)]
    pub(crate) fn normalize(&self, isa: I, x: I::F32) -> I::F32 {
        isa.mul_add(isa.sub(x, self.mean), self.scale, self.beta)
    }
}

struct Normalize<'a> {
    shape: BatchNormShape,
    normalization: Normalization<'a, f32>,
    first: usize,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let plane = self.shape.pixels;
        let x = self.x.as_chunks::<LANES>().0;
        let y = self.y.as_chunks_mut::<LANES>().0;
        let planes = y.chunks_exact_mut(plane).zip(x.chunks_exact(plane));
        for (index, (y, x)) in planes.enumerate() {
            let channel = (self.first + index) % self.shape.channels;
            let channel = Channel::new(isa, &self.normalization, channel);
            for (y, x) in y.iter_mut().zip(x) {
                isa.store(y, channel.normalize(isa, isa.load(x)));
            }
        }
    }
}

/// Where the mean and variance of a forward pass came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// From its own input, on which they depend.
    Batch,
    /// From elsewhere: constants.
    Given,
}

/// The forward pass that a backward pass belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// The input, in lanes.
    pub x: &'a [f32],
    /// What it was normalised with.
    pub normalization: Normalization<'a, f32>,
    /// Where mean and deviation came from.
    pub statistics: Statistics,
}

/// The gradients to compute.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// Of the input, in lanes, exactly zero in empty ones; `None` where nobody needs it.
    pub input: Option<&'a mut [f32]>,
    /// Of gamma, `[channels]`.
    pub gamma: &'a mut [f32],
    /// Of beta, `[channels]`.
    pub beta: &'a mut [f32],
}

/// The gradients of [`forward`] from that of its output, in lanes, zero in empty lanes; `x` must be
/// finite there.
///
/// # Panics
/// If a slice has another length than the shape demands.
pub fn backward(
    set: InstructionSet,
    shape: BatchNormShape,
    recorded: Recorded<'_>,
    grad_output: &[f32],
    gradients: Gradients<'_>,
) {
    let len = lanes_len(shape.images, shape.features());
    check("x", recorded.x.len(), len);
    check("grad_output", grad_output.len(), len);
    check_normalization(shape, &recorded.normalization);
    let Gradients { input, gamma, beta } = gradients;
    check("grad_gamma", gamma.len(), shape.channels);
    check("grad_beta", beta.len(), shape.channels);

    let Normalization {
        mean,
        inverse_deviation,
        ..
    } = recorded.normalization;
    let products = Products {
        x: recorded.x.as_chunks().0,
        grad_output: grad_output.as_chunks().0,
        mean,
    };
    Parts::new(shape).sum(set, products, |channel, parts| {
        let (mut grads, mut moments) = (0.0, 0.0);
        for (_, [grad, moment, _]) in parts {
            grads += f64::from(grad);
            moments += f64::from(moment);
        }
        beta[channel] = grads as f32;
        gamma[channel] = (moments * f64::from(inverse_deviation[channel])) as f32;
    });

    let Some(input) = input else { return };
    check("grad_input", input.len(), len);
    if len == 0 {
        return;
    }
    let per_task = planes_per_task(shape);
    let task_len = per_task * shape.pixels * LANES;
    let sources = recorded
        .x
        .par_chunks(task_len)
        .zip(grad_output.par_chunks(task_len));
    input
        .par_chunks_mut(task_len)
        .zip(sources)
        .enumerate()
        .for_each(|(task, (grad_input, (x, grad_output)))| {
            set.run(GradInput {
                shape,
                recorded: Recorded { x, ..recorded },
                grad_gamma: gamma,
                grad_beta: beta,
                first: task * per_task,
                grad_output,
                grad_input,
            });
        });
}

/// Σ of the gradient and Σ gradient · (x - mean); the third sum is not used.
#[derive(Clone, Copy)]
struct Products<'a> {
    x: &'a [[f32; LANES]],
    grad_output: &'a [[f32; LANES]],
    mean: &'a [f32],
}

impl PartSums for Products<'_> {
    #[inline(always)]
    fn sum<I: Isa>(self, isa: I, channel: usize, vectors: PartVectors) -> [f32; 3] {
        let mean = isa.splat(self.mean[channel]);
        let (mut grads, mut moments) = (isa.zero(), isa.zero());
        for (run, _) in vectors.runs() {
            for (x, grad) in self.x[run.clone()].iter().zip(&self.grad_output[run]) {
                let grad = isa.load(grad);
                grads = isa.add(grads, grad);
                moments = isa.mul_add(grad, isa.sub(isa.load(x), mean), moments);
            }
        }
        [isa.sum(grads), isa.sum(moments), 0.0]
    }
}

struct GradInput<'a> {
    shape: BatchNormShape,
    recorded: Recorded<'a>,
    grad_gamma: &'a [f32],
    grad_beta: &'a [f32],
    first: usize,
    grad_output: &'a [f32],
    grad_input: &'a mut [f32],
}

impl Kernel for GradInput<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let BatchNormShape {
            images,
            channels,
            pixels,
        } = self.shape;
        let normalization = self.recorded.normalization;
        let count = self.shape.count() as f32;
        let x = self.recorded.x.as_chunks::<LANES>().0.chunks_exact(pixels);
        let grads = self.grad_output.as_chunks::<LANES>().0;
        let targets = self.grad_input.as_chunks_mut::<LANES>().0;
        let sources = x.zip(grads.chunks_exact(pixels));
        let planes = targets.chunks_exact_mut(pixels).zip(sources);
        for (index, (targets, (x, grads))) in planes.enumerate() {
            let (block, channel) = (
                (self.first + index) / channels,
                (self.first + index) % channels,
            );
            let inverse = normalization.inverse_deviation[channel];
            let scale = isa.splat(inverse * normalization.gamma[channel]);
            match self.recorded.statistics {
                Statistics::Given => {
                    for (target, grad) in targets.iter_mut().zip(grads) {
                        isa.store(target, isa.mul(scale, isa.load(grad)));
                    }
                }
                Statistics::Batch => {
                    let valid = first_lanes(isa, (images - block * LANES).min(LANES));
                    let mean = isa.splat(normalization.mean[channel]);
                    // What the batch's mean and deviation explain of the gradient, and give back.
                    let constant = isa.splat(self.grad_beta[channel] / count);
                    let slope = isa.splat(inverse * self.grad_gamma[channel] / count);
                    for (target, (x, grad)) in targets.iter_mut().zip(x.iter().zip(grads)) {
                        let distance = isa.sub(isa.load(x), mean);
                        let explained = isa.mul_add(distance, slope, constant);
                        let grad = isa.mul(scale, isa.sub(isa.load(grad), explained));
                        isa.store(target, isa.select(valid, grad, isa.zero()));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
