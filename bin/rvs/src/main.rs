//! rvs: the operator's tool for what ipvsadm has no word for.
#![forbid(unsafe_code)]

mod down;
mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;

/// The text of `--help`.
const HELP: &str = "\
rvs - the operator's tool of RVS

Usage: rvs status [--reasons] [--pin DIR] [--socket PATH]
       rvs down [--pin DIR] [--socket PATH]

  status      what the data path holds and where it is attached
  --reasons   packets that were not forwarded, by reason
  down        removes the data path that rvsd left in the kernel: balancing ends

  --pin DIR       folder of the pins [/sys/fs/bpf/rvs]
  --socket PATH   control socket of the rvsd that serves it, or must not any more [/run/rvs/control.sock]
  -h, --help      this text
";

/// Where the data path is.
pub struct Place {
    /// Folder of the pins.
    pub pin: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rvs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut place =
        Place { pin: "/sys/fs/bpf/rvs".into(), socket: rvs_netlink::client::DEFAULT_SOCKET.into() };
    let (mut command, mut reasons) = (None, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("pin") => place.pin = parser.value()?.into(),
            Long("socket") => place.socket = parser.value()?.into(),
            Long("reasons") => reasons = true,
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            Value(word) if command.is_none() => command = Some(word.string()?),
            _ => return Err(arg.unexpected().into()),
        }
    }
    match command.as_deref() {
        Some("status") => status::status(&place, reasons),
        Some("down") if !reasons => down::down(&place),
        Some("down") => anyhow::bail!("--reasons goes with status"),
        Some(other) => anyhow::bail!("no command {other}; try rvs --help"),
        None => anyhow::bail!("no command given; try rvs --help"),
    }
}
