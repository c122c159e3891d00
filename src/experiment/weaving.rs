//! Models put together out of the tasks of others.

use super::{ExperimentError, ModelKind, StoredModel};
use crate::train::{Model, TrainError};

impl StoredModel {
    /// A multitask model of those tasks of some models that are wanted, in their order. What is said of
    /// the run that made it is that of the first model.
    ///
    /// # Errors
    /// When no task is wanted, two have the same name, or models compute in different precisions. Whether a
    /// position has two owners shows when the model is [saved](Self::save).
    pub fn weave(
        models: &[Self],
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<Self, ExperimentError> {
        let refuse = |reason: String| ExperimentError::Weave { reason };
        let first = models.first();
        let first = first.ok_or_else(|| refuse("there is no model".to_owned()))?;
        let mut description = first.description.clone();
        description.model = ModelKind::Multitask;
        description.tasks.clear();
        let mut woven = Self {
            model: Model::new(1, 1.0).with_precision(description.precision),
            description,
        };
        for stored in models {
            let precision = stored.description.precision;
            if precision != woven.description.precision {
                return Err(refuse(format!(
                    "one model computes in {}, another in {precision}",
                    woven.description.precision
                )));
            }
            let tasks = stored.description.tasks.iter().enumerate();
            for (task, described) in tasks.filter(|(_, task)| is_wanted(&task.name)) {
                if woven.tasks().any(|name| name == described.name) {
                    return Err(refuse(format!("two tasks are called {}", described.name)));
                }
                woven
                    .take(&stored.model, task)
                    .map_err(|source| ExperimentError::Train {
                        model: described.name.clone(),
                        source,
                    })?;
                woven.description.tasks.push(described.clone());
            }
        }
        match woven.description.tasks.is_empty() {
            true => Err(refuse("no task is wanted".to_owned())),
            false => Ok(woven),
        }
    }

    /// Adds a task of a model to this one, but for its description.
    pub(super) fn take(&mut self, from: &Model, task: usize) -> Result<(), TrainError> {
        let net = &from.tasks()[task];
        let place = self.model.tasks().len();
        self.model
            .add_task(net.name(), net.spec().clone(), from.whole(task))?;
        self.model.set_scales(place, net.scales().to_vec())?;
        if let Some(owned) = net.owned() {
            self.model.set_owned(place, owned.to_vec());
        }
        for (state, value) in from.states(task).enumerate() {
            self.model
                .edit_state(place, state, |target| target.copy_from_slice(value.data()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::test_models::{bits, stored};

    #[test]
    fn tasks_are_taken_apart_and_woven_again() {
        let folder = tempfile::tempdir().unwrap();
        let both = stored(folder.path(), 1);
        let parts = ["Fashion", "Digit"].map(|name| {
            let part = StoredModel::weave(std::slice::from_ref(&both), |task| task == name);
            let path = folder.path().join(name);
            part.unwrap().save(&path).unwrap();
            let part = StoredModel::open(&path, 1).unwrap();
            assert_eq!(part.tasks().collect::<Vec<_>>(), [name]);
            part
        });
        assert_eq!(bits(parts[0].model(), 0), bits(both.model(), 1));
        let again = StoredModel::weave(&parts, |_| true).unwrap();
        let path = folder.path().join("again");
        again.save(&path).unwrap();
        let again = StoredModel::open(&path, 1).unwrap();
        assert_eq!(again.tasks().collect::<Vec<_>>(), ["Fashion", "Digit"]);
        for (task, other) in [(0, 1), (1, 0)] {
            assert_eq!(bits(again.model(), task), bits(both.model(), other));
            let owned = both.model().tasks()[other].owned();
            assert_eq!(again.model().tasks()[task].owned(), owned);
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let both = stored(folder.path(), 1);
        let none = StoredModel::weave(std::slice::from_ref(&both), |_| false);
        let message = none.err().unwrap().to_string();
        assert!(message.contains("no task is wanted"), "{message}");
        let models = [both, stored(folder.path(), 1)];
        let twice = StoredModel::weave(&models, |_| true);
        let message = twice.err().unwrap().to_string();
        assert!(message.contains("two tasks are called Digit"), "{message}");
    }
}
