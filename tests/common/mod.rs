//! What tests of printed reports share.

/// A text with every number and the width of what surrounds it taken away: titles, blank lines and
/// the words of the reports remain.
pub(crate) fn layout(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| {
            let words = line.split_whitespace().map(|word| {
                let number = word.trim_matches(['[', ']']).parse::<f64>().is_ok();
                if number { "#" } else { word }
            });
            let words: Vec<&str> = words.filter(|word| !["[", "[["].contains(word)).collect();
            words.join(" ")
        })
        .collect()
}
