//! A command line as a command: what goes together, defaults and limits, as ipvsadm 1.31 has them.

use std::net::Ipv4Addr;

use rvs_core::types::{
    DestConfig, DestKey, Family, ForwardMethod, Protocol, ServiceFlags, ServiceKey,
};
use rvs_netlink::ipvs;

use crate::Failure;
use crate::address::{self, HostPort};
use crate::flags::{self, Cmd, Kind, Opt};
use crate::parse::{self, Given, Line};

/// Seconds of persistence that `-p` alone gives (`IPVS_SVC_PERSISTENT_TIMEOUT`).
const PERSISTENT_TIMEOUT: u32 = 6 * 60;
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
    ListTimeouts,
    /// `-L --daemon`
    ListDaemons,
    /// `-S`
    Save(Format),
    /// `-R`
    Restore,
    /// `-Z`
    Zero(Option<ServiceKey>),
    /// `--set`
    SetTimeouts([u32; 3]),
    /// `--start-daemon`, `--stop-daemon`: role.
    Daemon(u8, u32),
    /// `-h`
    Help,
    /// `-v`
    Version,
}

/// What ipvsadm does without arguments.
pub fn list_all() -> Command {
    Command::List(None, Format::default())
}

/// Reads a command line.
pub fn parse(words: &[String]) -> Result<Command, Failure> {
    let line = parse::parse(words);
    let Some(cmd) = leading_command(words, &line) else { return Err(Failure::try_help()) };
    let options = Options::collect(&line)?;
    if let Some(broken) = &line.broken {
        return Err(Failure::new(255, broken.clone()));
    }
    if cmd == Cmd::SetTimeouts {
        return set_timeouts(&line.rest);
    }
    if cmd == Cmd::Help {
        return Ok(Command::Help);
    }
    if let Some(word) = line.rest.first() {
        return Err(Failure::usage(format!("unexpected argument {word}")));
    }
    options.check(cmd)?;
    options.command(cmd, &line)
}

/// The command, which must come first.
fn leading_command(words: &[String], line: &Line) -> Option<Cmd> {
    if !words.first()?.starts_with('-') {
        return None;
    }
    match line.given.first()?.flag.kind {
        Kind::Command(cmd) => Some(cmd),
        Kind::Option(_) => None,
    }
}

/// The options of a line, by what they say.
#[derive(Default)]
struct Options {
    seen: Vec<Opt>,
    service: Option<ServiceKey>,
    /// Protocol to look real server ports up by.
    protocol: Option<Protocol>,
    scheduler: Option<String>,
    timeout: Option<u32>,
    netmask: Option<String>,
    server: Option<HostPort>,
    forward: Option<ForwardMethod>,
    weight: Option<u32>,
    upper: u32,
    lower: u32,
    engine: Option<String>,
    sched_flags: Option<String>,
    tunnel_type: Option<String>,
    tunnel_port: Option<u16>,
    syncid: Option<u32>,
    ops: bool,
}

impl Options {
    fn collect(line: &Line) -> Result<Self, Failure> {
        let mut options = Self::default();
        for given in line.given.iter().skip(1) {
            let Kind::Option(opt) = given.flag.kind else {
                return Err(Failure::usage(format!("invalid option `{}'", given.text)));
            };
            if opt != Opt::Plain && options.seen.contains(&opt) {
                return Err(Failure::usage(format!("multiple '{}' options specified", opt.name())));
            }
            options.seen.push(opt);
            options.take(opt, given)?;
        }
        Ok(options)
    }

    fn has(&self, opt: Opt) -> bool {
        self.seen.contains(&opt)
    }

