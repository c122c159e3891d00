//! Dense layers of one image.

use std::ops::Range;

use rayon::prelude::*;

use crate::dense::{Activation, Affine};
use crate::dispatch::{InstructionSet, Kernel};
use crate::gemm::scratch::with_scratch;
use crate::isa::Isa;
use crate::lanes::{LANES, check};

mod outputs;
mod sparse;
mod windows;

pub use sparse::SparseDense;

/// Rows of weights that are added at once.
const TOGETHER: usize = 4;

/// Multiply-adds of a part, about, and so of what is not worth waking another thread: a quarter of a
/// megabyte of weights.
const PART: usize = 1 << 16;

/// Parts at most: enough for many cores, few enough that their sums cost nothing.
const MOST_PARTS: usize = 32;

/// `y = activation(x · weights + bias)` of one row of inputs.
///
/// # Panics
/// If a slice has another length than the sizes demand.
pub fn dense(
    set: InstructionSet,
    [inputs, outputs]: [usize; 2],
    layer: Affine<'_>,
    x: &[f32],
    y: &mut [f32],
) {
    check("weights", layer.weights.len(), inputs * outputs);
    check("x", x.len(), inputs);
    check("y", y.len(), outputs);
    let add = |rows: Range<usize>, sums: &mut [f32]| {
        set.run(AddRows {
            weights: layer.weights,
            x,
            rows,
            sums,
        });
    };
    by_parts(inputs, inputs * outputs / PART, layer, y, add);
}

/// Cuts the inputs into parts, has each added up on its own, and adds the sums in order.
fn by_parts(
    inputs: usize,
    parts: usize,
    layer: Affine<'_>,
    y: &mut [f32],
    add: impl Fn(Range<usize>, &mut [f32]) + Sync,
) {
    if let Some(bias) = layer.bias {
        check("bias", bias.len(), y.len());
    }
    let outputs = y.len();
    if outputs == 0 {
        return;
    }
    let parts = parts.clamp(1, MOST_PARTS).min(inputs.max(1));
    let rows = inputs.div_ceil(parts);
    begin(layer.bias, y);
    if parts == 1 {
        add(0..inputs, y);
    } else {
        with_scratch(parts * outputs, |sums| {
            let part = |(part, sums): (usize, &mut [f32])| {
                sums.fill(0.0);
                add(
                    (part * rows).min(inputs)..((part + 1) * rows).min(inputs),
                    sums,
                );
            };
            sums.par_chunks_mut(outputs)
                .enumerate()
                .with_max_len(1)
                .for_each(part);
            add_parts(sums, outputs, y);
        });
    }
    finish(layer.activation, y);
}

/// Sums begin with the bias.
fn begin(bias: Option<&[f32]>, y: &mut [f32]) {
    match bias {
        Some(bias) => y.copy_from_slice(bias),
        None => y.fill(0.0),
    }
}

/// Adds the sums of parts, each of so many, of which the first are those of `y`, in order.
fn add_parts(sums: &[f32], len: usize, y: &mut [f32]) {
    for sums in sums.chunks(len) {
        y.iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
    }
}

fn finish(activation: Activation, y: &mut [f32]) {
    y.iter_mut().for_each(|y| *y = activation.apply(*y));
}

/// `sums += x · weights`, over some rows of the weights.
struct AddRows<'a> {
    weights: &'a [f32],
    x: &'a [f32],
    rows: Range<usize>,
    sums: &'a mut [f32],
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let outputs = self.sums.len();
        let row = |row: usize| (self.x[row], &self.weights[row * outputs..][..outputs]);
        let mut rows = self.rows.filter(|&row| self.x[row] != 0.0).map(row);
        let mut group = next_rows(&mut rows);
        // A group of less than all is filled up with its first row times zero, and is the last.
        while let Some(now) = group {
            group = next_rows(&mut rows);
            let ahead = group.unwrap_or(now);
            add_group(isa, &now, &ahead, self.sums);
        }
    }
}

type Group<'a> = [(f32, &'a [f32]); TOGETHER];

/// The next rows with what they are multiplied by; `None` if there are no more.
#[inline(always)]
fn next_rows<'a>(rows: &mut impl Iterator<Item = (f32, &'a [f32])>) -> Option<Group<'a>> {
    let first = rows.next()?;
    let mut group = [(0.0, first.1); TOGETHER];
    group[0] = first;
    for place in &mut group[1..] {
        match rows.next() {
            Some(row) => *place = row,
            None => break,
        }
    }
    Some(group)
}

/// Adds a group of rows, and asks for the next one.
#[inline(always)]
fn add_group<I: Isa>(isa: I, group: &Group<'_>, ahead: &Group<'_>, sums: &mut [f32]) {
    let factors = group.map(|(factor, _)| isa.splat(factor));
    let mut at = 0;
    while at < sums.len() {
        let lanes = LANES.min(sums.len() - at);
        for (_, row) in ahead {
            isa.prefetch(row.as_ptr().wrapping_add(at));
        }
        // SAFETY: `lanes` values from `at` on lie within the sums, and within every row of weights, which
        // is as long.
        unsafe {
            let target = sums.as_mut_ptr().add(at);
            if lanes == LANES {
                let mut sum = isa.load_ptr(target);
                for (&factor, (_, row)) in factors.iter().zip(group) {
                    sum = isa.mul_add(factor, isa.load_ptr(row.as_ptr().add(at)), sum);
                }
                isa.store_ptr(target, sum);
            } else {
                let mut sum = isa.load_first_ptr(target, lanes);
                for (&factor, (_, row)) in factors.iter().zip(group) {
                    let weights = isa.load_first_ptr(row.as_ptr().add(at), lanes);
                    sum = isa.mul_add(factor, weights, sum);
                }
                isa.store_first_ptr(target, sum, lanes);
            }
        }
        at += LANES;
    }
}
