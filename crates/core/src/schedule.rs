//! A new connection: which destination it gets, and its entries in the connection table.
//! Follows `ip_vs_schedule`, `ip_vs_sched_persist` and `ip_vs_conn_new`.

use rvs_wire::protocol;

use crate::addr::Addr;
use crate::conn::{INACTIVE, NO_OUTPUT, REPLY, TEMPLATE, Word};
use crate::dest;
use crate::env::{Env, Tables, Visit};
use crate::flow::Flow;
use crate::layout::{Config, Conn, Key, Row, Slot, Version};
use crate::pipeline::{Forward, end, partner};
use crate::proto::tcp;
use crate::reason::Reason;
use crate::sched::{self, NONE};
use crate::table;
use crate::time::ticks;
use crate::types::{Family, ForwardMethod, ServiceFlags};

/// Added to the protocol in a template's key, so that no packet finds it.
pub const TEMPLATE_KEY: u32 = 0x100;

/// Schedules a connection for the packet and enters it into the connection table.
#[inline(never)]
pub fn schedule<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    config: &Config,
    flow: &Flow<A>,
    slot_index: u32,
) -> Result<Forward<'e, A>, Reason> {
    let slot = env.slot(slot_index).ok_or(Reason::Inconsistent)?;
    let version = env.version(slot.version.get()).ok_or(Reason::Inconsistent)?;
    let mut control = 0;
    let index = if version.flags.get() & ServiceFlags::PERSISTENT.bits() != 0 {
        let (index, template) = persistent(env, config, flow, slot, version)?;
        control = template;
        index
    } else {
        sched::pick(env, version, &flow.key)
    };
    if index == NONE {
        return Err(Reason::NoDest);
    }
    let row = env.row(version.first_row.get().wrapping_add(index)).ok_or(Reason::Inconsistent)?;
    let forward = connect(env, config, flow, row, control)?;
    if let Some(stats) = env.stats(row.dest) {
        stats.conns.set(stats.conns.get().wrapping_add(1));
    }
    Ok(forward)
}

/// Enters a connection to `row`'s destination, with its reply direction if it is masqueraded.
#[inline(always)]
fn connect<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    config: &Config,
    flow: &Flow<A>,
    row: &Row,
    control: u32,
) -> Result<Forward<'e, A>, Reason> {
    let dest = env.dest(row.dest).ok_or(Reason::Inconsistent)?;
    let target = A::from_words(dest.addr.get());
    let port_be = match dest.port_be.get() as u16 {
        0 => flow.key.dport_be,
        port => port,
    };
    let method = row.forward as u32;
    let masquerade = method == ForwardMethod::Masquerade as u32;
    let flags = INACTIVE | if masquerade { 0 } else { NO_OUTPUT };
    let word = live(tcp::State::None as u32, method, flags);
    let expires = env.now().after(ticks(tcp::State::None.default_timeout())).0;

    let (conn, index) = table::claim(env, config, &flow.key).ok_or(Reason::TableFull)?;
    conn.dest.set(row.dest);
    conn.target.set(target);
    conn.target_port_be.set(port_be as u32);
    conn.control.set(control);
    conn.expires.set(expires);
    conn.pair.set(0);
    if masquerade {
        match reply_entry(env, config, flow, target, port_be, index, row.dest) {
            Ok((reply, reply_index)) => {
                conn.pair.set(reply_index + 1);
                table::publish(env, reply, live(0, method, REPLY));
            }
            Err(reason) => {
                table::abandon(env, conn);
                return Err(reason);
            }
        }
    }
    dest::bind(env, dest, word);
    if control != 0 {
        count_controlled(env, control);
    }
    table::publish(env, conn, word);
    Ok(Forward { entry: conn, conn, dest, dest_index: row.dest, method, reply: false })
}

/// Claims and fills the entry that the destination's packets will find.
#[inline(always)]
fn reply_entry<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    config: &Config,
    flow: &Flow<A>,
    target: A,
    port_be: u16,
    conn_index: u32,
    dest: u32,
) -> Result<(&'e Conn<A>, u32), Reason> {
    let key = Key {
        src: target,
        dst: flow.key.src,
        sport_be: port_be,
        dport_be: flow.key.sport_be,
        protocol: flow.key.protocol,
    };
    if let Some((other, _)) = table::find(env, config, &key) {
        // The same client address and port reaches the same destination through another service.
        // The destination cannot tell the two apart, so only one of them can live.
        replace(env, flow, other)?;
    }
    let (reply, index) = table::claim(env, config, &key).ok_or(Reason::TableFull)?;
    reply.dest.set(dest);
    reply.target.set(flow.key.dst);
    reply.target_port_be.set(flow.key.dport_be as u32);
    reply.control.set(0);
    reply.pair.set(conn_index + 1);
    Ok((reply, index))
}

