//! Splits work over slices into chunks whose edges do not depend on the number of threads.

use crate::lanes::LANES;

/// Floats of one slice that a task takes at a time: 64 KB, so that the few slices of an optimiser
/// step fit a core's L2 together, and some 5 µs of memory traffic, well above the cost of a task.
pub(crate) const CHUNK: usize = 16 << 10;

/// Slices that are worked through together and can be cut at the same place.
pub(crate) trait Split: Sized + Send {
    /// The length of all the slices, in whatever unit they are cut.
    fn len(&self) -> usize;

    /// Cuts all of them after `mid` units.
    fn split_at(self, mid: usize) -> (Self, Self);
}

impl Split for &mut [f32] {
    fn len(&self) -> usize {
        <[f32]>::len(self)
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        self.split_at_mut(mid)
    }
}

impl<T: Sync> Split for (&mut [f32], &[T]) {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn split_at(self, mid: usize) -> (Self, Self) {
        let (to_left, to_right) = self.0.split_at_mut(mid);
        let (from_left, from_right) = self.1.split_at(mid);
        ((to_left, from_left), (to_right, from_right))
    }
}

/// Runs `task` over `parts` in pieces of at most `chunk` units, on the current rayon pool. Every
/// piece but the last has exactly `chunk` units and starts at a multiple of it.
pub(crate) fn for_each_chunk<P: Split>(parts: P, chunk: usize, task: &(impl Fn(P) + Sync)) {
    let chunks = parts.len().div_ceil(chunk);
    if chunks <= 1 {
        if chunks == 1 {
            task(parts);
        }
        return;
    }
    let (left, right) = parts.split_at(chunks / 2 * chunk);
    rayon::join(
        || for_each_chunk(left, chunk, task),
        || for_each_chunk(right, chunk, task),
    );
}

/// The rest of a slice after its last whole vector, padded with zeros to a vector.
#[inline(always)]
pub(crate) fn padded<T: Copy + Default>(rest: &[T]) -> [T; LANES] {
    let mut vector = [T::default(); LANES];
    vector[..rest.len()].copy_from_slice(rest);
    vector
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn every_unit_once_and_every_chunk_whole() {
        for len in [0, 1, 9, 10, 11, 50, 95] {
            let from: Vec<f32> = (0..len).map(|index| index as f32).collect();
            let mut to = vec![-1.0; len];
            let sizes = Mutex::new(Vec::new());
            for_each_chunk((to.as_mut_slice(), from.as_slice()), 10, &|(to, from)| {
                assert_eq!(from[0] as usize % 10, 0);
                to.copy_from_slice(from);
                sizes.lock().unwrap().push(to.len());
            });
            assert_eq!(to, from);
            let mut sizes = sizes.into_inner().unwrap();
            sizes.sort_unstable_by(|a, b| b.cmp(a));
            let mut expected = vec![10; len / 10];
            expected.extend(Some(len % 10).filter(|&rest| rest > 0));
            assert_eq!(sizes, expected);
        }
    }
}
