//! Training: the fit loop, early stopping, what an onlooker is told, and steps to time.

mod batches;
mod early_stopping;
mod epoch;
mod error;
mod fit;
mod health;
mod history;
mod model;
mod observer;
mod prune;
mod select;
mod sparsify;
mod state;
mod workload;

pub use batches::TaskImages;
pub use early_stopping::{EarlyStopping, EarlyStoppingSettings, Verdict};
pub use error::TrainError;
pub use fit::{Fit, FitSettings, fit};
pub use health::{Warning, dead_layers};
pub use history::{EpochRecord, FitOutcome, TaskRecord};
pub use model::{Model, TaskNet, tasks_at_once};
pub use observer::{Observer, Silent, StepReport};
pub use prune::prune_iteratively;
pub use select::{
    Importance, OwnerRule, importances, owners_by_importance, owners_of_newcomer, select_owners,
    taken_positions,
};
pub use state::{FitState, Snapshot};
pub use workload::{Workload, WorkloadSettings};
