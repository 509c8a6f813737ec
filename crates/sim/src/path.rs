//! A packet's way, as `crates/ebpf/src/tc.rs` has it but for routing: every address is one hop
//! away, takes packets of any size, and the director itself is none of them. MAC addresses stay as
//! they are and errors are counted, not sent.

use rvs_core::addr::{V4, V6};
use rvs_core::bypass;
use rvs_core::env::{Env, Tables};
use rvs_core::flow::{Flow, Ip, L3};
use rvs_core::fragment::{self, Content, Fragments};
use rvs_core::packet::Packet;
use rvs_core::pe::{self, Payload};
use rvs_core::pipeline::{Forward, Verdict, Way, commit, resolve};
use rvs_core::reason::Reason;
use rvs_core::tunnel::{self, checksum};
use rvs_core::types::{Family, ForwardMethod};
use rvs_wire::checksum::{fold, sum};
use rvs_wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, Udp, protocol};

use crate::frame::Frame;
use crate::plain::Plain;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Left to the host, untouched.
    Pass(Reason),
    /// Dropped; an ICMP error would tell the sender if the reason asks for one.
    Drop(Reason),
    /// Sent on as it is now.
    Sent,
    /// For rvsd to hold until the first fragment has passed.
    Held,
}

impl Plain {
    /// Processes one frame that arrives now.
    pub fn run(&self, frame: &mut Frame) -> Outcome {
        let outcome = match frame.at::<Ethernet>(0).map(|ethernet| ethernet.ethertype.get()) {
            None => Outcome::Pass(Reason::Malformed),
            Some(ETHERTYPE_IPV4) => balance::<V4>(self, frame),
            Some(ETHERTYPE_IPV6) => balance::<V6>(self, frame),
            Some(_) => Outcome::Pass(Reason::NotIp),
        };
        match outcome {
            Outcome::Pass(reason) | Outcome::Drop(reason) => Env::count(&self, reason),
            Outcome::Held => Env::count(&self, Reason::SlowFragment),
            Outcome::Sent => {}
        }
        outcome
    }
}

fn balance<'m, A: Fragments>(env: &'m Plain, frame: &mut Frame) -> Outcome
where
    &'m Plain: Tables<A>,
{
    let flow = match A::parse(frame) {
        Err(Reason::ExtensionHeader) => A::parse_all(&env, frame),
        flow => flow,
    };
    let mut flow = match flow {
        Ok(flow) => flow,
        Err(Reason::Fragment) => return piece::<A>(env, frame),
        Err(reason) => return Outcome::Pass(reason),
    };
    let mut verdict = resolve(&env, &mut flow);
    if matches!(verdict, Verdict::Pass(Reason::PuntEngine)) {
        read_call_id(env, frame, &flow);
        verdict = pe::resolve(&env, &mut flow);
    }
    if matches!(verdict, Verdict::Drop(Reason::NoDest)) {
        verdict = bypass::resolve(&env, &mut flow);
    }
    send(env, frame, &flow, verdict, true)
}

/// A fragment; see `crates/ebpf/src/fragment.rs`.
fn piece<'m, A: Fragments>(env: &'m Plain, frame: &mut Frame) -> Outcome
where
    &'m Plain: Tables<A>,
{
    let mut piece = match A::fragment(&env, frame) {
        Ok(piece) => piece,
        // As in crates/ebpf: rvsd puts IPv4's together.
        Err(Reason::TinyFragment) if A::FAMILY == Family::V4 => return Outcome::Held,
        Err(reason @ Reason::TinyFragment) => return Outcome::Drop(reason),
        Err(reason) => return Outcome::Pass(reason),
    };
    if piece.first {
        let mut verdict = match piece.content() {
            Content::Ports => resolve(&env, &mut piece.flow),
            Content::Icmp => Verdict::Pass(Reason::Icmp),
            Content::Other => Verdict::Pass(Reason::Fragment),
        };
        if matches!(verdict, Verdict::Drop(Reason::NoDest)) {
            verdict = bypass::resolve(&env, &mut piece.flow);
        }
        if matches!(verdict, Verdict::Pass(Reason::PuntEngine)) {
            return if A::FAMILY == Family::V4 {
                Outcome::Held
            } else {
                Outcome::Drop(Reason::TinyFragment)
            };
        }
        if let Err(reason) = fragment::note(&env, &piece, &verdict) {
            return Outcome::Drop(reason);
        }
        return send(env, frame, &piece.flow, verdict, true);
    }
    match fragment::follow(&env, Env::now(&env), &mut piece) {
        Some(verdict) => send(env, frame, &piece.flow, verdict, false),
        None if fragment::is_relevant(&env, &piece) => Outcome::Held,
        None => Outcome::Pass(Reason::Fragment),
    }
}

