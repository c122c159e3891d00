//! `taskweave data`: which datasets there are, where they are, downloading and checking them.

mod progress;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::Failure;
use super::progress::Style;
use super::story::tell;
use crate::data::registry::{self, DATASETS, DatasetInfo};
use crate::data::{
    self, Checked, DataError, DataHome, Dataset, FetchOptions, Located, SUBSET_DATASETS, Warning,
};
use crate::files::size_text;
use progress::DownloadProgress;

const EXAMPLES: &str = "\
Examples:
  taskweave data list
  taskweave data fetch mnist fashion-mnist
  taskweave data verify --data-dir ~/.keras/datasets

The data folder is --data-dir, else the environment variable TASKWEAVE_HOME, else
$XDG_CACHE_HOME/taskweave, else ~/.cache/taskweave. It may hold mnist.npz, as Keras has it, or the
IDX files of MNIST and Fashion-MNIST, plain or gzipped, in mnist/ and fashion-mnist/, and
cifar-10-binary.tar.gz, or what is in it, in cifar-10-batches-bin/. What is there is used as it is,
offline.";

/// The arguments of `taskweave data`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
    /// Folder that has, or gets, the datasets [default: TASKWEAVE_HOME, then the user's cache]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// List the datasets, and which of them are in the data folder
    #[command(after_help = "Example:\n  taskweave data list --json")]
    List {
        /// Print JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Download datasets that the data folder does not have, and print where they are
    #[command(after_help = "Examples:\n  taskweave data fetch\n  \
        TASKWEAVE_MIRROR=http://localhost:8000 taskweave data fetch mnist\n\n\
        TASKWEAVE_MIRROR is an address to try before all others; it is laid out like a data folder.\n\
        A download that broke off is carried on by the next one.")]
    Fetch {
        /// Which datasets [default: all]
        names: Vec<String>,
        /// No progress: only warnings and errors on stderr
        #[arg(long)]
        quiet: bool,
    },
    /// Read datasets whole and compare them with the official ones
    #[command(after_help = "Example:\n  taskweave data verify mnist\n\n\
        official: these are the official images and labels, whatever the compression.\n\
        unknown: whole, but not the official content, or none is known to compare with (the files of\n\
        cifar-10 out of their archive).\n\
        damaged: cannot be used. missing: not in the data folder.\n\
        The exit code is 1 where a file is damaged, or a dataset that was named is missing.")]
    Verify {
        /// Which datasets [default: all that are in the data folder]
        names: Vec<String>,
        /// Print JSON, for scripts
        #[arg(long)]
        json: bool,
    },
    /// Print the data folder, or the files of a dataset in it
    #[command(after_help = "Examples:\n  taskweave data path\n  taskweave data path mnist")]
    Path {
        /// Which dataset
        name: Option<String>,
    },
    /// Make the small part of mnist and fashion-mnist that the program carries with it
    #[command(
        after_help = "Example:\n  taskweave data subset --out fixtures/quickstart.npz\n\n\
        The first 500 training images and 100 test images of every class, one class after the other \
        in turn."
    )]
    Subset {
        /// The npz file to write
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        match error {
            DataError::Unknown { .. } => Self::usage(error.to_string()),
            DataError::Interrupted => Self::interrupted(error.to_string()),
            _ => Self::error(error.to_string()),
        }
    }
}

/// Does what the arguments ask for; `out` gets the answer.
///
/// # Errors
/// When a dataset is unknown, missing or damaged, cannot be downloaded, or `out` cannot be written.
pub fn run(args: &DataArgs, out: &mut impl Write) -> Result<(), Failure> {
    let home = DataHome::resolve(args.data_dir.as_deref())?;
    match &args.command {
        DataCommand::List { json } => list(&home, *json, out),
        DataCommand::Fetch { names, quiet } => fetch(&home, names, *quiet, out),
        DataCommand::Verify { names, json } => verify(&home, names, *json, out),
        DataCommand::Path { name } => path(&home, name.as_deref(), out),
        DataCommand::Subset { out } => subset(&home, out),
    }
}

/// Reads these datasets from the data folder, downloading first what is not there. Warnings go to
/// stderr, and so does the progress unless `quiet`.
pub(super) fn load_or_fetch<'a>(
    names: impl Iterator<Item = &'a str>,
    data_dir: Option<&Path>,
    quiet: bool,
) -> Result<Vec<Dataset>, Failure> {
    let home = DataHome::resolve(data_dir)?;
    let options = FetchOptions::from_env();
    let mut progress = DownloadProgress::new(Style::of(quiet));
    let mut datasets: Vec<Dataset> = Vec::new();
    for name in names {
        if datasets.iter().all(|dataset| dataset.name != name) {
            let (dataset, warnings) = data::load_or_fetch(name, &home, &options, &mut progress)?;
            warn(&warnings);
            datasets.push(dataset);
        }
    }
    Ok(datasets)
}

fn warn(warnings: &[Warning]) {
    for warning in warnings {
        tell!("warning: {warning}");
    }
}

