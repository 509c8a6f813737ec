//! A new connection: which destination it gets, and its entries in the connection table.
//! Follows `ip_vs_schedule`, `ip_vs_sched_persist` and `ip_vs_conn_new`.

use rvs_wire::protocol;

use crate::addr::Addr;
use crate::app;
use crate::conn::{COUNTS, INACTIVE, NO_OUTPUT, REPLY, TEMPLATE, Word};
use crate::defence;
use crate::dest;
use crate::env::Tables;
use crate::flow::Flow;
use crate::layout::{Conn, Dest, Key, Row, Slot, Version};
use crate::pipeline::{change, end, partner};
use crate::proto::tcp;
use crate::reason::Reason;
use crate::sched::{self, NONE};
use crate::sysctl::Sysctl;
use crate::table;
use crate::time::ticks;
use crate::tracked;
use crate::types::{Family, ForwardMethod, ServiceFlags};

/// Added to the protocol in a template's key, so that no packet finds it.
pub const TEMPLATE_KEY: u32 = 0x100;

/// In place of an entry's index: [`Tables::passing`].
pub const PASSING: u32 = u32::MAX;

/// What came of scheduling: an entry's index, or a reason in the high half.
///
/// A plain number because a BPF subprogram's signature is described to the kernel, which refuses
/// the description of an enum with payload ("Invalid member bits_offset").
#[derive(Clone, Copy, Debug)]
pub struct Scheduled(u64);

impl Scheduled {
    /// The value with this number.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// The value's number.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The version of the service whose scheduler is to be asked first, by
    /// [`Tables::cached`]; 0 if there is an answer.
    #[inline(always)]
    pub fn asks(self) -> u32 {
        if (self.0 >> 32) as u32 == ASKS { self.0 as u32 } else { 0 }
    }

    /// The index of the new connection's entry.
    #[inline(always)]
    pub fn entry(self) -> Result<u32, Reason> {
        match (self.0 >> 32) as u32 {
            0 => Ok(self.0 as u32),
            number => Err(Reason::from_number(number - 1)),
        }
    }
}

/// In the high half of [`Scheduled`]: no reason.
const ASKS: u32 = u32::MAX;

impl From<Reason> for Scheduled {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self((reason as u64 + 1) << 32)
    }
}

/// What a scheduler that remembers chose ([`Tables::cached`]): a row of a version.
#[derive(Clone, Copy, Debug)]
pub struct Picked {
    /// Index in `VERSIONS`; 0 while nobody was asked.
    pub version: u32,
    /// Index in the version's rows, or [`NONE`].
    pub row: u32,
}

impl Picked {
    /// Nobody was asked.
    pub const NOTHING: Self = Self { version: 0, row: NONE };

    /// The row for a new connection.
    #[inline(always)]
    fn or_pick<A: Addr, E: Tables<A>>(
        self,
        env: &E,
        slot: &Slot,
        version: &Version,
        flow: &Flow<A>,
    ) -> Result<u32, Scheduled> {
        if !sched::remembers(version) {
            return Ok(sched::pick(env, version, &flow.key));
        }
        let index = slot.version.get();
        if self.version == index { Ok(self.row) } else { Err(asking(index)) }
    }
}

#[inline(always)]
fn asking(version: u32) -> Scheduled {
    Scheduled((ASKS as u64) << 32 | version as u64)
}

/// Schedules a connection for the packet and enters it into the connection table.
#[inline(always)]
pub fn schedule<A: Addr, E: Tables<A>>(
    env: &E,
    flow: &Flow<A>,
    slot: u32,
    picked: Picked,
) -> Scheduled {
    match try_schedule(env, flow, slot, picked) {
        Ok(index) => Scheduled(index as u64),
        Err(other) => other,
    }
}

#[inline(always)]
fn try_schedule<A: Addr, E: Tables<A>>(
    env: &E,
    flow: &Flow<A>,
    slot_index: u32,
    picked: Picked,
) -> Result<u32, Scheduled> {
    let slot = env.slot(slot_index).ok_or(Reason::Inconsistent)?;
    let version = env.version(slot.version.get()).ok_or(Reason::Inconsistent)?;
    let persistent = version.has(ServiceFlags::PERSISTENT);
    let (mut index, mut control) =
        if persistent { remembered(env, flow, slot, version) } else { (NONE, 0) };
    if index == NONE {
        index = picked.or_pick(env, slot, version, flow)?;
        if index == NONE {
            return Err(Reason::NoDest.into());
        }
        if persistent {
            control = remember(env, flow, slot, version, index)?;
        }
    }
    let port_be = (slot.port.get() as u16).to_be();
    // FTP's data keeps its port.
    let keeps = port_be != 0 && port_be != flow.key.dport_be;
    Ok(enter(env, flow, version, index, control, keeps)?)
}

