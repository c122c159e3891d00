use proptest::prelude::*;
use proptest::sample::{Index, subsequence};

use super::*;

/// Label pairs over a few classes, some negative.
fn pairs() -> impl Strategy<Value = Vec<(i64, i64)>> {
    (1_i64..12).prop_flat_map(|classes| {
        let label = move || (-2..classes).prop_map(|label| label * 3);
        let pair = prop_oneof![label().prop_map(|label| (label, label)), (label(), label())];
        prop::collection::vec(pair, 1..200)
    })
}

fn counted(pairs: &[(i64, i64)], labels: Option<&[i64]>) -> Result<Confusion, MetricsError> {
    let (truth, predicted): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
    Confusion::from_labels(&truth, &predicted, labels)
}

/// Asserts equality where NaN equals NaN alone.
fn same(found: f64, expected: f64) -> Result<(), TestCaseError> {
    let close = (found - expected).abs() <= 1e-14;
    prop_assert!(
        close || found.is_nan() && expected.is_nan(),
        "{found} for {expected}"
    );
    Ok(())
}

/// Precision, recall, F1 and support of one class, from the definitions.
fn naive_class(pairs: &[(i64, i64)], label: i64, undefined: f64) -> [f64; 4] {
    let count =
        |is: &dyn Fn(i64, i64) -> bool| pairs.iter().filter(|pair| is(pair.0, pair.1)).count();
    let hits = count(&|truth, predicted| truth == label && predicted == label) as f64;
    let false_alarms = count(&|truth, predicted| truth != label && predicted == label) as f64;
    let misses = count(&|truth, predicted| truth == label && predicted != label) as f64;
    let ratio = |part: f64, whole: f64| {
        if whole == 0.0 {
            undefined
        } else {
            part / whole
        }
    };
    [
        ratio(hits, hits + false_alarms),
        ratio(hits, hits + misses),
        ratio(hits, hits + (false_alarms + misses) / 2.0),
        hits + misses,
    ]
}

/// Mean of the scores that are numbers, with these weights; unweighted if those are zero.
fn naive_mean(scores: &[(f64, f64)]) -> f64 {
    let numbers: Vec<_> = scores.iter().filter(|(score, _)| !score.is_nan()).collect();
    let weights: f64 = numbers.iter().map(|(_, weight)| weight).sum();
    if weights == 0.0 {
        numbers.iter().map(|(score, _)| score).sum::<f64>() / numbers.len() as f64
    } else {
        numbers
            .iter()
            .map(|(score, weight)| score * weight)
            .sum::<f64>()
            / weights
    }
}

