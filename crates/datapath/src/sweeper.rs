//! Expiry in the maps.

use rvs_tables::sweeper;
pub use rvs_tables::sweeper::Pass;

use crate::env::Shared;
use crate::maps::Maps;

/// Waits until every packet that is being processed now is done: an RCU grace period
/// (`membarrier(2)`, MEMBARRIER_CMD_GLOBAL).
pub fn grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Refused on kernels with nohz_full: no packet takes anywhere near this long.
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Sweeps both connection tables once.
pub fn pass(maps: &Maps) -> Pass {
    sweeper::pass(maps, Shared(maps))
}
