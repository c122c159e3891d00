//! Timing a piece of work and printing the figures.

use std::fs;
use std::io::Write;
use std::time::Instant;

use serde::Serialize;
use taskweave_kernels::{dispatch, peak};

use super::Common;
use crate::cli::{Failure, interrupt};

/// Repetitions before any is counted.
const WARM_UPS: usize = 3;

/// How much a piece of work is, in the unit of what bounds it.
#[derive(Clone, Copy)]
pub(super) enum Load {
    /// Bound by arithmetic.
    MultiplyAdds(usize),
    /// Bound by memory: bytes read and written.
    Bytes(usize),
}

/// One measurement. A rate that says nothing about the work is `None`.
#[derive(Serialize)]
struct Measurement {
    name: String,
    median_ms: f64,
    min_ms: f64,
    max_ms: f64,
    gflops: Option<f64>,
    fma_peak_gflops: Option<f64>,
    share_of_peak: Option<f64>,
    gigabytes_per_second: Option<f64>,
    /// Pages that the system had to map in the median repetition; `None` where it does not tell.
    page_faults: Option<u64>,
    isa: &'static str,
    threads: usize,
    batch: usize,
}

/// A benchmark in progress: times its work and prints the figures.
pub(super) struct Bench<'a, W> {
    settings: &'a Common,
    out: &'a mut W,
    heading_printed: bool,
}

impl<'a, W: Write> Bench<'a, W> {
    pub(super) fn new(settings: &'a Common, out: &'a mut W) -> Self {
        Self {
            settings,
            out,
            heading_printed: false,
        }
    }

    /// Images in a batch.
    pub(super) fn batch(&self) -> usize {
        self.settings.batch
    }

    /// Times `work` and prints the figures.
    pub(super) fn time(
        &mut self,
        name: String,
        load: Load,
        mut work: impl FnMut(),
    ) -> Result<(), Failure> {
        self.try_time(name, load, || {
            work();
            Ok(())
        })
    }

    /// Times `work`, which may fail, and prints the figures.
    pub(super) fn try_time(
        &mut self,
        name: String,
        load: Load,
        mut work: impl FnMut() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for _ in 0..WARM_UPS {
            work()?;
        }
        let peak_before = fma_peak(load);
        let mut times = Vec::with_capacity(self.settings.repetitions);
        let mut faults = Vec::with_capacity(self.settings.repetitions);
        for _ in 0..self.settings.repetitions {
            if interrupt::requested() {
                return Err(Failure::interrupted(interrupt::message()));
            }
            let faults_before = page_faults();
            let start = Instant::now();
            work()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            let both = faults_before.zip(page_faults());
            faults.extend(both.map(|(before, after)| after - before));
        }
        let peak_after = fma_peak(load);
        times.sort_by(f64::total_cmp);
        faults.sort_unstable();
        let median_ms = times[times.len() / 2];
        let rate = |amount: usize| amount as f64 / median_ms / 1e6;
        let (gflops, gigabytes_per_second) = match load {
            Load::MultiplyAdds(count) => (Some(2.0 * rate(count)), None),
            Load::Bytes(count) => (None, Some(rate(count))),
        };
        let fma_peak_gflops = peak_before
            .zip(peak_after)
            .map(|(before, after)| before.max(after));
        self.print(&Measurement {
            name,
            median_ms,
            min_ms: times[0],
            max_ms: times[times.len() - 1],
            gflops,
            fma_peak_gflops,
            share_of_peak: gflops.zip(fma_peak_gflops).map(|(rate, peak)| rate / peak),
            gigabytes_per_second,
            page_faults: faults.get(faults.len() / 2).copied(),
            isa: dispatch::active().name(),
            threads: rayon::current_num_threads(),
            batch: self.settings.batch,
        })
    }

