//! Which weights there are, and in which order the kernels meet them.

use std::sync::{Arc, OnceLock};

use super::index::{Entry, Index, Outline, Reach, tile};
use super::products::{Products, Way};
use super::sample;
use crate::dispatch::InstructionSet;
use crate::gemm::scratch::with_scratch;
use crate::lanes::check;
use crate::window::Window;

/// The positions of a kernel that are owned, and the orders in which the kernels meet them.
///
/// The values of a pattern stand by their positions in the whole kernel, lowest first;
/// [`gather`](Self::gather) and [`scatter`](Self::scatter) bring them from and to it. The orders in which
/// the kernels meet them depend on the instruction set, and each call brings the values into its own.
///
/// Memory: 4 bytes for each position, and for each of the three passes, once it was asked for, 8 by lists
/// or some 14 by generated code (of the first two) and 4 where values are brought into its order, besides 8
/// bytes for each pair of a channel and a chunk of the other side.
#[derive(Clone, Debug)]
pub struct Pattern {
    /// Of the whole kernel, `[kernel height, kernel width, inputs, outputs]`.
    dims: [usize; 4],
    stride: [usize; 2],
    /// The place of each value in the whole kernel.
    positions: Vec<u32>,
    set: InstructionSet,
    /// Sorted, or compiled, when they are wanted first.
    forward: OnceLock<Products>,
    gradient: OnceLock<Products>,
    samples: OnceLock<Arc<Index>>,
}

impl Pattern {
    /// The pattern of a dense layer's weights, row-major `[inputs, outputs]`: those whose mask is not
    /// zero.
    ///
    /// # Panics
    /// If the mask has another length, or there are 2³² weights or more.
    pub fn dense(set: InstructionSet, [inputs, outputs]: [usize; 2], owned: &[u8]) -> Self {
        Self::new(set, [1, 1, inputs, outputs], [1, 1], owned)
    }

    /// The pattern of a convolution's weights, row-major `[kernel height, kernel width, inputs,
    /// outputs]`: those whose mask is not zero.
    ///
    /// # Panics
    /// If the mask has another length, or there are 2³² weights or more.
    pub fn conv2d(
        set: InstructionSet,
        window: Window,
        [inputs, outputs]: [usize; 2],
        owned: &[u8],
    ) -> Self {
        let [height, width] = window.kernel;
        Self::new(set, [height, width, inputs, outputs], window.stride, owned)
    }

    fn new(set: InstructionSet, dims: [usize; 4], stride: [usize; 2], owned: &[u8]) -> Self {
        check("owned", owned.len(), dims.iter().product());
        assert!(
            u32::try_from(owned.len()).is_ok(),
            "{} weights, where a position is a number of 32 bits",
            owned.len()
        );
        let positions = (0..owned.len() as u32).filter(|&at| owned[at as usize] != 0);
        Self {
            dims,
            stride,
            positions: positions.collect(),
            set,
            forward: OnceLock::new(),
            gradient: OnceLock::new(),
            samples: OnceLock::new(),
        }
    }

    /// The instruction set that it was made for.
    pub(crate) fn set(&self) -> InstructionSet {
        self.set
    }

    /// The products of the outputs.
    pub(super) fn forward(&self) -> &Products {
        self.forward
            .get_or_init(|| Products::new(self.set, self.forward_outline(), self.forward_entries()))
    }

    /// Those of the gradient of the input.
    pub(super) fn gradient(&self) -> &Products {
        self.gradient.get_or_init(|| {
            Products::new(self.set, self.gradient_outline(), self.gradient_entries())
        })
    }

    /// The positions as the gradient of the values goes through them.
    pub(super) fn samples(&self) -> &Index {
        self.samples.get_or_init(|| match &self.forward().way {
            Way::Lists(index) => index.clone(),
            Way::Code(_) => {
                let outline = sample::outline(self.forward_outline());
                Arc::new(Index::new(outline, self.forward_entries()))
            }
        })
    }

    fn forward_outline(&self) -> Outline {
        let [height, width, inputs, outputs] = self.dims;
        let kernel = [height, width];
        let reach = Reach::new(tile(self.set, kernel), kernel, self.stride, [1, 1]);
        Outline::new([outputs, inputs], reach)
    }

    fn gradient_outline(&self) -> Outline {
        let [height, width, inputs, outputs] = self.dims;
        let kernel = [height, width];
        let reach = Reach::new(tile(self.set, kernel), kernel, [1, 1], self.stride);
        Outline::new([inputs, outputs], reach)
    }

    pub(super) fn forward_entries(&self) -> Vec<Entry> {
        let [_, width, inputs, outputs] = self.dims;
        let entry = |(value, &position): (usize, &u32)| {
            let (output, rest) = (position as usize % outputs, position as usize / outputs);
            let (input, tap) = (rest % inputs, rest / inputs);
            Entry {
                result: output as u32,
                source: input as u32,
                tap: [tap / width, tap % width].map(|place| place as u32),
                value: value as u32,
            }
        };
        self.positions.iter().enumerate().map(entry).collect()
    }

