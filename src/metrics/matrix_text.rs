//! A matrix of counts as NumPy prints it.
//!
//! Every number takes the width of the longest. A row that does not fit 75 columns is wrapped and
//! goes on under its first number. More than 1,000 numbers are summarised: the three first and last
//! of each row and column, `...` between them, and the width is that of the numbers shown.

const LINE_WIDTH: usize = 75;
const MOST_NUMBERS: usize = 1000;
const EDGE: usize = 3;
/// Under the two brackets of the first row.
const INDENT: &str = "  ";
/// The closing brackets need room too.
const ROW_WIDTH: usize = LINE_WIDTH - 2;

/// The text of a `size` × `size` matrix, without a closing newline.
pub(super) fn square(counts: &[u64], size: usize) -> String {
    let shown = shown(size, counts.len() > MOST_NUMBERS);
    let at = |row: usize, column: usize| counts[row * size + column].to_string();
    let width = shown
        .iter()
        .flatten()
        .flat_map(|&row| {
            shown
                .iter()
                .flatten()
                .map(move |&column| at(row, column).len())
        })
        .max()
        .unwrap_or(0);
    let rows: Vec<String> = shown
        .iter()
        .map(|&row| match row {
            None => "...".to_owned(),
            Some(row) => wrapped(shown.iter().map(|&column| match column {
                None => "...".to_owned(),
                Some(column) => format!("{:>width$}", at(row, column)),
            })),
        })
        .collect();
    format!("[{}]", rows.join("\n "))
}

/// Indices of the rows, or columns, to print; `None` for the ones left out.
fn shown(size: usize, summarise: bool) -> Vec<Option<usize>> {
    if !summarise || size <= 2 * EDGE {
        return (0..size).map(Some).collect();
    }
    let first = (0..EDGE).map(Some);
    let last = (size - EDGE..size).map(Some);
    first.chain([None]).chain(last).collect()
}

/// One row in its brackets, with line breaks.
fn wrapped(words: impl Iterator<Item = String>) -> String {
    let mut text = String::from("[");
    let mut column = INDENT.len();
    for (index, word) in words.enumerate() {
        let space = usize::from(index > 0);
        if index > 0 && column + space + word.len() > ROW_WIDTH {
            text.push('\n');
            text.push_str(INDENT);
            column = INDENT.len();
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        column += word.len();
        text.push_str(&word);
    }
    text.push(']');
    text
}