    fn print(&mut self, measurement: &Measurement) -> Result<(), Failure> {
        if self.settings.json {
            let line = serde_json::to_string(measurement)
                .map_err(|error| Failure::error(format!("cannot print the figures: {error}")))?;
            writeln!(self.out, "{line}")?;
        } else {
            if !self.heading_printed {
                self.heading_printed = true;
                writeln!(self.out, "{}", measurement.heading())?;
            }
            writeln!(self.out, "{}", measurement.row())?;
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Pages mapped for this process so far without reading a file, where Linux tells: see `proc(5)`.
fn page_faults() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which stands in brackets and may hold anything: state, six numbers, flags.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(7)?.parse().ok()
}

/// The FMA peak of the set in use, where the work is to be held against it.
fn fma_peak(load: Load) -> Option<f64> {
    let measure = || peak::fma_peak_gflops(dispatch::active(), rayon::current_num_threads());
    matches!(load, Load::MultiplyAdds(_)).then(measure)
}

impl Measurement {
    /// The line above a table, which begins with where the figures were measured.
    fn heading(&self) -> String {
        let threads = match self.threads {
            1 => "1 thread".to_owned(),
            threads => format!("{threads} threads"),
        };
        let place = format!("{}, {threads}", self.isa);
        let rates = match self.gigabytes_per_second {
            None => format!("{:>10}{:>9}", "GFLOP/s", "of peak"),
            Some(_) => format!("{:>10}", "GB/s"),
        };
        format!(
            "{place:<40}{:>10}{:>10}{:>10}{rates}",
            "median ms", "min ms", "max ms"
        )
    }

    fn row(&self) -> String {
        let mut row = format!(
            "{:<40}{:>10.3}{:>10.3}{:>10.3}",
            self.name, self.median_ms, self.min_ms, self.max_ms
        );
        for rate in [self.gflops, self.gigabytes_per_second] {
            row += &rate.map_or(String::new(), |rate| format!("{rate:>10.1}"));
        }
        if let Some(share) = self.share_of_peak {
            row += &format!("{:>8.1}%", 100.0 * share);
        }
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement() -> Measurement {
        Measurement {
            name: "work".to_owned(),
            median_ms: 2.0,
            min_ms: 1.5,
            max_ms: 1234.5678,
            gflops: Some(100.0),
            fma_peak_gflops: Some(200.0),
            share_of_peak: Some(0.5),
            gigabytes_per_second: None,
            page_faults: None,
            isa: "portable",
            threads: 1,
            batch: 16,
        }
    }

    #[test]
    fn columns_stand_under_their_headings() {
        let arithmetic = measurement();
        let memory = Measurement {
            gflops: None,
            fma_peak_gflops: None,
            share_of_peak: None,
            gigabytes_per_second: Some(12.34),
            threads: 2,
            ..measurement()
        };
        assert_eq!(
            arithmetic.heading(),
            "portable, 1 thread                       median ms    min ms    max ms   GFLOP/s  of peak"
        );
        assert_eq!(
            arithmetic.row(),
            "work                                         2.000     1.500  1234.568     100.0    50.0%"
        );
        assert_eq!(
            memory.heading(),
            "portable, 2 threads                      median ms    min ms    max ms      GB/s"
        );
        assert_eq!(
            memory.row(),
            "work                                         2.000     1.500  1234.568      12.3"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn pages_that_are_touched_for_the_first_time_are_counted() {
        let before = page_faults().unwrap();
        let pages: Vec<u8> = vec![1; 1 << 20];
        assert_eq!(
            pages.iter().map(|&byte| usize::from(byte)).sum::<usize>(),
            1 << 20
        );
        let after = page_faults().unwrap();
        // 256 pages of 4 KB; of 64 KB there would be 16.
        assert!(after - before >= 16, "{before} to {after}");
    }

    #[test]
    fn rates_are_those_of_the_median() {
        let common = Common {
            batch: 16,
            threads: None,
            repetitions: 5,
            all_isas: false,
            json: true,
        };
        let mut out = Vec::new();
        let mut bench = Bench::new(&common, &mut out);
        let (mut calls, pauses) = (0, [1, 1, 1, 4, 12, 2, 8, 16]);
        let work = || {
            std::thread::sleep(std::time::Duration::from_millis(pauses[calls]));
            calls += 1;
        };
        bench
            .time("naps".to_owned(), Load::Bytes(1_000_000), work)
            .unwrap();
        assert_eq!(calls, WARM_UPS + 5);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let number = |key: &str| line[key].as_f64().unwrap();
        assert!(number("min_ms") >= 2.0 && number("median_ms") >= 8.0);
        assert!(number("max_ms") >= 16.0);
        let bytes = number("gigabytes_per_second") * number("median_ms");
        assert!((bytes - 1.0).abs() < 1e-9, "{bytes} million bytes");
        assert!(line["gflops"].is_null() && line["share_of_peak"].is_null());
    }
}
