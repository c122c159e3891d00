//! `taskweave add`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::owner_args::percentile;
use super::progress::{EpochProgress, Style};
use super::run::{epoch_count, task_images};
use super::story::tell;
use super::{Failure, data as data_command, seed, thread_count, with_threads};
use crate::data::{ImageSet, read_own};
use crate::experiment::{AddSettings, NewTask, StoredModel, TaskData};

/// The arguments of `taskweave add`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave add results/multitask.safetensors --task Sevens --data mnist --classes 1,7\n  taskweave add results/multitask.safetensors --task Leaves --data leaves.npz --out three.safetensors\n\nAn .npz file holds x_train, y_train, x_test and y_test: images as unsigned bytes, labels from 0. Images of\nanother size than the model's are resized. The new task's report goes to stdout."
)]
pub(super) struct AddArgs {
    /// A multitask model file of `taskweave run --out`; it is replaced unless --out is given
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The new task's name
    #[arg(long, value_name = "NAME")]
    task: String,
    /// Its images: a dataset of `taskweave data list`, or an .npz file
    #[arg(long, value_name = "DATASET|FILE.npz")]
    data: String,
    /// Only these of its classes, numbered anew in this order
    #[arg(long, value_name = "N,N...", value_delimiter = ',')]
    classes: Vec<usize>,
    /// File for the larger model, instead of MODEL itself
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Percentile of importance below which the task owns nothing [default: as the model's run]
    #[arg(long, value_name = "P", value_parser = percentile)]
    percentile: Option<f64>,
    /// Most epochs [default: as the model's run]
    #[arg(long, value_name = "N", value_parser = epoch_count)]
    epochs: Option<usize>,
    /// Seed of all random choices
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = seed)]
    seed: u64,
    /// Folder that has, or gets, the datasets [default: TASKWEAVE_HOME, then the user's cache]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Threads to compute on; the results are the same for any number [default: all]
    #[arg(long, value_name = "N", value_parser = thread_count)]
    threads: Option<usize>,
    /// No progress, no summary: only warnings and errors on stderr
    #[arg(long)]
    quiet: bool,
}

/// The images of the new task.
struct Images {
    train: ImageSet,
    test: ImageSet,
    class_names: Vec<String>,
}

pub(super) fn run(args: &AddArgs, out: &mut (impl Write + Send)) -> Result<(), Failure> {
    with_threads(args.threads, || {
        let mut model = StoredModel::open(&args.model, 1)?;
        model.check_new_name(&args.task)?;
        let images = images(args)?.of_classes(&args.classes)?;
        let channels = images.train.channels();
        let images = images.resized(model.size_for(channels))?;
        let new = NewTask {
            name: &args.task,
            dataset: &args.data,
            class_names: images.class_names.clone(),
            channels,
            data: TaskData {
                train: task_images(&images.train)?,
                test: task_images(&images.test)?,
            },
        };
        let settings = AddSettings {
            seed: args.seed,
            epochs: args.epochs,
            percentile: args.percentile,
        };
        let mut progress = EpochProgress::new(Style::of(args.quiet));
        progress.begin(vec![args.task.clone()]);
        let added = model.add_task(&new, &settings, &mut progress)?;
        let path = args.out.as_deref().unwrap_or(&args.model);
        model.save(path)?;
        write!(
            out,
            "Multitask Model {} Performance:\n{}",
            args.task,
            added.outcome.text()
        )?;
        for warning in &added.warnings {
            tell!("warning: {warning}");
        }
        if !args.quiet {
            tell!(
                "{} joined {} after {} epochs and {:.1} s",
                args.task,
                path.display(),
                added.fit.history.len(),
                added.fit.seconds
            );
        }
        Ok(())
    })
}

fn images(args: &AddArgs) -> Result<Images, Failure> {
    let path = Path::new(&args.data);
    if path.extension().is_some_and(|extension| extension == "npz") {
        let (train, test) = read_own(path)?;
        let class_names = (0..train.classes())
            .map(|class| class.to_string())
            .collect();
        return Ok(Images {
            train,
            test,
            class_names,
        });
    }
    let names = std::iter::once(&args.data[..]);
    let datasets = data_command::load_or_fetch(names, args.data_dir.as_deref(), args.quiet)?;
    let dataset = datasets.into_iter().next();
    let dataset = dataset.ok_or_else(|| Failure::error(format!("{} was not loaded", args.data)))?;
    Ok(Images {
        train: dataset.train,
        test: dataset.test,
        class_names: dataset
            .class_names
            .iter()
            .map(|&name| name.to_owned())
            .collect(),
    })
}

impl Images {
    /// Those of some classes; of all if none are named.
    fn of_classes(self, classes: &[usize]) -> Result<Self, Failure> {
        if classes.is_empty() {
            return Ok(self);
        }
        let some = |set: &ImageSet| {
            let wrong = |error| Failure::usage(format!("--classes: {error}"));
            set.of_classes(classes).map_err(wrong)
        };
        let name = |&class: &usize| self.class_names[class].clone();
        Ok(Self {
            train: some(&self.train)?,
            test: some(&self.test)?,
            class_names: classes.iter().map(name).collect(),
        })
    }

    /// All of them, brought to a size.
    fn resized(self, [height, width]: [usize; 2]) -> Result<Self, Failure> {
        let resized = |set: ImageSet| {
            if [set.height(), set.width()] == [height, width] {
                return Ok(set);
            }
            set.resized(height, width)
                .map_err(|error| Failure::error(error.to_string()))
        };
        Ok(Self {
            train: resized(self.train)?,
            test: resized(self.test)?,
            ..self
        })
    }
}
