//! Frames, each with two bytes before it, one after the other, into the whole data path with services of
//! every kind and the slow path behind it. What is not sent stays as it was; what is sent has the headers
//! that were promised; every frame is counted once; what waits is bounded; in the end nothing is left.
//!
//! ```text
//! │ cut │ a second later │ mark, 2 bits │ length, 12 bits │ frame │ ...
//! ```
#![no_main]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use rvs_core::control::{Change, Datapath};
use rvs_core::env::Env;
use rvs_core::fragment::{NoteKey, Notes, Ticket};
use rvs_core::reason::Reason;
use rvs_core::time::ticks;
use rvs_core::types::{
    DestConfig, DestKey, Engine, Family, ForwardMethod, Protocol, Scheduler, ServiceConfig,
    ServiceFlags, ServiceKey,
};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};
use rvs_slow::{Path, Slow};
use rvs_wire::checksum;

use ForwardMethod::{DirectRoute, Masquerade, Tunnel};

/// Where the IP header starts.
const L3: usize = 14;
/// Bytes that wait at most, by `rvs_slow`.
const ROOM: usize = 4 << 20;
/// The interface that frames come by.
const ETH0: u32 = 2;
/// Frames run for one input at most: what the slow path puts back comes in again.
const MOST: usize = 4096;

type Service = (ServiceKey, Vec<DestConfig>);

struct Bench {
    sim: SimDatapath,
    services: Vec<Service>,
}

fn dest(last: u8, v6: bool, port: u16, forward: ForwardMethod) -> DestConfig {
    let addr: IpAddr = match v6 {
        true => [0xfd01, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
        false => [10, 1, 0, last].into(),
    };
    let key = DestKey { addr, port };
    let (upper_threshold, lower_threshold) = (0, 0);
    let (tunnel_type, tunnel_port, tunnel_flags) = (0, 0, 0);
    let weight = 1;
    DestConfig {
        key,
        forward,
        weight,
        upper_threshold,
        lower_threshold,
        tunnel_type,
        tunnel_port,
        tunnel_flags,
    }
}

/// The virtual ports and marks of the recordings, from which the seeds are: 101 and others.
fn services() -> Vec<(ServiceKey, ServiceConfig, Vec<DestConfig>)> {
    let mut services = Vec::new();
    let config = |scheduler, flags, netmask| ServiceConfig {
        scheduler,
        flags,
        timeout: 60,
        netmask,
        engine: None,
    };
    for v6 in [false, true] {
        let addr: IpAddr =
            if v6 { [0xfd09, 0, 0, 0, 0, 0, 0, 1].into() } else { [10, 9, 1, 1].into() };
        let mask = if v6 { 64 } else { 0xffff_ff00 };
        let (none, persistent) = (ServiceFlags::empty(), ServiceFlags::PERSISTENT);
        let d = |last, port, forward| dest(last, v6, port, forward);
        let tunnel = |last, v6, kind, flags| DestConfig {
            tunnel_type: kind,
            tunnel_port: if kind == 1 { 6080 } else { 0 },
            tunnel_flags: flags,
            ..dest(last, v6, 103, Tunnel)
        };
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let key = |port| ServiceKey::Address { protocol, addr, port };
            let full =
                DestConfig { upper_threshold: 2, lower_threshold: 1, ..d(13, 101, Masquerade) };
            let nat = vec![d(11, 8080, Masquerade), d(12, 101, Masquerade), full];
            services.push((key(101), config(Scheduler::Wlc, none, !0), nat));
            let direct = vec![d(11, 102, DirectRoute), d(12, 102, DirectRoute)];
            services.push((key(102), config(Scheduler::Sh, none, !0), direct));
            // Without checksums, with, and with a remote one; either family outside.
            let tunnels = [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1)];
            let tunnels = (11..).zip(tunnels).flat_map(|(last, (kind, flags))| {
                [v6, !v6].map(|outer| tunnel(last, outer, kind, flags))
            });
            services.push((key(103), config(Scheduler::Rr, none, !0), tunnels.collect()));
            services.push((key(104), config(Scheduler::Rr, none, !0), Vec::new()));
            let all = vec![d(11, 0, Masquerade), d(12, 0, DirectRoute), d(13, 0, Tunnel)];
            services.push((key(0), config(Scheduler::Rr, persistent, mask), all));
            if protocol == Protocol::Udp {
                let ops = config(Scheduler::Rr, ServiceFlags::ONEPACKET, !0);
                services.push((key(105), ops, vec![d(11, 105, Masquerade), d(12, 105, Tunnel)]));
                let engine = Some(Engine::Sip);
                let sip = ServiceConfig { engine, ..config(Scheduler::Rr, persistent, mask) };
                services.push((key(5060), sip, vec![d(11, 5060, Masquerade)]));
            }
        }
        let family = if v6 { Family::V6 } else { Family::V4 };
        let marked = [
            (1, config(Scheduler::Rr, persistent, mask), Masquerade),
            (2, config(Scheduler::Mh, none, !0), DirectRoute),
            (3, config(Scheduler::Lblc, none, !0), Tunnel),
        ];
        for (mark, config, forward) in marked {
            let dests = vec![d(14, 0, forward), d(15, 0, forward)];
            services.push((ServiceKey::Fwmark { family, mark }, config, dests));
        }
    }
    services
}

