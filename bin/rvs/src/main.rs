//! rvs: the operator's tool for what ipvsadm has no word for.
#![forbid(unsafe_code)]

mod down;
mod proc;
mod run;
mod status;
mod supervise;
mod sysctl;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use lexopt::prelude::*;
use rvs_datapath::pin::PinFolder;
use rvs_netlink::{Client, ClientError};

/// The text of `--help`.
const HELP: &str = "\
rvs - the operator's tool of RVS

Usage: rvs status [--reasons] [--pin DIR] [--socket PATH]
       rvs down [--pin DIR] [--socket PATH]
       rvs run [--static] [--socket PATH] [--] COMMAND [ARGUMENT...]
       rvs proc [--socket PATH] ip_vs|ip_vs_app|ip_vs_conn|ip_vs_conn_sync|ip_vs_stats|
                                ip_vs_stats_percpu
       rvs sysctl [--socket PATH] [NAME[=VALUE]]...

  status      what the data path holds and where it is attached
  --reasons   what became of packets, by reason, and how many were seen
  down        removes the data path that rvsd left in the kernel: balancing ends; no rvsd may run
  run         starts a program made for the kernel's ip_vs, such as keepalived, with rvsd in its place
  --static    the same for a statically linked program (docs/unmodified-clients.md has the limits)
  proc        prints what a kernel with ip_vs has in /proc/net
  sysctl      prints the kernel's settings below net.ipv4.vs, or changes them

  --pin DIR       folder of the pins [/sys/fs/bpf/rvs]
  --socket PATH   rvsd's control socket [$RVS_SOCKET, else /run/rvs/control.sock]
  -h, --help      this text
";

/// Where the data path is.
pub struct Place {
    /// Folder of the pins.
    pub pin: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
}

/// A connection to rvsd.
fn connect(socket: &Path) -> anyhow::Result<Client> {
    Client::connect_to(socket).map_err(|error| {
        let reason = match error {
            ClientError::Io(reason) => reason.to_string(),
            other => other.to_string(),
        };
        anyhow::anyhow!("no rvsd at {}: {reason}", socket.display())
    })
}

impl Place {
    /// The folder of the pins of a data path that is there.
    fn pins(&self) -> anyhow::Result<PinFolder> {
        let pins = PinFolder::open(&self.pin).ok();
        let pins = pins.filter(|pins| pins.place().join("maps").exists());
        pins.with_context(|| format!("there is no data path at {}", self.pin.display()))
    }
}

fn main() -> ExitCode {
    // Started by `rvs run --static`, not by people.
    let supervisor = supervise::arguments();
    match supervisor.map_or_else(run, |arguments| supervise::supervise(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rvs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let mut place = Place { pin: "/sys/fs/bpf/rvs".into(), socket: rvs_compat::rvsd() };
    let (mut command, mut reasons) = (None::<String>, false);
    let mut is_static = false;
    // What `run` starts and what `proc` prints, and the words after it.
    let (mut object, mut rest) = (None::<OsString>, Vec::new());
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("pin") => place.pin = parser.value()?.into(),
            Long("socket") => place.socket = parser.value()?.into(),
            Long("reasons") => reasons = true,
            Long("static") if command.as_deref() == Some("run") => is_static = true,
            Short('h') | Long("help") => {
                print!("{HELP}");
                return Ok(());
            }
            Value(word) if command.is_none() => command = Some(word.string()?),
            Value(word) if command.as_deref() == Some("run") => {
                object = Some(word);
                // From here on everything is the program's.
                rest.extend(parser.raw_args()?);
                break;
            }
            Value(word) if command.as_deref() == Some("proc") && object.is_none() => {
                object = Some(word);
            }
            Value(word) if command.as_deref() == Some("sysctl") => rest.push(word),
            _ => return Err(arg.unexpected().into()),
        }
    }
    if reasons && command.as_deref() != Some("status") {
        anyhow::bail!("--reasons goes with status");
    }
    match (command.as_deref(), object) {
        (Some("status"), _) => status::status(&place, reasons),
        (Some("down"), _) => down::down(&place),
        (Some("run"), Some(program)) if is_static => {
            run::run_static(&place.socket, &program, &rest)
        }
        (Some("run"), Some(program)) => run::run(&place.socket, &program, &rest),
        (Some("run"), None) => anyhow::bail!("run what? try rvs --help"),
        (Some("proc"), Some(name)) => proc::print(&place.socket, &name.to_string_lossy()),
        (Some("sysctl"), _) => sysctl::sysctl(&place.socket, &rest),
        (Some("proc"), None) => anyhow::bail!("which file? try rvs --help"),
        (Some(other), _) => anyhow::bail!("no command {other}; try rvs --help"),
        (None, _) => anyhow::bail!("no command given; try rvs --help"),
    }
}
