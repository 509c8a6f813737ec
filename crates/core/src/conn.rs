//! The state word of a connection entry, and the changes that it goes through.
//!
//! ```text
//!          insert                publish               expiry, replacement
//!  FREE ───────────► BUSY ─────────────────► LIVE ─────────────────────► DEAD
//!    ▲   one CPU wins   the key is written    look-ups find it            │ look-ups miss it
//!    └─────────────────────────────────────────────────────────────────────┘
//!      rvsd: counts it out, waits an RCU grace period, zeroes the key
//! ```
//!
//! The entry of the reply direction has an expiry of its own and a copy of its connection's state: so
//! replies that change nothing read and write one entry, as others do. While that state is none, or
//! that time over, a reply looks at the connection.
//!
//! An entry is cleared only when no packet can still be looking at it, so a look-up never takes a
//! destination from a flow that is not its own.

use crate::types::ForwardMethod;

/// Life, protocol state and flags of an entry, in one word that changes atomically.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Word(pub u32);

/// `Word`: nobody's.
pub const FREE: u32 = 0;
/// `Word`: being filled in.
pub const BUSY: u32 = 1;
/// `Word`: in use.
pub const LIVE: u32 = 2;
/// `Word`: ended; waits for rvsd to clear it.
pub const DEAD: u32 = 3;

const LIFE: u32 = 0x3;
const STATE_SHIFT: u32 = 2;
const STATE: u32 = 0x1f << STATE_SHIFT;
/// The reply direction of a masqueraded connection.
pub const REPLY: u32 = 1 << 7;
/// Counted as inactive (`IP_VS_CONN_F_INACTIVE`).
pub const INACTIVE: u32 = 1 << 8;
/// No packet of the reply direction was seen (`IP_VS_CONN_F_NOOUTPUT`).
pub const NO_OUTPUT: u32 = 1 << 9;
/// A persistence template (`IP_VS_CONN_F_TEMPLATE`).
pub const TEMPLATE: u32 = 1 << 10;
/// What a scheduler remembers, no connection: see `sched::cache`.
pub const CACHE: u32 = 1 << 11;
const FORWARD_SHIFT: u32 = 12;
/// What its packets say matters: they go to rvsd before they go on ([`app`](crate::app)).
pub const APP: u32 = 1 << 25;
/// Netfilter translates its packets ([`tracked`](crate::tracked); `IP_VS_CONN_F_NFCT`).
pub const TRACKED: u32 = 1 << 23;
/// Learnt from another director (`IP_VS_CONN_F_SYNC`).
pub const SYNCED: u32 = 1 << 24;
const PACKETS_SHIFT: u32 = 26;
const PACKETS: u32 = 0xf << PACKETS_SHIFT;
/// A connection that counts its client's packets, and has seen none (`in_pkts`).
pub const COUNTS: u32 = 1 << PACKETS_SHIFT;
/// A connection counts no further than this: the kernel asks for no more (`todrop_entry`).
const MOST_PACKETS: u32 = 9;

/// State of the reply entry of a UDP flow: its connection knows that it was answered.
pub const ANSWERED: u32 = 1;
/// State of a template: one of its connections was established, or answered
/// (`IP_VS_CTPL_S_ASSURED`).
pub const ASSURED: u32 = 1;

impl Word {
    /// The word of a new live entry.
    #[inline(always)]
    pub const fn live(state: u32, forward: ForwardMethod, flags: u32) -> Self {
        Self(LIVE | state << STATE_SHIFT | flags | (forward as u32) << FORWARD_SHIFT)
    }

    /// Which of [`FREE`], [`BUSY`], [`LIVE`], [`DEAD`].
    #[inline(always)]
    pub const fn life(self) -> u32 {
        self.0 & LIFE
    }

    /// Whether look-ups find it.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        self.life() == LIVE
    }

    /// The same entry, ended.
    #[inline(always)]
    pub const fn dead(self) -> Self {
        Self(self.0 | DEAD)
    }

    /// The protocol's state.
    #[inline(always)]
    pub const fn state(self) -> u32 {
        (self.0 & STATE) >> STATE_SHIFT
    }

    /// The same entry in another state.
    #[inline(always)]
    pub const fn with_state(self, state: u32) -> Self {
        Self(self.0 & !STATE | state << STATE_SHIFT)
    }

    /// Whether `flag` is set.
    #[inline(always)]
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// Packets of the client, as far as they are counted; `None` for an entry that counts none.
    #[inline(always)]
    pub const fn packets(self) -> Option<u32> {
        ((self.0 & PACKETS) >> PACKETS_SHIFT).checked_sub(1)
    }

    /// Whether the next packet is to be counted.
    #[inline(always)]
    pub const fn counts(self) -> bool {
        // Without a count the difference wraps.
        (self.0 & PACKETS).wrapping_sub(COUNTS) < MOST_PACKETS << PACKETS_SHIFT
    }

    /// The same entry with one packet more, if it counts them.
    #[inline(always)]
    pub const fn counted(self) -> Self {
        if self.counts() { Self(self.0 + COUNTS) } else { self }
    }

    /// The same entry, not counting packets.
    pub const fn uncounted(self) -> Self {
        Self(self.0 & !PACKETS)
    }

    /// The forwarding method's number.
    #[inline(always)]
    pub const fn forward(self) -> u32 {
        self.0 >> FORWARD_SHIFT & 7
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_word_do_not_touch_each_other() {
        let word = Word::live(31, ForwardMethod::DirectRoute, REPLY | TEMPLATE);
        assert_eq!((word.state(), word.forward(), word.is_live()), (31, 3, true));
        let other = word.with_state(4);
        assert_eq!((other.state(), other.forward()), (4, 3));
        assert!(other.has(REPLY) && other.has(TEMPLATE) && !other.has(INACTIVE | NO_OUTPUT));
        assert_eq!(other.dead().life(), DEAD);
    }

    #[test]
    fn packets_are_counted_up_to_nine_by_entries_that_count() {
        let other = Word::live(4, ForwardMethod::Tunnel, SYNCED);
        assert_eq!((other.packets(), other.counted()), (None, other));
        let mut word = Word::live(4, ForwardMethod::Tunnel, SYNCED | COUNTS);
        for packets in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9] {
            assert_eq!((word.packets(), word.counts()), (Some(packets), packets < 9));
            assert_eq!(word.uncounted(), other);
            word = word.counted();
        }
    }
}