proptest! {
    #[test]
    fn counts_match_naive(pairs in pairs()) {
        let confusion = counted(&pairs, None).unwrap();
        let labels = confusion.labels();
        prop_assert!(labels.is_sorted());
        for (&truth, row) in labels.iter().zip(confusion.rows()) {
            for (&predicted, &count) in labels.iter().zip(row) {
                let expected = pairs.iter().filter(|&&pair| pair == (truth, predicted)).count();
                prop_assert_eq!(count, expected as u64);
            }
        }
    }

    #[test]
    fn sums_agree(pairs in pairs()) {
        let confusion = counted(&pairs, None).unwrap();
        let classes = confusion.labels().len();
        let rows: Vec<u64> = confusion.rows().map(|row| row.iter().sum()).collect();
        prop_assert_eq!(confusion.support(), &rows[..]);
        let columns: Vec<u64> =
            (0..classes).map(|at| confusion.rows().map(|row| row[at]).sum()).collect();
        prop_assert_eq!(confusion.predicted(), &columns[..]);
        let trace: u64 = confusion.rows().enumerate().map(|(at, row)| row[at]).sum();
        prop_assert_eq!(confusion.accuracy(), trace as f64 / pairs.len() as f64);
        prop_assert!(confusion.covers_all());
        let again = Confusion::from_counts(confusion.labels(), confusion.counts()).unwrap();
        prop_assert_eq!(&again, &confusion);
        let report = Report::new(&confusion, &ReportOptions::default()).unwrap();
        prop_assert_eq!(report.support, pairs.len() as u64);
        prop_assert_eq!(report.accuracy, Some(confusion.accuracy()));
        same(report.weighted_avg.recall, confusion.accuracy())?;
    }

    #[test]
    fn the_order_of_samples_changes_nothing(
        (pairs, shuffled) in pairs().prop_flat_map(|pairs| {
            (Just(pairs.clone()), Just(pairs).prop_shuffle())
        })
    ) {
        let text = |pairs: &[(i64, i64)]| {
            let confusion = counted(pairs, None).unwrap();
            let report = Report::new(&confusion, &ReportOptions::default()).unwrap();
            format!("{confusion}\n{report}")
        };
        prop_assert_eq!(text(&pairs), text(&shuffled));
    }

    #[test]
    fn report_matches_naive(
        pairs in pairs(),
        selection in subsequence((-8..14).map(|label| label * 3).collect::<Vec<i64>>(), 1..22)
            .prop_shuffle(),
        selected: bool,
        zero_division in prop_oneof![
            Just(ZeroDivision::Zero), Just(ZeroDivision::One), Just(ZeroDivision::Nan)
        ],
    ) {
        let undefined = match zero_division {
            ZeroDivision::Zero => 0.0,
            ZeroDivision::One => 1.0,
            ZeroDivision::Nan => f64::NAN,
        };
        let counted = counted(&pairs, selected.then_some(&selection[..]));
        prop_assume!(!matches!(counted, Err(MetricsError::AbsentLabels { .. })));
        let confusion = counted.unwrap();
        let options = ReportOptions { zero_division, ..ReportOptions::default() };
        let report = Report::new(&confusion, &options).unwrap();

        let labels = confusion.labels();
        let all_in = pairs.iter().all(|(a, b)| labels.contains(a) && labels.contains(b));
        prop_assert_eq!(report.accuracy.is_some(), all_in);
        prop_assert_eq!(report.micro_avg.is_none(), all_in);
        let naive: Vec<[f64; 4]> =
            labels.iter().map(|&label| naive_class(&pairs, label, undefined)).collect();
        for (class, expected) in report.classes.iter().zip(&naive) {
            let found = [class.precision, class.recall, class.f1, class.support as f64];
            for (found, &expected) in found.into_iter().zip(expected) {
                same(found, expected)?;
            }
        }
        let averages = [(report.macro_avg, false), (report.weighted_avg, true)];
        for (average, weighted) in averages {
            for (at, found) in [average.precision, average.recall, average.f1].into_iter().enumerate() {
                let weight = |class: &[f64; 4]| if weighted { class[3] } else { 1.0 };
                let scores: Vec<_> = naive.iter().map(|class| (class[at], weight(class))).collect();
                same(found, naive_mean(&scores))?;
            }
        }
        if let Some(micro) = report.micro_avg {
            let hits = pairs.iter().filter(|(a, b)| a == b && labels.contains(a)).count() as f64;
            let claimed = pairs.iter().filter(|(_, b)| labels.contains(b)).count() as f64;
            let ratio = if claimed == 0.0 { undefined } else { hits / claimed };
            same(micro.precision, ratio)?;
        }
    }

    #[test]
    fn a_constant_prediction_is_found(pairs in pairs(), at: Index) {
        let constant = pairs[at.index(pairs.len())].1;
        let same: Vec<_> = pairs.iter().map(|&(truth, _)| (truth, constant)).collect();
        prop_assert_eq!(counted(&same, None).unwrap().constant_prediction(), Some(constant));
        let varied = pairs.iter().any(|&(_, predicted)| predicted != pairs[0].1);
        let found = counted(&pairs, None).unwrap().constant_prediction();
        prop_assert_eq!(found, (!varied).then_some(pairs[0].1));
    }

    #[test]
    fn decimals_round_half_to_even(eighths in 0_u32..=8) {
        // 0.125 and 0.375 lie half-way between two decimals of two places.
        let score = f64::from(eighths) / 8.0;
        let expected = ["0.00", "0.12", "0.25", "0.38", "0.50", "0.62", "0.75", "0.88", "1.00"];
        prop_assert_eq!(report_text::decimal(score, 2), expected[eighths as usize]);
    }
}