/// Does what was decided; `whole` if the packet has a transport header.
fn send<'m, A: Ip>(
    env: &'m Plain,
    frame: &mut Frame,
    flow: &Flow<A>,
    verdict: Verdict<'_, A>,
    whole: bool,
) -> Outcome
where
    &'m Plain: Tables<A>,
{
    let forward = match verdict {
        Verdict::Forward(forward) => forward,
        Verdict::Pass(reason) => return Outcome::Pass(reason),
        Verdict::Drop(reason) => return Outcome::Drop(reason),
    };
    if flow.ttl <= 1 {
        return Outcome::Drop(Reason::TtlExceeded);
    }
    if forward.method == ForwardMethod::Local as u32 {
        return Outcome::Pass(Reason::LocalDest);
    }
    let way = forward.way(flow);
    if whole {
        commit(&env, Env::now(&env), flow, &forward);
    } else {
        fragment::count(&env, flow, &forward);
    }
    let rewritten = match (way.extra, whole) {
        (0, true) => forward.rewrite(frame, flow),
        (0, false) => fragment::rewrite(frame, &forward),
        _ => encapsulate(env, frame, flow, &forward, &way),
    };
    rewritten.map_or(Outcome::Drop(Reason::RewriteFailed), |()| Outcome::Sent)
}

struct Bytes<'f>(&'f [u8]);

impl Payload for Bytes<'_> {
    fn byte(&mut self, offset: u32) -> u8 {
        self.0.get(offset as usize).copied().unwrap_or_default()
    }
}

/// Puts the Call-ID of a UDP datagram where the core looks for it, or none.
fn read_call_id<A: Ip>(env: &Plain, frame: &Frame, flow: &Flow<A>) {
    let payload = frame.bytes().get(..(L3 + flow.len) as usize);
    let payload = payload.and_then(|bytes| bytes.get(flow.l4 as usize + Udp::LEN..));
    let payload = payload.filter(|_| flow.key.protocol == u32::from(protocol::UDP));
    let payload = payload.unwrap_or_default();
    let (start, len) = pe::find_call_id(&env, Bytes(payload), payload.len() as u32);
    let call_id = payload.get(start as usize..(start + len) as usize);
    pe::set_call_id(&env.asked.call_id, call_id.unwrap_or_default());
}

/// Puts the outer headers in front.
fn encapsulate<A: Ip>(
    env: &Plain,
    frame: &mut Frame,
    flow: &Flow<A>,
    forward: &Forward<'_, A>,
    way: &Way,
) -> Option<()> {
    A::decrement_ttl(frame)?;
    frame.push(way.extra);
    tunnel::write(&env, frame, flow, forward.dest, way)?;
    let ethertype = if way.family == Family::V4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
    frame.at_mut::<Ethernet>(0)?.ethertype.set(ethertype);
    if !forward.tunnel().has_checksum() {
        return Some(());
    }
    let outer = checksum::outer(frame)?;
    if outer.write_promised(frame, 0)? {
        return Some(());
    }
    let inner = frame.bytes().get(outer.inner as usize..)?.get(..outer.len as usize)?;
    let sum = fold(sum(inner));
    outer.write(frame, u32::from(sum), outer.len)
}
