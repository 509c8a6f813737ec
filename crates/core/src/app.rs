//! Application helpers: protocols that agree on further connections by what their packets say
//! (`ip_vs_app.c`, `ip_vs_ftp.c`). What is agreed on rvsd reads (`rvs-slow`); here is what that makes
//! of the connection table. `tests/oracle/recorded/ftp.jsonl`.
//!
//! ```text
//!  server: "227 .. port P" ─► expect: client, any port ─► virtual address, P ─► destination, P
//!                                 │ the client's SYN
//!                                 ▼
//!                               meet: a connection, and the expectation ends
//!  client: "PORT .. port Q" ─► answer: a connection; the destination's SYN is its first reply
//! ```

use rvs_wire::{protocol, tcp_flags};

use crate::addr::Addr;
use crate::conn::{APP, INACTIVE, REPLY, TRACKED, Word};
use crate::dest;
use crate::env::Tables;
use crate::layout::{Conn, Key};
use crate::pipeline::{end, forget, partner};
use crate::proto::tcp::State;
use crate::schedule::{claim_reply, take_replies};
use crate::table;
use crate::time::{Tick, ticks};
use crate::types::ForwardMethod;

/// FTP's port, of control connections. Data connections of active mode come from the one below.
pub const FTP: u16 = 21;

/// Added to the protocol in an expectation's key, so that no packet finds it.
const EXPECTED_KEY: u32 = 0x200;

/// [`APP`] if the masqueraded connection with this key has a helper, by its virtual port.
#[inline(always)]
pub fn flag<A: Copy>(key: &Key<A>) -> u32 {
    let ftp = key.protocol == protocol::TCP as u32 && key.dport_be == FTP.to_be();
    if ftp { APP } else { 0 }
}

/// Whether a packet is one by which a client connects.
#[inline(always)]
pub fn opens<A: Copy>(key: &Key<A>, flags: u8) -> bool {
    const FLAGS: u8 = tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST;
    key.protocol == protocol::TCP as u32 && flags & FLAGS == tcp_flags::SYN
}

/// The key of the expectation that a client's first packet would meet.
#[inline(always)]
pub fn expectation<A: Copy>(key: &Key<A>) -> Key<A> {
    Key { sport_be: 0, protocol: protocol::TCP as u32 | EXPECTED_KEY, ..*key }
}

/// The control connection, both its directions being asked for, that the entry belongs to.
pub fn control<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    entry: &'e Conn<A>,
) -> Option<(&'e Conn<A>, bool)> {
    let word = Word(entry.word.get());
    if !word.has(APP) {
        return None;
    }
    let reply = word.has(REPLY);
    let conn = if reply { partner(env, entry)? } else { entry };
    Some((conn, reply))
}

/// The client of `control` is going to connect to this port, from one that is not known yet. Until
/// when; `None` if there is no room to remember it.
pub fn expect<A: Addr, E: Tables<A>>(env: &E, control: &Conn<A>, port_be: u16) -> Option<Tick> {
    let key = expectation(&Key { dport_be: port_be, ..control.key.get() });
    let expires = listening(env)?;
    if let Some(known) = table::entry(env, env.find(&key)) {
        known.expires.set(expires.0);
        return Some(expires);
    }
    let (conn, _) = claim(env, control, &key, port_be)?;
    conn.control.set(number(env, control));
    publish(env, conn, expires, 0);
    Some(expires)
}

/// Enters the connection of a client that was expected, which its first packet opens. Netfilter translates it if
/// it does the control connection: servers want both from the same address, which may be the director's.
pub fn meet<A: Addr, E: Tables<A>>(env: &E, key: &Key<A>) -> Option<()> {
    let expected = table::entry(env, env.find(&expectation(key)))?;
    // A packet that was sent again found the connection meanwhile.
    if env.find(key) != 0 {
        return None;
    }
    let (number, target) = (expected.control.get(), expected.target.get());
    let control = between(env, number, key.src, target);
    let tracked = control.map_or(0, |control| control.word.get() & TRACKED);
    let target_port_be = expected.target_port_be.get() as u16;
    enter(env, expected, number, key, target_port_be, tracked)?;
    end(env, expected);
    Some(())
}

