//! The reference's published outputs, rebuilt from the confusion matrices in them.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use taskweave::metrics::{Confusion, Report, ReportOptions};

const TITLE_END: &str = " Performance:\n";

/// One report of a published output.
struct Section<'a> {
    title: &'a str,
    counts: Vec<u64>,
    /// Line breaks between this report and what comes next.
    gap: usize,
}

/// From a title up to the next.
fn section(text: &str) -> Section<'_> {
    let (title, body) = text.split_once(TITLE_END).unwrap();
    let (matrix, _) = body.split_once("]]").unwrap();
    let counts = matrix
        .split(|letter: char| !letter.is_ascii_digit())
        .filter(|word| !word.is_empty())
        .map(|word| word.parse().unwrap())
        .collect();
    // The report's last line ends with one line break, and printing it adds one.
    let gap = text.len() - text.trim_end().len() - 2;
    Section { title, counts, gap }
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let mut starts: Vec<usize> = text
        .match_indices(TITLE_END)
        .map(|(end, _)| {
            text[..end]
                .rfind('\n')
                .map_or(0, |line_break| line_break + 1)
        })
        .collect();
    starts.push(text.len());
    starts
        .windows(2)
        .map(|ends| section(&text[ends[0]..ends[1]]))
        .collect()
}

fn rebuilt(sections: &[Section<'_>], count: impl Fn(&[u64]) -> Confusion) -> String {
    let mut text = String::new();
    for Section { title, counts, gap } in sections {
        let confusion = count(counts);
        let report = Report::new(&confusion, &ReportOptions::default()).unwrap();
        let gap = "\n".repeat(*gap);
        write!(text, "{title}{TITLE_END}{confusion}\n{report}\n{gap}").unwrap();
    }
    text
}

/// Label pairs that have these counts.
fn labels(counts: &[u64]) -> (Vec<u8>, Vec<u8>) {
    let mut pairs = Vec::new();
    for (place, &count) in (0_u8..).zip(counts) {
        pairs.extend((0..count).map(|_| (place / 10, place % 10)));
    }
    pairs.into_iter().unzip()
}

#[test]
fn published_outputs_are_rebuilt_byte_for_byte() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/seeds");
    for name in [
        "digits-fashion-mlp",
        "digits-fashion-conv",
        "cifar-digits-fashion-conv",
    ] {
        let text = fs::read_to_string(folder.join(name).with_extension("txt")).unwrap();
        // What stands before the first report are progress bars of downloads.
        let text = &text[text.find("Dedicated").unwrap()..];
        let sections = sections(text);
        assert_eq!(sections.len(), 4);
        let from_counts = rebuilt(&sections, |counts| {
            Confusion::from_counts(&TEN, counts).unwrap()
        });
        assert!(from_counts == text, "{name}:\n{from_counts}");
        let from_labels = rebuilt(&sections, |counts| {
            let (truth, predicted) = labels(counts);
            Confusion::from_labels(&truth, &predicted, None).unwrap()
        });
        assert!(from_labels == text, "{name}:\n{from_labels}");
    }
}

const TEN: [i64; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// The built-in experiments print the reports of the published outputs, in their order and spacing.
#[test]
fn experiments_print_the_published_reports() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/seeds");
    for name in [
        "digits-fashion-mlp",
        "digits-fashion-conv",
        "cifar-digits-fashion-conv",
    ] {
        let text = fs::read_to_string(folder.join(name).with_extension("txt")).unwrap();
        let text = &text[text.find("Dedicated").unwrap()..];
        let published: Vec<(String, usize)> = sections(text)
            .iter()
            .map(|section| (format!("{}{TITLE_END}", section.title), section.gap))
            .collect();
        let experiment = taskweave::experiment::find(name).unwrap();
        let printed: Vec<(String, usize)> = experiment
            .reports
            .iter()
            .map(|report| {
                let title = experiment.report_title(report);
                (format!("{title}\n"), report.blank_lines_after)
            })
            .collect();
        assert_eq!(printed, published, "{name}");
    }
}
