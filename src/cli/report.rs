//! `taskweave report`: the confusion matrix and classification report of two label files.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::Serialize;

use crate::data::npy::{self, NpyError};
use crate::metrics::{Confusion, MetricsError, Report, ReportOptions, ZeroDivision};

const EXAMPLES: &str = "\
Examples:
  taskweave report true.npy pred.npy
  taskweave report true.npy pred.npy --target-names cat,dog,owl --digits 4
  taskweave report true.npy pred.npy --labels 4,1,2 --zero-division nan
  taskweave report true.npy pred.npy --json > scores.json

The two files hold one label per sample, in the same order, as numpy.save writes them:
  numpy.save(\"true.npy\", test_labels)
  numpy.save(\"pred.npy\", model.predict(test_images).argmax(axis=1))
A row of the matrix is a true class, a column a predicted one. The text is that of
scikit-learn's confusion_matrix and classification_report.";

/// Print how good predictions are: confusion matrix, precision, recall, F1 and accuracy
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// True labels: an npy file with one integer per sample, of any integer type
    #[arg(value_name = "TRUE.npy")]
    truth: PathBuf,

    /// Predicted labels: an npy file of the same length
    #[arg(value_name = "PRED.npy")]
    predicted: PathBuf,

    /// Decimal places of the scores
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=100))]
    digits: u16,

    /// Report on these labels only, in this order (such as 4,1,2) [default: all, ascending]
    #[arg(
        long,
        value_name = "LABELS",
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    labels: Option<Vec<i64>>,

    /// Names to print instead of the labels, one for each (such as cat,dog,owl)
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    target_names: Option<Vec<String>>,

    /// Score of a class whose score is not defined, because it was never predicted or never
    /// occurs; nan is left out of the averages
    #[arg(long, value_name = "VALUE", default_value = "0")]
    #[arg(value_parser = PossibleValuesParser::new(["0", "1", "nan"])
        .try_map(|text| text.parse::<ZeroDivision>()))]
    zero_division: ZeroDivision,

    /// Print JSON instead of text, every number in full (null for nan)
    #[arg(long)]
    json: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A label file cannot be read.
    #[error(transparent)]
    Labels(#[from] NpyError),
    /// The labels cannot be reported on.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The report cannot be written.
    #[error("the report cannot be written: {0}")]
    Output(#[from] io::Error),
}

#[derive(Serialize)]
struct Json<'a> {
    confusion: &'a Confusion,
    report: &'a Report,
}

/// Prints matrix, report and a closing newline to `out`, or JSON.
///
/// # Errors
/// Files that are not vectors of integers, labels that do not belong together, names that do not
/// fit, or an `out` that cannot be written. Nothing is printed before all of the rest is right.
pub fn run(args: &ReportArgs, out: &mut impl Write) -> Result<(), ReportError> {
    let truth = npy::read_integers(&args.truth)?;
    let predicted = npy::read_integers(&args.predicted)?;
    let confusion = Confusion::from_labels(&truth, &predicted, args.labels.as_deref())?;
    let options = ReportOptions {
        digits: args.digits,
        target_names: args.target_names.clone(),
        zero_division: args.zero_division,
    };
    let report = Report::new(&confusion, &options)?;
    if args.json {
        let json = Json {
            confusion: &confusion,
            report: &report,
        };
        serde_json::to_writer_pretty(&mut *out, &json).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{confusion}\n{report}")?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests;
