//! Connections that another director tells of, entered into the table while packets look them up.
//! Follows `ip_vs_proc_conn`; `tests/oracle/recorded/sync_taken.jsonl`.
//!
//! They are entered as packets enter theirs: claimed, filled in, published. What must change as a
//! whole (the destination, with the way of forwarding) is entered anew before the old entry ends, so
//! that at no moment a packet finds nothing.

use rvs_wire::protocol;

use crate::addr::Addr;
use crate::app;
use crate::conn::{CACHE, COUNTS, INACTIVE, NO_OUTPUT, REPLY, SYNCED, TEMPLATE, Word};
use crate::defence;
use crate::dest;
use crate::env::Tables;
use crate::layout::{CallId, Conn, Key};
use crate::ours;
use crate::pe;
use crate::pipeline::{end, forget, partner};
use crate::schedule::{claim_reply, take_replies};
use crate::table;
use crate::tracked;
use crate::types::ForwardMethod;

/// A connection or template that another director told of, with this director's own destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival<A> {
    /// What packets find it by.
    pub key: Key<A>,
    /// Address of the destination.
    pub target: A,
    /// Its port, network byte order.
    pub target_port_be: u16,
    /// Index into `DESTS`; 0 if there is no such destination here (yet).
    pub dest: u32,
    /// How packets get there.
    pub method: ForwardMethod,
    /// The protocol's state.
    pub state: u32,
    /// Whether it counts as inactive.
    pub inactive: bool,
    /// Whether it is a persistence template.
    pub template: bool,
    /// Ticks from now until it expires.
    pub timeout: u32,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// It was entered.
    Entered,
    /// It was known, and is up to date now.
    Updated,
    /// It is about something that is no more, or that packets have entered meanwhile.
    Stale,
    /// There is no room.
    Full,
    /// What its replies would be found by belongs to another connection.
    InUse,
}

impl<A: Addr> Arrival<A> {
    fn masqueraded(&self) -> bool {
        !self.template && matches!(self.method, ForwardMethod::Masquerade)
    }

    /// The word of its entry.
    fn word(&self, tracked: u32) -> Word {
        let direct = !matches!(self.method, ForwardMethod::Masquerade | ForwardMethod::Bypass);
        let flags = match (self.template, self.inactive) {
            (true, _) => TEMPLATE,
            (false, true) => INACTIVE,
            (false, false) => 0,
        };
        let no_output = if direct && !self.template { NO_OUTPUT } else { 0 };
        Word::live(self.state, self.method, flags | no_output | SYNCED | self.app() | tracked)
    }

    /// [`TRACKED`](crate::conn::TRACKED) if netfilter is to track it. To translate it needs to know the
    /// destination, and takes no SCTP that it has not seen begin.
    fn tracked<E: Tables<A>>(&self, env: &E) -> u32 {
        let known = self.dest != 0 && self.key.protocol != protocol::SCTP as u32;
        if self.template || self.masqueraded() && !known {
            return 0;
        }
        tracked::flag(env, self.method as u32)
    }

    /// The flag of its application helper, if it has one.
    fn app(&self) -> u32 {
        if self.masqueraded() { app::flag(&self.key) } else { 0 }
    }
}

/// Enters what arrived, or brings up to date what is known of it. A template that a persistence
/// engine made has a Call-ID.
pub fn arrive<A: Addr, E: Tables<A>>(
    env: &E,
    arrival: &Arrival<A>,
    call_id: Option<&CallId>,
) -> Arrived {
    let call_id = call_id.filter(|_| arrival.template);
    let Some(known) = table::entry(env, find(env, &arrival.key, call_id)) else {
        return enter(env, arrival, call_id, None);
    };
    let word = Word(known.word.get());
    if word.has(REPLY | CACHE) || word.has(TEMPLATE) != arrival.template {
        return Arrived::InUse;
    }
    let port_be = known.target_port_be.get() as u16;
    let elsewhere = known.target.get() != arrival.target || port_be != arrival.target_port_be;
    if elsewhere && !arrival.template {
        // The end of what has been replaced already.
        if arrival.inactive {
            return Arrived::Stale;
        }
        return enter(env, arrival, call_id, Some(known));
    }
    if known.dest.get() == 0 && arrival.dest != 0 && !elsewhere {
        return enter(env, arrival, call_id, Some(known));
    }
    update(env, known, arrival)
}