/// Ends the connection whose reply entry is `other`, if it is over as TCP goes.
#[inline(always)]
fn replace<A: Addr, E: Tables<A>>(
    env: &E,
    flow: &Flow<A>,
    other: &Conn<A>,
) -> Result<(), Reason> {
    if !Word(other.word.get()).has(REPLY) {
        return Err(Reason::ReplyInUse);
    }
    let Some(conn) = partner(env, other) else {
        return Ok(());
    };
    let state = Word(conn.word.get()).state();
    if flow.key.protocol == protocol::TCP as u32 && state == tcp::State::Established as u32 {
        return Err(Reason::ReplyInUse);
    }
    end(env, conn);
    Ok(())
}

#[inline(always)]
fn live(state: u32, method: u32, flags: u32) -> Word {
    let method = ForwardMethod::from_number(method as u8).unwrap_or(ForwardMethod::Masquerade);
    Word::live(state, method, flags)
}

#[inline(always)]
fn count_controlled<A: Addr, E: Tables<A>>(env: &E, control: u32) {
    let (set, way) = crate::layout::split_entry(control - 1);
    if let Some(template) = Tables::<A>::set(env, set).and_then(|set| set.ways.get(way)) {
        env.add(&template.control, 1);
    }
}

/// Finds the row of one destination.
struct RowOf<E> {
    env: E,
    first_row: u32,
    dest: u32,
    found: u32,
}

impl<E: Env> Visit for RowOf<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let Some(row) = self.env.row(self.first_row.wrapping_add(index)) else { return false };
        if row.dest == self.dest {
            self.found = index;
            return false;
        }
        true
    }
}

/// Row and template (index plus one) for a connection to a persistent service: what the client's
/// template says while its destination is in the service, else what the scheduler says.
#[inline(always)]
fn persistent<A: Addr, E: Tables<A>>(
    env: &E,
    config: &Config,
    flow: &Flow<A>,
    slot: &Slot,
    version: &Version,
) -> Result<(u32, u32), Reason> {
    let any_port = slot.port.get() == 0;
    let key = Key {
        src: flow.key.src.and(netmask(A::FAMILY, version.netmask.get())),
        dst: flow.key.dst,
        sport_be: 0,
        dport_be: if any_port { 0 } else { flow.key.dport_be },
        protocol: TEMPLATE_KEY | if any_port { 0 } else { flow.key.protocol },
    };
    let expires = env.now().after(ticks(version.timeout.get())).0;
    if let Some((template, index)) = table::find(env, config, &key) {
        let mut row = RowOf {
            env: *env,
            first_row: version.first_row.get(),
            dest: template.dest.get(),
            found: NONE,
        };
        env.repeat(version.rows.get(), &mut row);
        if row.found != NONE {
            template.expires.set(expires);
            return Ok((row.found, index + 1));
        }
        end(env, template);
    }
    let picked = sched::pick(env, version, &flow.key);
    if picked == NONE {
        return Err(Reason::NoDest);
    }
    let row = env.row(version.first_row.get().wrapping_add(picked)).ok_or(Reason::Inconsistent)?;
    let dest = env.dest(row.dest).ok_or(Reason::Inconsistent)?;
    let (template, index) = table::claim(env, config, &key).ok_or(Reason::TableFull)?;
    template.dest.set(row.dest);
    template.target.set(A::from_words(dest.addr.get()));
    template.target_port_be.set(dest.port_be.get());
    template.control.set(0);
    template.pair.set(0);
    template.expires.set(expires);
    let word = live(0, row.forward as u32, TEMPLATE);
    dest::bind(env, dest, word);
    table::publish(env, template, word);
    Ok((picked, index + 1))
}

/// A persistence netmask as words in network byte order. IPv4: a mask in host order. IPv6: a
/// prefix length.
#[inline(always)]
fn netmask(family: Family, netmask: u32) -> [u32; 4] {
    if matches!(family, Family::V4) {
        return [netmask.to_be(), 0, 0, 0];
    }
    let word = |index: u32| {
        let bits = netmask.saturating_sub(index * 32);
        if bits >= 32 { u32::MAX } else { !(u32::MAX >> bits).to_be() }
    };
    [word(0), word(1), word(2), word(3)]
}
