//! What happens to a packet. Two steps, so that a hook which cannot send the packet (no neighbour,
//! too big) leaves it and everything that was counted as they were:
//!
//! 1. [`resolve`] finds the packet's connection, or makes one;
//! 2. [`commit`] once the way out is known: state, expiry and counters.
//!
//! ```text
//!  parse ─► find ─hit──────────────────────► route ─► commit ─► rewrite ─► out
//!             └─miss─► service? ─► schedule ───┘  └─► punt, ICMP error
//! ```

use rvs_wire::{Ipv4, Ipv6, protocol, tcp_flags};

use crate::addr::Addr;
use crate::answer;
use crate::app;
use crate::conn::{ANSWERED, ASSURED, CACHE, INACTIVE, NO_OUTPUT, REPLY, TEMPLATE, TRACKED, Word};
use crate::defence;
use crate::dest;
use crate::env::{Env, Tables};
use crate::flow::{Flow, Ip};
use crate::layout::{
    CONFIG_BACKUP_ONLY, CONFIG_ENGINE, CONFIG_FWMARK, CONFIG_PORT_ZERO, CONFIG_SECURE_TCP, Config,
    Conn, Dest, ENDING, ServiceAddr,
};
use crate::nat::{self, Change};
use crate::ours;
use crate::packet::Packet;
use crate::pe;
use crate::proto::{Direction, sctp, tcp};
use crate::reason::Reason;
use crate::sched::{NONE, Place};
use crate::schedule::{PASSING, Picked, Scheduled};
use crate::sysctl::Sysctl;
use crate::table;
use crate::time::Tick;
use crate::tunnel::Tunnel;
use crate::types::{Family, ForwardMethod, ServiceFlags};

/// How often a state change is tried again when another CPU changed the connection meanwhile.
const RETRIES: u32 = 4;

/// A packet that goes on to a destination, or back to a client.
pub struct Forward<'e, A: Copy> {
    /// The entry that the packet's addresses name.
    pub entry: &'e Conn<A>,
    /// The destination.
    pub dest: &'e Dest,
    /// Its index.
    pub dest_index: u32,
    /// `ForwardMethod` number.
    pub method: u32,
    /// Whether this is the destination's packet to the client.
    pub reply: bool,
}

/// Where a packet goes, before routing.
pub struct Way {
    /// Family of `dst` and of the packet that leaves.
    pub family: Family,
    /// Address to route to, words in network byte order.
    pub dst: [u32; 4],
    /// Bytes of the outer headers that a tunnel adds; 0 without a tunnel.
    pub extra: u32,
}

