//! Expressions of nftables' rules (`linux/netfilter/nf_tables.h`).

use rvs_netlink::attr::Writer;

/// A register of four bytes. One of 16 bytes begins at each fourth of them.
#[derive(Clone, Copy)]
pub struct Register(pub u32);

impl Register {
    /// `NFT_REG32_00`
    const FIRST: u32 = 8;

    fn number(self) -> u32 {
        Self::FIRST + self.0
    }
}

/// `NFT_META_*`
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Meta {
    /// The packet's priority.
    Priority = 2,
    /// Its mark.
    Mark = 3,
    /// The index of the interface that it came by.
    IncomingIndex = 4,
    /// The name of the interface that it leaves by; 16 bytes.
    Outgoing = 7,
    /// The IP version.
    Family = 15,
    /// The protocol behind the IP header; one byte.
    Protocol = 16,
}

/// What netfilter knows of a packet's connection (`NF_CT_STATE_*`).
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum State {
    /// Nothing.
    New = 8,
}

/// What the first packet of a packet's connection had (`NFT_CT_*`).
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Original {
    /// The port that it was sent to.
    Port = 12,
    /// The IPv4 address that it was sent to.
    Address4 = 20,
    /// The IPv6 address that it was sent to.
    Address6 = 22,
}

/// `NFT_PAYLOAD_*`
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Header {
    /// The IP header.
    Network = 1,
    /// TCP, UDP, SCTP.
    Transport = 2,
}

/// What becomes of a packet.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Verdict {
    /// `NF_DROP`
    Drop = 0,
    /// `NF_ACCEPT`
    Accept = 1,
}

/// A rule's expressions, one after another: a comparison or look-up that fails ends it.
#[derive(Default)]
pub struct Expressions(Writer);

impl Expressions {
    /// All of them, as attributes.
    pub fn attributes(&self) -> &Writer {
        &self.0
    }

    /// Appends one of the kind `name`.
    fn push(mut self, name: &str, data: &Writer) -> Self {
        let mut expression = Writer::new();
        expression.text(1, name).nest(2, data);
        self.0.nest(1, &expression);
        self
    }

    /// Loads what is known of the packet.
    pub fn load(self, meta: Meta, to: Register) -> Self {
        self.push("meta", be32s(&mut Writer::new(), &[(1, to.number()), (2, meta as u32)]))
    }

    /// Goes on if netfilter knows this of the packet's connection. Takes the register.
    pub fn is(self, state: State, word: Register) -> Self {
        const STATE: u32 = 0;
        let load = be32s(&mut Writer::new(), &[(1, word.number()), (2, STATE)]).clone();
        self.push("ct", &load).and(word, state as u32).compare(word, false, &[0; 4])
    }

    /// Goes on if netfilter knows the packet as a reply. Takes the register.
    pub fn reply(self, word: Register) -> Self {
        const DIRECTION: u32 = 1;
        const REPLY: u8 = 1;
        let load = be32s(&mut Writer::new(), &[(1, word.number()), (2, DIRECTION)]).clone();
        self.push("ct", &load).compare(word, true, &[REPLY])
    }

    /// Loads what the first packet of the packet's connection had.
    pub fn original(self, what: Original, to: Register) -> Self {
        const ORIGINAL: u8 = 0;
        let mut load = Writer::new();
        be32s(&mut load, &[(1, to.number()), (2, what as u32)]).u8(3, ORIGINAL);
        self.push("ct", &load)
    }

    /// Keeps netfilter from tracking the packet.
    pub fn leave_untracked(self) -> Self {
        self.push("notrack", &Writer::new())
    }

    /// Enters what is in a register into a set.
    pub fn remember(self, set: &str, from: Register) -> Self {
        const ADD: u32 = 0;
        let mut data = Writer::new();
        be32s(data.text(1, set), &[(3, ADD), (4, from.number())]);
        self.push("dynset", &data)
    }

