//! The host as rvsd needs it: interfaces, routes and neighbours by rtnetlink, and netfilter, in the network
//! namespace of the calling process. `/sys/class/net` is not used: under `nsenter --net` it shows
//! another namespace.
#![forbid(unsafe_code)]

mod icmp;
mod interface;
mod monitor;
mod neighbour;
mod netfilter;
mod policy;
mod request;
mod route;
mod sysctl;

use netlink_sys::Socket;

pub use icmp::icmp_settings;
pub use interface::Interface;
pub use monitor::{Changes, Monitor};
pub use netfilter::{Netfilter, TABLE, Target, Tracked, Virtual};
pub use policy::{MARKED, Mark};
pub use route::Hop;
pub use sysctl::{forwards, prepare_loopback, restore_loopback};

/// Why the host did not answer.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The netlink socket failed.
    #[error("rtnetlink: {0}")]
    Socket(#[from] std::io::Error),
    /// The kernel refused a request.
    #[error("the kernel refused to {what}: {reason}")]
    Refused {
        /// The request.
        what: &'static str,
        /// What it said.
        reason: std::io::Error,
    },
    /// The kernel's answer cannot be read.
    #[error("rtnetlink sent what cannot be read: {0}")]
    Malformed(String),
    /// A kernel setting cannot be written.
    #[error("cannot write {path}: {reason}")]
    Sysctl {
        /// The file.
        path: &'static str,
        /// What the kernel said.
        reason: std::io::Error,
    },
}

impl HostError {
    /// The kernel's errno; EIO if it did not say.
    pub fn errno(&self) -> i32 {
        const EIO: i32 = 5;
        let reason = match self {
            Self::Socket(reason) | Self::Refused { reason, .. } | Self::Sysctl { reason, .. } => {
                reason.raw_os_error()
            }
            Self::Malformed(_) => None,
        };
        reason.unwrap_or(EIO)
    }
}

/// A socket to ask the host by.
pub struct Host {
    socket: Socket,
    sequence: u32,
}
