//! The command line.

use std::path::PathBuf;

use lexopt::prelude::*;
use rvs_datapath::Sizes;
use rvs_datapath::attach::Mode;

/// The text of `--help`.
pub const HELP: &str = "\
rvsd - the director of RVS, a layer-4 load balancer that behaves as Linux IPVS does

Usage: rvsd [OPTIONS]

Runs in the foreground, logs to stderr (RUST_LOG sets how much) and prints `rvsd: ready` there when
it serves. SIGTERM leaves the data path running; `rvs down` removes it.

  --config FILE         settings to start with, see rvsd.conf(5)
  --interface IFACE     balance what arrives at IFACE; may be repeated [every interface that is up
                        and not loopback, later ones included]
  --socket PATH         control socket [/run/rvs/control.sock]
  --pin DIR             folder on a bpf file system for maps and links [/sys/fs/bpf/rvs]
  --mode auto|xdp|tc    hook; auto takes XDP on devices that do it without loss, else TC [auto]
  --proc DIR            mounts there what a kernel with ip_vs has in /proc: net/ip_vs* and
                        sys/net/ipv4/vs/* (FUSE)
  --connections N       size of the connection table [131072]
  --services N          most virtual services [16384]
  --destinations N      most destinations of all services together [131072]
  -h, --help            this text
  -V, --version         the version
";

/// What to run with.
#[derive(Debug)]
pub struct Args {
    /// Interfaces to attach to; all if empty.
    pub interfaces: Vec<String>,
    /// Control socket.
    pub socket: PathBuf,
    /// Folder of the pins.
    pub pin: PathBuf,
    /// Hook.
    pub mode: Mode,
    /// Where to mount a small `/proc`.
    pub proc: Option<PathBuf>,
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// Capacities of new maps.
    pub sizes: Sizes,
}

/// What the command line asks for.
pub enum Parsed {
    /// To run.
    Run(Args),
    /// The help text.
    Help,
    /// The version.
    Version,
}

/// Parses the process's arguments.
pub fn parse() -> Result<Parsed, lexopt::Error> {
    let mut args = Args {
        interfaces: Vec::new(),
        socket: rvs_netlink::client::DEFAULT_SOCKET.into(),
        pin: "/sys/fs/bpf/rvs".into(),
        mode: Mode::Auto,
        proc: None,
        config: None,
        sizes: Sizes::default(),
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("interface") => args.interfaces.push(parser.value()?.string()?),
            Long("socket") => args.socket = parser.value()?.into(),
            Long("pin") => args.pin = parser.value()?.into(),
            Long("mode") => args.mode = parser.value()?.parse_with(mode)?,
            Long("proc") => args.proc = Some(parser.value()?.into()),
            Long("connections") => args.sizes.connections = parser.value()?.parse_with(number)?,
            Long("services") => args.sizes.services = parser.value()?.parse_with(number)?,
            Long("destinations") => args.sizes.destinations = parser.value()?.parse_with(number)?,
            Long("config") => args.config = Some(parser.value()?.into()),
            Short('h') | Long("help") => return Ok(Parsed::Help),
            Short('V') | Long("version") => return Ok(Parsed::Version),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Parsed::Run(args))
}

fn mode(text: &str) -> Result<Mode, &'static str> {
    match text {
        "auto" => Ok(Mode::Auto),
        "xdp" => Ok(Mode::Xdp),
        "tc" => Ok(Mode::Tc),
        _ => Err("a mode is auto, xdp or tc"),
    }
}

/// A capacity: 1 to 16 Mi.
fn number(text: &str) -> Result<u32, &'static str> {
    let number = text.parse().ok().filter(|n| (1..=1 << 24).contains(n));
    number.ok_or("a size is a number from 1 to 16777216")
}
