//! How many ICMP errors are sent, as the host's settings limit those of its own: a bucket for each
//! receiver and one for all, by `icmp_ratelimit`, `icmp_ratemask`, `icmp_msgs_per_sec` and
//! `icmp_msgs_burst`. Follows ip-sysctl.rst; `tests/oracle/recorded/icmp_limits.jsonl`.

use core::cell::Cell;

use crate::env::Env;
use crate::types::Family;

/// A moment in units of 2²⁰ ns (1.05 ms) of the monotonic clock; wraps after 52 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub u32);

impl Moment {
    /// The moment of this time of `CLOCK_MONOTONIC_COARSE`.
    #[inline(always)]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self((nanos >> 20) as u32)
    }

    /// How long after `earlier` it is.
    #[inline(always)]
    const fn since(self, earlier: u32) -> u32 {
        self.0.wrapping_sub(earlier)
    }
}

/// The number of whole moments in some milliseconds.
const fn moments(milliseconds: u32) -> u32 {
    ((milliseconds as u64 * 1_000_000) >> 20) as u32
}

/// A second.
const SECOND: u32 = moments(1000);
/// How long the bucket for all is left alone after it was filled.
const PAUSE: u32 = moments(20);
/// Errors that a receiver gets at once.
const BURST: u32 = 6;
/// A new receiver has waited so long.
const WAITED: u32 = moments(60_000);

/// What a host's settings say, of IPv4 and of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds between two errors to a receiver; 0 is no limit.
    pub ratelimit: [u32; 2],
    /// Types of errors that are limited, one bit each; types above 31 are none that RVS sends.
    pub ratemask: [u32; 2],
    /// Errors a second to all receivers.
    pub per_second: u32,
    /// Errors to all receivers at once.
    pub burst: u32,
}

impl Default for Settings {
    /// Those of a host on which nobody changed them.
    fn default() -> Self {
        Self { ratelimit: [1000, 1000], ratemask: [0x1818, !(1 << 2)], per_second: 1000, burst: 50 }
    }
}

/// `ICMP_LIMITS`, one element: the settings, and the bucket for all receivers.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Limits {
    ratelimit: [Cell<u32>; 2],
    ratemask: [Cell<u32>; 2],
    per_second: Cell<u32>,
    burst: Cell<u32>,
    /// When errors were put into the bucket last.
    filled: Cell<u32>,
    /// Errors in the bucket: a signed number.
    credit: Cell<u32>,
}

impl Limits {
    /// Puts settings in force.
    pub fn set(&self, settings: &Settings) {
        for (cell, milliseconds) in self.ratelimit.iter().zip(settings.ratelimit) {
            cell.set(moments(milliseconds));
        }
        for (cell, mask) in self.ratemask.iter().zip(settings.ratemask) {
            cell.set(mask);
        }
        self.per_second.set(settings.per_second);
        self.burst.set(settings.burst);
    }

    /// Whether errors of this type and code are limited. What tells of a path's MTU never is with IPv4.
    #[inline(always)]
    fn covers(&self, error: &Error) -> bool {
        let mask = if error.is_v6() { &self.ratemask[1] } else { &self.ratemask[0] };
        let (kind, code) = error.kind;
        let tells_mtu = !error.is_v6() && kind == 3 && code == 4;
        !tells_mtu && kind < 32 && mask.get() >> kind & 1 != 0
    }

    /// Time between two errors to this receiver. With IPv6 there may be more where the route's prefix is
    /// wider; the programs do not see it, and take a neighbour's to be 64 and others' to be 0.
    #[inline(always)]
    fn interval(&self, error: &Error) -> u32 {
        match (error.is_v6(), error.is_neighbour) {
            (false, _) => self.ratelimit[0].get(),
            (true, true) => self.ratelimit[1].get() >> 2,
            (true, false) => self.ratelimit[1].get() >> 4,
        }
    }

    /// Whether the bucket for all has something, perhaps since it was filled just now.
    #[inline(always)]
    fn is_filled<E: Env>(&self, env: &E, now: Moment) -> bool {
        if self.credit.get() as i32 > 0 {
            return true;
        }
        let filled = self.filled.get();
        let since = now.since(filled);
        let since = if since > SECOND { SECOND } else { since };
        if since < PAUSE {
            return false;
        }
        let more = (self.per_second.get() as u64 * since as u64 / SECOND as u64) as u32;
        if more == 0 {
            return false;
        }
        // Who fills it is one of those who find it empty.
        if env.compare_exchange(&self.filled, filled, now.0) == filled {
            let held = self.credit.get();
            let full = (held as i32).saturating_add(more as i32).min(self.burst.get() as i32);
            let _ = env.compare_exchange(&self.credit, held, full as u32);
        }
        true
    }
}

/// `RECEIVERS`: the bucket of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Receiver {
    /// When it was asked last.
    last: u32,
    /// Time that it has waited, less what errors took of it.
    waited: u32,
}

impl Receiver {
    /// The bucket once it was asked for an error, and whether it had one.
    #[inline(always)]
    fn take(held: Option<Self>, now: Moment, interval: u32) -> (Self, bool) {
        let waited = match held {
            Some(held) => held.waited.saturating_add(now.since(held.last)),
            None => WAITED,
        };
        let waited = waited.min(interval.saturating_mul(BURST));
        if waited < interval {
            return (Self { last: now.0, waited }, false);
        }
        (Self { last: now.0, waited: waited - interval }, true)
    }
}

/// An error that is due.
#[derive(Clone, Copy, Debug)]
pub struct Error {
    /// Its family.
    pub family: Family,
    /// Type and code.
    pub kind: (u8, u8),
    /// To whom, words in network byte order.
    pub to: [u32; 4],
    /// Whether that is the director itself.
    pub is_local: bool,
    /// Whether no router is between.
    pub is_neighbour: bool,
}

impl Error {
    #[inline(always)]
    const fn is_v6(&self) -> bool {
        matches!(self.family, Family::V6)
    }
}

/// The memory that limits need.
pub trait Limiter: Env {
    /// The current moment.
    fn moment(&self) -> Moment;
    /// The `ICMP_LIMITS` element.
    fn limits(&self) -> Option<&Limits>;
    /// A receiver's bucket, if it is remembered.
    fn receiver(&self, addr: &[u32; 4]) -> Option<Receiver>;
    /// Remembers a receiver's bucket.
    fn remember(&self, addr: &[u32; 4], receiver: Receiver);
}

/// Whether the error may be sent; then it is counted as sent.
#[inline(always)]
pub fn allows<E: Limiter>(env: &E, error: &Error) -> bool {
    let Some(limits) = env.limits() else { return false };
    if !limits.covers(error) {
        return true;
    }
    let now = env.moment();
    if !limits.is_filled(env, now) {
        return false;
    }
    if !error.is_local {
        let held = env.receiver(&error.to);
        let (receiver, has_one) = Receiver::take(held, now, limits.interval(error));
        env.remember(&error.to, receiver);
        if !has_one {
            return false;
        }
    }
    // One on average, so that nobody learns by counting what others were sent.
    let taken = env.random() % 3;
    env.add(&limits.credit, taken.wrapping_neg());
    true
}