    /// Sets the packet's priority.
    pub fn set_priority(self, value: u32) -> Self {
        let at = Register(0);
        let mut load = Writer::new();
        be32s(&mut load, &[(1, at.number())]).nest(2, &value_of(&value.to_ne_bytes()));
        let mut set = Writer::new();
        be32s(&mut set, &[(2, Meta::Priority as u32), (3, at.number())]);
        self.push("immediate", &load).push("meta", &set)
    }

    /// Loads bytes of the packet.
    pub fn read(self, header: Header, offset: u32, len: u32, to: Register) -> Self {
        let fields = [(1, to.number()), (2, header as u32), (3, offset), (4, len)];
        self.push("payload", be32s(&mut Writer::new(), &fields))
    }

    /// Clears the bits of a word that are not in `mask`.
    pub fn and(self, word: Register, mask: u32) -> Self {
        self.and_xor(word, mask, 0)
    }

    /// The same, then changes those that are in `xor`.
    fn and_xor(self, word: Register, mask: u32, xor: u32) -> Self {
        let mut data = Writer::new();
        be32s(&mut data, &[(1, word.number()), (2, word.number()), (3, 4)]);
        data.nest(4, &value_of(&mask.to_ne_bytes())).nest(5, &value_of(&xor.to_ne_bytes()));
        self.push("bitwise", &data)
    }

    /// Gives the packet's mark these bits in place of those in `mask`.
    pub fn set_mark(self, bits: u32, mask: u32) -> Self {
        let at = Register(0);
        let mut set = Writer::new();
        be32s(&mut set, &[(2, Meta::Mark as u32), (3, at.number())]);
        self.load(Meta::Mark, at).and_xor(at, !mask, bits).push("meta", &set)
    }

    /// Goes on if the register holds these bytes, or (`!equal`) if it does not.
    pub fn compare(self, at: Register, equal: bool, bytes: &[u8]) -> Self {
        let mut data = Writer::new();
        be32s(&mut data, &[(1, at.number()), (2, u32::from(!equal))]);
        data.nest(3, &value_of(bytes));
        self.push("cmp", &data)
    }

    /// Goes on if a set has what is in the registers from `from` on; of a map, what it has for that is
    /// loaded.
    pub fn look_up(self, set: &str, from: Register, to: Option<Register>) -> Self {
        let mut data = Writer::new();
        be32s(data.text(1, set), &[(2, from.number())]);
        if let Some(to) = to {
            be32s(&mut data, &[(3, to.number())]);
        }
        self.push("lookup", &data)
    }

    /// Gives packets the destination address in a register, and the port in another.
    pub fn translate(self, family: u32, addr: Register, port: Option<Register>) -> Self {
        const DNAT: u32 = 1;
        let mut data = Writer::new();
        be32s(&mut data, &[(1, DNAT), (2, family), (3, addr.number())]);
        if let Some(port) = port {
            be32s(&mut data, &[(5, port.number())]);
        }
        self.push("nat", &data)
    }

    /// Gives packets the source address in a register.
    pub fn translate_source(self, family: u32, addr: Register) -> Self {
        const SNAT: u32 = 0;
        let fields = [(1, SNAT), (2, family), (3, addr.number())];
        self.push("nat", be32s(&mut Writer::new(), &fields))
    }

    /// Ends with this verdict.
    pub fn end(self, verdict: Verdict) -> Self {
        const VERDICT_REGISTER: u32 = 0;
        let (mut code, mut inner, mut data) = (Writer::new(), Writer::new(), Writer::new());
        be32s(&mut code, &[(1, verdict as u32)]);
        inner.nest(2, &code);
        be32s(&mut data, &[(1, VERDICT_REGISTER)]).nest(2, &inner);
        self.push("immediate", &data)
    }
}

/// Appends numbers in network order.
pub fn be32s<'w>(writer: &'w mut Writer, fields: &[(u16, u32)]) -> &'w mut Writer {
    for (kind, value) in fields {
        writer.put(*kind, &value.to_be_bytes());
    }
    writer
}

/// A plain value (`NFTA_DATA_VALUE`).
pub fn value_of(bytes: &[u8]) -> Writer {
    let mut value = Writer::new();
    value.put(1, bytes);
    value
}