impl Bench {
    fn new() -> Self {
        let sizes = Sizes { sets: 16, services: 64, destinations: 256 };
        let mut sim = SimDatapath::adopt(Plain::new(&sizes, 1));
        let mut kept = Vec::new();
        for (key, config, dests) in services() {
            sim.put_service(&key, &config, &dests, Change::Service).expect("there is room");
            kept.push((key, dests));
        }
        for (index, addr) in sim.take_new() {
            let source: IpAddr = match addr {
                IpAddr::V4(_) => [10, 1, 0, 1].into(),
                IpAddr::V6(_) => [0xfd01, 0, 0, 0, 0, 0, 0, 1].into(),
            };
            sim.set_source(index, source);
        }
        Self { sim, services: kept }
    }

    /// Every frame that came, by what became of it.
    fn seen(&self) -> u64 {
        let held = [Reason::SlowFragment, Reason::SlowTooBig];
        let alone = Reason::ALL.iter().filter(|reason| reason.is_alone() || held.contains(reason));
        let (inward, outward) = self.sim.forwarded();
        alone.map(|reason| self.sim.maps().reason(*reason)).sum::<u64>() + inward + outward
    }

    /// Runs a frame; what rvsd gets of it.
    fn run(&self, bytes: &[u8], mark: u32) -> Option<Vec<u8>> {
        let mut frame = Frame::new(bytes).with_mark(mark);
        let before = self.seen();
        let outcome = self.sim.maps().run(&mut frame);
        assert_eq!(self.seen(), before + 1, "counted once: {outcome:?}");
        match outcome {
            Outcome::Sent => check(bytes, frame.bytes()),
            Outcome::Drop(Reason::RewriteFailed) => {}
            Outcome::Pass(_) | Outcome::Drop(_) | Outcome::Held => {
                assert_eq!(frame.bytes(), bytes, "{outcome:?}, yet changed");
            }
        }
        (outcome == Outcome::Held).then(|| ticket(bytes, 0))
    }

    /// Everything expires: no connection is left, and no count of any.
    fn end(&self) {
        for _ in 0..4 {
            self.sim.maps().advance(ticks(24 * 3600));
            self.sim.maps().sweep();
        }
        let mut left = 0;
        self.sim.for_each_conn(&mut |_| {
            left += 1;
            true
        });
        assert_eq!(left, 0, "connections that never end");
        for (key, dests) in &self.services {
            for dest in dests {
                let status = self.sim.dest_status(key, &dest.key);
                let counts = (status.active_conns, status.inactive_conns);
                assert_eq!(counts, (0, 0), "{key:?} {dest:?}");
            }
        }
    }
}