#[test]
fn labels_past_the_largest_matrix_are_refused() {
    let labels: Vec<i64> = (0..10_001).collect();
    let refused = Confusion::from_labels(&labels, &labels, None).unwrap_err();
    assert_eq!(refused, MetricsError::TooManyClasses(10_001));
    assert_eq!(
        refused.to_string(),
        "10001 different labels, and at most 10000 are counted: are they class numbers?"
    );
}

#[test]
fn bad_labels_are_refused() {
    let says = |truth: &[i64], predicted: &[i64], labels: Option<&[i64]>, expected: &str| {
        let refused = Confusion::from_labels(truth, predicted, labels).unwrap_err();
        assert_eq!(refused.to_string(), expected);
    };
    says(
        &[1],
        &[1, 2],
        None,
        "1 true labels but 2 predictions; there must be one for each",
    );
    let none = "there are no labels; at least one true label with its prediction is needed";
    says(&[], &[], None, none);
    says(&[], &[], Some(&[1]), none);
    let empty = "the list of labels to report on is empty; leave it out to report on all";
    says(&[1], &[1], Some(&[]), empty);
    let twice = "label 1 stands twice in the list of labels; once is enough";
    says(&[1], &[1], Some(&[1, 2, 1]), twice);
    let absent = "none of the labels [5, 7] is a true label; those lie between -1 and 4";
    says(&[4, -1, 2], &[5, 5, 5], Some(&[5, 7]), absent);
}

#[test]
fn bad_counts_are_refused() {
    let says = |labels: &[i64], counts: &[u64], expected: &str| {
        assert_eq!(
            Confusion::from_counts(labels, counts)
                .unwrap_err()
                .to_string(),
            expected
        );
    };
    says(
        &[0, 1],
        &[1, 2, 3],
        "2 labels need 4 counts, and 3 were given",
    );
    says(
        &[3, 3],
        &[1; 4],
        "label 3 stands twice in the list of labels; once is enough",
    );
    let none = "there are no labels; at least one true label with its prediction is needed";
    says(&[0], &[0], none);
    says(
        &[],
        &[],
        "the list of labels to report on is empty; leave it out to report on all",
    );
    let most = "the counts add up to more than 18446744073709551615";
    says(&[0, 1], &[u64::MAX, 0, 0, 1], most);
}

#[test]
fn names_must_fit_the_classes() {
    let confusion = Confusion::from_labels(&[2_u8, 7], &[2_u8, 2], None).unwrap();
    let named = |names: &[&str]| {
        let target_names = Some(names.iter().map(|&name| name.to_owned()).collect());
        Report::new(
            &confusion,
            &ReportOptions {
                target_names,
                ..ReportOptions::default()
            },
        )
    };
    assert_eq!(named(&["two", "seven"]).unwrap().classes[1].name, "seven");
    assert_eq!(
        named(&["two"]).unwrap_err().to_string(),
        "1 target names for 2 classes (labels [2, 7]); give one for each"
    );
}

#[test]
fn wide_numbers_wrap_and_are_summarised() {
    let wide = 10_u64.pow(18);
    let labels: Vec<i64> = (0..5).collect();
    let mut counts = vec![1; 25];
    counts[0] = wide;
    let text = Confusion::from_counts(&labels, &counts)
        .unwrap()
        .to_string();
    let one = "                  1";
    let first = format!("[[{wide} {one} {one}\n  {one} {one}]\n [{one} {one} {one}\n");
    assert!(text.starts_with(&first), "{text}");

    // The largest count is among those left out: the columns are as wide as what is shown.
    let labels: Vec<i64> = (0..32).collect();
    let mut counts = vec![1; 32 * 32];
    counts[16 * 32 + 16] = wide;
    let text = Confusion::from_counts(&labels, &counts)
        .unwrap()
        .to_string();
    assert!(
        text.starts_with("[[1 1 1 ... 1 1 1]\n [1 1 1 ... 1 1 1]\n"),
        "{text}"
    );
}
