//! A command line as a command: what goes together, defaults and limits, as ipvsadm 1.31 has them.

mod daemon;
mod dest;
mod list;
mod options;
mod service;

use rvs_core::types::{DestConfig, DestKey, ServiceKey};
use rvs_netlink::ipvs;

use crate::Failure;
use crate::flags::{Cmd, Kind};
use crate::parse::{self, Line};
use options::Options;

pub use service::{show_netmask, show_sched_flags};

/// Greatest timeout in seconds (`MAX_TIMEOUT`, 31 days).
const MAX_TIMEOUT: u32 = 86_400 * 31;

/// How listings look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    /// `-n`
    pub numeric: bool,
    /// `--exact`
    pub exact: bool,
    /// `--nosort`
    pub nosort: bool,
    /// `--stats`
    pub stats: bool,
    /// `--rate`
    pub rate: bool,
    /// `--thresholds`
    pub thresholds: bool,
    /// `--persistent-conn`
    pub persistent: bool,
    /// `--tun-info`
    pub tun_info: bool,
    /// `--json`
    pub json: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `-A`
    AddService(ipvs::Service),
    /// `-E`
    EditService(ipvs::Service),
    /// `-D`
    DelService(ServiceKey),
    /// `-C`
    Flush,
    /// `-a`
    AddDest(ServiceKey, DestConfig),
    /// `-e`
    EditDest(ServiceKey, DestConfig),
    /// `-d`
    DelDest(ServiceKey, DestKey),
    /// `-L`, of one service or all.
    List(Option<ServiceKey>, Format),
    /// `-L -c`
    ListConns(Format),
    /// `-L --timeout`
    ListTimeouts(Format),
    /// `-L --daemon`
    ListDaemons(Format),
    /// `-S`
    Save(Format),
    /// `-R`
    Restore,
    /// `-Z`
    Zero(Option<ServiceKey>),
    /// `--set`
    SetTimeouts([u32; 3]),
    /// `--start-daemon`
    StartDaemon(ipvs::Daemon),
    /// `--stop-daemon`
    StopDaemon(ipvs::Role),
    /// `-h`
    Help,
    /// `-v`
    Version,
}

/// A command, and what to say about the line that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The command.
    pub command: Command,
    /// What ipvsadm takes although it cannot be meant.
    pub warnings: Vec<String>,
}

impl From<Command> for Parsed {
    fn from(command: Command) -> Self {
        Self { command, warnings: Vec::new() }
    }
}

/// What ipvsadm does without arguments.
pub fn list_all() -> Parsed {
    Command::List(None, Format::default()).into()
}

/// Reads a command line.
pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Parsed, Failure> {
    let line = parse::parse(words);
    let Some(cmd) = leading_command(&line) else { return Err(Failure::try_help()) };
    match cmd {
        Cmd::Help => return Ok(Command::Help.into()),
        Cmd::Version => return Ok(Command::Version.into()),
        _ => {}
    }
    let options = Options::collect(&line)?;
    if let Some(broken) = &line.broken {
        return Err(Failure::option(broken));
    }
    if cmd == Cmd::SetTimeouts {
        options.check(cmd)?;
        return set_timeouts(&line.rest).map(Parsed::from);
    }
    if let Some(word) = line.rest.first() {
        return Err(Failure::usage(format!("unexpected argument {word}")));
    }
    options.check(cmd)?;
    options.command(cmd, &line)
}

/// The command, which must be the first option.
fn leading_command(line: &Line) -> Option<Cmd> {
    match line.given.first()?.flag.kind {
        Kind::Command(cmd) => Some(cmd),
        Kind::Option(_) => None,
    }
}

fn set_timeouts(words: &[String]) -> Result<Command, Failure> {
    let [tcp, fin, udp, rest @ ..] = words else {
        return Err(Failure::usage("--set option requires 3 timeout values"));
    };
    if let Some(word) = rest.first() {
        return Err(Failure::usage(format!("unexpected argument {word}")));
    }
    Ok(Command::SetTimeouts([timeout(tcp, 0)?, timeout(fin, 0)?, timeout(udp, 0)?]))
}

fn timeout(text: &str, min: u32) -> Result<u32, Failure> {
    let value = text.parse().ok().filter(|value| (min..=MAX_TIMEOUT).contains(value));
    value.ok_or_else(|| Failure::usage(format!("invalid timeout value `{text}' specified")))
}

fn number(text: &str, range: std::ops::RangeInclusive<u32>, what: &str) -> Result<u32, Failure> {
    let value = text.parse().ok().filter(|value| range.contains(value));
    value.ok_or_else(|| Failure::usage(format!("illegal {what} specified")))
}

impl Options {
    fn command(mut self, cmd: Cmd, line: &Line) -> Result<Parsed, Failure> {
        let command = match cmd {
            Cmd::AddService => Command::AddService(self.full_service()?),
            Cmd::EditService => Command::EditService(self.full_service()?),
            Cmd::DelService => Command::DelService(self.key()?),
            Cmd::Flush => Command::Flush,
            Cmd::AddDest => Command::AddDest(self.key()?, self.full_dest()?),
            Cmd::EditDest => Command::EditDest(self.key()?, self.full_dest()?),
            Cmd::DelDest => Command::DelDest(self.key()?, self.dest_to_delete()?),
            Cmd::List => self.list()?,
            Cmd::Save => Command::Save(self.format()),
            Cmd::Restore => Command::Restore,
            Cmd::Zero => Command::Zero(self.service),
            Cmd::StartDaemon => Command::StartDaemon(self.daemon(cmd, line)?),
            Cmd::StopDaemon => Command::StopDaemon(daemon::role(cmd, line)?),
            Cmd::Help | Cmd::SetTimeouts => Command::Help,
            Cmd::Version => Command::Version,
        };
        Ok(Parsed { command, warnings: self.warnings })
    }

    fn key(&self) -> Result<ServiceKey, Failure> {
        self.service.ok_or_else(|| Failure::usage("no service given"))
    }
}
