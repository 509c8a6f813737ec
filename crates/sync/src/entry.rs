//! What a message says of one connection or persistence template.

use std::net::SocketAddr;

/// Bits of an entry's flags (`IP_VS_CONN_F_*`).
pub mod flags {
    /// The forwarding method.
    pub const FORWARD: u32 = 0x7;
    /// Learnt from another director.
    pub const SYNC: u32 = 0x20;
    /// In the sender's hash table: nobody else's business, never sent.
    pub const HASHED: u32 = 0x40;
    /// Replies do not come through the director.
    pub const NO_OUTPUT: u32 = 0x80;
    /// Counted as inactive.
    pub const INACTIVE: u32 = 0x100;
    /// Sequence numbers of the destination are changed.
    pub const OUT_SEQ: u32 = 0x200;
    /// Sequence numbers of the client are changed.
    pub const IN_SEQ: u32 = 0x400;
    /// One-packet scheduling: nothing to remember.
    pub const ONE_PACKET: u32 = 0x2000;
    /// The client's port is not known yet.
    pub const NO_CLIENT_PORT: u32 = 0x800;
    /// A persistence template.
    pub const TEMPLATE: u32 = 0x1000;
    /// What a backup takes from a message; it ignores all other bits.
    pub const BACKUP: u32 =
        FORWARD | NO_OUTPUT | INACTIVE | OUT_SEQ | IN_SEQ | NO_CLIENT_PORT | TEMPLATE;
}

/// How sequence numbers of one direction are changed (`struct ip_vs_seq`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// From which number on.
    pub from: u32,
    /// By how much.
    pub by: u32,
    /// By how much before.
    pub before: u32,
}

/// What a persistence engine knows a template by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine<'a> {
    /// The engine's name; empty if the message has none, which is no valid one.
    pub name: &'a [u8],
    /// Its data, for SIP the call's id.
    pub data: &'a [u8],
}

/// A connection or a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Protocol number; 0 in a template of a fwmark service.
    pub protocol: u8,
    /// Bits of [`flags`].
    pub flags: u32,
    /// The protocol's state; in a template whether it is assured.
    pub state: u16,
    /// Mark of the fwmark service that it belongs to; 0 if it is none, or version 0.
    pub mark: u32,
    /// Seconds without a packet after which it expires; 0: as long as its state says, or version 0.
    pub timeout: u32,
    /// The client. All three addresses are of one family.
    pub client: SocketAddr,
    /// The virtual service.
    pub service: SocketAddr,
    /// The destination.
    pub dest: SocketAddr,
    /// Changes of sequence numbers: the client's, the destination's.
    pub deltas: Option<[Delta; 2]>,
    /// Of a service with a persistence engine.
    pub engine: Option<Engine<'a>>,
}

impl Entry<'_> {
    /// Whether it is a persistence template.
    pub const fn is_template(&self) -> bool {
        self.flags & flags::TEMPLATE != 0
    }
}

/// Kinds of options behind an entry's addresses.
pub(crate) mod option {
    /// [`Delta`](super::Delta)s, 24 bytes.
    pub const DELTAS: u8 = 1;
    /// A persistence engine's data.
    pub const ENGINE_DATA: u8 = 2;
    /// A persistence engine's name.
    pub const ENGINE_NAME: u8 = 3;
    /// Bit of kinds that who does not know them may skip.
    pub const OPTIONAL: u8 = 0x40;
}

/// Bytes of the two [`Delta`]s.
pub(crate) const DELTAS: usize = 24;
