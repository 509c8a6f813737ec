//! Expiry in the maps.

use std::time::{Duration, Instant};

use rvs_core::reason::Reason;
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
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Sweeps both connection tables once.
pub fn pass(maps: &Maps) -> Pass {
    sweeper::pass(maps, Shared(maps))
}

/// Time between two sweeps.
const SWEEP: Duration = Duration::from_millis(500);

/// When the tables are swept: see [`Sweeper::step`].
#[derive(Default)]
pub struct Sweeper {
    swept: Option<Instant>,
    /// Packets that found the table full, as of the last step.
    refused: u64,
}

impl Sweeper {
    /// Time from one step to the next.
    pub const STEP: Duration = Duration::from_millis(100);

    /// Sweeps, twice a second. Between, clears what has ended if new connections found no place since
    /// the last step: a flood's half-open connections that were to make room, which do so the sooner.
    pub fn step(&mut self, maps: &Maps) -> Option<Pass> {
        let refused = maps.reason(Reason::TableFull);
        let wanted = refused != std::mem::replace(&mut self.refused, refused);
        if self.swept.is_none_or(|at| at.elapsed() >= SWEEP) {
            let pass = pass(maps);
            self.swept = Some(Instant::now());
            return Some(pass);
        }
        wanted.then(|| sweeper::make_room(maps, Shared(maps)))
    }
}
