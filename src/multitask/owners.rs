//! Choosing, position by position, which task owns a weight.
//!
//! Each task has a [share](super::shares()) of a tensor's positions. For n positions and a percentile p it
//! is n - ⌈(n-1)·p/100⌉: as many as lie at or above NumPy's linearly interpolated p-th percentile when no
//! two values tie. Task by task in order, the candidates are the positions that nobody owns yet, by
//! importance descending, ties in a seeded random order; the task takes the first *share* of them, or
//! all if fewer are left. Ownership therefore never overlaps, whatever ties.

use thiserror::Error;

use crate::random::Stream;

/// Which positions of a tensor a task owns: 1 where it does, 0 elsewhere.
pub type Owned = Vec<u8>;

/// Importances or settings that no owners can be chosen by.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum OwnerError {
    /// The percentile lies outside its range.
    #[error("a percentile lies between 0 and 100, but {percentile} was given")]
    Percentile {
        /// The percentile given.
        percentile: f64,
    },
    /// An importance is infinite or not a number.
    #[error(
        "the importance of position {position} for task {task} is {value}, not a finite number"
    )]
    NotFinite {
        /// Which task, in order from 0.
        task: usize,
        /// Which position of the tensor.
        position: usize,
        /// The importance found.
        value: f32,
    },
    /// A task does not have one importance per position.
    #[error("task {task} has {found} importances for a tensor of {expected} positions")]
    Length {
        /// Which task, in order from 0.
        task: usize,
        /// The positions of the tensor.
        expected: usize,
        /// The importances given.
        found: usize,
    },
}

/// Chooses the owners of one tensor's positions among those that are not `taken`.
///
/// Task by task, `shares[task]` positions, or as many as are left. `importance[task]` holds a value for
/// each position (a gradient or a weight; its magnitude counts), and `ties(task)` is the stream that
/// orders equal values. Returns each task's positions.
///
/// # Errors
/// When a task does not have an importance for every position, or one of them is not finite.
///
/// ```
/// use taskweave::multitask::{choose_owners, share};
/// use taskweave::random::{Purpose, Stream};
/// let ties = |task| Stream::new(0, Purpose::OwnerTies, 0, task as u64);
/// let shares = [share(4, 50.0); 2];
/// let importance = [&[0.1, -0.9, 0.5, 0.0][..], &[0.2, 0.9, 0.8, -0.1]];
/// let owners = choose_owners(&shares, vec![false; 4], &importance, ties)?;
/// assert_eq!(owners[0], [0, 1, 1, 0]);
/// assert_eq!(owners[1], [1, 0, 0, 1]);
/// # Ok::<(), taskweave::multitask::OwnerError>(())
/// ```
pub fn choose_owners(
    shares: &[usize],
    mut taken: Vec<bool>,
    importance: &[&[f32]],
    mut ties: impl FnMut(usize) -> Stream,
) -> Result<Vec<Owned>, OwnerError> {
    let len = taken.len();
    check_importance(len, importance)?;
    let mut owners = Vec::with_capacity(importance.len());
    for (task, (importance, &share)) in importance.iter().zip(shares).enumerate() {
        let mut order: Vec<u32> = (0..len as u32).collect();
        ties(task).shuffle(&mut order);
        let mut candidates: Vec<usize> = (0..len).filter(|&position| !taken[position]).collect();
        let share = share.min(candidates.len());
        if share < candidates.len() {
            candidates.select_nth_unstable_by(share, |&a, &b| {
                let by_importance = importance[b].abs().total_cmp(&importance[a].abs());
                by_importance.then(order[a].cmp(&order[b]))
            });
        }
        let mut owned = vec![0; len];
        for &position in &candidates[..share] {
            owned[position] = 1;
            taken[position] = true;
        }
        owners.push(owned);
    }
    Ok(owners)
}