impl<A: Ip> Forward<'_, A> {
    /// Where to.
    #[inline(always)]
    pub fn way(&self, flow: &Flow<A>) -> Way {
        let direct = if self.reply {
            flow.key.dst
        } else if self.leads_to_dest() {
            A::from_words(self.dest.addr.get())
        } else {
            self.entry.target.get()
        };
        let (mut family, mut extra) = (A::FAMILY, 0);
        // Word by word: LLVM otherwise makes the arrays by a function call.
        let [mut a, mut b, mut c, mut d] = direct.to_words();
        if !self.reply && self.method == ForwardMethod::Tunnel as u32 {
            [a, b, c, d] = self.dest.addr.get();
            let six = self.dest.family.get() == 6;
            family = if six { Family::V6 } else { Family::V4 };
            extra = self.tunnel().header_len() + if six { Ipv6::LEN } else { Ipv4::LEN } as u32;
        }
        Way { family, dst: [a, b, c, d], extra }
    }

    /// Whether the destination says where to: always with direct routing, unless another director told of the
    /// connection and the destination is not known. The entry says the same, but with IPv6 in its second
    /// cache line, which is not needed then.
    #[inline(always)]
    fn leads_to_dest(&self) -> bool {
        self.method == ForwardMethod::DirectRoute as u32 && self.dest.family.get() != 0
    }

    /// Whether the packet's addresses change.
    #[inline(always)]
    pub fn is_masqueraded(&self) -> bool {
        self.reply || self.method == ForwardMethod::Masquerade as u32
    }

    /// How the destination's packets are tunneled, if they are.
    #[inline(always)]
    pub fn tunnel(&self) -> Tunnel {
        Tunnel(self.dest.tunnel.get())
    }

    /// Whether a checksum in the outer header covers the packet.
    #[inline(always)]
    pub fn is_covered(&self, way: &Way) -> bool {
        way.extra != 0 && self.tunnel().has_checksum()
    }

    /// Whether the packet, if it is too big for the tunnel, goes through it in pieces of the outer one:
    /// one of IPv4 that may be cut, or any with `pmtu_disc` 0.
    #[inline(always)]
    pub fn takes_pieces(&self, flow: &Flow<A>, way: &Way) -> bool {
        matches!(A::FAMILY, Family::V4)
            && way.extra != 0
            && (!flow.dont_fragment || self.tunnel().takes_pieces())
    }

    /// MTU of the route to the destination if it has one of its own and a packet of `len` bytes,
    /// outer header included, is too big for it; else 0. The kernel's look-up for eBPF leaves it
    /// out unless it is locked, IPVS does not (`tests/oracle/recorded/mtu_route.jsonl`).
    #[inline(always)]
    pub fn exceeded_mtu(&self, len: u32) -> u32 {
        let mtu = if self.reply { 0 } else { self.dest.mtu.get() };
        if mtu != 0 && len > mtu { mtu } else { 0 }
    }

    /// How the packet's headers change, but for those that a tunnel adds. Direct routing takes one
    /// off the TTL as the kernel does, which ends loops between directors.
    #[inline(always)]
    pub fn change(&self) -> Change {
        if self.reply {
            Change::Source
        } else if self.method == ForwardMethod::Masquerade as u32 {
            Change::Destination
        } else {
            Change::Hop
        }
    }

    /// Rewrites the IP packet: addresses, ports, TTL and checksums. `None` if a header is out of
    /// reach.
    #[inline(always)]
    pub fn rewrite<P: Packet>(&self, packet: &mut P, flow: &Flow<A>) -> Option<()> {
        nat::apply(packet, flow, self.entry, self.change())
    }
}

/// What to do with a packet.
pub enum Verdict<'e, A: Copy> {
    /// Leave it to the host.
    Pass(Reason),
    /// Drop it.
    Drop(Reason),
    /// Send it on.
    Forward(Forward<'e, A>),
}

/// Finds the packet's connection, or schedules a new one if it opens one for a virtual service.
#[inline(always)]
pub fn resolve<'e, A: Addr, E: Tables<A>>(env: &'e E, flow: &mut Flow<A>) -> Verdict<'e, A> {
    resolve_at::<A, E, true>(env, flow)
}

/// The same where packets that are passed are resolved once more. What opens a connection in the place of
/// another is left for then: once the old one is hidden and counted out, nobody could decide the same again.
#[inline(always)]
pub fn resolve_first<'e, A: Addr, E: Tables<A>>(env: &'e E, flow: &mut Flow<A>) -> Verdict<'e, A> {
    resolve_at::<A, E, false>(env, flow)
}

#[inline(always)]
fn resolve_at<'e, A: Addr, E: Tables<A>, const LAST: bool>(
    env: &'e E,
    flow: &mut Flow<A>,
) -> Verdict<'e, A> {
    let Some(config) = env.config() else { return Verdict::Pass(Reason::NotOurs) };
    if !ours::may_be(config, &flow.key) {
        return Verdict::Pass(Reason::NotOurs);
    }
    if let Some(entry) = table::entry(env, env.known(flow)) {
        return established::<A, E, LAST>(env, config, flow, entry);
    }
    opening(env, config, flow, &Hidden::NOTHING)
}

