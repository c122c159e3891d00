//! Memory that nobody uses now, kept for the next tensor.

use crate::tensor::{Tensor, TensorSpec};

/// A buffer that is more than this many times too large is left for a tensor that needs it.
const MOST_SLACK: usize = 4;

/// Tensors without a use.
#[derive(Default)]
pub(super) struct Pool(Vec<Tensor>);

impl Pool {
    /// Takes the memory of a tensor that nobody reads any more.
    pub(super) fn give(&mut self, tensor: Tensor) {
        if tensor.capacity() > 0 {
            self.0.push(tensor);
        }
    }

    /// A tensor whose contents are unspecified: in the smallest memory that suffices, of equals the
    /// one given last, which the caches and the system know; else in new memory. That takes the place
    /// of the largest that nearly sufficed, so that values which live at different times end up in as
    /// much memory as the largest of them.
    pub(super) fn take(&mut self, spec: &TensorSpec) -> Tensor {
        let needed = spec.storage_len();
        let suits = |tensor: &Tensor| (needed..=needed * MOST_SLACK).contains(&tensor.capacity());
        let found = (0..self.0.len())
            .rev()
            .filter(|&at| suits(&self.0[at]))
            .min_by_key(|&at| self.0[at].capacity());
        match found {
            Some(at) => {
                let mut tensor = self.0.remove(at);
                tensor.respec(spec);
                tensor
            }
            None => {
                let nearly = (0..self.0.len())
                    .filter(|&at| (needed / MOST_SLACK..needed).contains(&self.0[at].capacity()))
                    .max_by_key(|&at| self.0[at].capacity());
                if let Some(at) = nearly {
                    self.0.swap_remove(at);
                }
                Tensor::zeros(spec.clone())
            }
        }
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
        assert_eq!(pool.take(&spec(70)).capacity(), 80);
        assert_eq!(pool.take(&spec(70)).capacity(), 160);
        assert_eq!(
            pool.take(&spec(70)).capacity(),
            80,
            "1,600 would be a waste"
        );
        assert_eq!(pool.take(&spec(1_600)).capacity(), 1_600);
    }

    #[test]
    fn of_equals_the_one_given_last() {
        let mut pool = Pool::default();
        let spec = TensorSpec::row_major([16]);
        let (first, last) = (Tensor::zeros(spec.clone()), Tensor::zeros(spec.clone()));
        let place = last.data().as_ptr();
        pool.give(first);
        pool.give(last);
        assert_eq!(pool.take(&spec).data().as_ptr(), place);
    }
}
