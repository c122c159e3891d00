//! Placeholder until merged.
use std::io::Write;use std::path::Path;use super::Failure;use crate::data::Dataset;
#[derive(clap::Args,Debug)] pub struct DataArgs{}
pub(super) fn run(_:&DataArgs,_:&mut impl Write)->Result<(),Failure>{Ok(())}
pub(super) fn load_or_fetch<'a>(_: impl Iterator<Item=&'a str>,_:Option<&Path>,_:bool)->Result<Vec<Dataset>,Failure>{Err(Failure::error("x"))}
