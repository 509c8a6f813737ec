//! Persistence engines: connections persist by client *and* by what the engine finds in the first
//! packet, here a Call-ID. Follows `ip_vs_pe.c`, `ip_vs_sched_persist` and, for the requests of real
//! servers, `ip_vs_new_conn_out` (`tests/oracle/recorded/pe_sip.jsonl`).
//!
//! Established connections know nothing of it. A packet that the engine has to read is left alone by
//! [`pipeline::resolve`](crate::pipeline::resolve) (`punt.engine`), and decided here once its Call-ID
//! lies in [`Env::asked`]. What a template's Call-ID is lies beside the connection table:
//!
//! ```text
//!  CONNS  {client & mask, 32 bits of hash, service} ──call_id──► CALL_IDS  the Call-ID, whole
//! ```
//!
//! Templates with the same hash are told apart by their Call-IDs, and lie under the hashes after it.

use rvs_wire::protocol;

use crate::addr::Addr;
use crate::answer;
use crate::conn::Word;
use crate::env::{Env, Tables, Visit};
use crate::flow::Flow;
use crate::layout::{CallId, Conn, Key, REAL_SERVER_ENGINE, ServiceAddr, Slot};
use crate::pe_sip::{MAX_LEN, Parser};
use crate::pipeline::{self, Forward, Verdict, dropped, end, passed, refusal};
use crate::reason::Reason;
use crate::sched::{self, NONE, Place};
use crate::schedule::{self, PASSING, Picked};
use crate::table;
use crate::time::ticks;
use crate::types::ServiceFlags;

/// Added to the protocol in the key of a template with a Call-ID.
const CALL_ID_KEY: u32 = 0x800;
/// Hashes that a template may lie under.
const ALIASES: u32 = 4;
/// Places that are tried for a Call-ID.
const TRIES: u32 = 64;

/// Where the bytes of a UDP datagram's payload are read from.
pub trait Payload {
    /// The byte at `offset`. Offsets come in order.
    fn byte(&mut self, offset: u32) -> u8;
}

/// Gives a payload's bytes to the parser.
struct Reading<P> {
    payload: P,
    parser: Parser,
    start: u32,
    len: u32,
}

impl<P: Payload> Visit for Reading<P> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let byte = self.payload.byte(index);
        let more = self.parser.step(index, byte);
        (self.start, self.len) = self.parser.found(index);
        more
    }
}

/// Where in `len` bytes of payload the Call-ID begins, and its length; 0 if there is none.
#[inline(always)]
pub fn find_call_id<E: Env, P: Payload>(env: &E, payload: P, len: u32) -> (u32, u32) {
    let mut reading =
        Reading { payload, parser: Parser::new(|number| env.unknown(number)), start: 0, len: 0 };
    env.repeat(len, &mut reading);
    if reading.len > MAX_LEN { (0, 0) } else { (reading.start, reading.len) }
}

/// Whether an engine has to read the packet, which no connection is known of: the first of a client
/// to service `slot`, or, for [`NONE`], a real server's own.
#[inline(always)]
pub fn concerns<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>, slot: u32) -> bool {
    if slot == NONE {
        return flow.key.protocol == protocol::UDP as u32 && real_server(env, flow) != NONE;
    }
    let Some(version) = env.version_in(slot) else { return false };
    version.engine.get() != 0 && version.has(ServiceFlags::PERSISTENT)
}

/// Index of the destination whose own packet it is, of a service with an engine; [`NONE`] if there is none.
#[inline(always)]
fn real_server<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>) -> u32 {
    let from = ServiceAddr::new(flow.key.src, flow.key.sport_be, flow.key.protocol as u8);
    match env.real_server(&from) {
        Some(found) if found & REAL_SERVER_ENGINE != 0 => found & !REAL_SERVER_ENGINE,
        _ => NONE,
    }
}

/// Go on with the next step.
pub const GO_ON: u32 = 0;
/// Go on with [`choose_for_server`], which [`choose`] leaves a real server's packet to.
pub const SERVER: u32 = u32::MAX;
/// Begin anew: the packet has a connection now, and goes its way as all that follow.
pub const AGAIN: u32 = u32::MAX - 1;

/// What to do with a packet that an engine had to read: [`Env::asked`] has its Call-ID, of length 0
/// if it has none. All steps in one.
#[inline(always)]
pub fn resolve<'e, A: Addr, E: Tables<A>>(env: &'e E, flow: &mut Flow<A>) -> Verdict<'e, A> {
    let mut of_client = *flow;
    let mut code = choose(env, flow);
    if code == SERVER {
        code = choose_for_server(env, &mut of_client);
    }
    if code == GO_ON {
        code = enter(env, &of_client);
    }
    match code {
        GO_ON => once(env),
        AGAIN => pipeline::resolve(env, flow),
        _ => refusal(code),
    }
}