    fn take(&mut self, opt: Opt, given: &Given) -> Result<(), Failure> {
        let value = given.value.as_deref().unwrap_or_default();
        match opt {
            Opt::Service => self.take_service(given.flag.long, value)?,
            Opt::Plain if given.flag.long == "ipv6" => match &mut self.service {
                Some(ServiceKey::Fwmark { family, .. }) => *family = Family::V6,
                _ => return Err(Failure::usage("-6 used before -f")),
            },
            Opt::Scheduler => self.scheduler = Some(value.to_owned()),
            Opt::Persistent => {
                self.timeout = Some(match &given.value {
                    None => PERSISTENT_TIMEOUT,
                    Some(value) => timeout(value, 1)?,
                });
            }
            Opt::Netmask => self.netmask = Some(value.to_owned()),
            Opt::Server => {
                let protocol = self.protocol.unwrap_or(Protocol::Tcp);
                let found = address::parse(value, protocol);
                let illegal = "illegal real server address[:port] specified";
                self.server = Some(found.ok_or_else(|| Failure::usage(illegal))?);
            }
            Opt::Forward => {
                self.forward = Some(match given.flag.short {
                    Some('m') => ForwardMethod::Masquerade,
                    Some('i') => ForwardMethod::Tunnel,
                    _ => ForwardMethod::DirectRoute,
                });
            }
            Opt::Weight => self.weight = Some(number(value, i32::MAX as u32, "weight")?),
            Opt::UpperThreshold => self.upper = number(value, i32::MAX as u32, "u_threshold")?,
            Opt::LowerThreshold => self.lower = number(value, i32::MAX as u32, "l_threshold")?,
            Opt::Engine => self.engine = Some(value.to_owned()),
            Opt::SchedFlags => self.sched_flags = Some(value.to_owned()),
            Opt::Ops => self.ops = true,
            Opt::SyncId => self.syncid = Some(number(value, 255, "syncid")?),
            Opt::TunType => self.tunnel_type = Some(value.to_owned()),
            Opt::TunPort => self.tunnel_port = Some(number(value, 65_535, "tunnel port")? as u16),
            _ => {}
        }
        Ok(())
    }

    fn take_service(&mut self, flag: &str, value: &str) -> Result<(), Failure> {
        if flag == "fwmark-service" {
            let mark = value.parse().ok().filter(|mark| *mark > 0);
            let invalid = || Failure::usage(format!("invalid fwmark value `{value}' specified"));
            self.service =
                Some(ServiceKey::Fwmark { family: Family::V4, mark: mark.ok_or_else(invalid)? });
            return Ok(());
        }
        let protocol = match flag {
            "tcp-service" => Protocol::Tcp,
            "udp-service" => Protocol::Udp,
            _ => Protocol::Sctp,
        };
        let illegal = || Failure::usage("illegal virtual server address[:port] specified");
        let found = address::parse(value, protocol).ok_or_else(illegal)?;
        self.protocol = Some(protocol);
        self.service = Some(ServiceKey::Address {
            protocol,
            addr: found.addr,
            port: found.port.unwrap_or_default(),
        });
        Ok(())
    }

    /// What the command demands must be there, what it does not know must not.
    fn check(&self, cmd: Cmd) -> Result<(), Failure> {
        let (required, allowed) = flags::rules(cmd);
        let name = flags::name(cmd);
        let mut all: Vec<Opt> = required.iter().chain(&self.seen).copied().collect();
        all.sort_unstable();
        for opt in all {
            if required.contains(&opt) && !self.has(opt) {
                let option = opt.name();
                let text =
                    format!("You need to supply the '{option}' option for the '{name}' command");
                return Err(Failure::usage(text));
            }
            if opt != Opt::Plain && !required.contains(&opt) && !allowed.contains(&opt) {
                let option = opt.name();
                return Err(Failure::usage(format!(
                    "Illegal '{option}' option with the '{name}' command"
                )));
            }
        }
        Ok(())
    }

    fn command(self, cmd: Cmd, line: &Line) -> Result<Command, Failure> {
        Ok(match cmd {
            Cmd::AddService => Command::AddService(self.full_service(cmd)?),
            Cmd::EditService => Command::EditService(self.full_service(cmd)?),
            Cmd::DelService => Command::DelService(self.key()?),
            Cmd::Flush => Command::Flush,
            Cmd::AddDest => Command::AddDest(self.key()?, self.full_dest()?),
            Cmd::EditDest => Command::EditDest(self.key()?, self.full_dest()?),
            Cmd::DelDest => {
                Command::DelDest(self.key()?, self.dest_key(ForwardMethod::Masquerade)?)
            }
            Cmd::List => self.list()?,
            Cmd::Save => Command::Save(self.format()),
            Cmd::Restore => Command::Restore,
            Cmd::Zero => Command::Zero(self.service),
            Cmd::StartDaemon | Cmd::StopDaemon => {
                let role = line.given.first().and_then(|given| given.value.as_deref());
                let role = match role {
                    Some("master") => 1,
                    Some("backup") => 2,
                    _ => {
                        let text = format!("illegal {} parameter specified", flags::name(cmd));
                        return Err(Failure::usage(text));
                    }
                };
                let number = if cmd == Cmd::StartDaemon {
                    ipvs::command::NEW_DAEMON
                } else {
                    ipvs::command::DEL_DAEMON
                };
                Command::Daemon(number, role)
            }
            Cmd::Help | Cmd::SetTimeouts => Command::Help,
            Cmd::Version => Command::Version,
        })
    }

    fn key(&self) -> Result<ServiceKey, Failure> {
        self.service.ok_or_else(|| Failure::usage("no service given"))
    }

