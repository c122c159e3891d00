//! How the program ends when it cannot do what it was asked.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::interrupt;
use super::report::ReportError;
use super::story::tell;
use crate::experiment::ExperimentError;
use crate::train::TrainError;

/// A message for the person at the terminal, and the exit code that goes with it.
#[derive(Debug)]
pub struct Failure {
    message: Option<String>,
    code: u8,
}

impl Failure {
    /// Something went wrong: exit code 1.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            message: Some(message.into()),
            code: 1,
        }
    }

    /// The command line or the environment is wrong: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: Some(message.into()),
            code: 2,
        }
    }

    /// A file could not be written: exit code 1.
    pub(super) fn unwritten(path: &Path, error: &io::Error) -> Self {
        Self::error(format!("cannot write {}: {error}", path.display()))
    }

    /// The person at the terminal asked to stop: exit code 130.
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self {
            message: Some(message.into()),
            code: 130,
        }
    }

    /// A process that was begun here failed with this exit code, and has said why.
    pub(super) fn told(code: u8) -> Self {
        Self {
            message: None,
            code,
        }
    }

    pub(super) fn report(&self) {
        if let Some(message) = &self.message {
            tell!("taskweave: {message}");
        }
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl From<io::Error> for Failure {
    /// Of writing to stdout: a reader that has seen enough is no failure worth a word.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                message: None,
                code: 0,
            };
        }
        Self::error(format!("cannot write to stdout: {error}"))
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::Output(error) => error.into(),
            _ => Self::error(error.to_string()),
        }
    }
}

impl From<ExperimentError> for Failure {
    fn from(error: ExperimentError) -> Self {
        match error {
            ExperimentError::Interrupted
            | ExperimentError::Train {
                source: TrainError::Interrupted,
                ..
            } => Self::interrupted(interrupt::message()),
            ExperimentError::Unknown { .. } => Self::usage(error.to_string()),
            _ => Self::error(error.to_string()),
        }
    }
}
