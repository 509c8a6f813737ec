//! ipvsadm, ipvsadm-save and ipvsadm-restore: the administration programs of IPVS, with the
//! grammar, output and exit codes of ipvsadm 1.31, for rvsd or a kernel that has ip_vs.
#![forbid(unsafe_code)]

pub mod address;
pub mod command;
pub mod docs;
mod execute;
pub mod flags;
pub mod help;
mod listing;
pub mod parse;
mod restore;
mod save;
mod sort;

use std::io::{BufWriter, Write};
use std::process::ExitCode;

/// Why nothing was done: the exit code and the line for stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// The line.
    pub message: String,
    /// Whether it ends a restore; else the lines after it are carried out.
    pub ends_restore: bool,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), ends_restore: true }
    }

    /// The command line makes no sense.
    fn usage(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }

    /// An option that is none, or not given as it is to be.
    fn option(message: impl Into<String>) -> Self {
        Self { ends_restore: false, ..Self::new(255, message) }
    }

    /// Not even a command was found.
    fn try_help() -> Self {
        Self::new(255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.")
    }
}

/// Runs `ipvsadm` with the process's arguments.
pub fn ipvsadm() -> ExitCode {
    finish(|args, out| {
        let parsed = if args.is_empty() { command::list_all() } else { command::parse(args)? };
        for warning in &parsed.warnings {
            eprintln!("warning: {warning}");
        }
        execute::execute(&parsed.command, out, &mut None)
    })
}

/// Runs `ipvsadm-save` with the process's arguments.
pub fn ipvsadm_save() -> ExitCode {
    finish(|args, out| save::program(args, out))
}

/// Runs `ipvsadm-restore` with the process's arguments.
pub fn ipvsadm_restore() -> ExitCode {
    finish(|args, out| restore::program(args, out))
}

fn finish(run: impl FnOnce(&[String], &mut dyn Write) -> Result<(), Failure>) -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let mut out = BufWriter::with_capacity(64 * 1024, std::io::stdout().lock());
    let result = run(&args, &mut out);
    // What was printed comes before what is complained of.
    let result = result.and(execute::written(out.flush()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("{}", failure.message);
            }
            ExitCode::from(failure.code)
        }
    }
}
