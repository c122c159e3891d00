//! The turns of the tasks within a step: one after the other, or side by side.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::{Model, TaskNet};
use crate::optim::{Optimizer, OptimizerPart};

/// Floats that the values of tasks side by side have at most: 1 GB. Larger ones keep every thread busy in
/// each of their operations, and take turns with one task's memory.
const MOST_FLOATS: usize = 256 << 20;

/// The turn of one task.
pub(in crate::train) struct Turn<'a, R> {
    pub(in crate::train) task: usize,
    pub(in crate::train) net: &'a mut TaskNet,
    /// What an optimiser keeps for the task, if there is one.
    pub(in crate::train) optimizer: Option<OptimizerPart<'a>>,
    result: Option<R>,
}

impl Model {
    /// How many of these tasks have their turns at the same time. Threads that work on tasks of their own
    /// need not wait for each other after every operation.
    pub(in crate::train) fn at_once(&self, tasks: &[usize]) -> usize {
        let lens = tasks
            .iter()
            .map(|&task| self.tasks[task].tape.computed_len());
        let largest = lens.max().unwrap_or(0).max(1);
        let most = rayon::current_num_threads().min(MOST_FLOATS / largest);
        most.max(1)
    }

    /// Has each of these tasks, in ascending order, take its turn, all at the same time, and gives their
    /// results in that order.
    pub(in crate::train) fn take_turns<R: Send>(
        &mut self,
        tasks: &[usize],
        optimizer: Option<&mut Optimizer>,
        work: impl Fn(&mut Turn<'_, R>) -> R + Sync,
    ) -> impl Iterator<Item = R> {
        debug_assert!(tasks.is_sorted());
        let counts: SmallVec<[usize; 8]> = self
            .tasks
            .iter()
            .map(|net| net.network.parameters.len())
            .collect();
        if optimizer.is_some() {
            self.weights_version += 1;
        }
        let mut parts = optimizer.map(|optimizer| optimizer.parts(counts.into_iter()));
        let mut turns: SmallVec<[Turn<'_, R>; 4]> = SmallVec::new();
        for (task, net) in self.tasks.iter_mut().enumerate() {
            let optimizer = parts.as_mut().and_then(Iterator::next);
            if tasks.contains(&task) {
                turns.push(Turn {
                    task,
                    net,
                    optimizer,
                    result: None,
                });
            }
        }
        if let Some(first) = turns.first_mut() {
            first.net.tape.give_pool(std::mem::take(&mut self.pool));
        }
        match &mut turns[..] {
            [alone] => {
                alone.result = Some(work(alone));
                self.pool = alone.net.tape.take_pool();
            }
            several => several
                .par_iter_mut()
                .with_max_len(1)
                .for_each(|turn| turn.result = Some(work(turn))),
        }
        let results: SmallVec<[Option<R>; 4]> = turns.into_iter().map(|turn| turn.result).collect();
        results.into_iter().flatten()
    }
}
