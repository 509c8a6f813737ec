//! The connection table as `ipvsadm -Lnc` lists it.

use rvs_core::addr::{Addr, from_words};
use rvs_core::conn::{ASSURED, REPLY, TEMPLATE, Word};
use rvs_core::control::ConnRow;
use rvs_core::layout::{Conn, ConnSet};
use rvs_core::proto::{tcp, udp};
use rvs_core::time::Tick;
use rvs_core::types::{Family, ForwardMethod, Protocol};

use crate::memory::Memory;

/// Calls `f` for each connection until it returns false.
pub(super) fn for_each<M: Memory>(maps: &M, f: &mut dyn FnMut(&ConnRow) -> bool) {
    let _ = each(maps, maps.conns4(), f) && each(maps, maps.conns6(), f);
}

fn each<A: Addr, M: Memory>(
    maps: &M,
    sets: &[ConnSet<A>],
    f: &mut dyn FnMut(&ConnRow) -> bool,
) -> bool {
    let now = maps.now();
    sets.iter().flat_map(|set| &set.ways).filter_map(|conn| row(maps, conn, now)).all(|row| f(&row))
}

/// The row of a live entry; none for reply directions.
fn row<A: Addr, M: Memory>(maps: &M, conn: &Conn<A>, now: Tick) -> Option<ConnRow> {
    let word = Word(conn.word.get());
    if !word.is_live() || word.has(REPLY) {
        return None;
    }
    let key = conn.key.get();
    let dest = maps.dests().get(conn.dest.get() as usize)?;
    let dest_family = if dest.family.get() == 6 { Family::V6 } else { Family::V4 };
    let template = word.has(TEMPLATE);
    let protocol = key.protocol as u8;
    let state = if template {
        if word.state() == ASSURED { "ASSURED" } else { "NONE" }
    } else if protocol == Protocol::Udp as u8 {
        udp::NAME
    } else {
        tcp::State::ALL.get(word.state() as usize).map_or("ERR!", |state| state.name())
    };
    Some(ConnRow {
        protocol,
        client: from_words(A::FAMILY, key.src.to_words()),
        client_port: u16::from_be(key.sport_be),
        virtual_addr: from_words(A::FAMILY, key.dst.to_words()),
        virtual_port: u16::from_be(key.dport_be),
        dest: from_words(dest_family, dest.addr.get()),
        dest_port: u16::from_be(conn.target_port_be.get() as u16),
        forward: ForwardMethod::from_number(word.forward() as u8)?,
        state,
        expires: Tick(conn.expires.get()).seconds_from(now),
        template,
    })
}