fn check_importance(len: usize, importance: &[&[f32]]) -> Result<(), OwnerError> {
    for (task, values) in importance.iter().enumerate() {
        if values.len() != len {
            return Err(OwnerError::Length {
                task,
                expected: len,
                found: values.len(),
            });
        }
        if let Some(position) = values.iter().position(|value| !value.is_finite()) {
            return Err(OwnerError::NotFinite {
                task,
                position,
                value: values[position],
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multitask::share;
    use crate::random::Purpose;
    use proptest::prelude::*;

    fn ties(task: usize) -> Stream {
        Stream::new(0, Purpose::OwnerTies, 0, task as u64)
    }

    /// Owners by a percentile, nothing taken before.
    fn choose(
        percentile: f64,
        len: usize,
        importance: &[&[f32]],
        ties: impl FnMut(usize) -> Stream,
    ) -> Result<Vec<Owned>, OwnerError> {
        let shares = vec![share(len, percentile); importance.len()];
        choose_owners(&shares, vec![false; len], importance, ties)
    }

    fn count(owned: &Owned) -> usize {
        owned.iter().filter(|&&owned| owned == 1).count()
    }

    #[test]
    fn all_gradients_zero_still_give_every_task_its_own_share() {
        let zeros = vec![0.0; 1_000];
        let owners = choose(90.0, 1_000, &[&zeros, &zeros], ties).unwrap();
        assert_eq!(owners.iter().map(count).collect::<Vec<_>>(), [100, 100]);
        assert!(owners[0].iter().zip(&owners[1]).all(|(a, b)| a + b <= 1));
        let again = choose(90.0, 1_000, &[&zeros, &zeros], ties).unwrap();
        assert_eq!(owners, again);
        let other_seed = |task| Stream::new(1, Purpose::OwnerTies, 0, task as u64);
        let other = choose(90.0, 1_000, &[&zeros, &zeros], other_seed).unwrap();
        assert_ne!(owners, other);
    }

    #[test]
    fn three_tasks_take_turns_in_order() {
        let same = [0.5, 0.9, 0.1, 0.7, 0.3];
        let owners = choose(75.0, 5, &[&same, &same, &same], ties).unwrap();
        assert_eq!(owners[0], [0, 1, 0, 1, 0]);
        assert_eq!(owners[1], [1, 0, 0, 0, 1]);
        assert_eq!(owners[2], [0, 0, 1, 0, 0], "only one position was left");
    }

    #[test]
    fn a_task_may_find_nothing_free() {
        let owners = choose(0.0, 3, &[&[1.0; 3], &[1.0; 3]], ties).unwrap();
        assert_eq!(owners, [vec![1, 1, 1], vec![0, 0, 0]]);
    }

    #[test]
    fn what_is_taken_stays_with_whom_has_it() {
        let taken = vec![true, false, false, true, false];
        let owners = choose_owners(&[2], taken, &[&[0.9, 0.1, 0.2, 0.8, 0.3]], ties).unwrap();
        assert_eq!(owners[0], [0, 0, 1, 0, 1]);
    }

    #[test]
    fn what_cannot_be_ranked_is_refused() {
        let error = choose(90.0, 2, &[&[0.0, f32::NAN]], ties).unwrap_err();
        assert!(matches!(error, OwnerError::NotFinite { position: 1, .. }));
        let error = choose(90.0, 2, &[&[0.0]], ties).unwrap_err();
        assert!(matches!(error, OwnerError::Length { found: 1, .. }));
    }

    /// The rule of the reference for a first task: at or above NumPy's percentile.
    fn at_or_above_percentile(values: &[f32], percentile: f64) -> Owned {
        let mut sorted: Vec<f64> = values.iter().map(|v| f64::from(v.abs())).collect();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() - 1) as f64 * percentile / 100.0;
        let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
        let threshold = low + (high - low) * at.fract();
        values
            .iter()
            .map(|value| u8::from(f64::from(value.abs()) >= threshold))
            .collect()
    }

    proptest! {
        #[test]
        fn without_ties_the_share_rule_is_the_percentile_rule(
            values in prop::collection::hash_set(1_u32..1_000_000, 1..200),
            percentile in 0.0..=100.0_f64,
        ) {
            let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
            let owners = choose(percentile, values.len(), &[&values], ties).unwrap();
            prop_assert_eq!(&owners[0], &at_or_above_percentile(&values, percentile));
        }

        #[test]
        fn no_position_has_two_owners(
            values in prop::collection::vec(-3_i8..=3, 3 * 24),
            percentile in 0.0..=100.0_f64,
        ) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let tasks: Vec<&[f32]> = values.chunks_exact(24).collect();
            let owners = choose(percentile, 24, &tasks, ties).unwrap();
            for position in 0..24 {
                prop_assert!(owners.iter().map(|owned| owned[position]).sum::<u8>() <= 1);
            }
        }
    }
}
