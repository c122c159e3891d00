//! Early stopping by Keras's rules (`EarlyStopping(monitor="val_loss", restore_best_weights=True)`).
//!
//! An epoch is *best* when its loss is lower than that of the last best one by more than
//! `min_delta`; so the best epoch need not be the one of lowest loss. After `patience` epochs in
//! a row that were not best, training stops, and the weights of the best epoch come back; they do as well
//! when the limit of epochs ends training.

use serde::{Deserialize, Serialize};

/// When to stop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStoppingSettings {
    /// The loss must fall by more than this to count as better.
    pub min_delta: f64,
    /// Epochs without a better loss after which training stops.
    pub patience: usize,
}

/// What to do after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// This epoch is the best so far: keep its weights.
    pub best: bool,
    /// Train no further.
    pub stop: bool,
}

/// Follows the monitored loss from epoch to epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    settings: EarlyStoppingSettings,
    best_loss: f64,
    best_epoch: usize,
    epochs: usize,
    wait: usize,
}

impl EarlyStopping {
    /// Before the first epoch.
    pub fn new(settings: EarlyStoppingSettings) -> Self {
        Self {
            settings,
            best_loss: f64::INFINITY,
            best_epoch: 0,
            epochs: 0,
            wait: 0,
        }
    }

    /// Takes the monitored loss of the next epoch. The first epoch is best whatever its loss.
    pub fn observe(&mut self, loss: f64) -> Verdict {
        let epoch = self.epochs;
        self.epochs += 1;
        self.wait += 1;
        let better = loss + self.settings.min_delta < self.best_loss;
        if better {
            self.best_loss = loss;
            self.best_epoch = epoch;
            self.wait = 0;
        }
        Verdict {
            best: better || epoch == 0,
            stop: !better && epoch > 0 && self.wait >= self.settings.patience,
        }
    }

    /// Forgets the losses so far: the next epoch is best, unless its loss is infinite.
    pub fn restart(&mut self) {
        *self = Self {
            best_epoch: self.epochs,
            epochs: self.epochs,
            ..Self::new(self.settings)
        };
    }

    /// The epoch, from 0, whose weights are the best so far.
    pub fn best_epoch(&self) -> usize {
        self.best_epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(losses: &[f64], min_delta: f64, patience: usize) -> (usize, usize) {
        let mut stopping = EarlyStopping::new(EarlyStoppingSettings {
            min_delta,
            patience,
        });
        for (epoch, &loss) in losses.iter().enumerate() {
            if stopping.observe(loss).stop {
                return (epoch + 1, stopping.best_epoch());
            }
        }
        (losses.len(), stopping.best_epoch())
    }

    #[test]
    fn best_is_the_last_clear_improvement_not_the_minimum() {
        assert_eq!(follow(&[1.0, 0.5, 0.495, 0.494, 0.493], 0.01, 3), (5, 1));
    }

    #[test]
    fn the_limit_of_epochs_ends_with_the_best_epoch_too() {
        assert_eq!(follow(&[1.0, 0.5, 0.6], 0.0, 3), (3, 1));
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_never_better() {
        assert_eq!(follow(&[f64::NAN, f64::NAN, f64::NAN], 0.0, 2), (2, 0));
        assert_eq!(follow(&[1.0, f64::NAN, 0.5, 0.6, 0.7], 0.0, 2), (5, 2));
    }

    #[test]
    fn even_without_patience_the_first_epoch_does_not_stop() {
        assert_eq!(follow(&[1.0, 2.0], 0.0, 0), (2, 0));
    }
}