/// Index, plus one, of what packets find by this key and Call-ID.
fn find<A: Addr, E: Tables<A>>(env: &E, key: &Key<A>, call_id: Option<&CallId>) -> u32 {
    call_id.map_or_else(|| env.find(key), |call_id| pe::find(env, call_id, || *key))
}

/// State, counts and expiry of a known entry. Its way of forwarding stays.
fn update<A: Addr, E: Tables<A>>(env: &E, known: &Conn<A>, arrival: &Arrival<A>) -> Arrived {
    loop {
        let old = Word(known.word.get());
        if !old.is_live() {
            return Arrived::Stale;
        }
        let mut new = old.with_state(arrival.state);
        if !arrival.template {
            new = Word(new.0 & !INACTIVE | if arrival.inactive { INACTIVE } else { 0 });
        }
        if env.compare_exchange(&known.word, old.0, new.0) != old.0 {
            continue;
        }
        if let Some(dest) = env.dest(known.dest.get())
            && old.has(INACTIVE) != new.has(INACTIVE)
        {
            env.add(dest::counter(dest, old), u32::MAX);
            env.add(dest::counter(dest, new), 1);
        }
        if arrival.template {
            known.pair.set(arrival.timeout);
        }
        known.expires.set(env.now().after(arrival.timeout).0);
        if !arrival.template
            && let Some(reply) = partner(env, known)
        {
            forget(reply, env.now());
        }
        return Arrived::Updated;
    }
}

/// Enters a new entry, then ends the one that it stands in for.
fn enter<A: Addr, E: Tables<A>>(
    env: &E,
    arrival: &Arrival<A>,
    call_id: Option<&CallId>,
    instead: Option<&Conn<A>>,
) -> Arrived {
    let Some(dest) = env.dest(arrival.dest) else { return Arrived::Stale };
    let key = &arrival.key;
    if let Some(config) = env.config() {
        ours::note(config, key.dst);
        ours::note(config, arrival.target);
    }
    let number = match call_id {
        Some(call_id) => pe::claim(env, call_id, || *key).unwrap_or(0),
        None => env.claim(key),
    };
    let Some(conn) = table::entry(env, number) else { return Arrived::Full };
    conn.dest.set(arrival.dest);
    conn.target.set(arrival.target);
    conn.target_port_be.set(arrival.target_port_be.into());
    conn.control.set(0);
    conn.pair.set(if arrival.template { arrival.timeout } else { 0 });
    conn.expires.set(env.now().after(arrival.timeout).0);
    if arrival.masqueraded()
        && let Err(refused) = enter_reply(env, arrival, instead, conn, number)
    {
        table::abandon(env, number);
        return refused;
    }
    let mut word = arrival.word(arrival.tracked(env));
    if !arrival.template && env.config().is_some_and(defence::counts) {
        // The kernel takes it for one that has had as many packets as `sync_threshold` says first.
        word = Word(word.0 | COUNTS).counted().counted().counted();
    }
    dest::bind(env, dest, word);
    table::publish(env, conn, word);
    match instead {
        Some(old) => {
            end(env, old);
        }
        // Packets were faster: theirs is found first, this would never be.
        None if find(env, key, call_id) != number => {
            end(env, conn);
            return Arrived::Stale;
        }
        None => {}
    }
    Arrived::Entered
}

/// Enters the reply direction of `conn`.
fn enter_reply<A: Addr, E: Tables<A>>(
    env: &E,
    arrival: &Arrival<A>,
    instead: Option<&Conn<A>>,
    conn: &Conn<A>,
    number: u32,
) -> Result<(), Arrived> {
    let key = &arrival.key;
    let reply_key = Key {
        src: arrival.target,
        dst: key.src,
        sport_be: arrival.target_port_be,
        dport_be: key.sport_be,
        protocol: key.protocol,
    };
    if let Some(other) = table::entry(env, env.find(&reply_key)) {
        let owner = partner(env, other);
        let is_own = matches!((owner, instead), (Some(a), Some(b)) if core::ptr::eq(a, b));
        if !is_own && take_replies(env, other).is_err() {
            return Err(Arrived::InUse);
        }
    }
    let dest = arrival.dest;
    let entered = claim_reply(env, key, &reply_key, number, dest);
    let (reply, reply_number) = entered.map_err(|_| Arrived::Full)?;
    conn.pair.set(reply_number);
    // Not tracked before the client's first packet: see `tracked::meet`.
    table::publish(env, reply, Word::live(0, arrival.method, REPLY | arrival.app()));
    Ok(())
}
