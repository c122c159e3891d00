//! Weaving: the weights of several tasks in one tensor, with the owner of every position.
//!
//! The owned values stand one after the other, lowest position first, whoever owns them. Beside them
//! stand the owners of all positions, each as a number of as few bits as tell the tasks and nobody
//! apart: 0 for nobody, 1 for the first task. Numbers fill bytes from the lowest bit up. Two tasks that
//! own a tenth each so take 0.2 · 32 + 2 bits per position, where a dense net takes 32.

use thiserror::Error;

use super::Owned;

/// One task's part of a tensor: which positions it owns, and the values of all.
pub type Part<'a> = (&'a [u8], &'a [f32]);

/// The tensors of several tasks in one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Woven {
    /// The values of all positions that have an owner, by position.
    pub values: Vec<f32>,
    /// The owner of every position, packed.
    pub owners: Vec<u8>,
}

/// Why tensors cannot be woven, or a woven one not be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WeaveError {
    /// Two tasks own the same position.
    #[error("position {position} is owned by both task {first} and task {second}")]
    TwoOwners {
        /// Which position of the tensor.
        position: usize,
        /// The earlier task, in order from 0.
        first: usize,
        /// The later one.
        second: usize,
    },
    /// The parts are not of one length.
    #[error("the part of task {task} has {found} positions, and the first has {expected}")]
    Length {
        /// Which task, in order from 0.
        task: usize,
        /// Positions of the first part.
        expected: usize,
        /// Positions of this one.
        found: usize,
    },
    /// The owners take another number of bytes.
    #[error(
        "the owners of {positions} positions among {tasks} tasks take {expected} bytes, but there are {found}"
    )]
    OwnerBytes {
        /// Positions of the tensor.
        positions: usize,
        /// Number of tasks.
        tasks: usize,
        /// Bytes that they take.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// An owner that is no task.
    #[error("the owner of position {position} is number {owner}, and there are {tasks} tasks")]
    NoTask {
        /// Which position of the tensor.
        position: usize,
        /// Its owner's number, from 1.
        owner: u32,
        /// Number of tasks.
        tasks: usize,
    },
    /// Not one value for every position that has an owner.
    #[error("{owned} positions have owners, but there are {found} values")]
    Values {
        /// Positions with an owner.
        owned: usize,
        /// Values that are there.
        found: usize,
    },
}

/// Bits of one owner's number among so many tasks: ⌈log₂(tasks + 1)⌉.
pub fn owner_bits(tasks: usize) -> usize {
    (usize::BITS - tasks.leading_zeros()) as usize
}

/// Bytes that the owners of a tensor take.
pub fn owner_bytes(positions: usize, tasks: usize) -> usize {
    (positions * owner_bits(tasks)).div_ceil(8)
}

