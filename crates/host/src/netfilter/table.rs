//! rvsd's table:
//!
//! ```text
//! table inet rvs {
//!     map to4 { type mark : ipv4_addr . inet_service; }    set is4 { type mark . ipv4_addr . inet_service; }
//!     ...                                                  (6: IPv6; keep4, keep6: packets keep their port)
//!     set own4 { type inet_proto . ipv4_addr . inet_service; }           (6: IPv6; any4, any6: of every port)
//!     set clients4 { type ipv4_addr; flags dynamic; }
//!     chain own { type filter hook output priority raw;
//!         meta l4proto . ip daddr . th dport @own4 meta priority set 0x73000002 notrack accept
//!         ... }
//!     chain translate { type nat hook prerouting priority dstnat + 1;
//!         dnat ip to meta priority map @to4
//!         ... }
//!     chain check { type filter hook prerouting priority dstnat + 2;
//!         ct direction reply iif != lo ip daddr @clients4
//!             meta l4proto . ct original ip daddr . ct original proto-dst @own4
//!             meta priority set 0 meta mark set meta mark & 0x00ffffff ^ 0x72000000 accept
//!         ...
//!         meta priority & 0xfe000000 != 0x72000000 accept
//!         meta priority 0x73000001 meta priority set 0 meta mark set meta mark & 0x00ffffff ^ 0x72000000 accept
//!         meta priority 0x73000000 ct state new drop
//!         meta priority 0x73000000 meta priority set 0 accept
//!         iif lo add @clients4 { ip saddr }
//!         ...
//!         meta priority . ip daddr . th dport @is4 meta priority set 0 accept
//!         ...
//!         drop }
//!     chain restore { type filter hook forward priority raw;
//!         meta mark & 0xff000000 == 0x72000000 ct direction reply meta priority set 0x73000000
//!         meta mark & 0xff000000 == 0x72000000 meta mark set meta mark & 0x00ffffff }
//!     chain astray { type filter hook input priority raw; meta mark & 0xff000000 == 0x72000000 drop }
//!     chain keep { type nat hook postrouting priority srcnat - 1;
//!         oifname rvs0 snat ip to ip saddr
//!         oifname rvs0 snat ip6 to ip6 saddr }
//! }
//! ```
//!
//! Rules of others at `dstnat`, which may mark by the virtual address, come before. What is checked: netfilter
//! may still know a connection of the same addresses, to another destination; its packets are not sent there.
//! Packets that are only tracked are routed by their mark to the device of marked packets, which no rule of the
//! host's is to give another source: the programs know them by it.
//!
//! And netfilter may know no connection of a destination's packet, which would be sent on as it is.
//!
//! What the director itself sends to a virtual address is not tracked as it leaves, so that it can be once it
//! comes by the loopback. Its address is remembered then: what a destination answers to it goes by `rvs0`.

use std::net::IpAddr;

use rvs_core::tracked::{
    DIRECT_PRIORITY, MARK, MARK_MASK, OWN_PRIORITY, PRIORITY, PRIORITY_MASK, REPLY_PRIORITY,
};
use rvs_netlink::attr::Writer;

use super::expression::{
    Expressions, Header, Meta, Original, Register, State, Verdict, be32s, value_of,
};
use super::{ACK, APPEND, CREATE, Netfilter, Target, Virtual, absent, message, octets};
use crate::HostError;
use crate::policy::MARKED;

/// Its name.
pub const TABLE: &str = "rvs";