/// A frame on its way to rvsd.
fn ticket(bytes: &[u8], mtu: u16) -> Vec<u8> {
    let mut frame = bytes.to_vec();
    if let Some(place) = frame.first_chunk_mut() {
        *place = Ticket { ifindex: ETH0, mtu }.to_mac();
    }
    frame
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// What must be true of a frame that was sent for another: its outer headers are in order.
fn check(came: &[u8], sent: &[u8]) {
    let grown = sent.len() - came.len();
    assert!(grown <= 64, "{grown} bytes of outer headers");
    let v6 = number(sent, 12) == 0x86dd;
    if v6 {
        let len = number(sent, L3 + 4);
        assert!(sent[L3] >> 4 == 6 && (len == 0 || L3 + 40 + len <= sent.len()));
        return;
    }
    assert!(sent[L3] >> 4 == 4 && L3 + number(sent, L3 + 2) <= sent.len());
    let is_right = |frame: &[u8]| {
        let header = L3 + usize::from(frame[L3] & 15) * 4;
        frame.get(L3..header).is_some_and(|header| checksum::of(header) == [0, 0])
    };
    // A tunnel's header is new; another one is as right as it was.
    if grown != 0 || is_right(came) {
        assert!(is_right(sent), "the IPv4 header's checksum");
    }
}

/// The data path as the slow path sees it.
struct Behind<'b> {
    bench: &'b Bench,
    back: VecDeque<Vec<u8>>,
}

impl Path for Behind<'_> {
    fn has_passed(&mut self, key: &NoteKey) -> bool {
        let maps = self.bench.sim.maps();
        maps.note(key).is_some_and(|note| note.is_fresh(Env::now(&maps)))
    }

    fn put_back(&mut self, frame: &[u8]) {
        self.back.push_back(frame.to_vec());
    }

    fn inspect(&mut self, frame: &mut [u8]) {
        let maps = self.bench.sim.maps();
        rvs_slow::inspect(&maps, maps.slow().expect("it has one"), frame);
    }

    fn count(&mut self, _: Reason, _: u64) {}
}

thread_local!(static BENCH: RefCell<Bench> = RefCell::new(Bench::new()));

fuzz_target!(|bytes: &[u8]| {
    BENCH.with_borrow(|bench| {
        let (mut slow, mut now, mut rest, mut runs) = (Slow::new(), Instant::now(), bytes, 0);
        while let Some((&[high, low], after)) = rest.split_first_chunk() {
            let head = u16::from_be_bytes([high, low]);
            let (frame, left) = after.split_at(usize::from(head & 0xfff).min(after.len()));
            let mark = u32::from(head >> 12 & 3);
            rest = left;
            if head & 0x4000 != 0 {
                now += Duration::from_secs(1);
                bench.sim.maps().advance(ticks(1));
                bench.sim.maps().sweep();
            }
            let mut behind = Behind { bench, back: VecDeque::new() };
            let held = match head & 0x8000 {
                0 => bench.run(frame, mark),
                _ if low == u8::MAX => Some(ticket(frame, Ticket::INSPECT)),
                _ => Some(ticket(frame, 68 + u16::from(low))),
            };
            if let Some(held) = held {
                slow.take(now, &held, &mut behind);
            }
            slow.poll(now, &mut behind);
            while let Some(frame) = behind.back.pop_front() {
                runs += 1;
                if runs > MOST {
                    break;
                }
                if let Some(held) = bench.run(&frame, mark) {
                    slow.take(now, &held, &mut behind);
                }
            }
            assert!(slow.held() <= ROOM, "{} bytes wait", slow.held());
        }
        slow.poll(now + Duration::from_secs(60), &mut Behind { bench, back: VecDeque::new() });
        assert_eq!(slow.held(), 0, "held for ever");
        bench.end();
    });
});
