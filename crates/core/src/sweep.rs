//! Ends what has expired. rvsd calls it for every entry of the connection table, twice a second;
//! the entries that it ends are cleared one RCU grace period later.

use crate::addr::Addr;
use crate::app;
use crate::conn::{ASSURED, CACHE, DEAD, FREE, REPLY, TEMPLATE, Word};
use crate::defence;
use crate::env::Tables;
use crate::layout::{CONFIG_DROP_ENTRY, Conn, ENDING, Key};
use crate::pe;
use crate::pipeline::{end, expiry};
use crate::sched::cache;
use crate::table;
use crate::time::{Tick, ticks};

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// Nobody's, or being filled in.
    Free,
    /// In use and not expired.
    Live,
    /// Ended, now or earlier: to be passed to [`clear`] after a grace period.
    Dead,
}

/// Timeout in seconds, for the rest of its life, of a template that expired while it controlled
/// connections (`ip_vs_conn_expire`).
const CONTROL_TIMEOUT: u32 = 60;

/// What an entry with this word is, whenever it expires.
pub fn life(word: Word) -> Swept {
    match word.life() {
        FREE => Swept::Free,
        DEAD => Swept::Dead,
        _ if !word.is_live() => Swept::Free,
        _ => Swept::Live,
    }
}

/// Ends `conn` if it has expired by `now`.
pub fn sweep<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>, now: Tick) -> Swept {
    let word = Word(conn.word.get());
    let life = life(word);
    if life != Swept::Live {
        return life;
    }
    if word.has(CACHE) {
        return cache::sweep(env, conn, now);
    }
    if word.has(REPLY) {
        // It ends with its connection.
        app::hold(env, conn, now);
        return Swept::Live;
    }
    let used = word.has(TEMPLATE) && conn.control.get() != 0;
    if !has_expired(env, conn, now) && (used || !bereft(env, conn)) {
        return if dropped(env, conn, now) { Swept::Dead } else { Swept::Live };
    }
    if used {
        conn.pair.set(ticks(CONTROL_TIMEOUT));
        conn.expires.set(now.after(ticks(CONTROL_TIMEOUT)).0);
        return Swept::Live;
    }
    if end(env, conn) { Swept::Dead } else { Swept::Live }
}

/// Ends `conn` if `drop_entry` asks for it, with its template if that has no other and never had one
/// that was established. Entries that count packets in vain stop.
fn dropped<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>, now: Tick) -> bool {
    let Some(config) = env.config() else { return false };
    let (flags, word) = (config.flags.get(), Word(conn.word.get()));
    if !defence::counts(config) && !word.has(TEMPLATE) && word.packets().is_some() {
        env.compare_exchange(&conn.word, word.0, word.uncounted().0);
    }
    if flags & CONFIG_DROP_ENTRY == 0 {
        return false;
    }
    let expires = expiry(conn, |number| table::entry(env, number));
    if !defence::ends(env, config, conn, (now, expires)) || !end(env, conn) {
        return false;
    }
    if !word.has(TEMPLATE)
        && let Some(template) = table::entry(env, conn.control.get())
        && template.control.get() == 0
        && Word(template.word.get()).state() != ASSURED
    {
        end(env, template);
    }
    true
}

/// Whether a connection has expired. What its replies say is asked once its own time is over, and
/// then holds for it, too.
fn has_expired<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>, now: Tick) -> bool {
    if !now.reached(Tick(conn.expires.get())) {
        return false;
    }
    let expires = expiry(conn, |number| table::entry(env, number));
    if expires.0 != conn.expires.get() {
        conn.expires.set(expires.0);
    }
    now.reached(expires)
}

/// Whether `expire_nodest_conn` ends an entry: its destination is gone.
fn bereft<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>) -> bool {
    env.dest(conn.dest.get()).is_some_and(|dest| dest.trash.get() == ENDING)
}

/// Clears a dead entry, by its index plus one, for new use. Only after a grace period: no packet may
/// still be looking. A template stays while connections name it, so that none ever names a stranger.
pub fn clear<A: Addr, E: Tables<A>>(env: &E, number: u32) {
    let Some(conn) = table::entry(env, number) else { return };
    let word = conn.word.get();
    if Word(word).life() != DEAD || (Word(word).has(TEMPLATE) && conn.control.get() != 0) {
        return;
    }
    conn.key.set(Key::default());
    conn.target.set(A::default());
    conn.dest.set(0);
    conn.pair.set(0);
    conn.control.set(0);
    pe::release(env, conn);
    table::free(env, number, word);
}
