//! Sync daemons: which run, and what starts one. Follows `ip_vs_genl_new_daemon` and
//! `start_sync_thread`; `tests/oracle/recorded/sync_control.jsonl`.

use std::net::{IpAddr, Ipv4Addr};

use rvs_core::addr::{from_words, words};
use rvs_core::control::Datapath;
use rvs_core::layout::DAEMON_WORDS;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{DestConfig, Family, ServiceKey};
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::errno::{EEXIST, EINVAL, ENODEV, EOPNOTSUPP, ESRCH};
use rvs_netlink::ipvs::{self, Daemon, Role, cmd_attr, command};

use crate::reply::Answers;
use crate::{Director, Refusal};

/// Multicast group of daemons that are not told one (`IP_VS_SYNC_GROUP`).
const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
/// UDP port of daemons that are not told one (`IP_VS_SYNC_PORT`).
const PORT: u16 = 8848;
/// Most ports of a daemon (`IPVS_SYNC_PORTS_MAX`).
const MAX_PORTS: i32 = 64;
/// Longest UDP datagram with its headers.
const MAX_PACKET: u16 = 65_535;
/// Longest message of a master that is not told one, headers included.
const MASTER_MTU: u16 = 1500;
/// Least that a backup takes, whatever it is told.
const BACKUP_LEAST: u16 = 1024;

/// A daemon that runs: every option is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncDaemon {
    /// What it does.
    pub role: Role,
    /// Interface that it multicasts on.
    pub interface: String,
    /// Which group of directors it belongs to; a backup with 0 takes from all.
    pub sync_id: u32,
    /// Greatest length of a message.
    pub max_len: u16,
    /// Multicast group.
    pub group: IpAddr,
    /// First UDP port.
    pub port: u16,
    /// TTL of the messages.
    pub ttl: u8,
    /// How many ports it uses, one after the other.
    pub ports: u16,
}

/// What does a sync daemon's work. A daemon that it started runs until it is stopped.
pub trait Daemons {
    /// MTU of an interface; none if there is no such interface.
    fn mtu(&mut self, interface: &str) -> Option<u32>;
    /// Starts a daemon, its sockets with buffers of so many bytes, or the system's default; an errno
    /// if that is not possible. None of its role runs.
    fn start(&mut self, daemon: &SyncDaemon, buffer: Option<usize>) -> Result<(), i32>;
    /// Stops the daemon of this role, which runs.
    fn stop(&mut self, role: Role);
}

/// The daemons that run, and who does their work.
#[derive(Default)]
pub(crate) struct Running {
    workers: Option<Box<dyn Daemons + Send>>,
    /// Master and backup.
    daemons: [Option<SyncDaemon>; 2],
}

fn place(role: Role) -> usize {
    usize::from(role == Role::Backup)
}

impl<D: Datapath> Director<D> {
    /// Lets `workers` do the work of sync daemons, and starts those again that ran when the last
    /// director of the data path ended. Without, none can be started.
    pub fn with_daemons(mut self, workers: Box<dyn Daemons + Send>) -> Self {
        self.daemons.workers = Some(workers);
        for role in [Role::Master, Role::Backup] {
            let Some(daemon) = read(self.datapath.kept_daemon(role == Role::Backup)) else {
                continue;
            };
            if let Err(refusal) = self.start(daemon) {
                self.refusals.push(refusal);
                self.datapath.keep_daemon(role == Role::Backup, [0; DAEMON_WORDS]);
            }
        }
        self
    }

    pub(crate) fn dump_daemons(&self) -> Answers {
        let row = |daemon: &SyncDaemon| {
            let mut inner = Writer::new();
            let shown = Daemon {
                role: daemon.role,
                interface: daemon.interface.clone(),
                sync_id: daemon.sync_id,
                max_len: Some(daemon.max_len),
                group: Some(daemon.group),
                port: Some(daemon.port),
                ttl: Some(daemon.ttl),
            };
            ipvs::put_daemon(&mut inner, &shown);
            let mut attrs = Writer::new();
            attrs.nest(cmd_attr::DAEMON, &inner);
            (command::NEW_DAEMON, attrs)
        };
        self.daemons.daemons.iter().flatten().map(row).collect()
    }

    pub(crate) fn new_daemon(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let asked = ipvs::daemon(attrs)?;
        let is_mixed = |key: &ServiceKey, dest: &DestConfig| !is_of_family(key, dest);
        if self.services.iter().any(|s| s.dests.iter().any(|dest| is_mixed(&s.key, dest))) {
            let text = "destinations of another family than their service cannot be synchronised";
            return Err(Refusal::new(EINVAL, text));
        }
        let Some(workers) = &mut self.daemons.workers else {
            return Err(Refusal::new(EOPNOTSUPP, "this director has no network"));
        };
        let interface = asked.interface;
        let Some(mtu) = workers.mtu(&interface) else {
            return Err(Refusal::new(ENODEV, format!("there is no interface {interface}")));
        };
        let other = self.daemons.daemons.iter().flatten().next();
        let configured = self.datapath.sysctl(Sysctl::SyncPorts).clamp(1, MAX_PORTS) as u16;
        let group = asked.group.unwrap_or(GROUP);
        let daemon = SyncDaemon {
            role: asked.role,
            interface,
            sync_id: asked.sync_id,
            max_len: max_len(asked.role, asked.max_len, group, mtu),
            group,
            port: asked.port.unwrap_or(PORT),
            ttl: asked.ttl.unwrap_or(1),
            ports: other.map_or(configured, |daemon| daemon.ports),
        };
        if self.daemons.daemons[place(daemon.role)].is_some() {
            let text = format!("a {} sync daemon runs already", daemon.role.name());
            return Err(Refusal::new(EEXIST, text));
        }
        self.start(daemon)
    }

