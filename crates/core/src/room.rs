//! Room in a table that a flood has filled: where a new connection finds no place, a half-open one gives
//! its own up. The kernel has no such limit; it runs out of memory (`drop_entry`, `defence`).
//!
//! Its place is free a tenth of a second later, when rvsd has cleared it: to the new connection's next SYN,
//! or that of another. Connections that both ends have spoken on keep theirs.

use rvs_wire::protocol;

use crate::addr::Addr;
use crate::conn::{REPLY, TEMPLATE, Word};
use crate::env::Tables;
use crate::layout::{Conn, Key};
use crate::pipeline::{end, partner};
use crate::proto::tcp;
use crate::table;
use crate::time::Tick;

/// Ticks that a connection has for its handshake while others want its place: 0.67 s at least, a round trip by a
/// geostationary satellite and some more. The longer it is, the fewer get in: as many places come free in a
/// second as the table has, divided by this time and half that between two times that rvsd clears.
const HANDSHAKE: u32 = 6;

/// [`table::claim`]; if there is no place, one is made for those who ask later.
#[inline(always)]
pub fn claim<'e, A: Addr, E: Tables<A>>(env: &'e E, key: &Key<A>) -> Option<(&'e Conn<A>, u32)> {
    let claimed = table::claim(env, key);
    if claimed.is_none() {
        make(env, key);
    }
    claimed
}

/// Ends a half-open connection in the key's home set.
#[inline(always)]
fn make<A: Addr, E: Tables<A>>(env: &E, key: &Key<A>) {
    let (Some(config), Some(home)) = (env.config(), table::home(env, key)) else { return };
    let Some(set) = env.set(home.set) else { return };
    let timeout = config.tcp_timeouts.get(tcp::State::SynRecv as usize).map_or(0, |t| t.get());
    // A connection that expires by then began its handshake long enough ago.
    let late = env.now().after(timeout.saturating_sub(HANDSHAKE));
    for entry in &set.ways {
        let word = Word(entry.word.get());
        let half_open = word.state() == tcp::State::SynRecv as u32
            && entry.key.get().protocol == protocol::TCP as u32;
        if !word.is_live() || word.has(TEMPLATE) || !half_open {
            continue;
        }
        let conn = if word.has(REPLY) { partner(env, entry) } else { Some(entry) };
        if let Some(conn) = conn
            && late.reached(Tick(conn.expires.get()))
        {
            end(env, conn);
            return;
        }
    }
}
