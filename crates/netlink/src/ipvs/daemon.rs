//! Sync daemons.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::daemon_attr;
use super::policy::{self, misfit};
use crate::attr::{Attrs, Writer};
use crate::errno;

/// What a sync daemon does (`IP_VS_STATE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// Sends connections.
    Master = 1,
    /// Receives connections.
    Backup = 2,
}

impl Role {
    /// The name as in `ipvsadm --start-daemon`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
        }
    }

    /// The role with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Master, Self::Backup].into_iter().find(|role| role.name() == name)
    }
}

/// A sync daemon as it is asked for, or as it runs. What is not said is the director's choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// What it does.
    pub role: Role,
    /// Interface that it multicasts on.
    pub interface: String,
    /// Which group of directors it belongs to.
    pub sync_id: u32,
    /// Greatest length of a message.
    pub max_len: Option<u16>,
    /// Multicast group.
    pub group: Option<IpAddr>,
    /// UDP port.
    pub port: Option<u16>,
    /// TTL of the messages.
    pub ttl: Option<u8>,
}

/// Puts a sync daemon.
pub fn put_daemon(attrs: &mut Writer, daemon: &Daemon) {
    attrs
        .u32(daemon_attr::STATE, daemon.role as u32)
        .text(daemon_attr::MCAST_IFN, &daemon.interface)
        .u32(daemon_attr::SYNC_ID, daemon.sync_id);
    if let Some(max_len) = daemon.max_len {
        attrs.u16(daemon_attr::SYNC_MAXLEN, max_len);
    }
    if let Some(port) = daemon.port {
        attrs.u16(daemon_attr::MCAST_PORT, port);
    }
    if let Some(ttl) = daemon.ttl {
        attrs.u8(daemon_attr::MCAST_TTL, ttl);
    }
    match daemon.group {
        Some(IpAddr::V4(group)) => drop(attrs.put(daemon_attr::MCAST_GROUP, &group.octets())),
        Some(IpAddr::V6(group)) => drop(attrs.put(daemon_attr::MCAST_GROUP6, &group.octets())),
        None => {}
    }
}

/// Reads which daemon is meant; its state is all that the kernel needs to stop one.
pub fn daemon_role(attrs: &Attrs<'_>) -> Result<Role, i32> {
    if misfit(attrs, policy::DAEMON).is_some() {
        return Err(errno::EINVAL);
    }
    match attrs.u32(daemon_attr::STATE) {
        Some(1) => Ok(Role::Master),
        Some(2) => Ok(Role::Backup),
        _ => Err(errno::EINVAL),
    }
}

/// Reads a sync daemon. Zero stands for the default; a group must be a multicast address.
pub fn daemon(attrs: &Attrs<'_>) -> Result<Daemon, i32> {
    if misfit(attrs, policy::DAEMON).is_some() {
        return Err(errno::EINVAL);
    }
    let interface = attrs.text(daemon_attr::MCAST_IFN).ok_or(errno::EINVAL)?.to_owned();
    let sync_id = attrs.u32(daemon_attr::SYNC_ID).ok_or(errno::EINVAL)?;
    let v4 = attrs.find(daemon_attr::MCAST_GROUP).and_then(|b| b.first_chunk::<4>());
    let v6 = attrs.find(daemon_attr::MCAST_GROUP6).and_then(|b| b.first_chunk::<16>());
    let group = match (v4, v6) {
        (Some(bytes), _) => Some(IpAddr::from(Ipv4Addr::from(*bytes))),
        (None, Some(bytes)) => Some(IpAddr::from(Ipv6Addr::from(*bytes))),
        (None, None) => None,
    };
    if group.is_some_and(|group| !group.is_multicast()) {
        return Err(errno::EINVAL);
    }
    Ok(Daemon {
        role: daemon_role(attrs)?,
        interface,
        sync_id,
        max_len: attrs.u16(daemon_attr::SYNC_MAXLEN).filter(|n| *n != 0),
        group,
        port: attrs.u16(daemon_attr::MCAST_PORT).filter(|n| *n != 0),
        ttl: attrs.u8(daemon_attr::MCAST_TTL).filter(|n| *n != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.1 answered after `ipvsadm --start-daemon backup --mcast-interface lo
    /// --syncid 8`.
    const RECORDED: &str = "0800010002000000070002006c6f0000080003000800000006000400e3ff0000\
                            0600070090220000050008000100000008000500e0000051";

    #[test]
    fn a_daemon_is_read_and_written_as_the_kernel_writes_it() {
        let bytes: Vec<u8> = (0..RECORDED.len())
            .step_by(2)
            .filter_map(|at| u8::from_str_radix(RECORDED.get(at..at + 2)?, 16).ok())
            .collect();
        let daemon = daemon(&Attrs(&bytes)).expect("a daemon");
        assert_eq!((daemon.role, daemon.interface.as_str()), (Role::Backup, "lo"));
        assert_eq!((daemon.sync_id, daemon.max_len, daemon.port), (8, Some(65_507), Some(8848)));
        assert_eq!((daemon.group, daemon.ttl), (Some([224, 0, 0, 81].into()), Some(1)));
        let mut written = Writer::new();
        put_daemon(&mut written, &daemon);
        assert_eq!(written.bytes(), bytes);
    }
}
