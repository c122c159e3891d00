//! A walk over several strided arrays at once, for broadcasting, reductions and permuted axes.
//!
//! An operand repeats along an axis of stride 0. Axes that are contiguous in every operand are
//! merged, so that the innermost run is as long as it can be.

/// Elements from one index to the next, per axis of a row-major array.
pub(super) fn row_major_strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis] * dims[axis];
    }
    strides
}

/// The common index space of `K` strided operands.
pub(super) struct Walk<const K: usize> {
    starts: [usize; K],
    dims: Vec<usize>,
    strides: Vec<[usize; K]>,
    empty: bool,
}

/// A stretch of a walk: element `i` of operand `k` is at `offsets[k] + i * strides[k]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run<const K: usize> {
    pub(super) offsets: [usize; K],
    pub(super) strides: [usize; K],
    pub(super) len: usize,
}

impl<const K: usize> Run<K> {
    /// The places of the run's elements in every operand.
    pub(super) fn places(self) -> impl Iterator<Item = [usize; K]> {
        let mut place = self.offsets;
        (0..self.len).map(move |_| {
            let here = place;
            for (place, stride) in place.iter_mut().zip(self.strides) {
                *place += stride;
            }
            here
        })
    }
}

impl<const K: usize> Walk<K> {
    /// A walk over the indices of `dims`, with each operand's stride along each of these axes.
    pub(super) fn new(dims: &[usize], strides: [&[usize]; K]) -> Self {
        let mut walk = Self {
            starts: [0; K],
            dims: Vec::with_capacity(dims.len()),
            strides: Vec::with_capacity(dims.len()),
            empty: dims.contains(&0),
        };
        for (axis, &dim) in dims.iter().enumerate() {
            if dim == 1 {
                continue;
            }
            let inner = strides.map(|strides| strides[axis]);
            match (walk.dims.last_mut(), walk.strides.last_mut()) {
                (Some(outer_dim), Some(outer))
                    if (0..K).all(|operand| outer[operand] == inner[operand] * dim) =>
                {
                    *outer_dim *= dim;
                    *outer = inner;
                }
                _ => {
                    walk.dims.push(dim);
                    walk.strides.push(inner);
                }
            }
        }
        walk
    }

    /// The same walk with operands that begin elsewhere than at 0.
    pub(super) fn starting_at(mut self, starts: [usize; K]) -> Self {
        self.starts = starts;
        self
    }

    /// Calls `visit` for every innermost run, in row-major order of the index space.
    pub(super) fn for_each_run(&self, mut visit: impl FnMut(Run<K>)) {
        if self.empty {
            return;
        }
        let outer_axes = self.dims.len().saturating_sub(1);
        let mut run = Run {
            offsets: self.starts,
            strides: self.strides.last().copied().unwrap_or([0; K]),
            len: self.dims.last().copied().unwrap_or(1),
        };
        let mut index = vec![0; outer_axes];
        loop {
            visit(run);
            let mut axis = outer_axes;
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                index[axis] += 1;
                for operand in 0..K {
                    run.offsets[operand] += self.strides[axis][operand];
                }
                if index[axis] < self.dims[axis] {
                    break;
                }
                for operand in 0..K {
                    run.offsets[operand] -= self.strides[axis][operand] * self.dims[axis];
                }
                index[axis] = 0;
            }
        }
    }
}

/// Copies the walk's first operand to its second.
pub(super) fn copy(walk: &Walk<2>, source: &[f32], target: &mut [f32]) {
    walk.for_each_run(|run| {
        let [from, to] = run.offsets;
        if run.strides == [1, 1] {
            target[to..to + run.len].copy_from_slice(&source[from..from + run.len]);
        } else {
            for [from, to] in run.places() {
                target[to] = source[from];
            }
        }
    });
}

/// The sum of `values` in f64, in a fixed order.
pub(super) fn sum_f64(values: &[f32]) -> f64 {
    let mut partial = [0.0; 8];
    let chunks = values.chunks_exact(partial.len());
    let rest: f64 = chunks.remainder().iter().map(|&v| f64::from(v)).sum();
    for chunk in chunks {
        for (sum, &value) in partial.iter_mut().zip(chunk) {
            *sum += f64::from(value);
        }
    }
    partial.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs<const K: usize>(walk: &Walk<K>) -> Vec<Run<K>> {
        let mut runs = Vec::new();
        walk.for_each_run(|run| runs.push(run));
        runs
    }

    #[test]
    fn contiguous_axes_are_one_run() {
        let strides = row_major_strides(&[2, 3, 4]);
        assert_eq!(strides, [12, 4, 1]);
        let walk = Walk::new(&[2, 3, 4], [&strides, &strides]);
        assert_eq!(
            runs(&walk),
            [Run {
                offsets: [0, 0],
                strides: [1, 1],
                len: 24
            }]
        );
    }

    #[test]
    fn a_transposed_operand_is_walked_in_the_order_of_the_other() {
        let walk = Walk::new(&[3, 2], [&[1, 3], &[2, 1]]);
        let mut target = [0.0; 6];
        copy(&walk, &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &mut target);
        assert_eq!(target, [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    }

    #[test]
    fn scalars_are_visited_once_and_empty_spaces_never() {
        assert_eq!(runs(&Walk::new(&[], [&[]])).len(), 1);
        assert_eq!(runs(&Walk::new(&[1, 1], [&[1, 1]])).len(), 1);
        assert_eq!(runs(&Walk::new(&[3, 0, 2], [&[0, 2, 1]])).len(), 0);
    }

    #[test]
    fn starts_move_an_operand() {
        let walk = Walk::new(&[2, 2], [&[4, 1], &[2, 1]]).starting_at([5, 0]);
        let source: Vec<f32> = (0..12u8).map(f32::from).collect();
        let mut target = [0.0; 4];
        copy(&walk, &source, &mut target);
        assert_eq!(target, [5.0, 6.0, 9.0, 10.0]);
    }

    /// In f32 the sum of 2^24 and ones would stay at 2^24.
    #[test]
    fn sum_f64_keeps_small_addends() {
        let mut values = vec![1.0; 101];
        values[0] = 16_777_216.0;
        assert_eq!(sum_f64(&values), 16_777_316.0);
        assert_eq!(sum_f64(&[]), 0.0);
    }
}