/// The destination of `control` is going to connect to this port of the client's, from the port below
/// its own: `ip_vs_ftp_in`. Netfilter, which would have to give the destination's first packet the virtual address,
/// does not see it.
pub fn answer<A: Addr, E: Tables<A>>(env: &E, control: &Conn<A>, port_be: u16) -> Option<()> {
    let below = |port_be: u16| u16::from_be(port_be).wrapping_sub(1).to_be();
    let own = control.key.get();
    let key = Key { sport_be: port_be, dport_be: below(own.dport_be), ..own };
    let target_port_be = below(control.target_port_be.get() as u16);
    let Some(known) = table::entry(env, env.find(&key)) else {
        return enter(env, control, number(env, control), &key, target_port_be, 0);
    };
    // One that has ended, or has not begun, begins again.
    let word = Word(known.word.get());
    if word.has(INACTIVE) {
        let new = word.with_state(State::Listen as u32);
        env.compare_exchange(&known.word, word.0, new.0);
        known.expires.set(listening(env)?.0);
        if let Some(reply) = partner(env, known) {
            forget(reply, env.now());
        }
    }
    Some(())
}

/// Keeps the control connection that a data connection's reply entry names, for as long as there is
/// data (`ip_vs_conn_expire`): a transfer may take longer than the other's timeout. For the sweeper.
pub fn hold<A: Addr, E: Tables<A>>(env: &E, reply: &Conn<A>, now: Tick) {
    const HELD: u32 = 60;
    let key = reply.key.get();
    let Some(control) = between(env, reply.control.get(), key.dst, key.src) else { return };
    let until = now.after(ticks(HELD));
    if until.reached(Tick(control.expires.get())) && partner(env, reply).is_some() {
        control.expires.set(until.0);
    }
}

/// The control connection with this index, plus one, of this client and destination. The place may have become
/// another connection's.
fn between<A: Addr, E: Tables<A>>(
    env: &E,
    number: u32,
    client: A,
    destination: A,
) -> Option<&Conn<A>> {
    let control = table::entry(env, number)?;
    let word = Word(control.word.get());
    let own = word.is_live()
        && word.has(APP)
        && control.key.get().src == client
        && control.target.get() == destination;
    own.then_some(control)
}

/// Index, plus one, of a masqueraded connection's entry; 0 if it has ended.
fn number<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>) -> u32 {
    partner(env, conn).map_or(0, |reply| reply.pair.get())
}

/// When what begins now and is not answered expires.
fn listening<A: Addr, E: Tables<A>>(env: &E) -> Option<Tick> {
    let timeout = env.config()?.tcp_timeouts.get(State::Listen as usize)?.get();
    Some(env.now().after(timeout))
}

/// Claims an entry for a masqueraded connection to the destination of `like`; it and its index, plus
/// one.
fn claim<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    like: &Conn<A>,
    key: &Key<A>,
    target_port_be: u16,
) -> Option<(&'e Conn<A>, u32)> {
    let number = env.claim(key);
    let conn = table::entry(env, number)?;
    conn.dest.set(like.dest.get());
    conn.target.set(like.target.get());
    conn.target_port_be.set(target_port_be.into());
    conn.control.set(0);
    conn.pair.set(0);
    Some((conn, number))
}

/// Counts an entry and lets it be found, with these flags beside those of a new one.
fn publish<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>, expires: Tick, flags: u32) {
    conn.expires.set(expires.0);
    let word = Word::live(State::Listen as u32, ForwardMethod::Masquerade, INACTIVE | flags);
    if let Some(dest) = env.dest(conn.dest.get()) {
        dest::bind(env, dest, word);
    }
    table::publish(env, conn, word);
}

/// Enters a masqueraded connection to the destination of `like`, both directions. It belongs to the
/// control connection of this number, and has these flags.
fn enter<A: Addr, E: Tables<A>>(
    env: &E,
    like: &Conn<A>,
    control: u32,
    key: &Key<A>,
    target_port_be: u16,
    flags: u32,
) -> Option<()> {
    let expires = listening(env)?;
    let (conn, number) = claim(env, like, key, target_port_be)?;
    let reply_key = Key {
        src: like.target.get(),
        dst: key.src,
        sport_be: target_port_be,
        dport_be: key.sport_be,
        protocol: key.protocol,
    };
    let free = match table::entry(env, env.find(&reply_key)) {
        Some(other) => take_replies(env, other),
        None => Ok(()),
    };
    let reply = free.and_then(|()| claim_reply(env, key, &reply_key, number, like.dest.get()));
    let Ok((reply, reply_number)) = reply else {
        table::abandon(env, number);
        return None;
    };
    reply.expires.set(expires.0);
    reply.control.set(control);
    conn.pair.set(reply_number);
    table::publish(env, reply, Word::live(0, ForwardMethod::Masquerade, REPLY | flags));
    publish(env, conn, expires, flags);
    Some(())
}
