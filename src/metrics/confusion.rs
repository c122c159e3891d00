//! Counts of true label against predicted label.

use std::fmt;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{MetricsError, matrix_text};

/// Largest number of classes: their matrix takes 800 MB.
pub const MOST_CLASSES: usize = 10_000;

/// A confusion matrix: row i, column j counts samples of class i that were predicted as class j.
///
/// It may cover a selection of the classes. Samples whose true or predicted label is not selected
/// stand outside the matrix, and still count in [`support`](Self::support),
/// [`predicted`](Self::predicted), [`samples`](Self::samples) and [`correct`](Self::correct).
///
/// Its text is NumPy's: columns of one width, lines of at most 75 characters, and past 1,000 counts
/// only the three first and last rows and columns. As JSON it is `{"labels": …, "matrix": …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    labels: Vec<i64>,
    counts: Vec<u64>,
    support: Vec<u64>,
    predicted: Vec<u64>,
    samples: u64,
    correct: u64,
    covers_all: bool,
}

impl Confusion {
    /// Counts `predicted` against `truth`, over `labels` in the order given or, without them, over
    /// every label that occurs, in ascending order.
    ///
    /// # Errors
    /// Lengths that differ, no samples, more than [`MOST_CLASSES`] labels, or a list of labels that
    /// is empty, repeats itself or has none of the truth's.
    pub fn from_labels<T, P>(
        truth: &[T],
        predicted: &[P],
        labels: Option<&[i64]>,
    ) -> Result<Self, MetricsError>
    where
        T: Copy + Into<i64>,
        P: Copy + Into<i64>,
    {
        if truth.len() != predicted.len() {
            let (truth, predicted) = (truth.len(), predicted.len());
            return Err(MetricsError::Lengths { truth, predicted });
        }
        let labels = match labels {
            Some([]) => return Err(MetricsError::NoLabels),
            Some(labels) => labels.to_vec(),
            None => {
                let mut seen = distinct(truth);
                seen.extend(distinct(predicted));
                distinct(&seen)
            }
        };
        let places = Places::new(&labels)?;
        let mut confusion = Self::zeros(labels);
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            let (truth, predicted) = (truth.into(), predicted.into());
            let (row, column) = (places.of(truth), places.of(predicted));
            confusion.samples += 1;
            confusion.correct += u64::from(truth == predicted);
            confusion.covers_all &= row.is_some() && column.is_some();
            if let Some(row) = row {
                confusion.support[row] += 1;
            }
            if let Some(column) = column {
                confusion.predicted[column] += 1;
            }
            if let (Some(row), Some(column)) = (row, column) {
                confusion.counts[row * places.len() + column] += 1;
            }
        }
        if confusion.support.iter().all(|&support| support == 0) {
            return Err(match distinct(truth)[..] {
                [] => MetricsError::NoSamples,
                [least, .., most] | [least @ most] => MetricsError::AbsentLabels {
                    labels: confusion.labels,
                    least,
                    most,
                },
            });
        }
        Ok(confusion)
    }

    /// A matrix that was counted before, in row-major order, of all classes there are.
    ///
    /// # Errors
    /// No samples or labels, more than [`MOST_CLASSES`] labels, a repeated label, or a number of
    /// counts that is not the square of that of the labels.
    pub fn from_counts(labels: &[i64], counts: &[u64]) -> Result<Self, MetricsError> {
        if labels.is_empty() {
            return Err(MetricsError::NoLabels);
        }
        let classes = Places::new(labels)?.len();
        if counts.len() != classes * classes {
            return Err(MetricsError::Counts {
                labels: classes,
                counts: counts.len(),
            });
        }
        let mut confusion = Self::zeros(labels.to_vec());
        confusion.samples = counts
            .iter()
            .try_fold(0_u64, |sum, &count| sum.checked_add(count))
            .ok_or(MetricsError::TooManySamples)?;
        if confusion.samples == 0 {
            return Err(MetricsError::NoSamples);
        }
        for (row, counts) in counts.chunks_exact(classes).enumerate() {
            confusion.correct += counts[row];
            confusion.support[row] = counts.iter().sum();
            for (sum, count) in confusion.predicted.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        confusion.counts.copy_from_slice(counts);
        Ok(confusion)
    }

    fn zeros(labels: Vec<i64>) -> Self {
        let classes = labels.len();
        Self {
            labels,
            counts: vec![0; classes * classes],
            support: vec![0; classes],
            predicted: vec![0; classes],
            samples: 0,
            correct: 0,
            covers_all: true,
        }
    }

    /// The label of every row and column.
    pub fn labels(&self) -> &[i64] {
        &self.labels
    }

    /// The counts, in row-major order.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The counts, one slice for each true class.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[u64]> {
        self.counts.chunks_exact(self.labels.len())
    }

    /// Samples of each class, whatever they were predicted as.
    pub fn support(&self) -> &[u64] {
        &self.support
    }

    /// Predictions of each class, whatever they truly are.
    pub fn predicted(&self) -> &[u64] {
        &self.predicted
    }

    /// Number of samples, those outside the matrix included.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Samples predicted as what they are, those outside the matrix included.
    pub fn correct(&self) -> u64 {
        self.correct
    }

    /// Share of the samples predicted as what they are, those outside the matrix included.
    pub fn accuracy(&self) -> f64 {
        self.correct as f64 / self.samples as f64
    }

    /// Whether every label that occurs has its row and column.
    pub fn covers_all(&self) -> bool {
        self.covers_all
    }

    /// The label that every sample was predicted as, if there is one and it is selected.
    ///
    /// A network that answers the same for whatever it is shown has not learnt.
    pub fn constant_prediction(&self) -> Option<i64> {
        let only = self
            .predicted
            .iter()
            .position(|&count| count == self.samples)?;
        Some(self.labels[only])
    }
}

impl fmt::Display for Confusion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&matrix_text::square(&self.counts, self.labels.len()))
    }
}

impl Serialize for Confusion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Confusion", 2)?;
        fields.serialize_field("labels", &self.labels)?;
        fields.serialize_field("matrix", &self.rows().collect::<Vec<_>>())?;
        fields.end()
    }
}

/// The different labels, ascending.
fn distinct<T: Copy + Into<i64>>(labels: &[T]) -> Vec<i64> {
    let mut sorted: Vec<i64> = labels.iter().map(|&label| label.into()).collect();
    sorted.sort_unstable();
    sorted.dedup();
    sorted
}

/// Where each label stands in a list.
struct Places(Vec<(i64, usize)>);

impl Places {
    fn new(labels: &[i64]) -> Result<Self, MetricsError> {
        if labels.len() > MOST_CLASSES {
            return Err(MetricsError::TooManyClasses(labels.len()));
        }
        let mut sorted: Vec<_> = labels.iter().copied().zip(0..).collect();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(MetricsError::RepeatedLabel(pair[0].0)),
            None => Ok(Self(sorted)),
        }
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn of(&self, label: i64) -> Option<usize> {
        // Labels are mostly 0, 1, 2, …: then each stands where it says.
        let guess = usize::try_from(label).ok().and_then(|at| self.0.get(at));
        match guess {
            Some(&(found, place)) if found == label => Some(place),
            _ => {
                let at = self
                    .0
                    .binary_search_by_key(&label, |&(label, _)| label)
                    .ok()?;
                Some(self.0[at].1)
            }
        }
    }
}
