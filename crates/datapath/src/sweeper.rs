//! Expiry: walks the connection tables, ends what has expired and clears what has ended.

use rvs_core::addr::{Addr, V4, V6};
use rvs_core::env::Tables;
use rvs_core::layout::{Conn, ConnSet, WAYS};
use rvs_core::sweep::{Swept, clear, sweep};

use crate::env::{Shared, now};
use crate::maps::Maps;

/// What one pass over both tables found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Entries in use; a masqueraded connection has two.
    pub live: u32,
    /// Entries cleared for new use.
    pub cleared: u32,
}

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

/// Sweeps both tables once.
pub fn pass(maps: &Maps) -> Pass {
    let env = Shared(maps);
    let mut pass = Pass::default();
    let dead4 = find_dead::<V4>(env, &maps.conns4, &mut pass);
    let dead6 = find_dead::<V6>(env, &maps.conns6, &mut pass);
    if dead4.is_empty() && dead6.is_empty() {
        return pass;
    }
    grace_period();
    pass.cleared = (dead4.len() + dead6.len()) as u32;
    clear_all(env, &maps.conns4, &dead4);
    clear_all(env, &maps.conns6, &dead6);
    pass
}

fn entry<A: Addr>(sets: &[ConnSet<A>], index: u32) -> Option<&Conn<A>> {
    sets.get(index as usize / WAYS)?.ways.get(index as usize % WAYS)
}

/// Indices of the entries that have ended, those that end now included.
fn find_dead<'m, A: Addr>(env: Shared<'m>, sets: &[ConnSet<A>], pass: &mut Pass) -> Vec<u32>
where
    Shared<'m>: Tables<A>,
{
    let now = now();
    let mut dead = Vec::new();
    for (index, conn) in sets.iter().flat_map(|set| &set.ways).enumerate() {
        match sweep(&env, conn, now) {
            Swept::Free => {}
            Swept::Live => pass.live += 1,
            Swept::Dead => dead.push(index as u32),
        }
    }
    dead
}

fn clear_all<'m, A: Addr>(env: Shared<'m>, sets: &[ConnSet<A>], dead: &[u32])
where
    Shared<'m>: Tables<A>,
{
    for conn in dead.iter().filter_map(|index| entry(sets, *index)) {
        clear(&env, conn);
    }
}