/// The way of a packet whose entry was found. If it opens another connection in its place, the old one
/// still counts when that is scheduled: the kernel leaves it to a timer.
#[inline(always)]
fn established<'e, A: Addr, E: Tables<A>, const LAST: bool>(
    env: &'e E,
    config: &Config,
    flow: &mut Flow<A>,
    entry: &'e Conn<A>,
) -> Verdict<'e, A> {
    if config.flags.get() & CONFIG_BACKUP_ONLY != 0 && !Word(entry.word.get()).has(REPLY) {
        return Verdict::Pass(Reason::NotOurs);
    }
    let mut ends = asks_anew(flow) && starts_over(env, config, entry);
    let verdict = of_entry(env, entry);
    match &verdict {
        Verdict::Forward(forward) if !forward.reply && forward.dest_index == UNCOUNTED => {
            if !ends && config.sysctl(Sysctl::ExpireNodestConn) == 0 {
                return Verdict::Drop(Reason::DestGone);
            }
            ends = true;
        }
        Verdict::Pass(_) => ends = true,
        _ => {}
    }
    if !ends {
        return verdict;
    }
    if !LAST {
        return Verdict::Pass(Reason::PuntIcmp);
    }
    let word = Word(entry.word.get());
    let mut old = Hidden::NOTHING;
    if let Some(conn) = if word.has(REPLY) { partner(env, entry) } else { Some(entry) } {
        old = hide(env, conn);
    }
    // Until netfilter has forgotten the connection it would send the packet where it sent the last (the
    // kernel drops it as well).
    if word.has(TRACKED) {
        old.count_out(env);
        return Verdict::Drop(Reason::TrackedAnew);
    }
    opening(env, config, flow, &old)
}

/// The destination of connections that have none.
pub(crate) const NOBODY: u32 = 0;
/// Instead of a destination's index: nobody's counters.
const UNCOUNTED: u32 = u32::MAX;

/// Where packets of a destination count: what belongs to one that was removed, nowhere
/// (`ip_vs_out_stats`).
#[inline(always)]
pub(crate) fn counted(dest: &Dest, index: u32) -> u32 {
    if dest.trash.get() != 0 { UNCOUNTED } else { index }
}

/// The way that an entry leads, to a destination that was removed, too. An entry that ends with its
/// destination leads nowhere.
#[inline(always)]
pub(crate) fn of_entry<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    entry: &'e Conn<A>,
) -> Verdict<'e, A> {
    let word = Word(entry.word.get());
    let dest_index = entry.dest.get();
    let Some(dest) = env.dest(dest_index) else { return Verdict::Drop(Reason::Inconsistent) };
    if dest.trash.get() == ENDING {
        return Verdict::Pass(Reason::NoConnection);
    }
    let method = word.forward();
    let dest_index = counted(dest, dest_index);
    Verdict::Forward(Forward { entry, dest, dest_index, method, reply: word.has(REPLY) })
}

/// Whether a packet without a connection would open one.
#[inline(always)]
pub(crate) fn opens<A: Addr, E: Tables<A>>(env: &E, flow: &mut Flow<A>) -> bool {
    let Some(config) = env.config() else { return false };
    if config.flags.get() & CONFIG_BACKUP_ONLY != 0 {
        return false;
    }
    mark(env, config, flow);
    may_open(config, flow) && service(env, config, flow) != NONE
}

/// Gives the packet the mark that a rule of ours has for it, whatever it had.
#[inline(always)]
pub fn mark<A: Addr, E: Tables<A>>(env: &E, config: &Config, flow: &mut Flow<A>) {
    if config.marks.get() == 0 || config.flags.get() & CONFIG_FWMARK == 0 {
        return;
    }
    let mark = env.mark(&flow.key);
    if mark != 0 {
        (flow.marked, flow.mark) = (true, mark);
    }
}

/// Whether the packet is one that opens a connection: of TCP a SYN (not a SYN that also resets) or of
/// SCTP an INIT; the host answers anything else, and whatever comes from FTP's data port
/// (`tests/oracle/recorded/ftp_service.jsonl`).
#[inline(always)]
fn may_open<A: Copy>(config: &Config, flow: &Flow<A>) -> bool {
    if flow.key.sport_be == (app::FTP - 1).to_be() {
        return false;
    }
    match flow.key.protocol as u8 {
        protocol::TCP => match flow.tcp_flags & (tcp_flags::SYN | tcp_flags::RST) {
            tcp_flags::SYN => true,
            0 => config.sysctl(Sysctl::SloppyTcp) != 0,
            _ => false,
        },
        protocol::SCTP => {
            sctp::Chunks(flow.tcp_flags).opens(config.sysctl(Sysctl::SloppySctp) != 0)
        }
        _ => true,
    }
}

/// Whether it is an SCTP packet without any chunk.
#[inline(always)]
fn is_without_chunk<A: Copy>(flow: &Flow<A>) -> bool {
    flow.key.protocol == protocol::SCTP as u32 && sctp::Chunks(flow.tcp_flags).is_empty()
}

