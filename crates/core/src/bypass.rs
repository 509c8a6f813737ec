//! Packets for a service by mark that has no destination for them, on their way to the address that they
//! were sent to anyway (`cache_bypass`): transparent proxies are by-passed while none is there. Follows
//! `ip_vs_leave` and `ip_vs_bypass_xmit`; `tests/oracle/recorded/cache_bypass.jsonl`.
//!
//! Their connections have the destination 0, which is nobody's, and lead to the packet's own address as
//! direct routing would. What they forward is in no counter of IPVS.

use rvs_wire::protocol;

use crate::addr::Addr;
use crate::conn::{COUNTS, INACTIVE, Word};
use crate::defence;
use crate::dest;
use crate::env::Tables;
use crate::flow::{Flow, Ip};
use crate::layout::{CONFIG_FWMARK, Conn};
use crate::pe::{self, AGAIN, GO_ON};
use crate::pipeline::{self, Verdict, dropped, refusal, service};
use crate::proto::tcp;
use crate::reason::Reason;
use crate::sysctl::Sysctl;
use crate::table;
use crate::time::ticks;
use crate::types::{ForwardMethod, ServiceFlags};

/// Whether packets that find no destination may go to their own address.
#[inline(always)]
pub fn is_on<A: Addr, E: Tables<A>>(env: &E) -> bool {
    env.config().is_some_and(|config| {
        config.flags.get() & CONFIG_FWMARK != 0 && config.sysctl(Sysctl::CacheBypass) != 0
    })
}

/// Opens a connection without a destination for a packet that found none, and whose address is not the
/// director's: [`AGAIN`], or [`GO_ON`] of a datagram that leaves none behind, to be sent as
/// [`pe::once`] says; else why it is refused.
#[inline(always)]
pub fn open<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>) -> u32 {
    let Some(config) = env.config() else { return dropped(Reason::Inconsistent) };
    let index = service(env, config, flow);
    let by_mark = env.slot(index).is_some_and(|slot| slot.protocol.get() == 0);
    if !is_on(env) || !by_mark || !flow.key.dst.is_unicast() {
        return dropped(Reason::NoDest);
    }
    let one_packet = env.version_in(index).is_some_and(|v| v.has(ServiceFlags::ONEPACKET));
    if one_packet && flow.key.protocol == protocol::UDP as u32 {
        return pass(env, flow);
    }
    let number = env.claim(&flow.key);
    let Some(conn) = table::entry(env, number) else { return dropped(Reason::TableFull) };
    let counts = if defence::counts(config) { COUNTS } else { 0 };
    let word = Word::live(tcp::State::None as u32, ForwardMethod::Bypass, INACTIVE | counts);
    fill(conn, flow);
    conn.expires.set(env.now().after(ticks(tcp::State::None.default_timeout())).0);
    if let Some(nobody) = env.dest(0) {
        dest::bind(env, nobody, word);
    }
    table::publish(env, conn, word);
    AGAIN
}

/// A datagram that is to leave no connection behind.
#[inline(always)]
fn pass<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>) -> u32 {
    let (Some(conn), Some(asked)) = (env.passing(), env.asked()) else {
        return dropped(Reason::Inconsistent);
    };
    fill(conn, flow);
    conn.word.set(Word::live(0, ForwardMethod::Bypass, 0).0);
    asked.dest.set(0);
    GO_ON
}

#[inline(always)]
fn fill<A: Addr>(conn: &Conn<A>, flow: &Flow<A>) {
    conn.dest.set(0);
    conn.target.set(flow.key.dst);
    conn.target_port_be.set(flow.key.dport_be as u32);
    conn.control.set(0);
    conn.pair.set(0);
}

/// What becomes of a packet after all that found no destination and whose address is not the
/// director's. All steps in one.
#[inline(always)]
pub fn resolve<'e, A: Ip, E: Tables<A>>(env: &'e E, flow: &mut Flow<A>) -> Verdict<'e, A> {
    match open(env, flow) {
        GO_ON => pe::once(env),
        AGAIN => pipeline::resolve(env, flow),
        code => refusal(code),
    }
}
