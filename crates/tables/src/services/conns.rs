//! The connection table as `ipvsadm -Lnc` lists it.

use rvs_core::addr::{Addr, from_words};
use rvs_core::conn::{ASSURED, CACHE, REPLY, SYNCED, TEMPLATE, Word};
use rvs_core::control::{ConnRow, EngineData};
use rvs_core::layout::{Conn, ConnSet, WAYS};
use rvs_core::pe::bytes_of;
use rvs_core::pipeline::forget;
use rvs_core::proto::{sctp, tcp, udp};
use rvs_core::time::Tick;
use rvs_core::types::{Engine, Family, ForwardMethod, Protocol};

use crate::memory::Memory;
use crate::sweeper::{self, expiry};

/// Calls `f` for each connection from entry `cursor` on until it returns false; the entry to go
/// on with, or `None` at the end. Entries of IPv6 come after those of IPv4.
pub(super) fn from<M: Memory>(
    maps: &M,
    cursor: u64,
    f: &mut dyn FnMut(&ConnRow) -> bool,
) -> Option<u64> {
    let len = |sets: usize| (sets * WAYS) as u64;
    let (first, second) = (len(maps.conns4().len()), len(maps.conns6().len()));
    let stopped = if cursor < first { part(maps, maps.conns4(), cursor, f) } else { None };
    let next = stopped.or_else(|| {
        let at = cursor.saturating_sub(first);
        Some(first + part(maps, maps.conns6(), at, f)?)
    })?;
    (next < first + second).then_some(next)
}

/// The same in one table: the entry after the one that `f` returned false for.
fn part<A: Addr, M: Memory>(
    maps: &M,
    sets: &[ConnSet<A>],
    cursor: u64,
    f: &mut dyn FnMut(&ConnRow) -> bool,
) -> Option<u64> {
    let now = maps.now();
    let start = usize::try_from(cursor).ok()?;
    let ways = sets.iter().skip(start / WAYS).flat_map(|set| &set.ways).skip(start % WAYS);
    for (index, conn) in (cursor..).zip(ways) {
        if row(maps, sets, conn, now).is_some_and(|row| !f(&row)) {
            return Some(index + 1);
        }
    }
    None
}

/// The row of a live entry; none for reply directions and what schedulers remember.
fn row<A: Addr, M: Memory>(
    maps: &M,
    sets: &[ConnSet<A>],
    conn: &Conn<A>,
    now: Tick,
) -> Option<ConnRow> {
    let word = Word(conn.word.get());
    if !word.is_live() || word.has(REPLY | CACHE) {
        return None;
    }
    let key = conn.key.get();
    let forward = ForwardMethod::from_number(word.forward() as u8)?;
    let bypass = forward == ForwardMethod::Bypass;
    let dest = match conn.dest.get() {
        // It has none, wherever its packets go.
        _ if bypass => A::FAMILY.unspecified(),
        // Told of by another director, of a destination that is not here.
        0 => from_words(A::FAMILY, conn.target.get().to_words()),
        index => {
            let dest = maps.dests().get(index as usize)?;
            let family = if dest.family.get() == 6 { Family::V6 } else { Family::V4 };
            from_words(family, dest.addr.get())
        }
    };
    let template = word.has(TEMPLATE);
    let protocol = key.protocol as u8;
    let state = if template {
        if word.state() == ASSURED { "ASSURED" } else { "NONE" }
    } else if protocol == Protocol::Udp as u8 {
        udp::NAME
    } else if protocol == Protocol::Sctp as u8 {
        sctp::State::ALL.get(word.state() as usize).map_or("ERR!", |state| state.name())
    } else {
        tcp::State::ALL.get(word.state() as usize).map_or("ERR!", |state| state.name())
    };
    Some(ConnRow {
        protocol,
        client: from_words(A::FAMILY, key.src.to_words()),
        // In a template's key it tells Call-IDs apart.
        client_port: if template { 0 } else { u16::from_be(key.sport_be) },
        virtual_addr: from_words(A::FAMILY, key.dst.to_words()),
        virtual_port: u16::from_be(key.dport_be),
        dest,
        dest_port: if bypass { 0 } else { u16::from_be(conn.target_port_be.get() as u16) },
        forward,
        state,
        expires: expiry(sets, conn).seconds_from(now),
        template,
        engine: engine(maps, conn).map(|(engine, data)| (engine, data.up_to_zero())),
        synced: word.has(SYNCED),
    })
}

/// A template's engine and Call-ID.
pub(crate) fn engine<A: Addr, M: Memory>(maps: &M, conn: &Conn<A>) -> Option<(Engine, EngineData)> {
    let index = conn.call_id.get().checked_sub(1)?;
    let (bytes, len) = bytes_of(maps.call_ids().get(index as usize)?);
    Some((Engine::Sip, EngineData::new(bytes.get(..len)?)))
}

/// Writes down when masqueraded connections expire. To be called once a timeout has changed: the later
/// of a connection's expiry and that of its replies is that of its last packet only while both
/// were reckoned with the same timeouts.
pub(super) fn settle<M: Memory>(maps: &M) {
    settle_part(maps.conns4(), maps.now());
    settle_part(maps.conns6(), maps.now());
}

fn settle_part<A: Addr>(sets: &[ConnSet<A>], now: Tick) {
    for conn in sets.iter().flat_map(|set| &set.ways) {
        let word = Word(conn.word.get());
        if !word.is_live() || word.has(REPLY | CACHE | TEMPLATE) {
            continue;
        }
        if let Some(reply) = sweeper::other(sets, conn) {
            conn.expires.set(expiry(sets, conn).0);
            forget(reply, now);
        }
    }
}
