//! Memory that nobody uses now, kept for the next tensor.

use crate::tensor::{Tensor, TensorSpec};

/// A buffer that is more than this many times too large is left for a tensor that needs it.
const MOST_SLACK: usize = 4;

/// Floats of a cache line, the least that memory is taken for.
const LINE: usize = 16;

/// Tensors without a use, whose memory a [`Tape`](super::Tape) takes values and gradients from. Tapes whose
/// passes follow one another may [hand it on](super::Tape::give_pool).
#[derive(Default)]
pub struct Pool(Vec<Tensor>);

impl Pool {
    /// Takes the memory of a tensor that nobody reads any more.
    pub(super) fn give(&mut self, tensor: Tensor) {
        if tensor.capacity() > 0 {
            self.0.push(tensor);
        }
    }

    /// Floats of all memory in it.
    pub fn capacity(&self) -> usize {
        self.0.iter().map(Tensor::capacity).sum()
    }

    /// Takes over all that another has.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.0.append(&mut other.0);
    }

    /// A tensor whose contents are unspecified, in memory for `largest` floats, the most that its kind
    /// was seen to need: so a short batch takes the same memory as a full one. It is the smallest that
    /// suffices, of equals the one given last, which the caches and the system know; else new memory.
    /// That takes the place of the largest that nearly sufficed, so that values which live at
    /// different times end up in as much memory as the largest of them.
    pub(super) fn take(&mut self, spec: &TensorSpec, largest: usize) -> Tensor {
        let needed = spec.storage_len().max(largest);
        let most = needed.next_multiple_of(LINE) * MOST_SLACK;
        let capacity = |at: usize, free: &[Tensor]| free[at].capacity();
        let found = (0..self.0.len())
            .rev()
            .filter(|&at| (needed..=most).contains(&capacity(at, &self.0)))
            .min_by_key(|&at| capacity(at, &self.0));
        if let Some(at) = found {
            let mut tensor = self.0.remove(at);
            tensor.respec(spec);
            return tensor;
        }
        let nearly = (0..self.0.len())
            .filter(|&at| (needed / MOST_SLACK..needed).contains(&capacity(at, &self.0)))
            .max_by_key(|&at| capacity(at, &self.0));
        if let Some(at) = nearly {
            self.0.remove(at);
        }
        Tensor::with_capacity(spec.clone(), needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_memory_that_suffices_is_taken() {
        let mut pool = Pool::default();
        let spec = |len: usize| TensorSpec::row_major([len]);
        for len in [160, 80, 1_600] {
            pool.give(Tensor::zeros(spec(len)));
        }
        assert_eq!(pool.take(&spec(70), 0).capacity(), 80);
        assert_eq!(pool.take(&spec(70), 0).capacity(), 160);
        assert_eq!(
            pool.take(&spec(70), 0).capacity(),
            80,
            "1,600 would be a waste"
        );
        assert_eq!(pool.take(&spec(1_600), 0).capacity(), 1_600);
    }

    #[test]
    fn of_equals_the_one_given_last() {
        let mut pool = Pool::default();
        let spec = TensorSpec::row_major([16]);
        let (first, last) = (Tensor::zeros(spec.clone()), Tensor::zeros(spec.clone()));
        let place = last.data().as_ptr();
        pool.give(first);
        pool.give(last);
        assert_eq!(pool.take(&spec, 0).data().as_ptr(), place);
    }

    #[test]
    fn a_short_batch_takes_the_memory_of_a_full_one() {
        let mut pool = Pool::default();
        let spec = |len: usize| TensorSpec::row_major([len]);
        assert_eq!(pool.take(&spec(10), 1_600).capacity(), 1_600);
        pool.give(Tensor::zeros(spec(16)));
        pool.give(Tensor::zeros(spec(1_600)));
        let short = pool.take(&spec(10), 1_600);
        assert_eq!((short.data().len(), short.capacity()), (10, 1_600));
        assert_eq!(pool.take(&spec(1), 0).capacity(), 16, "a line is no waste");
    }

    #[test]
    fn new_memory_takes_the_place_of_what_nearly_sufficed() {
        let mut pool = Pool::default();
        let spec = |len: usize| TensorSpec::row_major([len]);
        for len in [160, 1_440, 1_440] {
            pool.give(Tensor::zeros(spec(len)));
        }
        assert_eq!(pool.take(&spec(1_600), 0).capacity(), 1_600);
        let left: Vec<usize> = pool.0.iter().map(Tensor::capacity).collect();
        assert_eq!(left, [160, 1_440]);
    }
}