/// The dataset's files, or nothing where it is not in the data folder.
fn find(info: &'static DatasetInfo, home: &DataHome) -> Result<Option<Located>, DataError> {
    match data::find(info, home) {
        Ok(located) => Ok(Some(located)),
        Err(DataError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn named(names: &[String]) -> Result<Vec<&'static DatasetInfo>, DataError> {
    names.iter().map(|name| registry::dataset(name)).collect()
}

fn list(home: &DataHome, as_json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for info in DATASETS {
        rows.push((info, find(info, home)?));
    }
    if as_json {
        let rows: Vec<Value> = rows
            .iter()
            .map(|(info, located)| {
                json!({
                    "name": info.name,
                    "summary": info.summary,
                    "train_images": info.train_images,
                    "test_images": info.test_images,
                    "image": info.image,
                    "class_names": info.class_names,
                    "download_bytes": info.download_bytes(),
                    "files": located.as_ref().map(|located| located.source.files()),
                })
            })
            .collect();
        writeln!(
            out,
            "{:#}",
            json!({ "data_dir": home.path(), "datasets": rows })
        )?;
        return Ok(());
    }
    tell!("data folder: {} ({})", home.path().display(), home.origin());
    let width = DATASETS
        .iter()
        .map(|info| info.name.len())
        .max()
        .unwrap_or(0);
    for (info, located) in rows {
        let [height, image_width, channels] = info.image;
        let place = match &located {
            Some(located) => place_in(home, located),
            None => format!("not here, {} to download", size_text(info.download_bytes())),
        };
        writeln!(
            out,
            "{:width$}  {} + {} images of {height}x{image_width}x{channels}, {} classes: {place}",
            info.name,
            info.train_images,
            info.test_images,
            info.class_names.len()
        )?;
    }
    Ok(())
}

/// The file, or the folder of the files, within the data folder.
fn place_in(home: &DataHome, located: &Located) -> String {
    let place = match located.source.files() {
        [file] => file.as_path(),
        files => files[0].parent().unwrap_or(home.path()),
    };
    place
        .strip_prefix(home.path())
        .unwrap_or(place)
        .display()
        .to_string()
}

fn fetch(
    home: &DataHome,
    names: &[String],
    quiet: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let infos = if names.is_empty() {
        DATASETS.to_vec()
    } else {
        named(names)?
    };
    let options = FetchOptions::from_env();
    let mut progress = DownloadProgress::new(Style::of(quiet));
    for info in infos {
        let located = data::fetch(info, home, &options, &mut progress)?;
        if !located.is_verified() {
            for checked in data::check(&located)? {
                warn(checked.warning(info.name).as_slice());
            }
        }
        for file in located.source.files() {
            writeln!(out, "{}", file.display())?;
        }
    }
    Ok(())
}

/// What `verify` says of one dataset.
struct Verdict {
    info: &'static DatasetInfo,
    result: Option<Result<Vec<Checked>, DataError>>,
}

impl Verdict {
    fn as_json(&self) -> Value {
        let (status, checked, error) = match &self.result {
            None => ("missing", &[][..], None),
            Some(Err(error)) => ("damaged", &[][..], Some(error.to_string())),
            Some(Ok(checked)) if checked.iter().all(Checked::is_official) => {
                ("official", &checked[..], None)
            }
            Some(Ok(checked)) => ("unknown", &checked[..], None),
        };
        let contents: Vec<Value> = checked
            .iter()
            .map(|checked| {
                json!({
                    "path": checked.path,
                    "part": checked.part.map(|part| part.to_string()),
                    "status": status_of(checked),
                    "sha256": checked.sha256,
                    "official_sha256": checked.official,
                })
            })
            .collect();
        json!({
            "dataset": self.info.name,
            "status": status,
            "error": error,
            "contents": contents,
        })
    }

    fn write(&self, width: usize, out: &mut impl Write) -> std::io::Result<()> {
        let name = self.info.name;
        match &self.result {
            None => writeln!(out, "{name:width$}  missing"),
            Some(Err(_)) => writeln!(out, "{name:width$}  damaged"),
            Some(Ok(checked)) => {
                for checked in checked {
                    let path = checked.path.display();
                    let part = checked
                        .part
                        .map_or(String::new(), |part| format!(", {part}"));
                    writeln!(out, "{name:width$}  {:8}  {path}{part}", status_of(checked))?;
                }
                Ok(())
            }
        }
    }
}

fn status_of(checked: &Checked) -> &'static str {
    if checked.is_official() {
        "official"
    } else {
        "unknown"
    }
}

fn verify(
    home: &DataHome,
    names: &[String],
    as_json: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let infos = if names.is_empty() {
        DATASETS.to_vec()
    } else {
        named(names)?
    };
    let width = infos.iter().map(|info| info.name.len()).max().unwrap_or(0);
    let mut verdicts = Vec::new();
    let mut bad = Vec::new();
    for info in infos {
        let verdict = Verdict {
            info,
            result: find(info, home)?.map(|located| data::check(&located)),
        };
        match &verdict.result {
            None if names.is_empty() => {}
            None => bad.push(format!("{} is not in {}", info.name, home.path().display())),
            Some(Err(error)) => bad.push(error.to_string()),
            Some(Ok(checked)) => {
                for checked in checked {
                    warn(checked.warning(info.name).as_slice());
                }
            }
        }
        if !as_json {
            verdict.write(width, out)?;
        }
        verdicts.push(verdict.as_json());
    }
    if as_json {
        writeln!(
            out,
            "{:#}",
            json!({ "data_dir": home.path(), "datasets": verdicts })
        )?;
    }
    if bad.is_empty() {
        Ok(())
    } else {
        Err(Failure::error(bad.join("\n")))
    }
}

fn path(home: &DataHome, name: Option<&str>, out: &mut impl Write) -> Result<(), Failure> {
    let Some(name) = name else {
        writeln!(out, "{}", home.path().display())?;
        return Ok(());
    };
    for file in data::find(registry::dataset(name)?, home)?.source.files() {
        writeln!(out, "{}", file.display())?;
    }
    Ok(())
}

fn subset(home: &DataHome, file: &Path) -> Result<(), Failure> {
    let mut datasets = Vec::new();
    for info in SUBSET_DATASETS {
        let (dataset, warnings) = data::load(info.name, home)?;
        warn(&warnings);
        datasets.push(dataset);
    }
    data::write_subset(file, &datasets)?;
    tell!("wrote {}", file.display());
    Ok(())
}
