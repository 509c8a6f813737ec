//! Expiry: walks the connection tables, ends what has expired and clears what has ended.

use std::net::{IpAddr, SocketAddr};

use rvs_core::addr::{Addr, V4, V6, from_words};
use rvs_core::conn::{TRACKED, Word};
use rvs_core::env::Tables;
use rvs_core::layout::{Conn, ConnSet, WAYS};
use rvs_core::pipeline;
use rvs_core::sweep::{Swept, clear, life, sweep};
use rvs_core::time::Tick;
use rvs_core::tracked::{self, Ended};

use crate::memory::Memory;

/// What one pass over both tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Entries in use; a masqueraded connection has two.
    pub live: u32,
    /// Entries cleared for new use.
    pub cleared: u32,
    /// Connections that ended, for netfilter to forget.
    pub tracked: Vec<Tracked>,
}

/// A connection that netfilter tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Protocol number.
    pub protocol: u8,
    /// The client.
    pub client: SocketAddr,
    /// The virtual address.
    pub virtual_addr: SocketAddr,
    /// The destination's address.
    pub dest: IpAddr,
}

impl Tracked {
    fn of<A: Addr>(Ended { key, target }: Ended<A>) -> Self {
        let addr = |addr: A| from_words(A::FAMILY, addr.to_words());
        let socket = |ip, port_be| SocketAddr::new(addr(ip), u16::from_be(port_be));
        Self {
            protocol: key.protocol as u8,
            client: socket(key.src, key.sport_be),
            virtual_addr: socket(key.dst, key.dport_be),
            dest: addr(target),
        }
    }
}

/// Sweeps both tables once. `env` is `memory` as the core sees it.
pub fn pass<M: Memory, E: Tables<V4> + Tables<V6>>(memory: &M, env: E) -> Pass {
    let (mut pass, mut tracked) = (Pass::default(), 0);
    let now = env.now();
    let dead4 = find_dead(memory.conns4(), &mut pass, &mut tracked, |conn| sweep(&env, conn, now));
    let dead6 = find_dead(memory.conns6(), &mut pass, &mut tracked, |conn| sweep(&env, conn, now));
    memory.config().tracked.set(tracked);
    clear_all(memory, env, (&dead4, &dead6), &mut pass);
    pass
}

/// Clears what has ended, and ends nothing: between two sweeps, where new connections find no place.
pub fn make_room<M: Memory, E: Tables<V4> + Tables<V6>>(memory: &M, env: E) -> Pass {
    let (mut pass, mut tracked) = (Pass::default(), 0);
    let dead4 =
        find_dead(memory.conns4(), &mut pass, &mut tracked, |conn| life(Word(conn.word.get())));
    let dead6 =
        find_dead(memory.conns6(), &mut pass, &mut tracked, |conn| life(Word(conn.word.get())));
    clear_all(memory, env, (&dead4, &dead6), &mut pass);
    pass
}

fn entry<A: Addr>(sets: &[ConnSet<A>], index: u32) -> Option<&Conn<A>> {
    sets.get(index as usize / WAYS)?.ways.get(index as usize % WAYS)
}

/// When a connection of this table expires.
pub(crate) fn expiry<A: Addr>(sets: &[ConnSet<A>], conn: &Conn<A>) -> Tick {
    pipeline::expiry(conn, |_| other(sets, conn))
}

/// The entry of the other direction of a masqueraded connection.
pub(crate) fn other<'s, A: Addr>(sets: &'s [ConnSet<A>], conn: &Conn<A>) -> Option<&'s Conn<A>> {
    entry(sets, conn.pair.get().checked_sub(1)?)
}

/// Indices of the entries that have ended, by what `ask` says of each.
fn find_dead<A: Addr>(
    sets: &[ConnSet<A>],
    pass: &mut Pass,
    tracked: &mut u32,
    ask: impl Fn(&Conn<A>) -> Swept,
) -> Vec<u32> {
    let mut dead = Vec::new();
    for (index, conn) in sets.iter().flat_map(|set| &set.ways).enumerate() {
        match ask(conn) {
            Swept::Free => {}
            Swept::Live => {
                pass.live += 1;
                *tracked += u32::from(Word(conn.word.get()).has(TRACKED));
            }
            Swept::Dead => dead.push(index as u32),
        }
    }
    dead
}

/// Clears the dead of both tables, after a grace period.
fn clear_all<M: Memory, E: Tables<V4> + Tables<V6>>(
    memory: &M,
    env: E,
    (dead4, dead6): (&[u32], &[u32]),
    pass: &mut Pass,
) {
    if dead4.is_empty() && dead6.is_empty() {
        return;
    }
    memory.grace_period();
    pass.cleared = (dead4.len() + dead6.len()) as u32;
    clear_each(&env, memory.conns4(), dead4, pass);
    clear_each(&env, memory.conns6(), dead6, pass);
}

fn clear_each<A: Addr, E: Tables<A>>(env: &E, sets: &[ConnSet<A>], dead: &[u32], pass: &mut Pass) {
    for index in dead {
        let ended = entry(sets, *index).and_then(|conn| tracked::ended(env, conn));
        pass.tracked.extend(ended.map(Tracked::of));
        clear(env, index + 1);
    }
}
