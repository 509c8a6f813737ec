//! `--start-daemon`, `--stop-daemon`.

use rvs_netlink::ipvs::{Daemon, Role};

use super::options::Options;
use crate::Failure;
use crate::flags::{self, Cmd};
use crate::parse::Line;

impl Options {
    /// The daemon to start. Without an interface it is for the director to refuse.
    pub(super) fn daemon(&self, cmd: Cmd, line: &Line) -> Result<Daemon, Failure> {
        Ok(Daemon {
            role: role(cmd, line)?,
            interface: self.interface.clone().unwrap_or_default(),
            sync_id: self.sync_id,
            max_len: self.max_len,
            group: self.group,
            port: self.mcast_port,
            ttl: self.ttl,
        })
    }
}

/// The value of the command itself.
pub(super) fn role(cmd: Cmd, line: &Line) -> Result<Role, Failure> {
    let value = line.given.first().and_then(|given| given.value.as_deref());
    let illegal = || Failure::usage(format!("illegal {} parameter specified", flags::name(cmd)));
    value.and_then(Role::from_name).ok_or_else(illegal)
}
