//! Which task of a model file a command is about.

use std::path::Path;

use super::Failure;
use crate::experiment::StoredModel;

/// The place of the task asked for, or of the only one.
pub(super) fn stored_task(
    model: &StoredModel,
    path: &Path,
    asked: Option<&str>,
) -> Result<usize, Failure> {
    let names: Vec<&str> = model.tasks().collect();
    let path = path.display();
    match asked {
        None if names.len() == 1 => Ok(0),
        None => Err(Failure::usage(format!(
            "{path} has several tasks: give --task {}",
            names.join(" or --task ")
        ))),
        Some(name) => names
            .iter()
            .position(|&known| known == name)
            .ok_or_else(|| {
                Failure::usage(format!(
                    "{path} has no task {name:?}; its tasks are: {}",
                    names.join(", ")
                ))
            }),
    }
}