/// Enters a connection to the destination of row `index`, under the template `control` (its index,
/// plus one) or none: the index of its entry. Its port is the destination's, too, if it `keeps` it.
#[inline(always)]
pub(crate) fn enter<A: Addr, E: Tables<A>>(
    env: &E,
    flow: &Flow<A>,
    version: &Version,
    index: u32,
    control: u32,
    keeps: bool,
) -> Result<u32, Reason> {
    let row = env.row(version.first_row.get().wrapping_add(index)).ok_or(Reason::Inconsistent)?;
    let one_packet = version.has(ServiceFlags::ONEPACKET);
    let entry = if one_packet && flow.key.protocol == protocol::UDP as u32 {
        pass(env, flow, row)?
    } else {
        connect(env, flow, row, control, keeps)?
    };
    if let Some(stats) = env.stats(row.dest) {
        stats.conns.set(stats.conns.get().wrapping_add(1));
    }
    Ok(entry)
}

/// The port that the destination serves.
#[inline(always)]
fn port_at<A: Addr>(row: &Row, flow: &Flow<A>) -> u16 {
    match row.port_be {
        0 => flow.key.dport_be,
        port => port,
    }
}

/// One-packet scheduling: the packet goes to `row`'s destination, and no connection is left that
/// another would follow, or be translated back by (`IP_VS_CONN_F_ONE_PACKET`;
/// `tests/oracle/recorded/ops.jsonl`).
#[inline(always)]
fn pass<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>, row: &Row) -> Result<u32, Reason> {
    let dest = env.dest(row.dest).ok_or(Reason::Inconsistent)?;
    let conn = env.passing().ok_or(Reason::Inconsistent)?;
    conn.dest.set(row.dest);
    conn.target.set(A::from_words(dest.addr.get()));
    let port_be = port_at(row, flow);
    conn.target_port_be.set(port_be as u32);
    conn.word.set(live(0, row.forward as u32, 0).0);
    dest::pass(dest);
    Ok(PASSING)
}

/// Enters a connection to `row`'s destination, with its reply direction if it is masqueraded; the
/// index of its entry.
#[inline(always)]
fn connect<A: Addr, E: Tables<A>>(
    env: &E,
    flow: &Flow<A>,
    row: &Row,
    control: u32,
    keeps: bool,
) -> Result<u32, Reason> {
    let dest = env.dest(row.dest).ok_or(Reason::Inconsistent)?;
    let target = A::from_words(dest.addr.get());
    let port_be = if keeps { flow.key.dport_be } else { port_at(row, flow) };
    let method = row.forward as u32;
    let masquerade = method == ForwardMethod::Masquerade as u32;
    let app = if masquerade { app::flag(&flow.key) } else { 0 };
    let special = app | tracked::flag(env, method);
    let counts = if env.config().is_some_and(defence::counts) { COUNTS } else { 0 };
    let flags = INACTIVE | special | counts | if masquerade { 0 } else { NO_OUTPUT };
    let word = live(tcp::State::None as u32, method, flags);
    let expires = env.now().after(ticks(tcp::State::None.default_timeout())).0;

    let number = env.claim(&flow.key);
    let conn = table::entry(env, number).ok_or(Reason::TableFull)?;
    conn.dest.set(row.dest);
    conn.target.set(target);
    conn.target_port_be.set(port_be as u32);
    conn.control.set(control);
    conn.expires.set(expires);
    conn.pair.set(0);
    if masquerade {
        match reply_entry(env, flow, target, port_be, number, row.dest) {
            Ok((reply, reply_number)) => {
                conn.pair.set(reply_number);
                table::publish(env, reply, live(0, method, REPLY | special));
            }
            Err(reason) => {
                table::abandon(env, number);
                return Err(reason);
            }
        }
    }
    dest::bind(env, dest, word);
    if control != 0 {
        count_controlled(env, control);
    }
    table::publish(env, conn, word);
    Ok(number - 1)
}

/// Claims and fills the entry that the destination's packets will find; it and its index, plus
/// one. `conn_number` is that of the connection.
#[inline(always)]
fn reply_entry<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    flow: &Flow<A>,
    target: A,
    port_be: u16,
    conn_number: u32,
    dest: u32,
) -> Result<(&'e Conn<A>, u32), Reason> {
    let key = Key {
        src: target,
        dst: flow.key.src,
        sport_be: port_be,
        dport_be: flow.key.sport_be,
        protocol: flow.key.protocol,
    };
    if let Some(other) = table::entry(env, env.find(&key)) {
        take_replies(env, other)?;
    }
    claim_reply(env, &flow.key, &key, conn_number, dest)
}

/// Claims and fills the entry that replies will find by `reply_key`, of the connection `conn_number`
/// that is found by `key`.
#[inline(always)]
pub(crate) fn claim_reply<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    key: &Key<A>,
    reply_key: &Key<A>,
    conn_number: u32,
    dest: u32,
) -> Result<(&'e Conn<A>, u32), Reason> {
    let number = env.claim(reply_key);
    let reply = table::entry(env, number).ok_or(Reason::TableFull)?;
    reply.dest.set(dest);
    reply.target.set(key.dst);
    reply.target_port_be.set(key.dport_be as u32);
    reply.control.set(0);
    reply.pair.set(conn_number);
    reply.expires.set(env.now().0);
    Ok((reply, number))
}

