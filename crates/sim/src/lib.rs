//! The data path in plain memory: what the eBPF programs do to a packet, with the same core and
//! the same configuration code, but one thread, a clock that stands until it is moved, and no
//! routing.
//!
//! ```
//! use rvs_core::control::{Change, Datapath};
//! use rvs_core::time::ticks;
//! use rvs_core::types::*;
//! use rvs_sim::{Plain, SimDatapath, Sizes};
//!
//! let mut sim = SimDatapath::adopt(Plain::new(&Sizes::default(), 1));
//! let addr = "192.0.2.1".parse().unwrap();
//! let key = ServiceKey::Address { protocol: Protocol::Tcp, addr, port: 80 };
//! let flags = ServiceFlags::empty();
//! let config = ServiceConfig { scheduler: Scheduler::Rr, flags, timeout: 0, netmask: u32::MAX , engine: None};
//! sim.put_service(&key, &config, &[], Change::Service).unwrap();
//! sim.maps().advance(ticks(60));
//! sim.maps().sweep();
//! ```
#![forbid(unsafe_code)]

mod env;
mod frame;
mod path;
mod plain;

pub use frame::Frame;
pub use path::Outcome;
pub use plain::{Plain, Sizes};

/// The data path that is plain memory.
pub type SimDatapath = rvs_tables::Services<Plain>;
