//! ipvsadm: the administration program of IPVS, with the grammar, output and exit codes of
//! ipvsadm 1.31, for rvsd or a kernel that has ip_vs.
#![forbid(unsafe_code)]

mod address;
mod command;
mod conns;
mod execute;
mod flags;
mod help;
mod listing;
mod parse;
mod restore;
mod save;
mod sort;

use std::io::Write;
use std::process::ExitCode;

/// Why nothing was done: the exit code and the line for stderr.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The command line makes no sense.
    fn usage(message: impl Into<String>) -> Self {
        Self::new(2, message)
    }

    /// Not even a command was found.
    fn try_help() -> Self {
        Self::new(255, "Try `ipvsadm -h' or 'ipvsadm --help' for more information.")
    }
}

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let mut out = std::io::stdout().lock();
    let result = run(&args, &mut out);
    // A reader that has seen enough is no failure.
    let _ = out.flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn run(args: &[String], out: &mut dyn Write) -> Result<(), Failure> {
    if args.is_empty() {
        return execute::execute(&command::list_all(), out, &mut None);
    }
    let command = command::parse(args)?;
    execute::execute(&command, out, &mut None)
}
