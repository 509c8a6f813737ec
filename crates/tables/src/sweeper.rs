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
    go_through(memory, env, true)
}

/// Clears what has ended, and ends nothing: between two sweeps, where new connections find no place.
pub fn make_room<M: Memory, E: Tables<V4> + Tables<V6>>(memory: &M, env: E) -> Pass {
    go_through(memory, env, false)
}

/// Clears what has ended; before that, with `ending`, what has expired ends.
fn go_through<M: Memory, E: Tables<V4> + Tables<V6>>(memory: &M, env: E, ending: bool) -> Pass {
    let (mut pass, mut tracked) = (Pass::default(), 0);
    let dead4 = find_dead::<V4, E>(env, memory.conns4(), ending, &mut pass, &mut tracked);
    let dead6 = find_dead::<V6, E>(env, memory.conns6(), ending, &mut pass, &mut tracked);
    if ending {
        memory.config().tracked.set(tracked);
    }
    if dead4.is_empty() && dead6.is_empty() {
        return pass;
    }
    memory.grace_period();
    pass.cleared = (dead4.len() + dead6.len()) as u32;
    clear_all(env, memory.conns4(), &dead4, &mut pass);
    clear_all(env, memory.conns6(), &dead6, &mut pass);
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

/// Indices of the entries that have ended; with `ending`, those that end now included.
fn find_dead<A: Addr, E: Tables<A>>(
    env: E,
    sets: &[ConnSet<A>],
    ending: bool,
    pass: &mut Pass,
    tracked: &mut u32,
) -> Vec<u32> {
    let now = env.now();
    let mut dead = Vec::new();
    for (index, conn) in sets.iter().flat_map(|set| &set.ways).enumerate() {
        let word = || Word(conn.word.get());
        match if ending { sweep(&env, conn, now) } else { life(word()) } {
            Swept::Free => {}
            Swept::Live => {
                pass.live += 1;
                *tracked += u32::from(word().has(TRACKED));
            }
            Swept::Dead => dead.push(index as u32),
        }
    }
    dead
}

fn clear_all<A: Addr, E: Tables<A>>(env: E, sets: &[ConnSet<A>], dead: &[u32], pass: &mut Pass) {
    for index in dead {
        let ended = entry(sets, *index).and_then(|conn| tracked::ended(&env, conn));
        pass.tracked.extend(ended.map(Tracked::of));
        clear(&env, index + 1);
    }
}
