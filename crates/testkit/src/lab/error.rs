//! What can go wrong in a lab.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A failure to make, use or wait for a part of the lab.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("`{command}` failed ({status}): {stderr}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it wrote to stderr, without the last newline.
        stderr: String,
    },
    /// A file or folder could not be read or written.
    #[error("cannot use {}: {source}", .path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A call in a namespace failed.
    #[error("{what} in {namespace}: {source}")]
    Namespace {
        /// What was tried.
        what: &'static str,
        /// The namespace.
        namespace: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Something awaited did not happen.
    #[error("waited {after:?} in vain for {what}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// A process ended that should run on.
    #[error("{name} ended ({status}): {log}")]
    Ended {
        /// The process's label.
        name: String,
        /// How it ended.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// A program of this project or of the machine is missing.
    #[error("no program `{0}`; `cargo xtask build` makes or installs it")]
    Missing(String),
}

impl LabError {
    /// Wraps an error of using a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}