/// The way of a packet without a connection, and the end of the one in whose place it is.
#[inline(always)]
fn opening<'e, A: Addr, E: Tables<A>>(
    env: &'e E,
    config: &Config,
    flow: &mut Flow<A>,
    old: &Hidden,
) -> Verdict<'e, A> {
    mark(env, config, flow);
    let slot = env.asked_for(flow);
    if slot >= REFUSED {
        old.count_out(env);
        return refusal(slot);
    }
    let outcome = pick(env, flow, slot);
    old.count_out(env);
    match outcome.entry() {
        Ok(index) => scheduled(env, index),
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Enters a connection to a destination of the service in `slot`.
#[inline(always)]
fn pick<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>, slot: u32) -> Scheduled {
    let outcome = env.schedule(flow, slot, Picked::NOTHING);
    let version = outcome.asks();
    if version == 0 {
        return outcome;
    }
    let row = env.cached(&flow.key, Place { slot, version });
    env.schedule(flow, slot, Picked { version, row })
}

/// Opens a connection for an ICMP error about a packet of none, which `flow` has the key of, if it is
/// for a service; whether only this error is to take it (one-packet scheduling), or why it is dropped.
#[inline(always)]
pub(crate) fn schedule_error<A: Addr, E: Tables<A>>(
    env: &E,
    config: &Config,
    flow: &mut Flow<A>,
) -> Result<bool, Reason> {
    if config.flags.get() & CONFIG_BACKUP_ONLY != 0 {
        return Ok(false);
    }
    mark(env, config, flow);
    let slot = service(env, config, flow);
    if slot == NONE {
        return Ok(false);
    }
    if defence::drops(config) {
        return Err(Reason::Defence);
    }
    pick(env, flow, slot).entry().map(|index| index == PASSING)
}

/// Numbers from here on say why a packet is not balanced, where otherwise an index is: for functions
/// of the kernel's kind.
pub const REFUSED: u32 = 1 << 31;

/// A packet is left to the host for this reason, as a number.
#[inline(always)]
pub(crate) const fn passed(reason: Reason) -> u32 {
    REFUSED | (reason as u32 * 2)
}

/// A packet is dropped for this reason, as a number.
#[inline(always)]
pub const fn dropped(reason: Reason) -> u32 {
    passed(reason) | 1
}

/// What such a number says.
#[inline(always)]
pub fn refusal<'e, A: Addr>(code: u32) -> Verdict<'e, A> {
    let reason = Reason::from_number((code & !REFUSED) / 2);
    if code & 1 == 0 { Verdict::Pass(reason) } else { Verdict::Drop(reason) }
}

/// Index in `SLOTS` of the service that the packet opens a connection of, or why it opens none.
#[inline(always)]
pub fn asked_for<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>) -> u32 {
    let Some(config) = env.config() else { return passed(Reason::NotOurs) };
    let flags = config.flags.get();
    if answer::is_due(env, config, flow) {
        let engine = flags & CONFIG_ENGINE != 0 && pe::concerns(env, flow, NONE);
        return if engine { passed(Reason::PuntEngine) } else { dropped(Reason::RealServer) };
    }
    if flags & CONFIG_BACKUP_ONLY != 0 {
        return passed(Reason::NotOurs);
    }
    if !flow.marked && flags & CONFIG_FWMARK != 0 {
        return passed(Reason::PuntMark);
    }
    let slot = service(env, config, flow);
    if flags & CONFIG_ENGINE != 0 && pe::concerns(env, flow, slot) {
        return passed(Reason::PuntEngine);
    }
    if slot == NONE || is_reply_here(env, config, flow) {
        return passed(Reason::NotOurs);
    }
    let refused = refused(config, flow);
    if refused != 0 { refused } else { slot }
}

/// Whether it is a reply that was translated for a client on the director, and comes by the loopback. It may look as if
/// it was for a service of every port, or of a mark, if the client has the virtual address.
#[inline(always)]
fn is_reply_here<A: Addr, E: Tables<A>>(env: &E, config: &Config, flow: &Flow<A>) -> bool {
    let port = u16::from_be(flow.key.dport_be);
    !has_port(config, flow.key.protocol as u8, port) && env.find(&flow.key.turned()) != 0
}

