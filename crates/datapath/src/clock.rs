//! Has the programs' clock compared with jiffies, by a program that reads both.

use std::time::Duration;

use aya::programs::TestRunOptions;
use aya::{Ebpf, TestRun as _};

use crate::maps::Maps;
use crate::object::{OpenError, tc};

const PROGRAM: &str = "rvs_clock";
/// Between two looks, at least: the frequencies that kernels have are told apart by then.
pub const APART: Duration = Duration::from_millis(200);

/// Loads the program.
pub fn load(ebpf: &mut Ebpf) -> Result<(), OpenError> {
    let refused = |reason| OpenError::Verify { name: PROGRAM, reason };
    tc(ebpf, PROGRAM)?.load().map_err(refused)
}

/// Jiffies and the clock in nanoseconds, as they are now; both stay in the configuration.
pub fn look(ebpf: &mut Ebpf, maps: &Maps) -> Result<(u64, u64), OpenError> {
    // The kernel wants a packet, if only of an Ethernet header.
    let options = TestRunOptions { data_in: Some(&[0; 64]), ..TestRunOptions::default() };
    let refused = |reason| OpenError::Verify { name: PROGRAM, reason };
    tc(ebpf, PROGRAM)?.test_run(options).map_err(refused)?;
    let clock = &maps.config().clock;
    Ok((clock.jiffies.get(), clock.nanos.get()))
}
