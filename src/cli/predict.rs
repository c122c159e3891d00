//! `taskweave predict`.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::stored_task::stored_task;
use super::story::tell;
use super::{Failure, thread_count, with_threads};
use crate::data::{ImageSet, npy, picture_files, read_images, read_pictures};
use crate::experiment::{Predictions, StoredModel};
use crate::files::write_whole;

/// The arguments of `taskweave predict`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave predict results/multitask.safetensors t10k-images-idx3-ubyte.gz --task Digit\n  taskweave predict results/multitask.safetensors images.npy --task Fashion --proba --out proba.npy\n  taskweave predict results/multitask.safetensors photos/ --task Fashion\n\nImages are unsigned bytes: [count, height, width], with channels last or second where there are\nseveral. Those of another size than the net's are resized."
)]
pub(super) struct PredictArgs {
    /// A model file of `taskweave run --out`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Images: an .npy, .npz or IDX file, a .png or .jpeg picture, or a folder of pictures
    #[arg(value_name = "INPUT")]
    input: PathBuf,
    /// Which of the model's tasks; needed where it has several
    #[arg(long, value_name = "T")]
    task: Option<String>,
    /// The array of an .npz file that holds the images
    #[arg(long, value_name = "NAME", default_value = "x_test")]
    array: String,
    /// File for the predictions, .npy or .csv, instead of CSV on stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The probability of every class instead of the most likely class
    #[arg(long)]
    proba: bool,
    /// Images at once
    #[arg(long, value_name = "N", default_value = "512", value_parser = batch_size)]
    batch: usize,
    /// Threads to compute on; the results are the same for any number [default: all]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
}

fn batch_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(batch @ 1..=65_536) => Ok(batch),
        _ => Err("a number of images from 1 to 65536 is wanted".to_owned()),
    }
}

/// The form of the predictions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Csv,
    Npy,
}

pub(super) fn run(args: &PredictArgs, out: &mut (impl Write + Send)) -> Result<(), Failure> {
    let form = form(args.out.as_deref())?;
    with_threads(args.threads, || {
        let mut model = StoredModel::open(&args.model, args.batch)?;
        let task = stored_task(&model, &args.model, args.task.as_deref())?;
        let files = picture_files(&args.input)?;
        let pixels = match files[..] {
            [] => pixels(&model, task, args)?,
            _ => read_pictures(&files, model.input(task).dims())?,
        };
        let predictions = model.predict(task, pixels.pixels())?;
        let table = Table {
            predictions: &predictions,
            class_names: model.class_names(task),
            files: &files,
        };
        match &args.out {
            None => table.write_csv(out, args.proba)?,
            Some(path) => write_whole(path, |file| match form {
                Form::Npy => write_npy(file, &predictions, args.proba),
                Form::Csv => {
                    let mut file = io::BufWriter::new(file);
                    table.write_csv(&mut file, args.proba)?;
                    file.flush()
                }
            })
            .map_err(|error| Failure::unwritten(path, &error))?,
        }
        Ok(())
    })
}

fn form(out: Option<&Path>) -> Result<Form, Failure> {
    let Some(path) = out else {
        return Ok(Form::Csv);
    };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("npy") => Ok(Form::Npy),
        Some("csv") => Ok(Form::Csv),
        _ => Err(Failure::usage(format!(
            "--out {} ends neither in .npy nor in .csv, the forms that predictions are written in",
            path.display()
        ))),
    }
}

/// The images, of the size that the task's net takes.
fn pixels(model: &StoredModel, task: usize, args: &PredictArgs) -> Result<ImageSet, Failure> {
    let input = model.input(task);
    let failed = |reason: String| Failure::error(format!("{}: {reason}", args.input.display()));
    let (pixels, shape) = read_images(&args.input, &args.array, input.channels)
        .map_err(|error| failed(error.to_string()))?;
    let images = ImageSet::new(pixels, shape, vec![0; shape.count], 1)
        .map_err(|error| failed(error.to_string()))?;
    if [shape.height, shape.width] == [input.height, input.width] {
        return Ok(images);
    }
    tell!(
        "resizing images of {}x{} to {}x{}",
        shape.height,
        shape.width,
        input.height,
        input.width
    );
    images
        .resized(input.height, input.width)
        .map_err(|error| failed(error.to_string()))
}

fn write_npy(
    out: &mut impl Write,
    predictions: &Predictions,
    probabilities: bool,
) -> io::Result<()> {
    let count = predictions.labels.len();
    let written = if probabilities {
        let shape = [count, predictions.classes];
        npy::write(out, &shape, &predictions.probabilities)
    } else {
        let labels: Vec<i64> = predictions.labels.iter().map(|&l| i64::from(l)).collect();
        npy::write(out, &[count], &labels)
    };
    written.map_err(io::Error::other)
}

/// Predictions with what a reader wants beside them.
struct Table<'a> {
    predictions: &'a Predictions,
    class_names: &'a [String],
    /// The pictures, where the images are some.
    files: &'a [PathBuf],
}

impl Table<'_> {
    /// `index,label,class,probability`, or a column for every class; of pictures, `file` stands in the
    /// place of `index`.
    fn write_csv(&self, out: &mut impl Write, probabilities: bool) -> io::Result<()> {
        let predictions = self.predictions;
        let name = |class: usize| {
            let known = self.class_names.get(class);
            quoted(&known.map_or_else(|| class.to_string(), Clone::clone))
        };
        let first = if self.files.is_empty() {
            "index"
        } else {
            "file"
        };
        if probabilities {
            let columns: Vec<String> = (0..predictions.classes).map(name).collect();
            writeln!(out, "{first},{}", columns.join(","))?;
        } else {
            writeln!(out, "{first},label,class,probability")?;
        }
        let rows = predictions.probabilities.chunks(predictions.classes.max(1));
        for (index, (&label, row)) in predictions.labels.iter().zip(rows).enumerate() {
            let image = match self.files.get(index) {
                Some(file) => quoted(&file.display().to_string()),
                None => index.to_string(),
            };
            if probabilities {
                let values: Vec<String> = row.iter().map(f32::to_string).collect();
                writeln!(out, "{image},{}", values.join(","))?;
            } else {
                let label = label as usize;
                writeln!(out, "{image},{label},{},{}", name(label), row[label])?;
            }
        }
        Ok(())
    }
}

/// A field of CSV (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
