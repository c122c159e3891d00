//! The weights of a pattern in lists, each of what is summed in one go.

use crate::lanes::check;

/// Weights list by list, each with the place that it is multiplied with.
#[derive(Clone, Debug)]
pub(super) struct Lists<P> {
    /// Where each list begins, and the end of all.
    starts: Vec<u32>,
    places: Vec<P>,
    /// Which of the pattern's values each weight has.
    order: Vec<u32>,
    values: Vec<f32>,
}

impl<P: Copy + Default> Lists<P> {
    /// So many lists of weights, given in the pattern's order as a list and a place; their values are zero.
    pub(super) fn new(lists: usize, weights: impl Iterator<Item = (usize, P)> + Clone) -> Self {
        let mut starts = vec![0_u32; lists + 1];
        for (list, _) in weights.clone() {
            starts[list + 1] += 1;
        }
        for list in 1..starts.len() {
            starts[list] += starts[list - 1];
        }
        let len = starts[lists] as usize;
        let mut next = starts.clone();
        let (mut places, mut order) = (vec![P::default(); len], vec![0; len]);
        for (value, (list, place)) in weights.enumerate() {
            let at = next[list] as usize;
            next[list] += 1;
            (places[at], order[at]) = (place, value as u32);
        }
        Self {
            starts,
            places,
            order,
            values: vec![0.0; len],
        }
    }

    /// Takes the values of the pattern, in its order.
    ///
    /// # Panics
    /// If there is not a value for every weight.
    pub(super) fn set_values(&mut self, values: &[f32]) {
        check("values", values.len(), self.order.len());
        for (target, &at) in self.values.iter_mut().zip(&self.order) {
            *target = values[at as usize];
        }
    }

    /// All values, list by list.
    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    /// Places and values of a list.
    #[inline(always)]
    pub(super) fn list(&self, list: usize) -> (&[P], &[f32]) {
        let range = self.starts[list] as usize..self.starts[list + 1] as usize;
        (&self.places[range.clone()], &self.values[range])
    }
}