/// First step: whose packet it is, its template, and the row for it, all noted in [`Env::asked`].
/// Steps are apart, and return numbers, for the kernel's stack.
#[inline(always)]
pub fn choose<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>) -> u32 {
    let Some(config) = env.config() else { return passed(Reason::NotOurs) };
    let Some(asked) = env.asked() else { return passed(Reason::NotOurs) };
    asked.dest.set(0);
    asked.template.set(0);
    // Another CPU was faster.
    if env.find(&flow.key) != 0 {
        return AGAIN;
    }
    let slot = pipeline::service(env, config, flow);
    if slot == NONE {
        return SERVER;
    }
    let refused = pipeline::refused(config, flow);
    if refused != 0 {
        return refused;
    }
    if asked.call_id.len.get() == 0 {
        return dropped(Reason::NoCallId);
    }
    let version = env.slot(slot).map_or(0, |slot| slot.version.get());
    let place = Place { slot, version };
    asked.slot.set(slot);
    asked.version.set(version);
    let (row, template) = split(env.template(flow, place));
    asked.row.set(row);
    asked.template.set(template);
    if template != 0 {
        return GO_ON;
    }
    let remembers = env.version(version).is_some_and(sched::remembers);
    let row = if remembers { env.cached(&flow.key, place) } else { env.pick(&flow.key, version) };
    if row == NONE {
        return dropped(Reason::NoDest);
    }
    asked.row.set(row);
    let template = env.persist(flow, slot, Picked { version, row });
    asked.template.set(template);
    if template == 0 { dropped(Reason::TableFull) } else { GO_ON }
}

/// The same for a real server's packet of no connection: as if its client had come first and been
/// given to it; the flow is turned around to be the client's. What cannot be entered goes on as the host routes it (`__ip_vs_rs_conn_out`).
#[inline(always)]
pub fn choose_for_server<A: Addr, E: Tables<A>>(env: &E, flow: &mut Flow<A>) -> u32 {
    let is_answered = env.config().is_some_and(|config| answer::is_due(env, config, flow));
    let untouched = if is_answered { dropped(Reason::RealServer) } else { passed(Reason::NotOurs) };
    let Some(asked) = env.asked() else { return untouched };
    let dest_index = real_server(env, flow);
    let Some(dest) = env.dest(dest_index) else { return untouched };
    let slot_index = dest.slot.get();
    let Some(slot) = env.slot(slot_index) else { return untouched };
    let place = Place { slot: slot_index, version: slot.version.get() };
    let Some(version) = env.version(place.version) else { return untouched };
    let row = sched::row_of(env, version, dest_index);
    if row == NONE {
        return untouched;
    }
    asked.slot.set(place.slot);
    asked.version.set(place.version);
    asked.row.set(row);
    asked.dest.set(dest_index);
    turn(flow, slot);
    if version.has(ServiceFlags::PERSISTENT) {
        if asked.call_id.len.get() == 0 {
            return untouched;
        }
        let (found, mut template) = split(env.template(flow, place));
        if template != 0 && found != row {
            if let Some(other) = table::entry::<A, E>(env, template) {
                end(env, other);
            }
            template = 0;
        }
        if template == 0 {
            let picked = Picked { version: place.version, row };
            template = env.persist(flow, slot_index, picked);
        }
        if template == 0 {
            return untouched;
        }
        asked.template.set(template);
    }
    // One flow of a client has one destination.
    if let Some(other) = table::entry::<A, E>(env, env.find(&flow.key)) {
        end(env, other);
    }
    GO_ON
}

/// Makes of a real server's packet its client's.
#[inline(always)]
fn turn<A: Addr>(flow: &mut Flow<A>, slot: &Slot) {
    flow.key.src = flow.key.dst;
    flow.key.sport_be = flow.key.dport_be;
    flow.key.dst = A::from_words(slot.addr.get());
    flow.key.dport_be = (slot.port.get() as u16).to_be();
}

/// Second step: enters the client's connection. [`GO_ON`] if it leaves none behind (one-packet
/// scheduling).
#[inline(always)]
pub fn enter<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>) -> u32 {
    let Some(asked) = env.asked() else { return passed(Reason::NotOurs) };
    let Some(version) = env.version(asked.version.get()) else { return passed(Reason::NotOurs) };
    let (server, template) = (asked.dest.get() != 0, asked.template.get());
    match schedule::enter(env, flow, version, asked.row.get(), template, false) {
        Ok(PASSING) => {}
        Ok(_) => return AGAIN,
        Err(_) if server => return passed(Reason::NotOurs),
        Err(reason) => return dropped(reason),
    }
    if server && let Some(entry) = env.passing() {
        entry.target.set(flow.key.dst);
        entry.target_port_be.set(flow.key.dport_be as u32);
        pipeline::assure(env, template);
    }
    GO_ON
}

