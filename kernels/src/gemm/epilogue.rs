//! What becomes of the sums of a product: they are stored, or they are a gradient that updates weights.

use std::ops::Range;
use std::slice;

use super::scratch::with_scratch;
use super::tile::{Finish, Store, Tile};
use crate::dispatch::InstructionSet;
use crate::isa::Isa;
use crate::lanes::LANES;
use crate::update::{Few, Place, Rule, Update, WithRule, step_few, step_sixteen};

/// The end of a product.
pub(crate) trait Epilogue: Copy + Send + Sync {
    /// The end of one tile.
    type Finish: Finish;

    /// Whether sums must be complete when a tile is finished: then the sum has one block at most.
    const NEEDS_WHOLE_SUMS: bool;

    /// Holds what the epilogue reads to a result of so many rows in so many floats.
    ///
    /// # Panics
    /// If it is shorter.
    fn check(&self, rows: usize, result_len: usize);

    /// The end of the tile at `first_row` over some steps of the sum, of all these.
    fn finish(&self, steps: &Range<usize>, all: &Range<usize>, first_row: usize) -> Self::Finish;
}

/// `held · result + sum + bias`, then relu.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a> {
    /// The factor of what the result holds; zero does not read it.
    pub(crate) held: f32,
    /// One value for each row.
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) relu: bool,
}

impl Stored<'_> {
    /// The sum as it is.
    pub(crate) const PLAIN: Self = Self {
        held: 0.0,
        bias: None,
        relu: false,
    };
}

impl Epilogue for Stored<'_> {
    type Finish = Store;

    const NEEDS_WHOLE_SUMS: bool = false;

    fn check(&self, rows: usize, _: usize) {
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), rows);
        }
    }

    #[inline(always)]
    fn finish(&self, steps: &Range<usize>, all: &Range<usize>, first_row: usize) -> Store {
        let last = steps.end == all.end;
        Store {
            held: if steps.start > all.start {
                1.0
            } else {
                self.held
            },
            bias: match self.bias {
                Some(bias) if last => bias.as_ptr().wrapping_add(first_row),
                _ => std::ptr::null(),
            },
            relu: last && self.relu,
        }
    }
}

/// The result are weights, and the sum is their gradient: one step of an optimiser.
#[derive(Clone, Copy)]
pub(crate) struct Updated<R> {
    rule: R,
    len: usize,
    weights: *const f32,
    /// Where the rule keeps such a state.
    first: Option<*mut f32>,
    second: Option<*mut f32>,
    /// Where not all is owned.
    owned: Option<*const u8>,
}

// SAFETY: tasks read and write state only at the places of their own tiles of the weights.
unsafe impl<R: Send> Send for Updated<R> {}
// SAFETY: as above.
unsafe impl<R: Sync> Sync for Updated<R> {}

impl<R: Rule> Updated<R> {
    /// The end of a product whose result is `update.weights`.
    ///
    /// # Panics
    /// If the slices of the update differ in length.
    pub(crate) fn new(rule: R, update: &mut Update<'_>) -> Self {
        update.check::<R>();
        Self {
            rule,
            len: update.weights.len(),
            weights: update.weights.as_ptr(),
            first: (R::STATES > 0).then_some(update.first.as_mut_ptr()),
            second: (R::STATES > 1).then_some(update.second.as_mut_ptr()),
            owned: update.owned.map(<[u8]>::as_ptr),
        }
    }
}

/// The product that is the gradient of some weights.
pub(crate) trait WeightProduct: Copy {
    /// Whether every sum has one block at most, so that the end of a tile may use it up.
    fn has_whole_sums(self) -> bool;

    /// Computes it with this end.
    fn multiply<E: Epilogue>(self, epilogue: E, result: &mut [f32]);

    /// Stores the gradient.
    fn store(self, grad: &mut [f32]);
}

/// Takes one step of an optimiser by a gradient, which is stored only where its sums have several
/// blocks.
pub(crate) fn take_step<P: WeightProduct>(set: InstructionSet, product: P, update: Update<'_>) {
    struct Fused<P>(P);
    impl<P: WeightProduct> WithRule for Fused<P> {
        fn run<R: Rule>(self, rule: R, mut update: Update<'_>) {
            let epilogue = Updated::new(rule, &mut update);
            self.0.multiply(epilogue, update.weights);
        }
    }
    if product.has_whole_sums() {
        update.with_rule(Fused(product));
    } else {
        with_scratch(update.weights.len(), |grad| {
            product.store(grad);
            update.apply(set, grad);
        });
    }
}

impl<R: Rule> Epilogue for Updated<R> {
    type Finish = Self;

    const NEEDS_WHOLE_SUMS: bool = true;

    fn check(&self, _: usize, result_len: usize) {
        assert_eq!(self.len, result_len);
    }

    #[inline(always)]
    fn finish(&self, _: &Range<usize>, _: &Range<usize>, _: usize) -> Self {
        *self
    }
}

impl<R: Rule> Finish for Updated<R> {
    #[inline(always)]
    fn prepare<I: Isa>(isa: I, tile: &Tile<Self>, vectors: usize) {
        for r in 0..tile.rows {
            for v in 0..vectors {
                let place = tile.place(r, v).cast_const();
                let bytes = place.addr().wrapping_sub(tile.finish.weights.addr());
                isa.prefetch(place);
                for state in [tile.finish.first, tile.finish.second]
                    .into_iter()
                    .flatten()
                {
                    isa.prefetch(state.wrapping_byte_add(bytes));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn finish<I: Isa, const ROWS: usize, const VECTORS: usize>(
        isa: I,
        tile: &Tile<Self>,
        sums: [[I::F32; VECTORS]; ROWS],
    ) {
        let Self {
            rule,
            weights,
            first,
            second,
            owned,
            ..
        } = tile.finish;
        // A copy, as in `store_part`: the sums are indexed by what is known only at run time.
        let copy = sums;
        for (r, row) in copy.iter().enumerate().take(tile.rows) {
            for (v, &grad) in row.iter().enumerate() {
                let place = tile.place(r, v);
                // SAFETY: the caller vouches for the places of the tile, which lie in the weights;
                // state and owners are as long as these, and no other task goes there.
                unsafe {
                    let at = place.cast_const().offset_from_unsigned(weights);
                    if v + 1 < VECTORS || tile.last_lanes == LANES {
                        let place = Place {
                            weights: &mut *place.cast(),
                            owned: owned.map(|owned| &*owned.add(at).cast()),
                            first: first.map(|first| &mut *first.add(at).cast()),
                            second: second.map(|second| &mut *second.add(at).cast()),
                        };
                        step_sixteen(isa, rule, place, grad);
                    } else {
                        let lanes = tile.last_lanes;
                        let state = |state: Option<*mut f32>| match state {
                            Some(state) => slice::from_raw_parts_mut(state.add(at), lanes),
                            None => &mut [],
                        };
                        let few = Few {
                            weights: slice::from_raw_parts_mut(place, lanes),
                            owned: owned.map(|owned| slice::from_raw_parts(owned.add(at), lanes)),
                            first: state(first),
                            second: state(second),
                        };
                        step_few(isa, rule, few, grad);
                    }
                }
            }
        }
    }
}
