//! Relu and its gradient, and the sums and scalings that gradients are accumulated with.
//!
//! Positions do not depend on one another, so these run over slices of any layout and length; empty
//! lanes need no care. Each is bound by memory and reads and writes everything once.

use rayon::prelude::*;

use crate::chunks::{CHUNK, for_each_chunk, padded};
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::Isa;
use crate::lanes::{LANES, check};

/// max(x, 0) into `output`; NaN stays NaN.
///
/// # Panics
/// If the slices differ in length.
pub fn relu(set: InstructionSet, input: &[f32], output: &mut [f32]) {
    zip(set, Relu, output, input);
}

/// Zeroes `grad` wherever `output`, that of [`relu`], is not positive: the gradient by the output
/// becomes that by the input. Where the output is NaN the gradient is zero too.
///
/// # Panics
/// If the slices differ in length.
pub fn relu_backward(set: InstructionSet, output: &[f32], grad: &mut [f32]) {
    zip(set, ReluBackward, grad, output);
}

/// `target += source`.
///
/// # Panics
/// If the slices differ in length.
pub fn add_assign(set: InstructionSet, target: &mut [f32], source: &[f32]) {
    zip(set, Add, target, source);
}

/// `target += factor · source`, rounded as [`Isa::mul_add`] does.
///
/// # Panics
/// If the slices differ in length.
pub fn add_scaled(set: InstructionSet, target: &mut [f32], factor: f32, source: &[f32]) {
    zip(set, AddScaled(factor), target, source);
}

/// `target *= factor`.
pub fn scale(set: InstructionSet, target: &mut [f32], factor: f32) {
    for_each_chunk(target, CHUNK, &|target| set.run(Scale { target, factor }));
}

/// `factor · source` into `target` where `selected` is not 0, else zero, whatever the source holds.
///
/// # Panics
/// If the slices differ in length.
pub fn scale_selected(
    set: InstructionSet,
    target: &mut [f32],
    factor: f32,
    source: &[f32],
    selected: &[u8],
) {
    check("source", source.len(), target.len());
    check("selected", selected.len(), target.len());
    target
        .par_chunks_mut(CHUNK)
        .zip(source.par_chunks(CHUNK))
        .zip(selected.par_chunks(CHUNK))
        .for_each(|((target, source), selected)| {
            set.run(ScaleSelected {
                target,
                factor,
                source,
                selected,
            });
        });
}

struct ScaleSelected<'a> {
    target: &'a mut [f32],
    factor: f32,
    source: &'a [f32],
    selected: &'a [u8],
}

impl ScaleSelected<'_> {
    #[inline(always)]
    fn apply<I: Isa>(&self, isa: I, source: &[f32; LANES], selected: &[u8; LANES]) -> I::F32 {
        let scaled = isa.mul(isa.splat(self.factor), isa.load(source));
        isa.select_gt_zero(isa.load_u8(selected), scaled)
    }
}

impl Kernel for ScaleSelected<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let (target, target_rest) = std::mem::take(&mut self.target).as_chunks_mut::<LANES>();
        let (source, source_rest) = self.source.as_chunks::<LANES>();
        let (selected, selected_rest) = self.selected.as_chunks::<LANES>();
        for (target, (source, selected)) in target.iter_mut().zip(source.iter().zip(selected)) {
            isa.store(target, self.apply(isa, source, selected));
        }
        let value = self.apply(isa, &padded(source_rest), &padded(selected_rest));
        target_rest.copy_from_slice(&isa.to_array(value)[..target_rest.len()]);
    }
}

/// A function of two vectors.
trait Binary: Copy + Send + Sync {
    fn apply<I: Isa>(self, isa: I, target: I::F32, source: I::F32) -> I::F32;
}

fn zip<B: Binary>(set: InstructionSet, binary: B, target: &mut [f32], source: &[f32]) {
    check("source", source.len(), target.len());
    for_each_chunk((target, source), CHUNK, &|(target, source)| {
        set.run(Zip {
            binary,
            target,
            source,
        });
    });
}

struct Zip<'a, B> {
    binary: B,
    target: &'a mut [f32],
    source: &'a [f32],
}

impl<B: Binary> Kernel for Zip<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (target, target_rest) = self.target.as_chunks_mut::<LANES>();
        let (source, source_rest) = self.source.as_chunks::<LANES>();
        for (target, source) in target.iter_mut().zip(source) {
            let value = self.binary.apply(isa, isa.load(target), isa.load(source));
            isa.store(target, value);
        }
        let (old, source) = (padded(target_rest), padded(source_rest));
        let value = self.binary.apply(isa, isa.load(&old), isa.load(&source));
        target_rest.copy_from_slice(&isa.to_array(value)[..target_rest.len()]);
    }
}

#[derive(Clone, Copy)]
struct Relu;

impl Binary for Relu {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, _: I::F32, source: I::F32) -> I::F32 {
        isa.max(isa.zero(), source)
    }
}

#[derive(Clone, Copy)]
struct ReluBackward;