/// Third step, where there is no connection: the packet's way.
#[inline(always)]
pub fn once<'e, A: Addr, E: Tables<A>>(env: &'e E) -> Verdict<'e, A> {
    let (Some(asked), Some(entry)) = (env.asked(), env.passing()) else {
        return Verdict::Drop(Reason::Inconsistent);
    };
    let dest_index = entry.dest.get();
    let Some(dest) = env.dest(dest_index) else { return Verdict::Drop(Reason::Inconsistent) };
    let (method, reply) = (Word(entry.word.get()).forward(), asked.dest.get() != 0);
    Verdict::Forward(Forward { entry, dest, dest_index, method, reply })
}

/// Row and template as one number, for a function of the kernel's kind.
#[inline(always)]
const fn split(pair: u64) -> (u32, u32) {
    ((pair >> 32) as u32, pair as u32)
}

/// The key of a template for the Call-ID with this hash.
#[inline(always)]
fn key_of<A: Addr>(template: Key<A>, hash: u32) -> Key<A> {
    let protocol = template.protocol | CALL_ID_KEY | hash >> 16 << 16;
    Key { sport_be: hash as u16, protocol, ..template }
}

/// A hash of this packet's Call-ID that outsiders cannot aim at.
#[inline(always)]
pub fn hash(call_id: &CallId, seed: u64) -> u64 {
    let mut h = seed ^ call_id.len.get() as u64;
    for word in &call_id.words {
        h = (h ^ word.get()).wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 32;
    }
    h.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[inline(always)]
fn same(a: &CallId, b: &CallId) -> bool {
    if a.len.get() != b.len.get() {
        return false;
    }
    // Word by word: what differs, added up, takes the kernel's stack.
    for (a, b) in a.words.iter().zip(&b.words) {
        if a.get() != b.get() {
            return false;
        }
    }
    true
}

/// The template of a client and this packet's Call-ID, renewed, and its row; both in one number, the
/// template (its index, plus one) in the low half, 0 if there is none that leads to a destination.
#[inline(always)]
pub fn find_template<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>, place: Place) -> u64 {
    template_of(env, flow, place).unwrap_or(0)
}

#[inline(always)]
fn template_of<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>, place: Place) -> Option<u64> {
    let (slot, version) = (env.slot(place.slot)?, env.version(place.version)?);
    let number = find(env, InHand, || schedule::template_key(flow, slot, version));
    let template = table::entry(env, number)?;
    let row = schedule::renew(env, version, template)?;
    Some((row as u64) << 32 | number as u64)
}

/// Whose Call-ID is meant.
pub(crate) trait Meant<E>: Copy {
    /// The Call-ID.
    fn call_id<'m>(&'m self, env: &'m E) -> Option<&'m CallId>;
}

/// The packet's ([`Env::asked`]).
#[derive(Clone, Copy)]
struct InHand;

impl<E: Env> Meant<E> for InHand {
    #[inline(always)]
    fn call_id<'m>(&'m self, env: &'m E) -> Option<&'m CallId> {
        env.asked().map(|asked| &asked.call_id)
    }
}

/// This one, which another director told of.
impl<E> Meant<E> for &CallId {
    fn call_id<'m>(&'m self, _: &'m E) -> Option<&'m CallId> {
        Some(self)
    }
}

/// Index, plus one, of the template of a Call-ID that would have `key` without one; 0 if there is
/// none. The key is asked for late: until then it takes no room on the kernel's stack.
#[inline(always)]
pub(crate) fn find<A: Addr, E: Tables<A>>(
    env: &E,
    meant: impl Meant<E>,
    key: impl FnOnce() -> Key<A>,
) -> u32 {
    let Some(hash) = hash_of(env, &meant) else { return 0 };
    let first = (hash >> 32) as u32;
    let mut lookup = Lookup { env: *env, key: key(), meant, first, found: 0 };
    env.repeat(ALIASES, &mut lookup);
    lookup.found
}

#[inline(always)]
fn hash_of<E: Env>(env: &E, meant: &impl Meant<E>) -> Option<u64> {
    Some(hash(meant.call_id(env)?, env.config()?.seed.get()))
}

/// Looks for the template of a Call-ID.
struct Lookup<A, E, M> {
    env: E,
    key: Key<A>,
    meant: M,
    first: u32,
    found: u32,
}

impl<A: Addr, E: Tables<A>, M: Meant<E>> Visit for Lookup<A, E, M> {
    #[inline(always)]
    fn visit(&mut self, alias: u32) -> bool {
        let Some(meant) = self.meant.call_id(&self.env) else { return false };
        let number = self.env.find(&key_of(self.key, self.first.wrapping_add(alias)));
        let Some(template) = table::entry::<A, E>(&self.env, number) else { return true };
        let Some(call_id) = self.env.call_id_at(template.call_id.get()) else { return true };
        if same(call_id, meant) {
            self.found = number;
            return false;
        }
        true
    }
}

