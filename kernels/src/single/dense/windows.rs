//! The few weights of a dense layer, laid out for the sixteen outputs of a vector.
//!
//! A vector of weights has one for each of sixteen neighbouring outputs. What each is multiplied with
//! is picked from a window of [`TABLE`] inputs that lie in registers. From step to step the window
//! moves on along the inputs, evenly, so that all weights of an output pass through it in order; each
//! output takes its next one if the window has its input, or nothing. Outputs that have many weights in
//! one place fall behind: what leaves the window before its turn is kept aside, and added one by one.
//!
//! With steps for a sixteenth more weights than the outputs have on average, about 5 % are kept aside at a
//! density of 10 %, and a weight costs 5.7 bytes: its value, the byte of its place, and what nothing takes.

use std::ops::Range;

use super::sparse::PART;
use crate::buffer::Buffer;
use crate::dispatch::{InstructionSet, Kernel};
use crate::isa::{Isa, NO_PLACE, TABLE};
use crate::lanes::{LANES, check};

/// Steps for each that the weights would take if every output always had one.
const SLACK: f64 = 17.0 / 16.0;

/// The weights of a layer, unit by unit: of a part of the inputs, for each group of sixteen outputs.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    inputs: usize,
    /// Groups of outputs.
    groups: usize,
    units: Vec<Unit>,
    /// By step.
    places: Vec<[u8; LANES]>,
    /// By step one for each output; behind them those kept aside.
    values: Buffer,
    /// Of those kept aside, which input of the part, times sixteen, and which output of the group.
    aside: Vec<u16>,
    /// Where each of the pattern's values stands.
    order: Vec<u32>,
}

/// Where a unit's steps and what it keeps aside begin.
#[derive(Clone, Copy, Debug, Default)]
struct Unit {
    step: usize,
    aside: usize,
}

/// The windows of one unit.
#[derive(Clone, Copy)]
struct Course {
    /// How far a window moves in a step, in vectors times 2³².
    pace: u64,
    /// The vector at which the last window begins.
    last: usize,
}

impl Course {
    /// Windows over so many inputs, in so many steps.
    #[inline(always)]
    fn new(inputs: usize, steps: usize) -> Self {
        let windows = inputs
            .div_ceil(LANES)
            .saturating_sub(TABLE / LANES - 1)
            .max(1);
        Self {
            pace: ((windows as u64) << 32) / steps.max(1) as u64,
            last: windows - 1,
        }
    }

    /// The vector at which the window of a step begins.
    #[inline(always)]
    fn start(&self, step: usize) -> usize {
        ((step as u64 * self.pace) >> 32) as usize
    }
}

impl Windows {
    /// Lays out the weights of these positions, in order, in a layer of `[inputs, outputs]`; their values
    /// are zero.
    pub(super) fn new([inputs, outputs]: [usize; 2], positions: &[u32]) -> Self {
        let groups = outputs.div_ceil(LANES);
        let parts = inputs.div_ceil(PART);
        let mut windows = Self {
            inputs,
            groups,
            units: vec![Unit::default()],
            places: Vec::new(),
            values: Buffer::default(),
            aside: Vec::new(),
            order: vec![0; positions.len()],
        };
        // By output of a part its inputs in order, each with the weight's place in the pattern.
        let mut weights: Vec<Vec<(u16, u32)>> = vec![Vec::new(); groups * LANES];
        let mut kept = Vec::new();
        let mut rest = positions;
        for part in 0..parts {
            let end = ((part + 1) * PART).min(inputs) * outputs;
            let count = rest.partition_point(|&position| (position as usize) < end);
            let first = positions.len() - rest.len();
            for (value, &position) in (first..).zip(&rest[..count]) {
                let (input, output) = (position as usize / outputs, position as usize % outputs);
                weights[output].push(((input % PART) as u16, value as u32));
            }
            rest = &rest[count..];
            let part_inputs = PART.min(inputs - part * PART);
            for group in weights.chunks_mut(LANES) {
                windows.add_unit(part_inputs, group, &mut kept);
            }
        }
        let aside_first = windows.places.len() * LANES;
        for (place, value) in kept.into_iter().enumerate() {
            windows.order[value as usize] = (aside_first + place) as u32;
        }
        windows.values = Buffer::zeroed(aside_first + windows.aside.len());
        windows
    }

    /// Lays out a unit, and leaves its lists empty. What it keeps aside is also noted in `kept`.
    fn add_unit(&mut self, inputs: usize, weights: &mut [Vec<(u16, u32)>], kept: &mut Vec<u32>) {
        let count: usize = weights.iter().map(Vec::len).sum();
        let outputs = weights.iter().filter(|weights| !weights.is_empty()).count();
        let mean = count as f64 / outputs.max(1) as f64;
        let steps = (mean * SLACK).ceil() as usize;
        let course = Course::new(inputs, steps);
        let first = self.places.len();
        self.places.resize(first + steps, [NO_PLACE; LANES]);
        let mut aside = Vec::new();
        for (lane, weights) in weights.iter_mut().enumerate() {
            let mut next = weights.drain(..).peekable();
            for step in 0..steps {
                let start = course.start(step) * LANES;
                let passed = |&(input, _): &(u16, u32)| usize::from(input) < start;
                while let Some((input, value)) = next.next_if(passed) {
                    aside.push((input << 4 | lane as u16, value));
                }
                let is_there = |&(input, _): &(u16, u32)| usize::from(input) < start + TABLE;
                if let Some((input, value)) = next.next_if(is_there) {
                    self.places[first + step][lane] = (usize::from(input) - start) as u8;
                    self.order[value as usize] = ((first + step) * LANES + lane) as u32;
                }
            }
            aside.extend(next.map(|(input, value)| (input << 4 | lane as u16, value)));
        }
        // By input, so that no sum waits for the one before.
        aside.sort_unstable();
        for (place, value) in aside {
            self.aside.push(place);
            kept.push(value);
        }
        self.units.push(Unit {
            step: self.places.len(),
            aside: self.aside.len(),
        });
    }

