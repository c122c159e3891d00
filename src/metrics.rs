//! How good predictions are: confusion counts, then numbers, then the exact text.
//!
//! [`Confusion`] counts label pairs once; everything else follows from it. Its text is what NumPy
//! prints for the matrix of `sklearn.metrics.confusion_matrix`, and the text of a [`Report`] is
//! that of `sklearn.metrics.classification_report`, byte for byte; both serialise to JSON too, with
//! `null` where a number is not defined.
//!
//! ```
//! use taskweave::metrics::{Confusion, Report, ReportOptions};
//! let confusion = Confusion::from_labels(&[0_u8, 0, 1, 1], &[0_u8, 1, 1, 1], None)?;
//! assert_eq!(confusion.to_string(), "[[1 1]\n [0 2]]");
//! assert_eq!(confusion.accuracy(), 0.75);
//! let report = Report::new(&confusion, &ReportOptions::default())?;
//! assert_eq!(report.classes[1].recall, 1.0);
//! assert!(report.to_string().contains("accuracy                           0.75         4\n"));
//! # Ok::<(), taskweave::metrics::MetricsError>(())
//! ```

mod average;
mod confusion;
mod matrix_text;
mod report;
mod report_text;

pub use confusion::{Confusion, MOST_CLASSES};
pub use report::{Average, ClassScores, Report, ReportOptions, ZeroDivision};

/// Why labels cannot be counted or reported on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetricsError {
    /// Truth and predictions do not belong together.
    #[error("{truth} true labels but {predicted} predictions; there must be one for each")]
    Lengths {
        /// Number of true labels.
        truth: usize,
        /// Number of predictions.
        predicted: usize,
    },
    /// Nothing to count.
    #[error("there are no labels; at least one true label with its prediction is needed")]
    NoSamples,
    /// An explicit list of labels without any.
    #[error("the list of labels to report on is empty; leave it out to report on all")]
    NoLabels,
    /// A label that stands twice in the explicit list.
    #[error("label {0} stands twice in the list of labels; once is enough")]
    RepeatedLabel(i64),
    /// An explicit list that has nothing in common with the truth.
    #[error("none of the labels {labels:?} is a true label; those lie between {least} and {most}")]
    AbsentLabels {
        /// The explicit list.
        labels: Vec<i64>,
        /// Smallest true label.
        least: i64,
        /// Largest true label.
        most: i64,
    },
    /// So many labels that they are hardly classes, and their matrix would fill the memory.
    #[error(
        "{0} different labels, and at most {MOST_CLASSES} are counted: are they class numbers?"
    )]
    TooManyClasses(usize),
    /// A matrix of counts that is not as large as its labels say.
    #[error("{labels} labels need {} counts, and {counts} were given", labels * labels)]
    Counts {
        /// Number of labels.
        labels: usize,
        /// Number of counts given.
        counts: usize,
    },
    /// Counts that add up past 64 bits.
    #[error("the counts add up to more than {}", u64::MAX)]
    TooManySamples,
    /// Names that do not fit the classes.
    #[error("{names} target names for {} classes (labels {labels:?}); give one for each", labels.len())]
    Names {
        /// Number of names.
        names: usize,
        /// The labels to be named.
        labels: Vec<i64>,
    },
    /// A value for undefined scores that is not offered.
    #[error("'{0}' cannot stand for a division by zero; 0, 1 and nan can")]
    ZeroDivision(String),
}

#[cfg(test)]
mod tests;