/// Looks for a hash that a new template can lie under.
struct Enter<A, E> {
    env: E,
    key: Key<A>,
    first: u32,
    entered: u32,
}

impl<A: Addr, E: Tables<A>> Visit for Enter<A, E> {
    #[inline(always)]
    fn visit(&mut self, alias: u32) -> bool {
        let key = key_of(self.key, self.first.wrapping_add(alias));
        if self.env.find(&key) != 0 {
            return true;
        }
        self.entered = self.env.claim(&key);
        false
    }
}

/// Looks for a place for a Call-ID.
struct Claim<E> {
    env: E,
    first: u32,
    found: u32,
}

impl<E: Env> Visit for Claim<E> {
    #[inline(always)]
    fn visit(&mut self, index: u32) -> bool {
        let number = self.first.wrapping_add(index);
        let Some(mask) = self.env.config().map(|config| config.call_id_mask.get()) else {
            return false;
        };
        let number = (number & mask) + 1;
        let Some(place) = self.env.call_id_at(number) else { return false };
        if place.used.get() != 0 || self.env.compare_exchange(&place.used, 0, 1) != 0 {
            return true;
        }
        self.found = number;
        false
    }
}

/// Enters a template for a client and this packet's Call-ID: its index, plus one; 0 if a table is
/// full.
#[inline(always)]
pub fn persist<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>, slot: u32, picked: Picked) -> u32 {
    try_persist(env, flow, Place { slot, version: picked.version }, picked.row).unwrap_or(0)
}

#[inline(always)]
fn try_persist<A: Addr, E: Tables<A>>(
    env: &E,
    flow: &Flow<A>,
    place: Place,
    row: u32,
) -> Option<u32> {
    let (slot, version) = (env.slot(place.slot)?, env.version(place.version)?);
    let row = env.row(version.first_row.get().wrapping_add(row))?;
    let dest = env.dest(row.dest)?;
    let number = claim(env, InHand, || schedule::template_key(flow, slot, version))?;
    let template = table::entry::<A, E>(env, number)?;
    schedule::fill_template(env, template, row, dest, ticks(version.timeout.get()));
    Some(number)
}

/// Claims an entry for the template of a Call-ID that would have `key` without one, and a place for
/// the Call-ID: the entry's index, plus one.
#[inline(always)]
pub(crate) fn claim<A: Addr, E: Tables<A>>(
    env: &E,
    meant: impl Meant<E>,
    key: impl FnOnce() -> Key<A>,
) -> Option<u32> {
    let hash = hash_of(env, &meant)?;
    let mut claim = Claim { env: *env, first: hash as u32, found: 0 };
    env.repeat(TRIES, &mut claim);
    let (call_id, copy) = (meant.call_id(env)?, env.call_id_at(claim.found)?);
    copy.len.set(call_id.len.get());
    for (to, from) in copy.words.iter().zip(&call_id.words) {
        to.set(from.get());
    }
    let mut enter = Enter { env: *env, key: key(), first: (hash >> 32) as u32, entered: 0 };
    env.repeat(ALIASES, &mut enter);
    let number = enter.entered;
    let Some(template) = table::entry::<A, E>(env, number) else {
        copy.used.set(0);
        return None;
    };
    template.call_id.set(claim.found);
    Some(number)
}

/// Gives a template's Call-ID back, if it has one. Only after a grace period, as the entry itself.
pub(crate) fn release<A: Copy, E: Env>(env: &E, template: &Conn<A>) {
    let number = template.call_id.replace(0);
    if let Some(call_id) = env.call_id_at(number) {
        env.compare_exchange(&call_id.used, 1, 0);
    }
}

/// Stores a Call-ID, up to 255 bytes; for what is not the kernel.
pub fn set_call_id(place: &CallId, bytes: &[u8]) {
    place.len.set(bytes.len() as u32);
    let mut chunks = bytes.chunks(8);
    for word in &place.words {
        let mut full = [0; 8];
        for (to, from) in full.iter_mut().zip(chunks.next().unwrap_or_default()) {
            *to = *from;
        }
        word.set(u64::from_ne_bytes(full));
    }
}

/// A Call-ID's bytes: those that count, and how many they are.
pub fn bytes_of(call_id: &CallId) -> ([u8; 256], usize) {
    let mut bytes = [0; 256];
    for (chunk, word) in bytes.as_chunks_mut().0.iter_mut().zip(&call_id.words) {
        *chunk = word.get().to_ne_bytes();
    }
    (bytes, call_id.len.get().min(MAX_LEN) as usize)
}