    fn start(&mut self, daemon: SyncDaemon) -> Result<(), Refusal> {
        let (role, name) = (daemon.role, daemon.role.name());
        let buffer = usize::try_from(self.datapath.sysctl(Sysctl::SyncSockSize));
        let buffer = buffer.ok().filter(|buffer| *buffer > 0);
        let workers = self.daemons.workers.as_mut();
        let started = workers.map_or(Err(EOPNOTSUPP), |workers| workers.start(&daemon, buffer));
        started.map_err(|errno| {
            let text = format!("cannot start the {name} sync daemon on {}", daemon.interface);
            Refusal::new(errno, text)
        })?;
        self.datapath.keep_daemon(role == Role::Backup, write(&daemon));
        self.daemons.daemons[place(role)] = Some(daemon);
        Ok(())
    }

    pub(crate) fn del_daemon(&mut self, attrs: &Attrs<'_>) -> Result<(), Refusal> {
        let role = ipvs::daemon_role(attrs)?;
        if self.daemons.daemons[place(role)].take().is_none() {
            return Err(Refusal::new(ESRCH, format!("no {} sync daemon runs", role.name())));
        }
        if let Some(workers) = &mut self.daemons.workers {
            workers.stop(role);
        }
        self.datapath.keep_daemon(role == Role::Backup, [0; DAEMON_WORDS]);
        Ok(())
    }

    /// Refuses a destination of another family than its service's while a sync daemon runs.
    pub(crate) fn check_synchronised(
        &self,
        key: &ServiceKey,
        dest: &DestConfig,
    ) -> Result<(), Refusal> {
        if is_of_family(key, dest) || self.daemons.daemons.iter().all(Option::is_none) {
            return Ok(());
        }
        Err(Refusal::new(EINVAL, "a sync daemon runs, and other families cannot be synchronised"))
    }
}

fn is_of_family(key: &ServiceKey, dest: &DestConfig) -> bool {
    Family::of(dest.key.addr) == key.family()
}

/// Longest message: what was asked for, or as much as fits the interface, within bounds.
fn max_len(role: Role, asked: Option<u16>, group: IpAddr, mtu: u32) -> u16 {
    let headers = if group.is_ipv4() { 28 } else { 48 };
    let (least, fitting) = match role {
        Role::Master => (1, MASTER_MTU),
        Role::Backup => (BACKUP_LEAST, mtu.clamp(MASTER_MTU.into(), MAX_PACKET.into()) as u16),
    };
    asked.map_or(fitting - headers, |asked| asked.clamp(least, MAX_PACKET - headers))
}

/// A daemon as the data path keeps it.
fn write(daemon: &SyncDaemon) -> [u32; DAEMON_WORDS] {
    let family = if daemon.group.is_ipv4() { 4 } else { 6 };
    let mut kept = [0; DAEMON_WORDS];
    kept[0] = daemon.role as u32 | family << 8 | u32::from(daemon.ttl) << 16;
    kept[1] = daemon.sync_id;
    kept[2] = u32::from(daemon.max_len) | u32::from(daemon.port) << 16;
    kept[3..7].copy_from_slice(&words(daemon.group));
    let mut name = daemon.interface.bytes();
    for word in &mut kept[7..11] {
        *word = u32::from_ne_bytes(std::array::from_fn(|_| name.next().unwrap_or_default()));
    }
    kept[11] = daemon.ports.into();
    kept
}

/// The inverse of [`write`]; none if nothing is kept.
fn read(kept: [u32; DAEMON_WORDS]) -> Option<SyncDaemon> {
    let [first, sync_id, sizes, a, b, c, d, name @ .., ports] = kept;
    let role = match first & 0xff {
        1 => Role::Master,
        2 => Role::Backup,
        _ => return None,
    };
    let family = if first >> 8 & 0xff == 6 { Family::V6 } else { Family::V4 };
    let name: Vec<u8> = name.into_iter().flat_map(u32::to_ne_bytes).collect();
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some(SyncDaemon {
        role,
        interface: String::from_utf8_lossy(name).into_owned(),
        sync_id,
        max_len: sizes as u16,
        group: from_words(family, [a, b, c, d]),
        port: (sizes >> 16) as u16,
        ttl: (first >> 16) as u8,
        ports: ports as u16,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_daemon_is_read_as_it_was_written() {
        for (role, group) in [(Role::Master, "224.0.0.81"), (Role::Backup, "ff02::81")] {
            let daemon = SyncDaemon {
                role,
                interface: "fifteen-letters".into(),
                sync_id: 300,
                max_len: 65_487,
                group: group.parse().expect("a literal"),
                port: 65_535,
                ttl: 255,
                ports: 64,
            };
            assert_eq!(read(write(&daemon)), Some(daemon));
        }
        assert_eq!(read([0; DAEMON_WORDS]), None);
    }
}
