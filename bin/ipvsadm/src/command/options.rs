//! The options of a line, each checked for itself.

use std::net::IpAddr;

use rvs_core::types::{Family, ForwardMethod, Protocol, ServiceKey};

use super::dest::TUNNELS;
use super::service::netmask;
use super::{number, timeout};
use crate::Failure;
use crate::address::{self, HostPort};
use crate::flags::{self, Cmd, Kind, Opt};
use crate::parse::{Given, Line};

/// Seconds of persistence that `-p` alone gives (`IPVS_SVC_PERSISTENT_TIMEOUT`).
const PERSISTENT_TIMEOUT: u32 = 6 * 60;

/// The options of a line, by what they say.
#[derive(Default)]
pub(super) struct Options {
    pub seen: Vec<Opt>,
    pub service: Option<ServiceKey>,
    /// Protocol to look real server ports up by.
    pub protocol: Option<Protocol>,
    pub scheduler: Option<String>,
    pub timeout: Option<u32>,
    pub netmask: Option<String>,
    pub server: Option<HostPort>,
    pub forward: Option<ForwardMethod>,
    pub weight: Option<u32>,
    pub upper: u32,
    pub lower: u32,
    pub engine: Option<String>,
    pub sched_flags: Option<String>,
    pub tunnel_type: Option<u8>,
    pub tunnel_port: Option<u16>,
    pub sync_id: u32,
    pub interface: Option<String>,
    pub group: Option<IpAddr>,
    pub mcast_port: Option<u16>,
    pub ttl: Option<u8>,
    pub max_len: Option<u16>,
    pub ops: bool,
    pub warnings: Vec<String>,
}

impl Options {
    /// Takes the options of a line in.
    pub fn collect(line: &Line) -> Result<Self, Failure> {
        let mut options = Self::default();
        for given in line.given.iter().skip(1) {
            let Kind::Option(opt) = given.flag.kind else {
                return Err(Failure::usage(format!("invalid option `{}'", given.word)));
            };
            if opt != Opt::Plain && options.has(opt) {
                return Err(Failure::usage(format!("multiple '{}' options specified", opt.name())));
            }
            options.seen.push(opt);
            options.take(opt, given)?;
        }
        Ok(options)
    }

    /// Whether an option was given.
    pub fn has(&self, opt: Opt) -> bool {
        self.seen.contains(&opt)
    }

    /// Notes something to say that stops nothing.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    fn take(&mut self, opt: Opt, given: &Given) -> Result<(), Failure> {
        let value = given.value.as_deref().unwrap_or_default();
        let any = 0..=i32::MAX as u32;
        match opt {
            Opt::Service => self.take_service(given.flag.long, value)?,
            Opt::Plain if given.flag.long == "ipv6" => match &mut self.service {
                Some(ServiceKey::Fwmark { family, .. }) => *family = Family::V6,
                _ => return Err(Failure::usage("-6 used before -f")),
            },
            // An empty name is none.
            Opt::Scheduler => self.scheduler = Some(value.to_owned()).filter(|v| !v.is_empty()),
            Opt::Persistent => {
                self.timeout = Some(match &given.value {
                    None => PERSISTENT_TIMEOUT,
                    Some(value) => timeout(value, 1)?,
                });
            }
            Opt::Netmask => {
                let family = self.service.map_or(Family::V4, |service| service.family());
                netmask(family, value)?;
                self.netmask = Some(value.to_owned());
            }
            Opt::Server => {
                let protocol = self.protocol.unwrap_or(Protocol::Tcp);
                let illegal = "illegal real server address[:port] specified";
                self.server = Some(self.address(value, protocol, illegal)?);
            }
            Opt::Forward => {
                self.forward = Some(match given.flag.short {
                    Some('m') => ForwardMethod::Masquerade,
                    Some('i') => ForwardMethod::Tunnel,
                    _ => ForwardMethod::DirectRoute,
                });
            }
            Opt::Weight => self.weight = Some(number(value, any, "weight")?),
            Opt::UpperThreshold => self.upper = number(value, any, "u_threshold")?,
            Opt::LowerThreshold => self.lower = number(value, any, "l_threshold")?,
            Opt::Engine => self.engine = Some(value.to_owned()).filter(|v| !v.is_empty()),
            Opt::SchedFlags => self.sched_flags = Some(value.to_owned()),
            Opt::Ops => self.ops = true,
            Opt::SyncId => self.sync_id = number(value, 0..=255, "syncid")?,
            Opt::Mcast => self.interface = Some(value.to_owned()),
            Opt::McastGroup => self.group = Some(group(value)?),
            Opt::McastPort => {
                self.mcast_port = Some(number(value, 1..=65_535, "mcast-port")? as u16)
            }
            Opt::McastTtl => self.ttl = Some(number(value, 1..=255, "mcast-ttl")? as u8),
            Opt::SyncMaxlen => {
                self.max_len = Some(number(value, 1..=65_507, "sync-maxlen")? as u16)
            }
            Opt::TunType => {
                let kind = TUNNELS.iter().position(|name| *name == value);
                let illegal = || Failure::usage("illegal tunnel type specified");
                self.tunnel_type = Some(kind.ok_or_else(illegal)? as u8);
            }
            Opt::TunPort => {
                self.tunnel_port = Some(number(value, 1..=65_535, "tunnel port")? as u16)
            }
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
        let illegal = "illegal virtual server address[:port] specified";
        let found = self.address(value, protocol, illegal)?;
        self.protocol = Some(protocol);
        let (addr, port) = (found.addr, found.port.unwrap_or_default());
        self.service = Some(ServiceKey::Address { protocol, addr, port });
        Ok(())
    }

    fn address(
        &mut self,
        text: &str,
        protocol: Protocol,
        illegal: &str,
    ) -> Result<HostPort, Failure> {
        let found = address::parse(text, protocol).ok_or_else(|| Failure::usage(illegal))?;
        if let Some((host, port)) = address::port_in_address(text) {
            self.warn(format!(
                "{text} is an address without a port; port {port} of {host} is [{host}]:{port}"
            ));
        }
        Ok(found)
    }

    /// What the command demands must be there, what it does not know must not.
    pub fn check(&self, cmd: Cmd) -> Result<(), Failure> {
        let (required, allowed) = flags::rules(cmd);
        let name = flags::name(cmd);
        let mut all: Vec<Opt> = required.iter().chain(&self.seen).copied().collect();
        all.sort_unstable();
        for opt in all {
            let option = opt.name();
            if required.contains(&opt) && !self.has(opt) {
                let text =
                    format!("You need to supply the '{option}' option for the '{name}' command");
                return Err(Failure::usage(text));
            }
            if opt != Opt::Plain && !required.contains(&opt) && !allowed.contains(&opt) {
                let text = format!("Illegal '{option}' option with the '{name}' command");
                return Err(Failure::usage(text));
            }
        }
        Ok(())
    }
}

/// A multicast address.
fn group(text: &str) -> Result<IpAddr, Failure> {
    let family = if text.contains(':') { "IPv6" } else { "IPv4" };
    let group = text.parse().ok().filter(IpAddr::is_multicast);
    group.ok_or_else(|| Failure::usage(format!("invalid {family} mcast-group `{text}'")))
}