/// `NFNL_SUBSYS_NFTABLES`
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`
const BATCH: [u16; 2] = [0x10, 0x11];
/// `NFPROTO_INET`, `NFPROTO_IPV4`, `NFPROTO_IPV6`
const INET: u8 = 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `NFT_MSG_*`
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DEL_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_ELEMENT: u16 = 12;
const DEL_ELEMENT: u16 = 14;
/// `NF_IP_PRI_RAW`, `NF_IP_PRI_NAT_DST`, `NF_IP_PRI_NAT_SRC`
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const SRCNAT: i32 = 100;
/// `NF_INET_PRE_ROUTING`, `NF_INET_LOCAL_IN`, `NF_INET_FORWARD`, `NF_INET_LOCAL_OUT`,
/// `NF_INET_POST_ROUTING`
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
/// Elements that a message has: an attribute ends at 64 KiB.
const ELEMENTS: usize = 500;
/// Addresses of the director that its own clients may have.
const CLIENTS: u32 = 4096;
/// Index of the loopback.
const LOOPBACK: u32 = 1;

/// How destinations, and services, differ: by address family, and whether they have a port of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    family: u8,
    port: bool,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self { family: IPV4, port: true },
        Self { family: IPV4, port: false },
        Self { family: IPV6, port: true },
        Self { family: IPV6, port: false },
    ];

    /// One of each family.
    fn families() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.port)
    }

    fn of(addr: IpAddr, port: u16) -> Self {
        Self { family: if addr.is_ipv4() { IPV4 } else { IPV6 }, port: port != 0 }
    }

    /// The name of its set of services.
    fn own(self) -> &'static str {
        match (self.family, self.port) {
            (IPV4, true) => "own4",
            (IPV4, false) => "any4",
            (_, true) => "own6",
            (_, false) => "any6",
        }
    }

    /// The name of its family's set of addresses that clients on the director have.
    fn clients(self) -> &'static str {
        if self.family == IPV4 { "clients4" } else { "clients6" }
    }

    /// The names of its map and its set.
    fn names(self) -> [&'static str; 2] {
        match (self.family, self.port) {
            (IPV4, true) => ["to4", "is4"],
            (IPV4, false) => ["keep4", "keeps4"],
            (_, true) => ["to6", "is6"],
            (_, false) => ["keep6", "keeps6"],
        }
    }

    /// Bytes of an address, and where it lies in the IP header as the destination.
    fn address(self) -> (u32, u32) {
        if self.family == IPV4 { (4, 16) } else { (16, 24) }
    }

    /// The same of the source.
    fn source(self) -> (u32, u32) {
        if self.family == IPV4 { (4, 12) } else { (16, 8) }
    }

    /// Bytes of what a map gives.
    fn len(self) -> u32 {
        self.address().0 + if self.port { 4 } else { 0 }
    }

    /// For listings: the numbers of nft's types, of what a map gives, of a set's keys, and of those of a set of
    /// services.
    fn types(self) -> [u32; 3] {
        const MARK: u32 = 19;
        const PROTOCOL: u32 = 12;
        let data = if self.port { self.address_type() << 6 | 13 } else { self.address_type() };
        let before = |first: u32| first << if self.port { 12 } else { 6 } | data;
        [data, before(MARK), before(PROTOCOL)]
    }

    /// The number of nft's type of an address.
    fn address_type(self) -> u32 {
        if self.family == IPV4 { 7 } else { 8 }
    }
}

/// Changes that are made all together or not at all.
struct Batch {
    sequence: u32,
    messages: Vec<(u16, u16, Writer)>,
}

impl Batch {
    fn push(&mut self, kind: u16, flags: u16, attributes: &Writer) {
        self.messages.push((kind, flags, attributes.clone()));
    }

    fn bytes(self) -> Vec<u8> {
        let edge = |kind| message(kind, 0, self.sequence, (0, NFTABLES), &Writer::new());
        let mut bytes = edge(BATCH[0]);
        let last = self.messages.len().saturating_sub(1);
        for (index, (kind, flags, attributes)) in self.messages.iter().enumerate() {
            let flags = flags | if index == last { ACK } else { 0 };
            let kind = NFTABLES << 8 | kind;
            bytes.extend(message(kind, flags, self.sequence, (INET, 0), attributes));
        }
        bytes.extend(edge(BATCH[1]));
        bytes
    }
}

impl Netfilter {
    /// Makes the table, with these destinations and services, in place of one that there is.
    pub fn make_table(
        &mut self,
        targets: &[Target],
        services: &[Virtual],
    ) -> Result<(), HostError> {
        self.change("make a table that translates addresses", |batch| {
            empty(batch);
            batch.push(NEW_TABLE, CREATE, Writer::new().text(1, TABLE));
            chain(batch, "translate", "nat", PREROUTING, DSTNAT + 1);
            chain(batch, "check", "filter", PREROUTING, DSTNAT + 2);
            chain(batch, "restore", "filter", FORWARD, RAW);
            chain(batch, "astray", "filter", INPUT, RAW);
            chain(batch, "keep", "nat", POSTROUTING, SRCNAT - 1);
            chain(batch, "own", "filter", OUTPUT, RAW);
            for (number, kind) in (1..).step_by(4).zip(Kind::ALL) {
                sets(batch, number, kind);
            }
            rules(batch);
            elements(batch, NEW_ELEMENT, targets);
            services_of(batch, NEW_ELEMENT, services);
        })
    }

    /// Whether the table is there.
    pub fn has_table(&mut self) -> Result<bool, HostError> {
        let mut name = Writer::new();
        name.text(1, TABLE);
        let kind = NFTABLES << 8 | GET_TABLE;
        let found = self.ask(
            "show a table",
            |sequence| message(kind, 0, sequence, (INET, 0), &name),
            |_| (),
        );
        Ok(absent(found)?.is_some())
    }

    /// Removes the table, if there is one.
    pub fn remove_table(&mut self) -> Result<(), HostError> {
        self.change("remove a table", empty)
    }

    /// Enters destinations.
    pub fn add_targets(&mut self, targets: &[Target]) -> Result<(), HostError> {
        self.change("enter a destination", |batch| elements(batch, NEW_ELEMENT, targets))
    }

    /// Removes destinations that were entered.
    pub fn remove_targets(&mut self, targets: &[Target]) -> Result<(), HostError> {
        self.change("remove a destination", |batch| elements(batch, DEL_ELEMENT, targets))
    }

    /// Enters services.
    pub fn add_services(&mut self, services: &[Virtual]) -> Result<(), HostError> {
        self.change("enter a service", |batch| services_of(batch, NEW_ELEMENT, services))
    }

    /// Removes services that were entered.
    pub fn remove_services(&mut self, services: &[Virtual]) -> Result<(), HostError> {
        self.change("remove a service", |batch| services_of(batch, DEL_ELEMENT, services))
    }

    fn change(
        &mut self,
        what: &'static str,
        fill: impl FnOnce(&mut Batch),
    ) -> Result<(), HostError> {
        let build = |sequence| {
            let mut batch = Batch { sequence, messages: Vec::new() };
            fill(&mut batch);
            batch.bytes()
        };
        self.ask(what, build, |_| ())
    }
}

/// Removes the table, whether it is there or not.
fn empty(batch: &mut Batch) {
    let mut name = Writer::new();
    name.text(1, TABLE);
    batch.push(NEW_TABLE, CREATE, &name);
    batch.push(DEL_TABLE, 0, &name);
}

fn chain(batch: &mut Batch, name: &str, kind: &str, hook: u32, priority: i32) {
    let (mut place, mut chain) = (Writer::new(), Writer::new());
    be32s(&mut place, &[(1, hook), (2, priority as u32)]);
    chain.text(1, TABLE).text(3, name).nest(4, &place).text(7, kind);
    batch.push(NEW_CHAIN, CREATE, &chain);
}

/// The map and the sets of a kind; the first has this number within the batch.
fn sets(batch: &mut Batch, number: u32, kind: Kind) {
    /// `NFT_SET_MAP`
    const MAP: u32 = 8;
    const MARK: u32 = 19;
    /// `NFT_SET_EVAL`
    const DYNAMIC: u32 = 0x20;
    let ([map, set], [data, key, service]) = (kind.names(), kind.types());
    let mut attributes = Writer::new();
    let fields = [(3, MAP), (4, MARK), (5, 4), (6, data), (7, kind.len()), (10, number)];
    // For listings: keys are in the host's byte order.
    let user_data = [&[0, 4], 1u32.to_ne_bytes().as_slice()].concat();
    be32s(attributes.text(1, TABLE).text(2, map), &fields).put(13, &user_data);
    batch.push(NEW_SET, CREATE, &attributes);
    let mut attributes = Writer::new();
    let fields = [(3, 0), (4, key), (5, 4 + kind.len()), (10, number + 1)];
    be32s(attributes.text(1, TABLE).text(2, set), &fields);
    batch.push(NEW_SET, CREATE, &attributes);
    let mut attributes = Writer::new();
    let fields = [(3, 0), (4, service), (5, 4 + kind.len()), (10, number + 2)];
    be32s(attributes.text(1, TABLE).text(2, kind.own()), &fields);
    batch.push(NEW_SET, CREATE, &attributes);
    if kind.port {
        let (mut attributes, mut size) = (Writer::new(), Writer::new());
        let fields = [(3, DYNAMIC), (4, kind.address_type()), (5, kind.address().0)];
        be32s(attributes.text(1, TABLE).text(2, kind.clients()), &fields);
        be32s(&mut size, &[(1, CLIENTS)]);
        be32s(attributes.nest(9, &size), &[(10, number + 3)]);
        batch.push(NEW_SET, CREATE, &attributes);
    }
}

fn rules(batch: &mut Batch) {
    let first = Register(0);
    for kind in Kind::ALL {
        let [map, _] = kind.names();
        let port = kind.port.then_some(Register(kind.address().0 / 4));
        let translate = Expressions::default()
            .load(Meta::Priority, first)
            .look_up(map, first, Some(first))
            .translate(kind.family.into(), first, port);
        rule(batch, "translate", &translate);
    }
    for kind in Kind::ALL {
        rule(batch, "own", &of_services(kind));
        rule(batch, "check", &own_replies(kind));
    }
    let others = Expressions::default()
        .load(Meta::Priority, first)
        .and(first, PRIORITY_MASK)
        .compare(first, false, &PRIORITY.to_ne_bytes())
        .end(Verdict::Accept);
    rule(batch, "check", &others);
    let with = |priority: u32| {
        let expressions = Expressions::default().load(Meta::Priority, first);
        expressions.compare(first, true, &priority.to_ne_bytes())
    };
    let direct = with(DIRECT_PRIORITY).set_priority(0).set_mark(MARK, MARK_MASK);
    rule(batch, "check", &direct.end(Verdict::Accept));
    let reply = || with(REPLY_PRIORITY);
    rule(batch, "check", &reply().is(State::New, first).end(Verdict::Drop));
    rule(batch, "check", &reply().set_priority(0).end(Verdict::Accept));
    for kind in Kind::families() {
        let (len, offset) = kind.source();
        let remember = Expressions::default()
            .load(Meta::IncomingIndex, first)
            .compare(first, true, &LOOPBACK.to_ne_bytes())
            .family(kind)
            .read(Header::Network, offset, len, first)
            .remember(kind.clients(), first);
        rule(batch, "check", &remember);
    }
    for kind in Kind::ALL {
        let [_, set] = kind.names();
        let check = Expressions::default().family(kind).load(Meta::Priority, first);
        let check = check.destination(kind).look_up(set, first, None);
        rule(batch, "check", &check.set_priority(0).end(Verdict::Accept));
    }
    rule(batch, "check", &Expressions::default().end(Verdict::Drop));
    let marked = || {
        let mark = Expressions::default().load(Meta::Mark, first).and(first, MARK_MASK);
        mark.compare(first, true, &MARK.to_ne_bytes())
    };
    rule(batch, "restore", &marked().reply(first).set_priority(REPLY_PRIORITY));
    rule(batch, "restore", &marked().set_mark(0, MARK_MASK));
    rule(batch, "astray", &marked().end(Verdict::Drop));
    for kind in Kind::families() {
        let (len, offset) = kind.source();
        let keep = Expressions::default()
            .load(Meta::Outgoing, first)
            .compare(first, true, &name(MARKED))
            .family(kind)
            .read(Header::Network, offset, len, first)
            .translate_source(kind.family.into(), first);
        rule(batch, "keep", &keep);
    }
}

impl Expressions {
    /// Goes on with packets of the family. Takes the first register.
    fn family(self, kind: Kind) -> Self {
        self.load(Meta::Family, Register(0)).compare(Register(0), true, &[kind.family])
    }

    /// Reads the packet's destination as a key of this kind has it, after the first register.
    fn destination(self, kind: Kind) -> Self {
        let (len, offset) = kind.address();
        let addr = self.read(Header::Network, offset, len, Register(1));
        if !kind.port {
            return addr;
        }
        addr.read(Header::Transport, 2, 2, Register(1 + len / 4))
    }
}

/// Leaves what the director sends to services of this kind untracked, and says so.
fn of_services(kind: Kind) -> Expressions {
    let first = Register(0);
    Expressions::default()
        .family(kind)
        .load(Meta::Protocol, first)
        .destination(kind)
        .look_up(kind.own(), first, None)
        .set_priority(OWN_PRIORITY)
        .leave_untracked()
        .end(Verdict::Accept)
}

/// Has what netfilter knows as replies to clients on the director, of services of this kind, routed by its mark.
fn own_replies(kind: Kind) -> Expressions {
    let (first, (len, offset)) = (Register(0), kind.address());
    let addr = if kind.family == IPV4 { Original::Address4 } else { Original::Address6 };
    // What comes by the loopback has been there, or was sent by a destination here.
    let mut replies = Expressions::default()
        .reply(first)
        .load(Meta::IncomingIndex, first)
        .compare(first, false, &LOOPBACK.to_ne_bytes())
        .family(kind)
        .read(Header::Network, offset, len, first)
        .look_up(kind.clients(), first, None)
        .load(Meta::Protocol, first)
        .original(addr, Register(1));
    if kind.port {
        replies = replies.original(Original::Port, Register(1 + len / 4));
    }
    replies
        .look_up(kind.own(), first, None)
        .set_priority(0)
        .set_mark(MARK, MARK_MASK)
        .end(Verdict::Accept)
}

/// The name of an interface as registers have it.
fn name(interface: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(interface.bytes()).for_each(|(to, byte)| *to = byte);
    bytes
}

fn rule(batch: &mut Batch, chain: &str, expressions: &Expressions) {
    let mut rule = Writer::new();
    rule.text(1, TABLE).text(2, chain).nest(4, expressions.attributes());
    batch.push(NEW_RULE, CREATE | APPEND, &rule);
}

/// Adds or removes the elements of destinations.
fn elements(batch: &mut Batch, change: u16, targets: &[Target]) {
    for kind in Kind::ALL {
        let of = |target: &&Target| Kind::of(target.addr, target.port) == kind;
        let targets: Vec<&Target> = targets.iter().filter(of).collect();
        let [map, set] = kind.names();
        for some in targets.chunks(ELEMENTS) {
            let (mut to, mut is) = (Writer::new(), Writer::new());
            for target in some {
                let key = target.priority.to_ne_bytes();
                let data = data(target.addr, target.port);
                let mut element = Writer::new();
                element.nest(1, &value_of(&key)).nest(2, &value_of(&data));
                to.nest(1, &element);
                let mut element = Writer::new();
                element.nest(1, &value_of(&[key.as_slice(), &data].concat()));
                is.nest(1, &element);
            }
            for (name, list) in [(map, to), (set, is)] {
                let mut attributes = Writer::new();
                attributes.text(1, TABLE).text(2, name).nest(3, &list);
                batch.push(change, if change == NEW_ELEMENT { CREATE } else { 0 }, &attributes);
            }
        }
    }
}

/// Adds or removes the elements of services.
fn services_of(batch: &mut Batch, change: u16, services: &[Virtual]) {
    for kind in Kind::ALL {
        let of = |service: &&Virtual| Kind::of(service.addr, service.port) == kind;
        let services: Vec<&Virtual> = services.iter().filter(of).collect();
        for some in services.chunks(ELEMENTS) {
            let mut list = Writer::new();
            for service in some {
                let addr = data(service.addr, service.port);
                let mut element = Writer::new();
                let key = [&[service.protocol, 0, 0, 0], &*addr].concat();
                list.nest(1, element.nest(1, &value_of(&key)));
            }
            let mut attributes = Writer::new();
            attributes.text(1, TABLE).text(2, kind.own()).nest(3, &list);
            batch.push(change, if change == NEW_ELEMENT { CREATE } else { 0 }, &attributes);
        }
    }
}

/// An address, and a port if it is one, as registers have them.
fn data(addr: IpAddr, port: u16) -> Vec<u8> {
    let mut data = octets(addr);
    if port != 0 {
        data.extend(port.to_be_bytes());
        data.extend([0; 2]);
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_as_registers_have_it() {
        let target = |addr: &str, port| data(addr.parse().expect("an address"), port);
        assert_eq!(target("10.1.0.11", 8080), [10, 1, 0, 11, 0x1f, 0x90, 0, 0]);
        assert_eq!(target("10.1.0.11", 0), [10, 1, 0, 11]);
        assert_eq!(target("fd01::11", 0).len(), 16);
    }
}
