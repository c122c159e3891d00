//! Training: the fit loop, early stopping, and what an onlooker is told.

mod batches;
mod early_stopping;
mod error;
mod fit;
mod health;
mod history;
mod model;
mod observer;
mod select;

pub use batches::TaskImages;
pub use early_stopping::{EarlyStopping, EarlyStoppingSettings, Verdict};
pub use error::TrainError;
pub use fit::{FitSettings, fit};
pub use health::{Warning, dead_layers};
pub use history::{EpochRecord, FitOutcome, TaskRecord};
pub use model::{Model, TaskNet};
pub use observer::{Observer, Silent, StepReport};
pub use select::{Importance, owners_by_importance, select_owners};
