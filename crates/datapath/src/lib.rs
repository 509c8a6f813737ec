//! The data path in the kernel, from user space: loads the eBPF programs, pins and adopts their
//! maps, attaches to interfaces and is the memory in which `rvs-tables` writes the configuration and
//! sweeps the connection table.

pub mod attach;
mod clock;
pub mod env;
pub mod maps;
mod memory;
pub mod object;
pub mod pin;
pub mod sweeper;
mod tables;

pub use maps::{Maps, Sizes};
pub use object::{Object, OpenError};

/// The data path that is the pinned maps.
pub type BpfDatapath = rvs_tables::Services<Maps>;
