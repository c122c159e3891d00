//! A classification report as scikit-learn 1.9 prints it.

use std::fmt;

use super::{Average, Report};

/// The first column is never narrower than its longest heading.
const LONGEST_HEADING: &str = "weighted avg";

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = usize::from(self.digits);
        let names = self.classes.iter().map(|class| class.name.chars().count());
        // The decimal places count too: scikit-learn has it so.
        let width = names.fold(LONGEST_HEADING.len().max(digits), usize::max);
        let row = |name: &str, cells: [&str; 4]| {
            let [precision, recall, f1, support] = cells;
            format!("{name:>width$}  {precision:>9} {recall:>9} {f1:>9} {support:>9}")
        };
        let support = |samples: u64| match self.float_support {
            true => format!("{samples}.0"),
            false => samples.to_string(),
        };
        let scores = |name: &str, scores: [f64; 3], samples: u64| {
            let [precision, recall, f1] = scores.map(|score| decimal(score, digits));
            row(name, [&precision, &recall, &f1, &support(samples)])
        };
        let average = |name: &str, average: Average| {
            scores(
                name,
                [average.precision, average.recall, average.f1],
                self.support,
            )
        };

        let headings = ["precision", "recall", "f1-score", "support"];
        let mut lines = vec![row("", headings), String::new()];
        for class in &self.classes {
            let of_class = [class.precision, class.recall, class.f1];
            lines.push(scores(&class.name, of_class, class.support));
        }
        lines.push(String::new());
        if let Some(accuracy) = self.accuracy {
            let cells = ["", "", &decimal(accuracy, digits), &support(self.support)];
            lines.push(row("accuracy", cells));
        }
        if let Some(micro_avg) = self.micro_avg {
            lines.push(average("micro avg", micro_avg));
        }
        lines.push(average("macro avg", self.macro_avg));
        lines.push(average(LONGEST_HEADING, self.weighted_avg));
        lines
            .into_iter()
            .try_for_each(|line| writeln!(out, "{line}"))
    }
}

/// The binary value itself, rounded half to even.
pub(super) fn decimal(score: f64, digits: usize) -> String {
    if score.is_nan() {
        "nan".to_owned()
    } else {
        format!("{score:.digits$}")
    }
}