/// Why a packet for a service opens no connection; 0 if it does. Of TCP only a SYN does (not a SYN
/// that also resets); the host answers anything else.
#[inline(always)]
pub(crate) fn refused<A: Copy>(config: &Config, flow: &Flow<A>) -> u32 {
    if is_without_chunk(flow) {
        return dropped(Reason::NoChunk);
    }
    if !may_open(config, flow) {
        return passed(Reason::NoConnection);
    }
    if defence::drops(config) { dropped(Reason::Defence) } else { 0 }
}

/// The way of a packet whose connection was just entered.
#[inline(always)]
fn scheduled<'e, A: Addr, E: Tables<A>>(env: &'e E, index: u32) -> Verdict<'e, A> {
    let entry = if index == PASSING { env.passing() } else { table::entry(env, index + 1) };
    let Some(entry) = entry else { return Verdict::Drop(Reason::Inconsistent) };
    let dest_index = entry.dest.get();
    let Some(dest) = env.dest(dest_index) else { return Verdict::Drop(Reason::Inconsistent) };
    let method = Word(entry.word.get()).forward();
    Verdict::Forward(Forward { entry, dest, dest_index, method, reply: false })
}

/// Index in `SLOTS` of the service that the packet is for: by its mark, else its address and port,
/// else by the persistent service of FTP at its address, if it may be FTP's data, else its address with
/// port 0 (`ip_vs_service_find`; `tests/oracle/recorded/ftp_service.jsonl`). [`NONE`] if it is for none:
/// an `Option` that is tested twice leaves its number unset in one of LLVM's paths ("!read_ok").
#[inline(always)]
pub(crate) fn service<A: Addr, E: Tables<A>>(env: &E, config: &Config, flow: &Flow<A>) -> u32 {
    if flow.mark != 0
        && config.flags.get() & CONFIG_FWMARK != 0
        && let Some(slot) = env.service(&ServiceAddr::fwmark(flow.mark))
    {
        return slot;
    }
    let port_zero = config.flags.get() & CONFIG_PORT_ZERO != 0;
    let (proto, port) = (flow.key.protocol as u8, u16::from_be(flow.key.dport_be));
    if has_port(config, proto, port)
        && let Some(slot) = env.service(&ServiceAddr::new(flow.key.dst, flow.key.dport_be, proto))
    {
        return slot;
    }
    if proto == protocol::TCP
        && may_be_data(config, port)
        && let Some(slot) = env.service(&ServiceAddr::new(flow.key.dst, app::FTP.to_be(), proto))
    {
        let version = env.version_in(slot);
        let persistent = version.is_some_and(|version| version.has(ServiceFlags::PERSISTENT));
        return if persistent { slot } else { NONE };
    }
    if port_zero && let Some(slot) = env.service(&ServiceAddr::new(flow.key.dst, 0, proto)) {
        return slot;
    }
    NONE
}

/// Whether any service with an address has this port.
#[inline(always)]
fn has_port(config: &Config, proto: u8, port: u16) -> bool {
    let row = match proto {
        protocol::TCP => 0,
        protocol::SCTP => 2,
        _ => 1,
    };
    let bits = config.ports.get(row).and_then(|ports| ports.get(port as usize >> 6));
    bits.is_some_and(|bits| bits.get() >> (port & 63) & 1 != 0)
}

/// Whether a packet to this port may be of an FTP service.
#[inline(always)]
fn may_be_data(config: &Config, port: u16) -> bool {
    (port == app::FTP - 1 || port >= 1024) && has_port(config, protocol::TCP, app::FTP)
}

/// Whether the packet is what a new connection begins with (`is_new_conn`).
#[inline(always)]
fn asks_anew<A: Copy>(flow: &Flow<A>) -> bool {
    if flow.key.protocol == protocol::TCP as u32 {
        return flow.tcp_flags & tcp_flags::SYN != 0;
    }
    flow.key.protocol == protocol::SCTP as u32 && sctp::Chunks(flow.tcp_flags).is_init()
}