/// Ends the reply entry `other` of a connection by which the same client address and port reaches
/// the same destination through another service. The destination cannot tell the two apart: what it
/// answers belongs to the newer one (`tests/oracle/recorded/shared_reply.jsonl`).
#[inline(always)]
pub(crate) fn take_replies<A: Addr, E: Tables<A>>(env: &E, other: &Conn<A>) -> Result<(), Reason> {
    let word = Word(other.word.get());
    if !word.has(REPLY) {
        return Err(Reason::ReplyInUse);
    }
    if let Some(conn) = partner(env, other) {
        conn.pair.set(0);
    }
    env.compare_exchange(&other.word, word.0, word.dead().0);
    Ok(())
}

#[inline(always)]
fn live(state: u32, method: u32, flags: u32) -> Word {
    let method = ForwardMethod::from_number(method as u8).unwrap_or(ForwardMethod::Masquerade);
    Word::live(state, method, flags)
}

#[inline(always)]
fn count_controlled<A: Addr, E: Tables<A>>(env: &E, control: u32) {
    if let Some(template) = table::entry::<A, E>(env, control) {
        env.add(&template.control, 1);
    }
}

/// Row and template (index plus one) for a connection to a persistent service: what the client's
/// template says while its destination is in the service; else [`NONE`]. A template
/// keeps the timeout that it was made with (`tests/oracle/recorded/persist.jsonl`).
#[inline(always)]
fn remembered<A: Addr, E: Tables<A>>(
    env: &E,
    flow: &Flow<A>,
    slot: &Slot,
    version: &Version,
) -> (u32, u32) {
    let number = env.find(&template_key(flow, slot, version));
    let Some(template) = table::entry(env, number) else { return (NONE, 0) };
    let Some(row) = renew(env, version, template) else { return (NONE, 0) };
    if version.has(ServiceFlags::ONEPACKET) {
        change(env, template, Word::counted);
    }
    (row, number)
}

/// Gives a template its timeout again; the row of its destination. `None`, and the template's end, if that
/// is not in the service any more or takes nobody.
#[inline(always)]
pub(crate) fn renew<A: Addr, E: Tables<A>>(
    env: &E,
    version: &Version,
    template: &Conn<A>,
) -> Option<u32> {
    let row = sched::row_of(env, version, template.dest.get());
    if row == NONE || quiescent(env, template) {
        end(env, template);
        return None;
    }
    template.expires.set(env.now().after(template.pair.get()).0);
    Some(row)
}

/// Makes the client's template, for row `index`; its index, plus one.
#[inline(always)]
fn remember<A: Addr, E: Tables<A>>(
    env: &E,
    flow: &Flow<A>,
    slot: &Slot,
    version: &Version,
    index: u32,
) -> Result<u32, Reason> {
    let (row, dest) =
        sched::entry(env, version.first_row.get(), index).ok_or(Reason::Inconsistent)?;
    let number = env.claim(&template_key(flow, slot, version));
    let template = table::entry(env, number).ok_or(Reason::TableFull)?;
    fill_template(env, template, row, dest, ticks(version.timeout.get()));
    Ok(number)
}

/// Fills a claimed template in and publishes it.
#[inline(always)]
pub(crate) fn fill_template<A: Addr, E: Tables<A>>(
    env: &E,
    template: &Conn<A>,
    row: &Row,
    dest: &Dest,
    timeout: u32,
) {
    template.dest.set(row.dest);
    template.target.set(A::from_words(dest.addr.get()));
    template.target_port_be.set(row.port_be.into());
    template.control.set(0);
    template.pair.set(timeout);
    template.expires.set(env.now().after(timeout).0);
    let word = live(0, row.forward as u32, TEMPLATE | COUNTS).counted();
    dest::bind(env, dest, word);
    table::publish(env, template, word);
}

/// The key of a client's template. All addresses and protocols of one mark share one, under the mark
/// in place of the address (`ip_vs_sched_persist`).
#[inline(always)]
pub(crate) fn template_key<A: Addr>(flow: &Flow<A>, slot: &Slot, version: &Version) -> Key<A> {
    let by_mark = slot.protocol.get() == 0;
    let mark = || A::from_words([flow.mark.to_be(), 0, 0, 0]);
    Key {
        src: flow.key.src.and(netmask(A::FAMILY, version.netmask.get())),
        dst: if by_mark { mark() } else { flow.key.dst },
        sport_be: 0,
        dport_be: (slot.port.get() as u16).to_be(),
        protocol: TEMPLATE_KEY | if by_mark { 0 } else { flow.key.protocol },
    }
}

/// Whether a template's destination takes no new connections, so that `expire_quiescent_template`
/// ends it.
#[inline(always)]
pub(crate) fn quiescent<A: Addr, E: Tables<A>>(env: &E, template: &Conn<A>) -> bool {
    let Some(config) = env.config() else { return false };
    config.sysctl(Sysctl::ExpireQuiescentTemplate) != 0
        && env.dest(template.dest.get()).is_some_and(|dest| dest.weight.get() == 0)
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
