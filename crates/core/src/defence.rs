//! Defence against floods: which measures are in force, by their settings and the memory that is
//! left, and which connections are dropped: new ones, and those that are there. Follows
//! `update_defense_level`, `ip_vs_todrop` and `ip_vs_random_dropentry`.

use crate::addr::Addr;
use crate::conn::{ASSURED, TEMPLATE, Word};
use crate::env::Tables;
use crate::layout::{
    CONFIG_COUNT_PACKETS, CONFIG_DROP_ENTRY, CONFIG_SECURE_TCP, Config, Conn, Dest,
};
use crate::proto::{sctp, tcp};
use crate::sysctl::Sysctl;
use crate::time::{Tick, ticks};
use crate::types::ServiceFlags;
use rvs_wire::protocol;

/// A setting of this kind, and whether what it stands for is in force: 1 becomes 2 while memory is
/// short, and 1 again after that.
const fn level(mode: i32, short: bool) -> (i32, bool) {
    match (mode, short) {
        (1 | 2, true) => (2, true),
        (1 | 2, false) => (1, false),
        (3, _) => (3, true),
        (mode, _) => (mode, false),
    }
}

/// Brings the measures up to date. To be called once a second and after a setting changed, with the
/// pages of memory that are free or hold buffers.
pub fn update(config: &Config, available: u64) {
    let threshold = config.sysctl(Sysctl::Amemthresh);
    let available = i64::try_from(available).unwrap_or(i64::MAX);
    let short = available < threshold as i64;

    let (mode, drops) = level(config.sysctl(Sysctl::DropPacket), short);
    config.set_sysctl(Sysctl::DropPacket, mode);
    let rate = if mode == 3 {
        // The kernel counts down from a negative rate as from 1.
        match config.sysctl(Sysctl::AmDroprate) {
            0 => 0,
            rate => rate.max(1),
        }
    } else if drops {
        let rate = threshold as i64 / (threshold as i64 - available).max(1);
        let rate = rate.clamp(1, i32::MAX as i64) as i32;
        config.drop_counter.set(rate);
        rate
    } else {
        0
    };
    config.drop_rate.set(rate);

    let (mode, secure) = level(config.sysctl(Sysctl::SecureTcp), short);
    config.set_sysctl(Sysctl::SecureTcp, mode);
    let (mode, ends) = level(config.sysctl(Sysctl::DropEntry), short);
    config.set_sysctl(Sysctl::DropEntry, mode);
    let others =
        config.flags.get() & !(CONFIG_SECURE_TCP | CONFIG_DROP_ENTRY | CONFIG_COUNT_PACKETS);
    let flag = |holds, flag| if holds { flag } else { 0 };
    config.flags.set(
        others
            | flag(secure, CONFIG_SECURE_TCP)
            | flag(ends, CONFIG_DROP_ENTRY)
            | flag(mode != 0, CONFIG_COUNT_PACKETS),
    );
}

/// Whether a new connection is to be dropped: every so many-th is, counted by all CPUs together and
/// not exactly.
#[inline(always)]
pub fn drops(config: &Config) -> bool {
    let rate = config.drop_rate.get();
    if rate == 0 {
        return false;
    }
    let left = config.drop_counter.get().wrapping_sub(1);
    config.drop_counter.set(if left > 0 { left } else { rate });
    left <= 0
}

/// Whether new connections count their packets.
#[inline(always)]
pub(crate) fn counts(config: &Config) -> bool {
    config.flags.get() & CONFIG_COUNT_PACKETS != 0
}

/// Of how many calls of [`ends`] for an entry one looks at it. There are two a second; the kernel looks
/// at a 32nd of its table each second, and chooses it at random as well.
const LOOKS: u32 = 64;

/// An established connection is not given up before it was idle for so many seconds.
const IDLE: u32 = 60;

/// Whether `drop_entry` ends the live entry `conn`, which expires at `expires`: half-open connections,
/// idle ones with few packets, of the others those with fewer packets sooner, and templates of
/// connections that never came about.
pub(crate) fn ends<A: Addr, E: Tables<A>>(
    env: &E,
    config: &Config,
    conn: &Conn<A>,
    (now, expires): (Tick, Tick),
) -> bool {
    let word = Word(conn.word.get());
    let state = word.state();
    let state_is = |timeouts: &[core::cell::Cell<u32>]| {
        timeouts.get(state as usize).map_or(0, core::cell::Cell::get)
    };
    let one_of = |number: u32| number != 0 && env.random() < u32::MAX / number;
    // Those with 0 packets, or more than are counted, stay.
    let rarely = |timeout: u32| {
        let idle = timeout.saturating_sub(expires.0.wrapping_sub(now.0));
        let packets = word.packets().filter(|packets| *packets <= 8).unwrap_or(0);
        idle >= ticks(IDLE) && one_of(packets * LOOKS)
    };
    if word.has(TEMPLATE) {
        let alone = conn.control.get() == 0;
        return match env.dest(conn.dest.get()) {
            Some(dest) if is_one_packet(env, dest) => alone && rarely(conn.pair.get()),
            _ => alone && state != ASSURED && one_of(LOOKS),
        };
    }
    match conn.key.get().protocol as u8 {
        protocol::TCP => {
            let half = state == tcp::State::SynRecv as u32 || state == tcp::State::SynAck as u32;
            let established = state == tcp::State::Established as u32;
            half && one_of(LOOKS) || established && rarely(state_is(&config.tcp_timeouts))
        }
        protocol::SCTP => {
            let half = state == sctp::State::Init1 as u32 || state == sctp::State::Init as u32;
            let established = state == sctp::State::Established as u32;
            half && one_of(LOOKS) || established && rarely(state_is(&config.sctp_timeouts))
        }
        _ => rarely(config.udp_timeout.get()),
    }
}

/// Whether the destination's service schedules packet by packet: templates are all that it has.
fn is_one_packet<A: Addr, E: Tables<A>>(env: &E, dest: &Dest) -> bool {
    let version = env.version_in(dest.slot.get());
    dest.trash.get() == 0 && version.is_some_and(|version| version.has(ServiceFlags::ONEPACKET))
}
