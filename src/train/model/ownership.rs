//! What tasks own of their parameters, and how the tape holds it.

use taskweave_kernels::dispatch;
use taskweave_kernels::update;

use super::{Model, TaskNet, compact};
use crate::multitask::Owned;
use crate::optim::Optimizer;

impl Model {
    /// Gives a task the positions it owns, one 0/1 mask per parameter, and sets what it does not own
    /// to zero. Where they are few, sparse operations take the place of the dense ones from here on, and
    /// optimisers have no state for the rest.
    ///
    /// # Panics
    /// If there is not one mask of the right length for every parameter.
    pub fn set_owned(&mut self, task: usize, owned: Vec<Owned>) {
        self.weights_version += 1;
        let net = &mut self.tasks[task];
        compact::restore_dense(&mut net.tape, &net.network, &net.compact);
        assert_eq!(net.network.parameters.len(), owned.len());
        for (&var, owned) in net.network.parameters.iter().zip(&owned) {
            let values = net.tape.value_mut(var).data_mut();
            update::mask(dispatch::active(), values, owned);
        }
        net.compact = compact::replace_dense(&mut net.tape, &net.network, &owned);
        net.owned = Some(owned);
    }

    /// [`set_owned`](Self::set_owned) to fewer positions while training: what the optimiser keeps for
    /// them stays, the rest of it is gone.
    ///
    /// # Panics
    /// As there.
    pub fn narrow_owned(&mut self, task: usize, owned: Vec<Owned>, optimizer: &mut Optimizer) {
        let first = self.first_slot(task);
        let net = &self.tasks[task];
        let whole: Vec<[Vec<f32>; 2]> = (0..owned.len())
            .map(|parameter| {
                optimizer.state(first + parameter).map(|kept| {
                    let mut kept = match kept {
                        [] => Vec::new(),
                        kept => net.expand(parameter, kept).into_owned(),
                    };
                    for (value, &owned) in kept.iter_mut().zip(&owned[parameter]) {
                        *value = if owned == 0 { 0.0 } else { *value };
                    }
                    kept
                })
            })
            .collect();
        self.set_owned(task, owned);
        for (parameter, whole) in whole.into_iter().enumerate() {
            let state = whole.map(|values| match values.is_empty() {
                true => Some(values),
                false => self.to_stored(task, parameter, values),
            });
            let [first_state, second] =
                state.map(|values| values.expect("as long as the parameter"));
            optimizer.set_state(first + parameter, [&first_state, &second]);
        }
    }

    /// A task's parameter values as the tape holds them, in the order of
    /// [`NetSpec::parameters`](crate::nn::NetSpec::parameters): of a kernel that
    /// [sparse operations](crate::ops::SparseDense) take, only the owned ones, by position.
    pub fn stored(&self, task: usize) -> impl Iterator<Item = &[f32]> {
        let TaskNet { network, tape, .. } = &self.tasks[task];
        let parameters = network.parameters.iter();
        parameters.map(|&var| tape.value(var).data())
    }

    /// Values of one parameter, all or those by position that the task owns, as [`stored`](Self::stored)
    /// has them; `None` if they are neither.
    pub fn to_stored(&self, task: usize, parameter: usize, values: Vec<f32>) -> Option<Vec<f32>> {
        let net = &self.tasks[task];
        let stored = self.stored(task).nth(parameter)?.len();
        if values.len() == stored {
            return Some(values);
        }
        let owned = net.owned.as_ref().map(|owned| &owned[parameter][..])?;
        let positions = (0..owned.len()).filter(|&position| owned[position] != 0);
        if values.len() == owned.len() {
            return Some(positions.map(|position| values[position]).collect());
        }
        let mut whole = vec![0.0; owned.len()];
        let mut values = values.into_iter();
        for position in positions {
            whole[position] = values.next()?;
        }
        values.next().is_none().then_some(whole)
    }

    /// Changes one parameter's values as [`stored`](Self::stored) has them.
    pub fn edit_stored(&mut self, task: usize, parameter: usize, edit: impl FnOnce(&mut [f32])) {
        self.weights_version += 1;
        let TaskNet { network, tape, .. } = &mut self.tasks[task];
        edit(tape.value_mut(network.parameters[parameter]).data_mut());
    }
}