/// Puts the parts of several tasks into one tensor.
///
/// # Errors
/// When two tasks own one position, or the parts differ in length.
///
/// ```
/// use taskweave::multitask::{unweave, weave};
/// let (digit, fashion) = ([0, 1, 0, 0], [1, 0, 0, 1]);
/// let woven = weave(&[(&digit, &[0.0, 2.5, 0.0, 0.0]), (&fashion, &[-1.0, 0.0, 0.0, 4.0])])?;
/// assert_eq!(woven.values, [-1.0, 2.5, 4.0]);
/// // Two bits each: 2, 1, 0, 2.
/// assert_eq!(woven.owners, [0b10_00_01_10]);
/// let parts = unweave(&woven.values, &woven.owners, 4, 2)?;
/// assert_eq!(parts[1], (vec![1, 0, 0, 1], vec![-1.0, 0.0, 0.0, 4.0]));
/// # Ok::<(), taskweave::multitask::WeaveError>(())
/// ```
pub fn weave(parts: &[Part<'_>]) -> Result<Woven, WeaveError> {
    let positions = parts.first().map_or(0, |(owned, _)| owned.len());
    for (task, (owned, values)) in parts.iter().enumerate() {
        for found in [owned.len(), values.len()] {
            if found != positions {
                return Err(WeaveError::Length {
                    task,
                    expected: positions,
                    found,
                });
            }
        }
    }
    let bits = owner_bits(parts.len());
    let mut woven = Woven {
        values: Vec::new(),
        owners: vec![0; owner_bytes(positions, parts.len())],
    };
    for position in 0..positions {
        let mut owners = (0..parts.len()).filter(|&task| parts[task].0[position] != 0);
        let Some(first) = owners.next() else { continue };
        if let Some(second) = owners.next() {
            return Err(WeaveError::TwoOwners {
                position,
                first,
                second,
            });
        }
        woven.values.push(parts[first].1[position]);
        for bit in (0..bits).filter(|&bit| (first + 1) >> bit & 1 == 1) {
            let at = position * bits + bit;
            woven.owners[at / 8] |= 1 << (at % 8);
        }
    }
    Ok(woven)
}

/// Every task's part of a woven tensor: the positions it owns, and all values, zero where it owns
/// nothing.
///
/// # Errors
/// When owners and values do not go together, or are not those of so many tasks and positions.
pub fn unweave(
    values: &[f32],
    owners: &[u8],
    positions: usize,
    tasks: usize,
) -> Result<Vec<(Owned, Vec<f32>)>, WeaveError> {
    let numbers = owner_numbers(owners, positions, tasks)?;
    let owned = numbers.iter().filter(|&&owner| owner != 0).count();
    if owned != values.len() {
        return Err(WeaveError::Values {
            owned,
            found: values.len(),
        });
    }
    let mut parts = vec![(vec![0; positions], vec![0.0; positions]); tasks];
    let mut values = values.iter();
    for (position, &owner) in numbers.iter().enumerate().filter(|(_, owner)| **owner != 0) {
        let (owned, whole) = &mut parts[owner as usize - 1];
        owned[position] = 1;
        whole[position] = values.next().copied().unwrap_or_default();
    }
    Ok(parts)
}

/// How many positions of a woven tensor each task owns.
///
/// # Errors
/// When the owners are not those of so many tasks and positions.
pub fn count_owned(
    owners: &[u8],
    positions: usize,
    tasks: usize,
) -> Result<Vec<usize>, WeaveError> {
    let mut counts = vec![0; tasks];
    for owner in owner_numbers(owners, positions, tasks)? {
        if owner != 0 {
            counts[owner as usize - 1] += 1;
        }
    }
    Ok(counts)
}

/// The owner of every position: 0 for nobody, else the task's place from 1.
fn owner_numbers(owners: &[u8], positions: usize, tasks: usize) -> Result<Vec<u32>, WeaveError> {
    let expected = owner_bytes(positions, tasks);
    if owners.len() != expected {
        return Err(WeaveError::OwnerBytes {
            positions,
            tasks,
            expected,
            found: owners.len(),
        });
    }
    let bits = owner_bits(tasks);
    let number = |position: usize| {
        let owner = (0..bits).fold(0, |number, bit| {
            let at = position * bits + bit;
            number | u32::from(owners[at / 8] >> (at % 8) & 1) << bit
        });
        if owner as usize > tasks {
            return Err(WeaveError::NoTask {
                position,
                owner,
                tasks,
            });
        }
        Ok(owner)
    };
    (0..positions).map(number).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn owners_take_as_few_bits_as_tell_them_apart() {
        assert_eq!([1, 2, 3, 4, 7, 8].map(owner_bits), [1, 2, 2, 3, 3, 4]);
        assert_eq!(owner_bytes(5, 2), 2);
        assert_eq!(owner_bytes(0, 2), 0);
    }

    #[test]
    fn two_tasks_at_a_tenth_take_little_more_than_a_quarter() {
        let len = 10_000;
        let owned =
            |first: usize| -> Owned { (0..len).map(|at| u8::from(at % 10 == first)).collect() };
        let (a, b, values) = (owned(0), owned(1), vec![1.0; len]);
        let woven = weave(&[(&a, &values), (&b, &values)]).unwrap();
        let bytes = 4 * woven.values.len() + woven.owners.len();
        assert_eq!(bytes, len * 4 / 5 + len / 4);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let two = weave(&[(&[1, 1], &[1.0, 2.0]), (&[0, 1], &[0.0, 3.0])]);
        assert_eq!(
            two.unwrap_err().to_string(),
            "position 1 is owned by both task 0 and task 1"
        );
        let short = weave(&[(&[1, 1], &[1.0, 2.0]), (&[0], &[0.0])]).unwrap_err();
        assert!(matches!(short, WeaveError::Length { task: 1, .. }));
        let bytes = unweave(&[], &[0, 0], 4, 2).unwrap_err();
        assert!(matches!(bytes, WeaveError::OwnerBytes { expected: 1, .. }));
        let owner = unweave(&[1.0], &[0b11], 1, 2).unwrap_err();
        assert!(matches!(owner, WeaveError::NoTask { owner: 3, .. }));
        let values = unweave(&[1.0], &[0b01_01], 2, 2).unwrap_err();
        assert_eq!(
            values.to_string(),
            "2 positions have owners, but there are 1 values"
        );
    }

    proptest! {
        #[test]
        fn every_part_comes_back_bit_for_bit(
            (tasks, owners) in (1_usize..9).prop_flat_map(|tasks| {
                (Just(tasks), prop::collection::vec(0..=tasks, 0..100))
            }),
            bits in prop::collection::vec(any::<u32>(), 100),
        ) {
            let parts: Vec<(Owned, Vec<u32>)> = (1..=tasks)
                .map(|task| {
                    let owned: Owned = owners.iter().map(|&o| u8::from(o == task)).collect();
                    let values = owned.iter().zip(&bits).map(|(&o, &b)| b * u32::from(o));
                    let values = values.collect();
                    (owned, values)
                })
                .collect();
            let floats: Vec<Vec<f32>> = parts
                .iter()
                .map(|(_, values)| values.iter().map(|&b| f32::from_bits(b)).collect())
                .collect();
            let given: Vec<Part<'_>> = parts
                .iter()
                .zip(&floats)
                .map(|((owned, _), values)| (&owned[..], &values[..]))
                .collect();
            let woven = weave(&given).unwrap();
            let counts = count_owned(&woven.owners, owners.len(), tasks).unwrap();
            let back = unweave(&woven.values, &woven.owners, owners.len(), tasks).unwrap();
            for (task, ((owned, values), (found, whole))) in parts.iter().zip(&back).enumerate() {
                prop_assert_eq!(owned, found);
                let whole: Vec<u32> = whole.iter().map(|value| value.to_bits()).collect();
                prop_assert_eq!(values, &whole);
                prop_assert_eq!(counts[task], owned.iter().filter(|&&o| o == 1).count());
            }
        }
    }
}
