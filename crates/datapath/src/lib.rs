//! The data path in the kernel, from user space: loads the eBPF programs, pins and adopts their
//! maps, writes the configuration, attaches to interfaces and sweeps the connection table.

pub mod attach;
pub mod env;
mod extents;
pub mod maps;
mod memory;
pub mod object;
pub mod services;
pub mod sweeper;

pub use maps::{Maps, Sizes};
pub use object::{Object, OpenError};
pub use services::BpfDatapath;