impl Binary for ReluBackward {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, target: I::F32, source: I::F32) -> I::F32 {
        isa.select_gt_zero(source, target)
    }
}

#[derive(Clone, Copy)]
struct Add;

impl Binary for Add {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, target: I::F32, source: I::F32) -> I::F32 {
        isa.add(target, source)
    }
}

#[derive(Clone, Copy)]
struct AddScaled(f32);

impl Binary for AddScaled {
    #[inline(always)]
    fn apply<I: Isa>(self, isa: I, target: I::F32, source: I::F32) -> I::F32 {
        isa.mul_add(isa.splat(self.0), source, target)
    }
}

struct Scale<'a> {
    target: &'a mut [f32],
    factor: f32,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let factor = isa.splat(self.factor);
        let (target, rest) = self.target.as_chunks_mut::<LANES>();
        for target in target {
            isa.store(target, isa.mul(isa.load(target), factor));
        }
        for value in rest {
            *value *= self.factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::check::{Tolerance, assert_close, assert_close_each, noise};
    use crate::dispatch;
    use crate::naive;

    const LENGTHS: [usize; 9] = [0, 1, 15, 16, 17, 33, CHUNK - 1, CHUNK, 3 * CHUNK + 17];

    fn check_all(target: &[f32], source: &[f32], factor: f32) {
        let rectified = naive::relu(source);
        let passed = naive::relu_backward(&rectified, target);
        let products: Vec<f32> = target.iter().map(|value| value * factor).collect();
        let sums: Vec<f32> = target.iter().zip(source).map(|(a, b)| a + b).collect();
        let exact: Vec<f64> = target
            .iter()
            .zip(source)
            .map(|(&a, &b)| f64::from(a) + f64::from(factor) * f64::from(b))
            .collect();
        for &set in dispatch::all() {
            let mut output = vec![f32::NAN; source.len()];
            relu(set, source, &mut output);
            assert_close(&output, &rectified, Tolerance::EXACT);

            let mut grad = target.to_vec();
            relu_backward(set, &output, &mut grad);
            assert_close(&grad, &passed, Tolerance::EXACT);

            let mut sum = target.to_vec();
            add_assign(set, &mut sum, source);
            assert_close(&sum, &sums, Tolerance::EXACT);

            let mut sum = target.to_vec();
            add_scaled(set, &mut sum, factor, source);
            assert_close_each(&sum, &exact, |index| {
                Tolerance::dot(
                    2,
                    f64::from(target[index].abs() + (factor * source[index]).abs()),
                )
            });

            let selected: Vec<u8> = (0..target.len()).map(|at| (at % 3 * 120) as u8).collect();
            let mut chosen = vec![f32::NAN; target.len()];
            scale_selected(set, &mut chosen, factor, target, &selected);
            let choose = |(&product, &selected): (&f32, &u8)| match selected {
                0 => 0.0,
                _ => product,
            };
            let expected: Vec<f32> = products.iter().zip(&selected).map(choose).collect();
            assert_close(&chosen, &expected, Tolerance::EXACT);

            let mut product = target.to_vec();
            scale(set, &mut product, factor);
            assert_close(&product, &products, Tolerance::EXACT);
        }
    }

    #[test]
    fn matches_naive_at_every_edge() {
        for len in LENGTHS {
            check_all(&noise(1, len), &noise(2, len), -0.3);
        }
    }

    proptest! {
        #[test]
        fn matches_naive(pairs in prop::collection::vec((-1e3..1e3_f32, -1e3..1e3_f32), 0..100), factor in -2.0..2.0_f32) {
            let (target, source): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            check_all(&target, &source, factor);
        }
    }

    #[test]
    fn relu_keeps_nan_and_its_gradient_stops_at_zero() {
        for &set in dispatch::all() {
            for len in [4, 20] {
                let mut input = vec![0.0; len];
                let start = len - 4;
                input[start..].copy_from_slice(&[-0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
                let mut output = vec![7.0; len];
                relu(set, &input, &mut output);
                let expected = [0.0, f32::NAN, f32::INFINITY, 0.0];
                assert_close(
                    &output[start..],
                    &expected,
                    Tolerance::EXACT.nan_equals_nan(),
                );
                let mut grad = vec![f32::INFINITY; len];
                relu_backward(set, &output, &mut grad);
                assert_eq!(grad[start..], [0.0, 0.0, f32::INFINITY, 0.0]);
            }
        }
    }

    #[test]
    fn what_is_not_selected_is_zero_whatever_it_was() {
        for &set in dispatch::all() {
            let mut target = [7.0; 3];
            let source = [f32::NAN, f32::INFINITY, f32::NAN];
            scale_selected(set, &mut target, 2.0, &source, &[0, 0, 1]);
            assert_eq!(target[..2], [0.0, 0.0]);
            assert!(target[2].is_nan());
        }
    }

    #[test]
    #[should_panic(expected = "source holds 3 values where the shape demands 4")]
    fn slices_of_different_lengths_are_refused() {
        add_assign(dispatch::active(), &mut [0.0; 4], &[0.0; 3]);
    }
}