    fn full_service(self, cmd: Cmd) -> Result<ipvs::Service, Failure> {
        let key = self.key()?;
        let persistent = self.timeout.is_some();
        if let ServiceKey::Address { port: 0, .. } = key
            && !persistent
        {
            return Err(Failure::usage("Zero port specified for non-persistent service"));
        }
        let udp = !matches!(key, ServiceKey::Address { protocol, .. } if protocol != Protocol::Udp);
        if self.ops && !udp {
            return Err(Failure::usage("One-Packet Scheduling is only for UDP virtual services"));
        }
        let _ = cmd;
        let scheduler = self.scheduler.clone().unwrap_or_else(|| "wlc".to_owned());
        let mut flags = ServiceFlags::empty();
        flags.set(ServiceFlags::PERSISTENT, persistent);
        flags.set(ServiceFlags::ONEPACKET, self.ops);
        if let Some(list) = &self.sched_flags {
            flags |= sched_flags(list, &scheduler)?;
        }
        Ok(ipvs::Service {
            key,
            scheduler,
            flags,
            timeout: self.timeout.unwrap_or_default(),
            netmask: netmask(key.family(), self.netmask.as_deref())?,
            pe: self.engine,
        })
    }

    /// The real server; its port is the service's unless given, and always so where packets keep
    /// their destination port.
    fn dest_key(&self, forward: ForwardMethod) -> Result<DestKey, Failure> {
        let server = self.server.ok_or_else(|| Failure::usage("no real server given"))?;
        let service = self.key()?;
        let port = match service {
            ServiceKey::Address { port, .. } if forward != ForwardMethod::Masquerade => port,
            ServiceKey::Address { port, .. } => server.port.unwrap_or(port),
            ServiceKey::Fwmark { .. } => server.port.unwrap_or_default(),
        };
        Ok(DestKey { addr: server.addr, port })
    }

    fn full_dest(&self) -> Result<DestConfig, Failure> {
        let forward = self.forward.unwrap_or(ForwardMethod::DirectRoute);
        let key = self.dest_key(forward)?;
        if Family::of(key.addr) != self.key()?.family() && forward != ForwardMethod::Tunnel {
            let text = "Different address family is allowed only for tunneling servers";
            return Err(Failure::usage(text));
        }
        let (tunnel_type, tunnel_port, tunnel_flags) = self.tunnel(forward)?;
        Ok(DestConfig {
            key,
            forward,
            weight: self.weight.unwrap_or(1),
            upper_threshold: self.upper,
            lower_threshold: self.lower,
            tunnel_type,
            tunnel_port,
            tunnel_flags,
        })
    }

    /// Tunnel type, port and flags (`IP_VS_TUNNEL_ENCAP_FLAG_*`).
    fn tunnel(&self, forward: ForwardMethod) -> Result<(u8, u16, u16), Failure> {
        let checksums = [(Opt::TunNocsum, 0), (Opt::TunCsum, 1), (Opt::TunRemcsum, 2)];
        let given = self.tunnel_type.is_some()
            || self.tunnel_port.is_some()
            || checksums.iter().any(|(opt, _)| self.has(*opt));
        if given && forward != ForwardMethod::Tunnel {
            return Err(Failure::usage("Tunnel options conflict with forward method"));
        }
        let name = self.tunnel_type.as_deref().unwrap_or("ipip");
        let kind = match name {
            "ipip" => 0,
            "gue" => 1,
            "gre" => 2,
            _ => return Err(Failure::usage("illegal tunnel type specified")),
        };
        if kind == 1 && self.tunnel_port.is_none() {
            let text = "You need to supply the 'tun-port' option for the 'gue' tunnel type";
            return Err(Failure::usage(text));
        }
        let refused: &[Opt] = match kind {
            0 => &[Opt::TunPort, Opt::TunNocsum, Opt::TunCsum, Opt::TunRemcsum],
            1 => &[],
            _ => &[Opt::TunPort, Opt::TunRemcsum],
        };
        if let Some(opt) = refused.iter().find(|opt| self.has(**opt)) {
            let option = opt.name();
            return Err(Failure::usage(format!(
                "Illegal '{option}' option with the '{name}' tunnel type"
            )));
        }
        let flags = checksums.iter().filter(|(opt, _)| self.has(*opt)).map(|(_, bit)| bit).sum();
        Ok((kind, self.tunnel_port.unwrap_or_default(), flags))
    }