    /// With inputs and outputs in each other's place, and windows turned around.
    fn gradient_entries(&self) -> Vec<Entry> {
        let [height, width, ..] = self.dims;
        let turned = |entry: Entry| Entry {
            result: entry.source,
            source: entry.result,
            tap: [
                height as u32 - 1 - entry.tap[0],
                width as u32 - 1 - entry.tap[1],
            ],
            value: entry.value,
        };
        self.forward_entries().into_iter().map(turned).collect()
    }

    /// Number of weights that there are.
    pub fn len(&self) -> usize {
        self.positions.len()
    }

    /// Whether there is no weight.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// The whole kernel: `[kernel height, kernel width, inputs, outputs]`, for a dense layer `[1, 1,
    /// inputs, outputs]`.
    pub fn dims(&self) -> [usize; 4] {
        self.dims
    }

    /// Rows and columns that the window moves by.
    pub fn stride(&self) -> [usize; 2] {
        self.stride
    }

    /// The share of the weights that there are; 0 of none.
    pub fn density(&self) -> f64 {
        self.len() as f64 / self.dims.iter().product::<usize>().max(1) as f64
    }

    /// The place of each value in the whole kernel.
    pub fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// Takes the values out of a whole kernel.
    ///
    /// # Panics
    /// If a slice has another length than it should.
    pub fn gather(&self, whole: &[f32], values: &mut [f32]) {
        check("whole", whole.len(), self.dims.iter().product());
        check("values", values.len(), self.len());
        for (value, &position) in values.iter_mut().zip(&self.positions) {
            *value = whole[position as usize];
        }
    }

    /// Puts the values into a whole kernel; what is not owned stays as it is.
    ///
    /// # Panics
    /// If a slice has another length than it should.
    pub fn scatter(&self, values: &[f32], whole: &mut [f32]) {
        check("values", values.len(), self.len());
        check("whole", whole.len(), self.dims.iter().product());
        for (&value, &position) in values.iter().zip(&self.positions) {
            whole[position as usize] = value;
        }
    }

    /// Calls `code` with the whole kernel, row-major and zero where nothing is owned: for a product that
    /// dense kernels compute faster.
    ///
    /// # Panics
    /// If there is not a value for every position.
    pub fn with_whole<R>(&self, values: &[f32], code: impl FnOnce(&[f32]) -> R) -> R {
        with_scratch(self.dims.iter().product(), |whole| {
            whole.fill(0.0);
            self.scatter(values, whole);
            code(whole)
        })
    }

    /// Calls `code` with a place for the gradient of the whole kernel, of any content, and takes that of
    /// the values out of what it leaves there.
    ///
    /// # Panics
    /// If there is not a value for every position.
    pub fn with_whole_gradient(&self, grad_values: &mut [f32], code: impl FnOnce(&mut [f32])) {
        with_scratch(self.dims.iter().product(), |whole| {
            code(whole);
            self.gather(whole, grad_values);
        });
    }

    /// Holds the pattern to a dense layer of these sizes, or to the window and channels of a
    /// convolution.
    #[track_caller]
    pub(super) fn check(&self, dims: [usize; 4], stride: [usize; 2]) {
        assert!(
            (dims, stride) == (self.dims, self.stride),
            "the pattern is one of {:?} by {:?}, not of {dims:?} by {stride:?}",
            self.dims,
            self.stride
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch;
    use crate::window::Padding;

    #[test]
    fn values_go_to_their_places_and_come_back() {
        for &set in dispatch::all() {
            let window = Window {
                kernel: [3, 2],
                stride: [1, 1],
                padding: Padding::Same,
            };
            let owned: Vec<u8> = (0..3 * 2 * 5 * 7).map(|at| u8::from(at % 3 == 1)).collect();
            let pattern = Pattern::conv2d(set, window, [5, 7], &owned);
            assert_eq!(pattern.len(), 70);
            assert_eq!(pattern.density(), 1.0 / 3.0);
            let whole: Vec<f32> = (0..210).map(|at| at as f32).collect();
            let mut values = vec![0.0; 70];
            pattern.gather(&whole, &mut values);
            let mut back = vec![-1.0; 210];
            pattern.scatter(&values, &mut back);
            for (at, &value) in back.iter().enumerate() {
                assert_eq!(value, if at % 3 == 1 { at as f32 } else { -1.0 });
            }
            assert!(pattern.positions().is_sorted());
            let products = [pattern.forward(), pattern.gradient()].map(Products::order);
            for order in products.into_iter().chain([&pattern.samples().order]) {
                {
                    let mut back = vec![0.0; 70];
                    order.with_ordered(&values, |ordered| {
                        order.with_unordered(&mut back, |target| target.copy_from_slice(ordered));
                    });
                    assert_eq!(back, values);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "owned")]
    fn a_mask_of_another_length_is_refused() {
        Pattern::dense(dispatch::active(), [2, 3], &[1; 5]);
    }
}