    /// Takes the values of the pattern, in its order.
    ///
    /// # Panics
    /// If there is not a value for every weight.
    pub(super) fn set_values(&mut self, values: &[f32]) {
        check("values", values.len(), self.order.len());
        for (&place, &value) in self.order.iter().zip(values) {
            self.values[place as usize] = value;
        }
    }

    /// How many weights there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The sums of some units, sixteen for each.
    pub(super) fn add(
        &self,
        set: InstructionSet,
        units: Range<usize>,
        x: &[f32],
        sums: &mut [f32],
    ) {
        set.run(AddUnits {
            windows: self,
            units,
            x,
            sums,
        });
    }
}

/// See [`Windows::add`].
struct AddUnits<'a> {
    windows: &'a Windows,
    units: Range<usize>,
    x: &'a [f32],
    sums: &'a mut [f32],
}

impl Kernel for AddUnits<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let windows = self.windows;
        assert_eq!(self.x.len(), windows.inputs);
        let (sums, _) = self.sums.as_chunks_mut::<LANES>();
        for (unit, sums) in self.units.zip(sums) {
            let part = unit / windows.groups * PART;
            let x = &self.x[part..windows.inputs.min(part + PART)];
            let [now, next] = [windows.units[unit], windows.units[unit + 1]];
            let places = &windows.places[now.step..next.step];
            let (values, _) = windows.values[now.step * LANES..].as_chunks::<LANES>();
            let course = Course::new(x.len(), places.len());
            // The last window may end behind the inputs.
            let mut tail = [0.0; TABLE];
            let left = &x[course.last * LANES..];
            tail[..left.len()].copy_from_slice(left);
            let mut totals = [isa.zero(); 2];
            for (step, (places, values)) in places.iter().zip(values).enumerate() {
                let start = course.start(step);
                let table = if start < course.last {
                    x.as_ptr().wrapping_add(start * LANES)
                } else {
                    tail.as_ptr()
                };
                // SAFETY: a window before the last ends before the last whole vector of inputs does; places
                // lie within it, or are none.
                let inputs = unsafe { isa.pick_ptr(table, places) };
                totals[0] = isa.mul_add(inputs, isa.load(values), totals[0]);
                totals.swap(0, 1);
            }
            isa.store(sums, isa.add(totals[0], totals[1]));
            let aside = windows.places.len() * LANES;
            let values = &windows.values[aside + now.aside..aside + next.aside];
            for (&place, value) in windows.aside[now.aside..next.aside].iter().zip(values) {
                let (input, output) = (usize::from(place) / LANES, usize::from(place) % LANES);
                sums[output] += x[input] * value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::noise;
    use crate::dispatch;

    #[test]
    fn sums_are_those_of_the_weights_on_every_set() {
        // From no window at all to several parts; from lists that the windows pass by to full ones.
        for [inputs, outputs] in [
            [5, 3],
            [64, 16],
            [100, 40],
            [1_000, 33],
            [2 * PART + 70, 20],
        ] {
            for one_in in [1, 7, 90, usize::MAX] {
                let positions: Vec<u32> = (0..(inputs * outputs) as u32)
                    .filter(|&at| {
                        ((at.wrapping_mul(2_654_435_761) >> 7) as usize).is_multiple_of(one_in)
                    })
                    .collect();
                let values = noise(1, positions.len());
                let mut windows = Windows::new([inputs, outputs], &positions);
                windows.set_values(&values);
                assert_eq!(windows.len(), positions.len());
                let x = noise(2, inputs);
                let groups = outputs.div_ceil(LANES);
                let mut expected = vec![0.0_f64; inputs.div_ceil(PART) * groups * LANES];
                for (&position, &value) in positions.iter().zip(&values) {
                    let (input, output) =
                        (position as usize / outputs, position as usize % outputs);
                    expected[input / PART * groups * LANES + output] +=
                        f64::from(x[input]) * f64::from(value);
                }
                for &set in dispatch::all() {
                    let mut sums = vec![f32::NAN; expected.len()];
                    windows.add(set, 0..sums.len() / LANES, &x, &mut sums);
                    for (sum, expected) in sums.iter().zip(&expected) {
                        let error = (f64::from(*sum) - expected).abs();
                        assert!(error <= 1e-3, "{set:?}: {sum}, not {expected}");
                    }
                }
            }
        }
    }

    #[test]
    fn few_weights_are_kept_aside_at_one_in_ten() {
        let positions: Vec<u32> = (0..1_000_000)
            .filter(|&at: &u32| (at.wrapping_mul(2_654_435_761) >> 7).is_multiple_of(10))
            .collect();
        let windows = Windows::new([1_000, 1_000], &positions);
        assert!(windows.aside.len() * 12 < positions.len());
        let bytes =
            windows.values.len() * 4 + windows.places.len() * LANES + windows.aside.len() * 2;
        assert!(bytes < 6 * positions.len(), "{bytes}");
    }
}
