//! The owner of the tables that packets are looked up in: writes the configuration, lists and
//! sweeps connections. The tables lie in BPF maps (`rvs-datapath`) or in plain memory (`rvs-sim`).
#![forbid(unsafe_code)]

mod extents;
mod memory;
mod services;
pub mod sweeper;
pub mod sync;

pub use memory::{Memory, ServiceHash, initialise};
pub use services::{Services, Translator};
