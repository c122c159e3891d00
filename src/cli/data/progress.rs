//! What the person at the terminal sees of a download: a bar, or plain lines where stderr is not a
//! terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

use super::super::interrupt;
use super::super::progress::Style;
use super::super::story::tell;
use crate::data::Progress;
use crate::files::size_text;

/// Between two plain lines within a file.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// Shows downloads, one file after the other.
pub(super) struct DownloadProgress {
    style: Style,
    bar: Option<ProgressBar>,
    file: String,
    total: u64,
    done: u64,
    begun_at: u64,
    start: Instant,
    last_line: Instant,
}

impl DownloadProgress {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            bar: None,
            file: String::new(),
            total: 0,
            done: 0,
            begun_at: 0,
            start: Instant::now(),
            last_line: Instant::now(),
        }
    }
}

impl Progress for DownloadProgress {
    fn note(&mut self, line: &str) {
        if self.style != Style::Quiet {
            tell!("{line}");
        }
    }

    fn begin(&mut self, file: &str, url: &str, done: u64, total: u64) {
        self.end();
        self.file = file.to_owned();
        self.total = total;
        (self.done, self.begun_at) = (done, done);
        self.start = Instant::now();
        self.last_line = self.start;
        if self.style == Style::Quiet {
            return;
        }
        let from = match done {
            0 => String::new(),
            done => format!(", of which {} are here already", size_text(done)),
        };
        tell!("downloading {url} ({}{from})", size_text(total));
        if self.style == Style::Bars {
            self.bar = Some(download_bar(file, done, total));
        }
    }

    fn advance(&mut self, done: u64) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
        if self.style == Style::Plain && self.last_line.elapsed() >= PLAIN_INTERVAL {
            self.last_line = Instant::now();
            let rate = (done - self.begun_at) as f64 / self.start.elapsed().as_secs_f64();
            tell!(
                "  {}: {} of {}, {:.0} s left",
                self.file,
                size_text(done),
                size_text(self.total),
                self.total.saturating_sub(done) as f64 / rate
            );
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let arrived = self.done > self.begun_at && self.done == self.total;
        if arrived && self.style != Style::Quiet {
            tell!(
                "  {} in {:.1} s",
                self.file,
                self.start.elapsed().as_secs_f64()
            );
        }
        self.begun_at = self.done;
    }

    fn interrupted(&self) -> bool {
        interrupt::requested()
    }
}

fn download_bar(file: &str, done: u64, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10))
        .with_finish(ProgressFinish::AndClear);
    let template = "  {msg} [{bar:24}] {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(file.to_owned());
    bar.set_position(done);
    bar.reset_eta();
    bar
}