    fn format(&self) -> Format {
        Format {
            numeric: self.has(Opt::Numeric),
            exact: self.has(Opt::Exact),
            nosort: self.has(Opt::NoSort),
            stats: self.has(Opt::Stats),
            rate: self.has(Opt::Rate),
            thresholds: self.has(Opt::Thresholds),
            persistent: self.has(Opt::PersistentConn),
            tun_info: self.has(Opt::TunInfo),
        }
    }

    fn list(self) -> Result<Command, Failure> {
        let chosen: Vec<Opt> = [Opt::Connection, Opt::Daemon, Opt::Timeout]
            .into_iter()
            .filter(|opt| self.has(*opt))
            .collect();
        if let [first, second, ..] = chosen.as_slice() {
            let (a, b) = if self.has(Opt::Connection) { (second, first) } else { (first, second) };
            return Err(Failure::usage(format!(
                "The option '{}' conflicts with the '{}' option in the 'list' command",
                a.name(),
                b.name()
            )));
        }
        let format = self.format();
        match chosen.first() {
            Some(Opt::Connection) if format.stats || format.rate || format.thresholds => {
                Err(Failure::usage("options conflicts in the list command"))
            }
            Some(Opt::Connection) => Ok(Command::ListConns(format)),
            Some(Opt::Daemon) => Ok(Command::ListDaemons),
            Some(_) => Ok(Command::ListTimeouts),
            None => Ok(Command::List(self.service, format)),
        }
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

fn number(text: &str, max: u32, what: &str) -> Result<u32, Failure> {
    let value = text.parse().ok().filter(|value| *value <= max);
    value.ok_or_else(|| Failure::usage(format!("illegal {what} specified")))
}

/// IPv4: a mask in dotted form. IPv6: a prefix length.
fn netmask(family: Family, text: Option<&str>) -> Result<u32, Failure> {
    match (family, text) {
        (Family::V4, None) => Ok(u32::MAX),
        (Family::V6, None) => Ok(128),
        (Family::V4, Some(text)) => match address::parse(text, Protocol::Tcp) {
            Some(HostPort { addr: std::net::IpAddr::V4(mask), .. }) => Ok(mask.to_bits()),
            _ => Err(Failure::usage("illegal virtual server persistent mask specified")),
        },
        (Family::V6, Some(text)) => {
            let length = text.parse().ok().filter(|length| (1..=128).contains(length));
            length.ok_or_else(|| Failure::usage("illegal ipv6 netmask specified"))
        }
    }
}

/// A netmask as it is shown.
pub fn show_netmask(family: Family, netmask: u32) -> Option<String> {
    match family {
        Family::V4 if netmask != u32::MAX => Some(Ipv4Addr::from(netmask).to_string()),
        Family::V6 if netmask != 128 => Some(netmask.to_string()),
        _ => None,
    }
}

/// Names of scheduler flags 1 to 3, by scheduler.
const SCHED_FLAGS: [(&str, &str, ServiceFlags); 4] = [
    ("sh", "sh-fallback", ServiceFlags::SCHED1),
    ("sh", "sh-port", ServiceFlags::SCHED2),
    ("mh", "mh-fallback", ServiceFlags::SCHED1),
    ("mh", "mh-port", ServiceFlags::SCHED2),
];

/// Numbered names, for schedulers that ipvsadm does not know.
const NUMBERED: [(&str, ServiceFlags); 3] = [
    ("flag-1", ServiceFlags::SCHED1),
    ("flag-2", ServiceFlags::SCHED2),
    ("flag-3", ServiceFlags::SCHED3),
];

fn sched_flags(list: &str, scheduler: &str) -> Result<ServiceFlags, Failure> {
    let mut flags = ServiceFlags::empty();
    for name in list.split(',') {
        if let Some((_, flag)) = NUMBERED.iter().find(|(n, _)| *n == name) {
            flags |= *flag;
            continue;
        }
        let Some((owner, _, flag)) = SCHED_FLAGS.iter().find(|(_, n, _)| *n == name) else {
            return Err(Failure::usage(format!("invalid scheduler flag `{name}'")));
        };
        if *owner != scheduler {
            return Err(Failure::usage(format!("incompatible scheduler flag `{name}'")));
        }
        flags |= *flag;
    }
    Ok(flags)
}

/// The scheduler flags that are set, by name, comma-separated.
pub fn show_sched_flags(scheduler: &str, flags: ServiceFlags) -> Option<String> {
    let mut names = Vec::new();
    for (numbered, flag) in NUMBERED {
        if !flags.contains(flag) {
            continue;
        }
        let named = SCHED_FLAGS.iter().find(|(owner, _, f)| *owner == scheduler && *f == flag);
        names.push(named.map_or(numbered, |(_, name, _)| name));
    }
    (!names.is_empty()).then(|| names.join(","))
}
