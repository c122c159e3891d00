//! The numbers of a classification report.

use std::str::FromStr;

use serde::Serialize;

use super::average::{mean, weighted_mean};
use super::{Confusion, MetricsError};

/// What stands for a score whose denominator is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ZeroDivision {
    /// The score is 0.
    #[default]
    Zero,
    /// The score is 1.
    One,
    /// The score is NaN, and averages leave it out.
    Nan,
}

impl ZeroDivision {
    fn value(self) -> f64 {
        match self {
            Self::Zero => 0.0,
            Self::One => 1.0,
            Self::Nan => f64::NAN,
        }
    }
}

impl FromStr for ZeroDivision {
    type Err = MetricsError;

    fn from_str(text: &str) -> Result<Self, MetricsError> {
        match text {
            "0" => Ok(Self::Zero),
            "1" => Ok(Self::One),
            "nan" => Ok(Self::Nan),
            _ => Err(MetricsError::ZeroDivision(text.to_owned())),
        }
    }
}

/// How to report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportOptions {
    /// Decimal places of the text; 2 unless told.
    pub digits: u16,
    /// A name for each class in the order of the confusion's labels; the labels unless told.
    pub target_names: Option<Vec<String>>,
    /// What stands for a score whose denominator is zero.
    pub zero_division: ZeroDivision,
}

impl Default for ReportOptions {
    fn default() -> Self {
        Self {
            digits: 2,
            target_names: None,
            zero_division: ZeroDivision::default(),
        }
    }
}

/// The scores of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassScores {
    /// Its label.
    pub label: i64,
    /// Its name; the label as text if it was given none.
    pub name: String,
    /// Share of the predictions of this class that are right.
    pub precision: f64,
    /// Share of the samples of this class that were found.
    pub recall: f64,
    /// Harmonic mean of precision and recall.
    pub f1: f64,
    /// Samples of this class.
    pub support: u64,
}

/// Scores averaged over the classes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Average {
    /// Averaged precision.
    pub precision: f64,
    /// Averaged recall.
    pub recall: f64,
    /// Averaged F1.
    pub f1: f64,
}

/// A classification report: precision, recall and F1 of each class, and their averages.
///
/// Its text is scikit-learn 1.9's, its final newline included. As JSON it has a field for each of
/// the public ones here, `null` for NaN; of `accuracy` and `micro_avg` only the one that applies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Each class, in the order of the confusion's labels.
    pub classes: Vec<ClassScores>,
    /// Share of all samples predicted right, where the classes reported are all that occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
    /// Scores from the counts of the classes reported taken together, where other labels occur.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub micro_avg: Option<Average>,
    /// Plain means over the classes.
    pub macro_avg: Average,
    /// Means over the classes, weighted by their support.
    pub weighted_avg: Average,
    /// Samples of the classes reported.
    pub support: u64,
    #[serde(skip)]
    pub(super) digits: u16,
    /// scikit-learn counts supports as floats where no sample at all was predicted right.
    #[serde(skip)]
    pub(super) float_support: bool,
}

impl Report {
    /// The report on what `confusion` covers.
    ///
    /// # Errors
    /// [`MetricsError::Names`] unless there is a name for each label, if there are names.
    pub fn new(confusion: &Confusion, options: &ReportOptions) -> Result<Self, MetricsError> {
        let labels = confusion.labels();
        let names = match &options.target_names {
            Some(names) if names.len() != labels.len() => {
                return Err(MetricsError::Names {
                    names: names.len(),
                    labels: labels.to_vec(),
                });
            }
            Some(names) => names.clone(),
            None => labels.iter().map(i64::to_string).collect(),
        };
        let mut all = Tally::default();
        let mut classes = Vec::with_capacity(labels.len());
        for (place, (&label, name)) in labels.iter().zip(names).enumerate() {
            let tally = Tally {
                correct: confusion.counts()[place * labels.len() + place],
                predicted: confusion.predicted()[place],
                support: confusion.support()[place],
            };
            let Average {
                precision,
                recall,
                f1,
            } = tally.scores(options.zero_division);
            let support = tally.support;
            classes.push(ClassScores {
                label,
                name,
                precision,
                recall,
                f1,
                support,
            });
            all.add(tally);
        }
        let averaged = |average: &dyn Fn(&[f64]) -> f64| {
            let over = |score: fn(&ClassScores) -> f64| {
                average(&classes.iter().map(score).collect::<Vec<_>>())
            };
            Average {
                precision: over(|class| class.precision),
                recall: over(|class| class.recall),
                f1: over(|class| class.f1),
            }
        };
        let macro_avg = averaged(&mean);
        let weighted_avg = averaged(&|scores| weighted_mean(scores, confusion.support()));
        let micro_avg = all.scores(options.zero_division);
        let covers_all = confusion.covers_all();
        Ok(Self {
            classes,
            accuracy: covers_all.then_some(micro_avg.f1),
            micro_avg: (!covers_all).then_some(micro_avg),
            macro_avg,
            weighted_avg,
            support: all.support,
            digits: options.digits,
            float_support: confusion.correct() == 0,
        })
    }
}

/// What the scores of a class, or of several together, follow from.
#[derive(Default)]
struct Tally {
    correct: u64,
    predicted: u64,
    support: u64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.correct += other.correct;
        self.predicted += other.predicted;
        self.support += other.support;
    }

    fn scores(&self, zero_division: ZeroDivision) -> Average {
        let ratio = |numerator: f64, denominator: f64| {
            if denominator == 0.0 {
                zero_division.value()
            } else {
                numerator / denominator
            }
        };
        let (correct, predicted, support) = (
            self.correct as f64,
            self.predicted as f64,
            self.support as f64,
        );
        Average {
            precision: ratio(correct, predicted),
            recall: ratio(correct, support),
            f1: ratio(2.0 * correct, support + predicted),
        }
    }
}
