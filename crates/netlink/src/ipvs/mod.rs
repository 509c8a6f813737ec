//! Commands, attributes and entities of family "IPVS" (`include/uapi/linux/ip_vs.h`), both ways.
//!
//! Attributes are written in the kernel's order and form, so that an answer of ours is byte for
//! byte the kernel's (`tests/oracle/recorded/netlink.jsonl`).

mod addr;
mod conn;
mod daemon;
mod dest;
pub mod policy;
mod service;
mod stats;

pub use conn::{Conn, conn, put_conn};
pub use daemon::{Daemon, Role, daemon, daemon_role, put_daemon};
pub use dest::{dest, dest_key, dest_status, put_dest, put_dest_key, put_dest_status};
pub use service::{Service, flags_mask, put_service, put_service_key, service, service_key};
pub use stats::{counters, put_counters, put_stats, stats};

/// Name of the family.
pub const FAMILY: &str = "IPVS";
/// Version of the family.
pub const VERSION: u8 = 1;
/// `IP_VS_VERSION_CODE`: 1.2.1.
pub const VERSION_CODE: u32 = 0x01_02_01;
/// `IPVS_CMD_ATTR_MAX`: the greatest top-level attribute that the kernel knows.
pub const MAX_ATTR: u32 = 6;

/// Commands, `IPVS_CMD_*`. From [`command::GET_CONNS`] on they are RVS's own.
#[allow(missing_docs)]
pub mod command {
    pub const NEW_SERVICE: u8 = 1;
    pub const SET_SERVICE: u8 = 2;
    pub const DEL_SERVICE: u8 = 3;
    pub const GET_SERVICE: u8 = 4;
    pub const NEW_DEST: u8 = 5;
    pub const SET_DEST: u8 = 6;
    pub const DEL_DEST: u8 = 7;
    pub const GET_DEST: u8 = 8;
    pub const NEW_DAEMON: u8 = 9;
    pub const DEL_DAEMON: u8 = 10;
    pub const GET_DAEMON: u8 = 11;
    pub const SET_CONFIG: u8 = 12;
    pub const GET_CONFIG: u8 = 13;
    pub const SET_INFO: u8 = 14;
    pub const GET_INFO: u8 = 15;
    pub const ZERO: u8 = 16;
    pub const FLUSH: u8 = 17;
    /// A dump of a page of the connection table, which begins at
    /// [`cmd_attr::CURSOR`](super::cmd_attr::CURSOR): what the kernel tells by
    /// `/proc/net/ip_vs_conn`.
    pub const GET_CONNS: u8 = 64;
    /// Counters and rates of everything: what the kernel tells by `/proc/net/ip_vs_stats`.
    pub const GET_STATS: u8 = 80;
    /// A dump of the settings, or of the one that is named: what the kernel tells by
    /// `/proc/sys/net/ipv4/vs`.
    pub const GET_SYSCTL: u8 = 96;
    /// Changes a setting.
    pub const SET_SYSCTL: u8 = 97;
    /// With the acknowledgement comes a descriptor (`SCM_RIGHTS`), if rvsd could make it: the folder
    /// of a file system with the kernel's files below `/proc`.
    pub const GET_PROC: u8 = 112;
}

/// Top-level attributes, `IPVS_CMD_ATTR_*`. From [`cmd_attr::CONN`] on they are RVS's own.
#[allow(missing_docs)]
pub mod cmd_attr {
    pub const SERVICE: u16 = 1;
    pub const DEST: u16 = 2;
    pub const DAEMON: u16 = 3;
    pub const TIMEOUT_TCP: u16 = 4;
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    pub const TIMEOUT_UDP: u16 = 6;
    /// A connection, in answers to `GET_CONNS`.
    pub const CONN: u16 = 64;
    /// Counters of everything, in answers to `GET_STATS`.
    pub const STATS: u16 = 80;
    /// The same, 64 bits wide.
    pub const STATS64: u16 = 81;
    /// What one CPU has counted ever, in answers to `GET_STATS`: one for each, in order.
    pub const CPU_STATS: u16 = 82;
    /// In a request: say in words why it is refused (`NLMSGERR_ATTR_MSG`). No value. It stands
    /// for the socket option `NETLINK_EXT_ACK`, which a Unix socket does not have.
    pub const EXT_ACK: u16 = 65;
    /// Where in the connection table a page begins (u64; 0 is the begin), and in the answer where
    /// the next one does, unless this was the last.
    pub const CURSOR: u16 = 66;
    /// The most rows of a page (u32; 4096 unless it is less).
    pub const LIMIT: u16 = 67;
    /// Name of a setting.
    pub const SYSCTL_NAME: u16 = 96;
    /// A setting's value, as text.
    pub const SYSCTL_VALUE: u16 = 97;
}

/// Attributes of a service, `IPVS_SVC_ATTR_*`.
#[allow(missing_docs)]
pub mod svc_attr {
    pub const AF: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ADDR: u16 = 3;
    pub const PORT: u16 = 4;
    pub const FWMARK: u16 = 5;
    pub const SCHED_NAME: u16 = 6;
    pub const FLAGS: u16 = 7;
    pub const TIMEOUT: u16 = 8;
    pub const NETMASK: u16 = 9;
    pub const STATS: u16 = 10;
    pub const PE_NAME: u16 = 11;
    pub const STATS64: u16 = 12;
}

/// Attributes of a destination, `IPVS_DEST_ATTR_*`.
#[allow(missing_docs)]
pub mod dest_attr {
    pub const ADDR: u16 = 1;
    pub const PORT: u16 = 2;
    pub const FWD_METHOD: u16 = 3;
    pub const WEIGHT: u16 = 4;
    pub const U_THRESH: u16 = 5;
    pub const L_THRESH: u16 = 6;
    pub const ACTIVE_CONNS: u16 = 7;
    pub const INACT_CONNS: u16 = 8;
    pub const PERSIST_CONNS: u16 = 9;
    pub const STATS: u16 = 10;
    pub const ADDR_FAMILY: u16 = 11;
    pub const STATS64: u16 = 12;
    pub const TUN_TYPE: u16 = 13;
    pub const TUN_PORT: u16 = 14;
    pub const TUN_FLAGS: u16 = 15;
}

/// Attributes of a sync daemon, `IPVS_DAEMON_ATTR_*`.
#[allow(missing_docs)]
pub mod daemon_attr {
    pub const STATE: u16 = 1;
    pub const MCAST_IFN: u16 = 2;
    pub const SYNC_ID: u16 = 3;
    pub const SYNC_MAXLEN: u16 = 4;
    pub const MCAST_GROUP: u16 = 5;
    pub const MCAST_GROUP6: u16 = 6;
    pub const MCAST_PORT: u16 = 7;
    pub const MCAST_TTL: u16 = 8;
}

/// `IPVS_INFO_ATTR_VERSION`
pub const INFO_VERSION: u16 = 1;
/// `IPVS_INFO_ATTR_CONN_TAB_SIZE`
pub const INFO_CONN_TAB_SIZE: u16 = 2;
