//! The turns of the tasks within a step: one after the other, or side by side.

use rayon::prelude::*;
use smallvec::SmallVec;

use super::{Model, TaskNet};
use crate::autograd::Pool;
use crate::optim::{Optimizer, OptimizerPart};

/// Floats that the values of tasks side by side have at most: 256 MB. Larger ones keep every thread busy in
/// each of their operations, and take turns with one task's memory.
const MOST_FLOATS: usize = 64 << 20;

/// How many tasks, of which none has values of more floats than these, have their turns at the same time.
/// Threads that work on tasks of their own need not wait for each other after every operation.
pub fn tasks_at_once(floats: usize) -> usize {
    let most = rayon::current_num_threads().min(MOST_FLOATS / floats.max(1));
    most.max(1)
}

/// The turn of one task.
pub(in crate::train) struct Turn<'a, R> {
    pub(in crate::train) task: usize,
    pub(in crate::train) net: &'a mut TaskNet,
    /// What an optimiser keeps for the task, if there is one.
    pub(in crate::train) optimizer: Option<OptimizerPart<'a>>,
    result: Option<R>,
}

impl Model {
    /// How many of these tasks have their turns [at the same time](tasks_at_once).
    pub(in crate::train) fn at_once(&self, tasks: &[usize]) -> usize {
        let lens = tasks
            .iter()
            .map(|&task| self.tasks[task].tape.computed_len());
        tasks_at_once(lens.max().unwrap_or(0))
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
        if optimizer.is_some() {
            self.weights_version += 1;
        }
        let slots = 0..self.first_slot(self.tasks.len());
        let mut rest = optimizer.map(|optimizer| optimizer.part(slots));
        let mut turns: SmallVec<[Turn<'_, R>; 4]> = SmallVec::new();
        for (task, net) in self.tasks.iter_mut().enumerate() {
            let count = net.network.parameters.len();
            let optimizer = rest.as_mut().map(|rest| rest.split_off(count));
            if tasks.contains(&task) {
                turns.push(Turn {
                    task,
                    net,
                    optimizer,
                    result: None,
                });
            }
        }
        // The tasks of the next call take over the memory of these.
        let places = self.pools.len().max(turns.len());
        self.pools.resize_with(places, Pool::default);
        for (turn, pool) in turns.iter_mut().zip(&mut self.pools) {
            turn.net.tape.take_pool(pool);
        }
        match &mut turns[..] {
            [alone] => alone.result = Some(work(alone)),
            several => several
                .par_iter_mut()
                .with_max_len(1)
                .for_each(|turn| turn.result = Some(work(turn))),
        }
        for (turn, pool) in turns.iter_mut().zip(&mut self.pools) {
            turn.net.tape.give_pool(pool);
        }
        let results: SmallVec<[Option<R>; 4]> = turns.into_iter().map(|turn| turn.result).collect();
        results.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::NetSpec;
    use crate::ops::Precision;
    use crate::train::{Workload, WorkloadSettings};

    #[test]
    fn three_tasks_on_two_threads_have_the_memory_of_two() {
        let threads = rayon::ThreadPoolBuilder::new().num_threads(2).build();
        threads.unwrap().install(|| {
            let mut workload = Workload::new(&WorkloadSettings {
                net: NetSpec::mlp(30, &[40, 40], 10),
                precision: Precision::F32,
                batch: 17,
                tasks: 3,
                percentile: None,
            })
            .unwrap();
            let model = workload.model();
            assert_eq!(model.at_once(&[0, 1, 2]), 2);
            let largest = model.tasks[0].tape.computed_len();
            for _ in 0..20 {
                workload.step().unwrap();
                let model = workload.model();
                let kept: Vec<usize> = model.pools.iter().map(Pool::capacity).collect();
                assert_eq!(kept.len(), 2);
                assert!(
                    kept.iter().all(|kept| (1..=2 * largest).contains(kept)),
                    "{kept:?}"
                );
            }
        });
    }
}