/// Whether a SYN or INIT on this connection opens a new one with the same addresses
/// (`is_new_conn_expected`; `tests/oracle/recorded/reuse.jsonl`).
#[inline(always)]
fn starts_over<A: Addr, E: Tables<A>>(env: &E, config: &Config, entry: &Conn<A>) -> bool {
    let word = Word(entry.word.get());
    if word.has(REPLY) {
        return false;
    }
    if config.sysctl(Sysctl::ExpireNodestConn) != 0
        && env.dest(entry.dest.get()).is_some_and(|dest| dest.weight.get() == 0)
    {
        return true;
    }
    let mode = config.sysctl(Sysctl::ConnReuseMode);
    if mode == 0 || entry.control.get() != 0 {
        return false;
    }
    let state = word.state();
    if entry.key.get().protocol == protocol::SCTP as u32 {
        return state == sctp::State::Closed as u32;
    }
    let over = state == tcp::State::TimeWait as u32 || state == tcp::State::Close as u32;
    // Who does not see replies cannot tell whether the destination has closed as well.
    let half = state == tcp::State::FinWait as u32 && word.has(NO_OUTPUT) && mode & 2 != 0;
    over || half
}

/// The live entry of the other direction.
#[inline(always)]
pub fn partner<'e, A: Addr, E: Tables<A>>(env: &'e E, entry: &Conn<A>) -> Option<&'e Conn<A>> {
    let conn = table::entry(env, entry.pair.get())?;
    if Word(conn.word.get()).is_live() { Some(conn) } else { None }
}

/// A connection that no look-up finds any more, and that its destination still counts.
struct Hidden {
    /// Index of the destination; [`NONE`] if somebody else ended the connection.
    dest: u32,
    /// The word it had.
    word: Word,
}

impl Hidden {
    const NOTHING: Self = Self { dest: NONE, word: Word(0) };

    #[inline(always)]
    fn count_out<E: Env>(&self, env: &E) {
        if self.dest == NONE {
            return;
        }
        if let Some(dest) = env.dest(self.dest) {
            dest::unbind(env, dest, self.word);
        }
    }
}

/// Hides a live connection, and its reply direction, from look-ups. rvsd clears the entries later.
#[inline(always)]
fn hide<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>) -> Hidden {
    let mut hidden = Hidden::NOTHING;
    for _ in 0..RETRIES {
        hidden.word = Word(conn.word.get());
        if !hidden.word.is_live() {
            break;
        }
        let dead = hidden.word.dead().0;
        if env.compare_exchange(&conn.word, hidden.word.0, dead) != hidden.word.0 {
            continue;
        }
        hidden.dest = conn.dest.get();
        if !hidden.word.has(TEMPLATE) {
            if let Some(reply) = partner(env, conn) {
                change(env, reply, Word::dead);
            }
            release(env, conn);
        }
        break;
    }
    hidden
}

/// Ends a live connection: hides it and counts it out. False if somebody else ended it first.
#[inline(always)]
pub fn end<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>) -> bool {
    let hidden = hide(env, conn);
    if hidden.dest == NONE {
        return false;
    }
    hidden.count_out(env);
    true
}

/// Takes an ended connection off its template's count (`ip_vs_control_del`).
#[inline(always)]
fn release<A: Addr, E: Tables<A>>(env: &E, conn: &Conn<A>) {
    let template = table::entry::<A, E>(env, conn.control.get());
    if let Some(template) = template.filter(|entry| Word(entry.word.get()).has(TEMPLATE)) {
        env.add(&template.control, u32::MAX);
    }
}

/// Notes in a connection's template, named by its index, plus one, that the connection came about
/// (`ip_vs_control_assure_ct`).
#[inline(always)]
pub(crate) fn assure<A: Addr, E: Tables<A>>(env: &E, template: u32) {
    let Some(template) = table::entry::<A, E>(env, template) else { return };
    let word = Word(template.word.get());
    // Who changes the word meanwhile has noted the same, or ended the template.
    if word.is_live() && word.state() != ASSURED {
        env.compare_exchange(&template.word, word.0, word.with_state(ASSURED).0);
    }
}

