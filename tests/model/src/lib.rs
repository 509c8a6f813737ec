//! A model of IPVS: what ip_vs does to packets, connections and counters, written to be read and
//! not to be fast. Nothing here knows how RVS works: of `rvs-core` it takes the words (services,
//! destinations, rows of listings), no decision. Lists are searched from end to end, counts are
//! counted, and state tables are text.
//!
//! | file | of ip_vs | says |
//! | --- | --- | --- |
//! | `command.rs` | `ip_vs_ctl.c` | what ipvsadm's commands change |
//! | `packet.rs` | `ip_vs_core.c` | what becomes of a packet |
//! | `persist.rs` | `ip_vs_sched_persist` | what templates decide |
//! | `conn.rs` | `ip_vs_conn.c` | what connections are, and when they end |
//! | `sched.rs` | `ip_vs_rr.c` ... | which destination is next |
//! | `state.rs` | `ip_vs_proto_tcp.c` | the states of TCP |
//! | `listing.rs` | `/proc/net/ip_vs_conn` | what is listed |
//! | `play/` | | random cases, and the comparison with a data path |
//!
//! Left out: SCTP, ICMP errors, fragments, `secure_tcp`, `drop_packet`, FTP, persistence engines,
//! sync daemons, and the schedulers mh, lblc, lblcr and twos. Where ARCHITECTURE.md, "Ideal and
//! reality", says that RVS differs from the kernel on purpose, the model is RVS's; each place says
//! so.
#![forbid(unsafe_code)]

mod command;
mod conn;
mod listing;
mod packet;
mod persist;
pub mod play;
mod sched;
mod state;

use std::collections::BTreeMap;

use rvs_core::control::Stats;
use rvs_core::types::Timeouts;

pub use conn::Tie;
pub use packet::{Fate, Packet};

use command::{Dest, Service};
use conn::Conn;
use persist::Template;

/// Names a destination, connection or template for ever.
type Id = u64;

/// The model's unit of time is RVS's, 2²⁷ ns, because that is what timeouts are rounded up to
/// there; in the kernel it is 4 ms.
pub type Jiffies = u64;

/// A timeout of so many seconds.
pub fn jiffies(seconds: u32) -> Jiffies {
    (u64::from(seconds) * 1_000_000_000).div_ceil(1 << 27)
}

/// What of `/proc/sys/net/ipv4/vs` the model knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Connections of a deleted destination end.
    pub expire_nodest_conn: bool,
    /// Templates of a destination of weight 0 end.
    pub expire_quiescent_template: bool,
    /// Bit 0: a SYN opens a new connection where one is over. Bit 1: in FIN_WAIT, too, where
    /// replies are not seen. (Any bit but none is bit 0, too.)
    pub conn_reuse_mode: u8,
    /// Any packet of TCP opens a connection but a reset.
    pub sloppy_tcp: bool,
}

/// Everything that a director with IPVS knows.
#[derive(Clone, Debug, Default)]
pub struct Model {
    settings: Settings,
    timeouts: Timeouts,
    now: Jiffies,
    services: Vec<Service>,
    /// Those in force, and deleted ones that connections or templates still use.
    dests: BTreeMap<Id, Dest>,
    conns: BTreeMap<Id, Conn>,
    templates: BTreeMap<Id, Template>,
    /// Counters of everything.
    total: Stats,
    last_id: Id,
}

impl Model {
    /// A director without services.
    pub fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    fn new_id(&mut self) -> Id {
        self.last_id += 1;
        self.last_id
    }

    fn dest(&self, id: Id) -> &Dest {
        &self.dests[&id]
    }

    fn dest_mut(&mut self, id: Id) -> &mut Dest {
        self.dests.get_mut(&id).expect("destinations live as long as they are named")
    }
}
