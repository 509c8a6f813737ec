//! Locality-based least connection: connections to one address stay with one destination, until that
//! is overloaded while another is less than half full; new addresses go by wlc. Follows
//! `ip_vs_lblc.c`.

use super::cache::{self, ENTRY, Place};
use super::{NONE, row_of, wlc};
use crate::addr::Addr;
use crate::env::Tables;
use crate::layout::{Conn, Version};
use crate::table;

#[inline(always)]
pub(super) fn pick<A: Addr, E: Tables<A>>(
    env: &E,
    version: &Version,
    place: Place,
    addr: A,
) -> u32 {
    let key = cache::key(addr, place.slot, version.state.get());
    let known = table::entry(env, env.find(&key));
    if let Some(entry) = known {
        cache::touch(env, entry);
        let row = usable(env, version, entry);
        if row != NONE {
            return row;
        }
    }
    let picked = wlc::pick(env, version);
    if picked == NONE {
        return NONE;
    }
    let Some((row, dest)) = super::entry(env, version.first_row.get(), picked) else {
        return NONE;
    };
    match known {
        Some(entry) => cache::remember(entry, row.dest, dest),
        // Without room for an entry the choice still stands.
        None => {
            if let Some(entry) = table::entry(env, env.claim(&key)) {
                cache::remember(entry, row.dest, dest);
                cache::touch(env, entry);
                cache::publish(env, place, entry, ENTRY);
            }
        }
    }
    picked
}

/// The row of an entry's destination if that takes another connection.
#[inline(always)]
fn usable<A: Addr, E: Tables<A>>(env: &E, version: &Version, entry: &Conn<A>) -> u32 {
    let index = entry.dest.get();
    let Some(dest) = env.dest(index).filter(|dest| cache::means(entry, dest)) else {
        return NONE;
    };
    if dest.weight.get() == 0 || cache::is_overloaded(env, version, dest) {
        return NONE;
    }
    row_of(env, version, index)
}