/// When a connection expires: at its own expiry, or at that of its replies, whose entry `reply` gives,
/// if they are later.
pub fn expiry<'c, A: Copy>(
    conn: &'c Conn<A>,
    reply: impl FnOnce(u32) -> Option<&'c Conn<A>>,
) -> Tick {
    let own = Tick(conn.expires.get());
    if Word(conn.word.get()).has(TEMPLATE | CACHE) {
        return own;
    }
    match reply(conn.pair.get()) {
        Some(reply) if !own.reached(Tick(reply.expires.get())) => Tick(reply.expires.get()),
        _ => own,
    }
}

/// Changes the word of a live entry, whatever others make of it meanwhile.
#[inline(always)]
pub(crate) fn change<A: Addr, E: Tables<A>>(env: &E, entry: &Conn<A>, to: impl Fn(Word) -> Word) {
    for _ in 0..RETRIES {
        let word = Word(entry.word.get());
        let new = to(word);
        if !word.is_live()
            || new == word
            || env.compare_exchange(&entry.word, word.0, new.0) == word.0
        {
            return;
        }
    }
}

/// Makes the next reply look at the connection, whose state, expiry or timeout somebody else has set.
pub fn forget<A: Copy>(reply: &Conn<A>, now: Tick) {
    reply.expires.set(now.0);
}

/// Writes an entry's expiry, which changes a few times a second at most.
#[inline(always)]
fn renew<A: Copy>(entry: &Conn<A>, expires: Tick) {
    if entry.expires.get() != expires.0 {
        entry.expires.set(expires.0);
    }
}

/// Accounts for a packet that is about to leave: connection state, expiry, counters.
#[inline(always)]
pub fn commit<A: Addr, E: Tables<A>>(env: &E, now: Tick, flow: &Flow<A>, forward: &Forward<'_, A>) {
    let Some(config) = env.config() else { return };
    match settled(config, now, flow, forward) {
        Some(timeout) => renew(forward.entry, now.after(timeout)),
        None => env.transition(forward.entry, flow.tcp_flags),
    }
    count(env, flow, forward);
}

/// The connection's timeout in ticks, if the packet leaves its state as it is. A reply whose own entry
/// has expired asks the connection.
#[inline(always)]
fn settled<A: Copy>(
    config: &Config,
    now: Tick,
    flow: &Flow<A>,
    forward: &Forward<'_, A>,
) -> Option<u32> {
    let word = Word(forward.entry.word.get());
    let state = word.state();
    if word.counts() || forward.reply && now.reached(Tick(forward.entry.expires.get())) {
        return None;
    }
    if flow.key.protocol == protocol::TCP as u32 {
        let secure = config.flags.get() & CONFIG_SECURE_TCP != 0;
        let next = tcp::next(secure, direction(word), state, tcp::Event::of(flow.tcp_flags));
        if next != state || state == tcp::State::None as u32 {
            return None;
        }
        return config.tcp_timeouts.get((state & 15) as usize).map(|timeout| timeout.get());
    }
    // SCTP's tables are for the function that the verifier follows once.
    let is_udp = flow.key.protocol == protocol::UDP as u32;
    let known = is_udp && (!forward.reply || state == ANSWERED);
    if known { Some(config.udp_timeout.get()) } else { None }
}

/// Which state table holds for packets that find the entry with this word.
#[inline(always)]
fn direction(word: Word) -> Direction {
    if word.has(REPLY) {
        Direction::Output
    } else if word.has(NO_OUTPUT) {
        Direction::InputOnly
    } else {
        Direction::Input
    }
}

/// Moves the connection of an entry to the state that a packet with these flags (TCP) or chunks (SCTP)
/// leads to, and tells the entry of the other direction.
#[inline(always)]
pub fn transition<A: Addr, E: Tables<A>>(env: &E, entry: &Conn<A>, flags: u8) {
    let Some(config) = env.config() else { return };
    let reply = Word(entry.word.get()).has(REPLY);
    let conn = if reply { partner(env, entry) } else { Some(entry) };
    let Some(conn) = conn else { return };
    let number = entry.key.get().protocol;
    if number == protocol::SCTP as u32 {
        let state = advance(env, conn, reply, |direction, old| {
            let state = sctp::next(direction, old, sctp::Chunks(flags));
            (state, sctp::is_active(state), sctp::State::Established as u32)
        });
        let timeout = config.sctp_timeouts.get((state & 15) as usize);
        return renew(conn, env.now().after(timeout.map_or(0, |timeout| timeout.get())));
    }
    let (state, timeout) = if number == protocol::TCP as u32 {
        let secure = config.flags.get() & CONFIG_SECURE_TCP != 0;
        let event = tcp::Event::of(flags);
        let state = advance(env, conn, reply, |direction, old| {
            let state = tcp::next(secure, direction, old, event);
            (state, tcp::is_active(state), tcp::State::Established as u32)
        });
        (state, config.tcp_timeouts.get((state & 15) as usize).map_or(0, |timeout| timeout.get()))
    } else if !reply {
        change(env, conn, Word::counted);
        return renew(conn, env.now().after(config.udp_timeout.get()));
    } else {
        assure(env, conn.control.get());
        (ANSWERED, config.udp_timeout.get())
    };
    let expires = env.now().after(timeout);
    renew(conn, expires);
    let other = if reply { Some(entry) } else { partner(env, conn) };
    if let Some(other) = other {
        change(env, other, |word| word.with_state(state));
        renew(other, expires);
    }
}

