//! `taskweave export`.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::stored_task::stored_task;
use super::story::tell;
use crate::experiment::StoredModel;
use crate::files::{size_text, write_whole};

/// The arguments of `taskweave export`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  taskweave export results/multitask.safetensors --task Digit --onnx digit.onnx\n  taskweave export results/dedicated-digit.safetensors --onnx digit.onnx\n\nThe ONNX model takes raw pixels, unsigned bytes [images, channels, height, width], and gives logits and\nprobabilities."
)]
pub(super) struct ExportArgs {
    /// A model file of `taskweave run --out`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The ONNX file to write
    #[arg(long, value_name = "FILE")]
    onnx: PathBuf,
    /// Which of the model's tasks; needed where it has several
    #[arg(long, value_name = "T")]
    task: Option<String>,
}

pub(super) fn run(args: &ExportArgs) -> Result<(), Failure> {
    let model = StoredModel::open(&args.model, 1)?;
    let task = stored_task(&model, &args.model, args.task.as_deref())?;
    let bytes = model.to_onnx(task)?;
    write_whole(&args.onnx, |file| file.write_all(&bytes))
        .map_err(|error| Failure::unwritten(&args.onnx, &error))?;
    tell!(
        "wrote {}, {}",
        args.onnx.display(),
        size_text(bytes.len() as u64)
    );
    Ok(())
}