/// Counts a packet of a connection.
#[inline(always)]
pub fn count<A: Addr, E: Tables<A>>(env: &E, flow: &Flow<A>, forward: &Forward<'_, A>) {
    if forward.dest_index != NOBODY
        && let Some(stats) = env.stats(forward.dest_index)
    {
        let (pkts, bytes) = if forward.reply {
            (&stats.out_pkts, &stats.out_bytes)
        } else {
            (&stats.in_pkts, &stats.in_bytes)
        };
        pkts.set(pkts.get().wrapping_add(1));
        bytes.set(bytes.get().wrapping_add(flow.len as u64));
    } else {
        env.count(Reason::Uncounted);
    }
}

/// Moves a connection to the state that `next` gives for a direction and a state, with whether it is
/// active and which state is the established one, and between the active and inactive counts. The
/// new state.
#[inline(always)]
fn advance<A: Addr, E: Tables<A>>(
    env: &E,
    conn: &Conn<A>,
    reply: bool,
    next: impl Fn(Direction, u32) -> (u32, bool, u32),
) -> u32 {
    let mut state = 0;
    let Some(dest) = env.dest(conn.dest.get()) else { return state };
    for _ in 0..RETRIES {
        let old = Word(conn.word.get());
        let direction = if reply { Direction::Output } else { direction(old) };
        let (to, active, established) = next(direction, old.state());
        state = to;
        let mut new = old.with_state(state);
        new = if active { Word(new.0 & !INACTIVE) } else { Word(new.0 | INACTIVE) };
        new = if reply { new } else { new.counted() };
        // Only a live connection changes: an ended one was counted out already.
        if new == old || !old.is_live() {
            break;
        }
        if env.compare_exchange(&conn.word, old.0, new.0) == old.0 {
            if old.has(INACTIVE) != new.has(INACTIVE) {
                env.add(dest::counter(dest, old), u32::MAX);
                env.add(dest::counter(dest, new), 1);
            }
            if state != old.state() && state == established {
                assure(env, conn.control.get());
            }
            break;
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::V4;

    /// Where the entry of a connection leads that goes to 10.0.0.1, as `dest` has it.
    fn leads(method: ForwardMethod, dest: &Dest) -> [u32; 4] {
        let entry = Conn::<V4>::default();
        entry.target.set(V4::from_words([u32::from_be_bytes([10, 0, 0, 1]).to_be(), 0, 0, 0]));
        let forward =
            Forward { entry: &entry, dest, dest_index: 1, method: method as u32, reply: false };
        forward.way(&Flow::default()).dst
    }

    #[test]
    fn a_connection_leads_to_its_destination_or_where_it_was_told_of() {
        let of_entry = [u32::from_be_bytes([10, 0, 0, 1]).to_be(), 0, 0, 0];
        let dest = Dest::default();
        assert_eq!(leads(ForwardMethod::DirectRoute, &dest), of_entry, "nobody's");
        dest.family.set(4);
        dest.addr.set([7, 0, 0, 0]);
        assert_eq!(leads(ForwardMethod::DirectRoute, &dest), [7, 0, 0, 0]);
        assert_eq!(leads(ForwardMethod::Bypass, &dest), of_entry);
        assert_eq!(leads(ForwardMethod::Masquerade, &dest), of_entry);
    }
}
