//! Fragments against what a real kernel's IPVS sent (`tests/oracle/recorded/fragment.jsonl`, by
//! `fragment.py`). The kernel puts datagrams together first and RVS does not, so what is compared is
//! what a receiver makes of either's fragments; every checksum in them is verified here. Both hooks
//! and the native data path, each with the slow path behind it as rvsd has it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rvs_core::control::{Change, Datapath};
use rvs_core::fragment::{NoteKey, Notes, Ticket};
use rvs_core::reason::Reason;
use rvs_core::types::{
    DestConfig, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};
use rvs_slow::{Path, Slow};
use rvs_tests_bpf::frame::from_hex;
use rvs_tests_bpf::{
    Bench, DIRECTOR, ETH0, Hook, Verdict, dest, in_namespace, ip, next_tick, read_recording,
    service,
};
use serde_json::Value;

/// Who plays the recording.
enum Player {
    Programs(Box<Bench>, Hook),
    Native(Box<SimDatapath>),
}

/// What became of one frame.
enum Became {
    Sent(Vec<u8>),
    Held(Vec<u8>),
    Passed,
    Dropped,
}

impl Player {
    fn put(&mut self, key: ServiceKey, dest: DestConfig) {
        let source = if dest.key.addr.is_ipv4() { "10.1.0.1" } else { "fd01::1" };
        let source = source.parse().expect("an address");
        match self {
            Self::Programs(bench, _) => bench.service(key, Scheduler::Rr, &[dest]),
            Self::Native(sim) => {
                let flags = ServiceFlags::empty();
                let scheduler = Scheduler::Rr;
                let config =
                    ServiceConfig { scheduler, flags, timeout: 0, netmask: u32::MAX, engine: None };
                sim.put_service(&key, &config, &[dest], Change::Service).expect("there is room");
                for (index, _) in sim.take_new() {
                    sim.set_source(index, source);
                }
            }
        }
    }

    /// Opens the slow path, as rvsd does.
    fn open(&mut self) {
        if let Self::Programs(bench, _) = self {
            bench.open_slow_path();
        }
    }

    /// Sends a piece of a tunnel's packet, as the program behind the slow path does.
    fn send(&mut self, piece: &[u8]) -> Vec<u8> {
        let Self::Programs(bench, _) = self else { panic!("nothing is too big there") };
        let outcome = bench.put_back(piece);
        assert_eq!(outcome.verdict, Verdict::Sent);
        outcome.frame
    }

    fn play(&mut self, frame: &[u8], again: bool) -> Became {
        match self {
            Self::Programs(bench, hook) => {
                let held = |bench: &Bench| {
                    bench.reason(Reason::SlowFragment) + bench.reason(Reason::SlowTooBig)
                };
                let before = held(bench);
                // What the slow path puts back only TC sees, as what XDP passes on.
                let first = if again { Hook::Tc } else { *hook };
                let mut outcome = bench.run(first, frame);
                if first == Hook::Xdp && outcome.verdict == Verdict::Pass {
                    assert_eq!(outcome.frame, frame, "passed on, yet changed");
                    outcome = bench.run(Hook::Tc, frame);
                }
                match outcome.verdict {
                    Verdict::Sent if held(bench) != before => Became::Held(outcome.frame),
                    Verdict::Sent => Became::Sent(outcome.frame),
                    Verdict::Drop => Became::Dropped,
                    Verdict::Pass => {
                        assert_eq!(outcome.frame, frame, "passed, yet changed");
                        Became::Passed
                    }
                    Verdict::Other(other) => panic!("{other}"),
                }
            }
            Self::Native(sim) => {
                let mut changed = Frame::new(frame);
                match sim.maps().run(&mut changed) {
                    Outcome::Sent => Became::Sent(changed.bytes().to_vec()),
                    Outcome::Held => {
                        let mut held = frame.to_vec();
                        let ticket = Ticket { ifindex: ETH0, mtu: 0 };
                        held[..6].copy_from_slice(&ticket.to_mac());
                        Became::Held(held)
                    }
                    Outcome::Pass(_) => Became::Passed,
                    Outcome::Drop(_) => Became::Dropped,
                }
            }
        }
    }
}

/// The slow path's view of a player.
struct Behind<'p> {
    player: &'p Player,
    back: VecDeque<Vec<u8>>,
    /// Pieces of a tunnel's packets.
    out: Vec<Vec<u8>>,
    given_up: BTreeMap<&'static str, u64>,
}

impl Path for Behind<'_> {
    fn has_passed(&mut self, key: &NoteKey) -> bool {
        match self.player {
            Player::Programs(bench, _) => bench.datapath.maps().note(key),
            Player::Native(sim) => sim.maps().note(key),
        }
        .is_some()
    }

    fn put_back(&mut self, frame: &[u8]) {
        let ticket = Ticket::from_mac(*frame.first_chunk().expect("a frame"));
        if ticket.ifindex == Ticket::OUT {
            return self.out.push(frame.to_vec());
        }
        assert_eq!(ticket.ifindex, ETH0, "where it came from");
        let mut frame = frame.to_vec();
        frame[..6].copy_from_slice(&DIRECTOR);
        self.back.push_back(frame);
    }

    fn inspect(&mut self, _: &mut [u8]) {
        unreachable!("these are fragments");
    }

    fn count(&mut self, reason: Reason, frames: u64) {
        *self.given_up.entry(reason.name()).or_default() += frames;
    }
}

/// What became of the frames of a case.
#[derive(Default)]
struct Played {
    sent: Vec<Vec<u8>>,
    passed: usize,
    given_up: BTreeMap<&'static str, u64>,
}

/// Plays frames one after the other, then lets time pass.
fn run(player: &mut Player, frames: &[Vec<u8>]) -> Played {
    let (mut slow, mut played, now) = (Slow::new(), Played::default(), Instant::now());
    for (index, frame) in frames.iter().enumerate() {
        let mut waiting = VecDeque::from([(frame.clone(), false)]);
        while let Some((frame, again)) = waiting.pop_front() {
            let became = player.play(&frame, again);
            let (back, out, given_up) = (VecDeque::new(), Vec::new(), BTreeMap::new());
            let mut behind = Behind { player, back, out, given_up };
            match became {
                Became::Sent(frame) => played.sent.push(frame),
                Became::Held(frame) => slow.take(now, &frame, &mut behind),
                Became::Passed => played.passed += 1,
                Became::Dropped => {}
            }
            slow.poll(now, &mut behind);
            if index + 1 == frames.len() && waiting.is_empty() && behind.back.is_empty() {
                slow.poll(now + Duration::from_secs(60), &mut behind);
                assert_eq!(slow.held(), 0, "held for ever");
            }
            for (reason, count) in behind.given_up {
                *played.given_up.entry(reason).or_default() += count;
            }
            waiting.extend(behind.back.into_iter().map(|frame| (frame, true)));
            for piece in behind.out {
                played.sent.push(player.send(&piece));
            }
        }
    }
    played
}

fn number(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// One's complement sum; 0xffff where a checksum in it is right.
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}

/// A packet without what fragmentation and tunnels add.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    addresses: Vec<u8>,
    protocol: u8,
    ttl: u8,
    tos: u8,
    /// IPv4's; whoever cuts IPv6 packets draws it.
    id: usize,
    data: Vec<u8>,
}

/// Place and data of the pieces of one packet, by what they share.
type Pieces = BTreeMap<(Vec<u8>, usize, u8), Vec<(usize, bool, Packet)>>;

/// What a receiver makes of packets: whole ones, without tunnels, checksums verified.
fn receive(packets: &[Vec<u8>]) -> Vec<Packet> {
    let (mut pieces, mut whole) = (Pieces::new(), Vec::new());
    for packet in packets {
        let (offset, more, id, piece) = read(packet);
        if offset == 0 && !more {
            whole.push(piece);
            continue;
        }
        let shared = (piece.addresses.clone(), id, piece.protocol);
        pieces.entry(shared).or_default().push((offset, more, piece));
    }
    for mut pieces in pieces.into_values() {
        pieces.sort();
        pieces.dedup();
        let mut packet = pieces[0].2.clone();
        packet.data.clear();
        let mut ended = false;
        for (offset, more, piece) in pieces {
            if offset != packet.data.len() || ended {
                // Incomplete or overlapping: nobody takes it.
                ended = false;
                break;
            }
            packet.data.extend(piece.data);
            ended = !more;
        }
        if ended {
            whole.push(packet);
        }
    }
    // Those in tunnels may be pieces of each other.
    let (tunneled, mut whole): (Vec<Packet>, Vec<Packet>) =
        whole.into_iter().partition(|packet| matches!(packet.protocol, 4 | 41));
    if !tunneled.is_empty() {
        let inner: Vec<Vec<u8>> = tunneled.into_iter().map(|packet| packet.data).collect();
        whole.extend(receive(&inner));
    }
    for packet in &whole {
        verify(packet);
    }
    whole.sort();
    whole
}

/// Place, whether more follow, identification, and the rest.
fn read(packet: &[u8]) -> (usize, bool, usize, Packet) {
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        assert_eq!(sum(&[&packet[..header]]), 0xffff, "an IPv4 checksum");
        let (place, id) = (number(packet, 6), number(packet, 4));
        let data = packet[header..number(packet, 2)].to_vec();
        let (protocol, ttl, tos) = (packet[9], packet[8], packet[1]);
        let packet = Packet { addresses: packet[12..20].to_vec(), protocol, ttl, tos, id, data };
        return ((place & 0x1fff) * 8, place & 0x2000 != 0, id, packet);
    }
    let tos = packet[0] << 4 | packet[1] >> 4;
    let (addresses, ttl) = (packet[8..40].to_vec(), packet[7]);
    let data = packet[40..40 + number(packet, 4)].to_vec();
    let mut whole = Packet { addresses, protocol: packet[6], ttl, tos, id: 0, data };
    if whole.protocol != 44 {
        return (0, false, 0, whole);
    }
    let header: Vec<u8> = whole.data.drain(..8).collect();
    whole.protocol = header[0];
    let (place, id) = (number(&header, 2), number(&header, 4) << 16 | number(&header, 6));
    (place & 0xfff8, place & 1 != 0, id, whole)
}

fn verify(packet: &Packet) {
    let Packet { addresses, protocol, data, .. } = packet;
    if !matches!(protocol, 6 | 17) || *protocol == 17 && data[6..8] == [0, 0] {
        return;
    }
    let len = (data.len() as u32).to_be_bytes();
    assert_eq!(sum(&[addresses, &len, &[0, *protocol], data]), 0xffff, "a transport checksum");
}

/// Packets and how their data begin.
fn brief(packets: &[Packet]) -> String {
    let brief = |packet: &Packet| {
        let mut packet = packet.clone();
        packet.data.truncate(24);
        format!("{packet:02x?}")
    };
    packets.iter().map(brief).collect()
}

/// Type, code and value of ICMP errors.
fn errors(packets: &[Packet]) -> Vec<Vec<u8>> {
    let icmp = packets.iter().filter(|p| matches!(p.protocol, 1 | 58));
    icmp.map(|p| [&p.data[..2], &p.data[4..8]].concat()).collect()
}

fn text<'v>(case: &'v Value, name: &str) -> &'v str {
    case[name].as_str().unwrap_or_else(|| panic!("{name} in {case}"))
}

/// From their IP headers on.
fn packets<'f>(frames: impl IntoIterator<Item = &'f Vec<u8>>) -> Vec<Vec<u8>> {
    frames.into_iter().map(|frame| frame[14..].to_vec()).collect()
}

/// The frames that left the director in a case.
fn recorded(case: &Value) -> Vec<Vec<u8>> {
    let steps = case["steps"].as_array().expect("steps").iter();
    steps
        .flat_map(|step| ["to_client", "to_server"].map(|side| step[side].as_array()))
        .flatten()
        .flatten()
        .map(|frame| from_hex(frame.as_str().expect("hexadecimal")))
        .collect()
}

/// How a case ended.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum End {
    /// A receiver gets what it gets from the kernel, if anything.
    Equal,
    /// The same error came back.
    Refused,
    /// An error came back about the first fragment of a datagram that is never complete, for which
    /// the kernel waits in vain.
    Early,
    /// The host has it, untouched.
    Host,
    /// Not for this player.
    Skipped,
    /// The kernel refuses fragments with DF that fit; RVS sends them on.
    Kinder,
}

fn play(player: &mut Player, case: &Value) -> End {
    let label = text(case, "case");
    let native = matches!(player, Player::Native(_));
    if native && (label.contains("smaller MTU") || label.contains("ttl 1")) {
        return End::Skipped;
    }
    let steps = case["steps"].as_array().expect("steps");
    let frames: Vec<Vec<u8>> = steps
        .iter()
        .map(|step| {
            let mut frame = from_hex(text(step, "frame"));
            frame[..6].copy_from_slice(&DIRECTOR);
            frame
        })
        .collect();
    let played = run(player, &frames);
    let ours = receive(&packets(&played.sent));
    if label.contains("no service") || label.contains(": ping") {
        assert_eq!((played.passed, ours.len()), (frames.len(), 0), "{label}");
        return End::Host;
    }
    assert_eq!(played.passed, 0, "{label}");
    let mut theirs = receive(&packets(&recorded(case)));
    if label.contains("missing first") {
        let late = played.given_up.get("drop.fragment_late");
        assert_eq!(late, Some(&(frames.len() as u64)), "{label}: {:?}", played.given_up);
    } else if !label.contains("TCP SYN, first of 8 bytes") {
        assert!(played.given_up.is_empty(), "{label}: {:?}", played.given_up);
    }
    let refusals = errors(&theirs);
    let tight = label.contains("too long") || native || text(case, "method") == "TUN";
    let fits = !tight || label.contains("pieces of 1000");
    if label.contains(": DF") && (fits || native) || label.ends_with("reply, DF") {
        assert_eq!(refusals.len(), 1, "{label}");
        let whole = ours.len() == 1 && ours[0].data.len() == 4008;
        assert!(whole, "{label}: {ours:?}");
        return End::Kinder;
    }
    if !refusals.is_empty() {
        // The native data path knows no MTU.
        if !native {
            // A first fragment that comes twice is refused twice.
            let mut errors = errors(&ours);
            assert_eq!(errors.len(), ours.len(), "{label}");
            errors.dedup();
            assert_eq!(errors, refusals, "{label}");
        }
        return if native { End::Skipped } else { End::Refused };
    }
    if theirs.is_empty() && !ours.is_empty() && errors(&ours).len() == ours.len() {
        let incomplete = label.contains("missing last") || label.contains("overlapping");
        assert!(incomplete, "{label}: {}", brief(&ours));
        return End::Early;
    }
    let mut ours = ours;
    // The kernel computes a checksum that was left out.
    if label.starts_with("NAT") && label.ends_with("zero checksum") {
        for packet in ours.iter_mut().chain(&mut theirs) {
            packet.data[6..8].fill(0);
        }
    }
    assert!(ours == theirs, "{label}:\n{}\n{}", brief(&ours), brief(&theirs));
    End::Equal
}

/// Plays every case: how many ended how.
fn replay(mut player: Player) -> BTreeMap<End, usize> {
    let recording = read_recording("fragment.jsonl");
    let (mut open, mut mtu, mut ends) = (0, 1500, BTreeMap::new());
    let mut before = [0; 4];
    player.open();
    for line in recording.lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let port = case["port"].as_u64().expect("a port") as u16;
        if port != open {
            let method = match text(&case, "method") {
                "NAT" => ForwardMethod::Masquerade,
                "DR" => ForwardMethod::DirectRoute,
                _ => ForwardMethod::Tunnel,
            };
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let target = dest(text(&case, "server"), port, method, 1);
                player.put(service(protocol, text(&case, "vip"), port), target);
            }
            open = port;
        }
        let stats = |player: &Player| {
            let key = service(Protocol::Udp, text(&case, "vip"), port);
            let stats = match player {
                Player::Programs(bench, _) => bench.datapath.service_stats(&key),
                Player::Native(sim) => sim.service_stats(&key),
            };
            [stats.conns, stats.in_pkts, stats.in_bytes, stats.out_pkts]
        };
        if let Some(delta) = case["delta"].as_array() {
            let delta: Vec<u64> = delta.iter().map(|n| n.as_u64().expect("a number")).collect();
            let mut counted = stats(&player);
            counted.iter_mut().zip(before).for_each(|(now, then)| *now -= then);
            // The fragment header of the first, which the kernel takes out before it counts.
            let header = if text(&case, "vip").contains(':') { 8 } else { 0 };
            assert_eq!(counted, [delta[0], delta[1], delta[3] + header, delta[2]]);
            continue;
        }
        let wanted = case["mtu"].as_u64().expect("an MTU");
        if wanted != mtu && matches!(player, Player::Programs(..)) {
            ip(&format!("link set eth0 mtu {wanted}"));
            next_tick();
            mtu = wanted;
        }
        before = stats(&player);
        *ends.entry(play(&mut player, &case)).or_default() += 1;
    }
    ends
}

/// The way to the recording's IPv6 clients.
fn clients() {
    ip("addr add fd00::1/64 dev eth0 nodad");
    ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
}

/// What both hooks make of the recording.
const PROGRAMS: [(End, usize); 5] =
    [(End::Equal, 200), (End::Refused, 56), (End::Early, 4), (End::Host, 24), (End::Kinder, 7)];

#[test]
fn tc_makes_receivers_get_what_they_get_from_the_kernel() {
    in_namespace("tc_makes_receivers_get_what_they_get_from_the_kernel", || {
        clients();
        let ends = replay(Player::Programs(Box::default(), Hook::Tc));
        assert_eq!(ends, BTreeMap::from(PROGRAMS));
    });
}

#[test]
fn xdp_makes_receivers_get_what_they_get_from_the_kernel() {
    in_namespace("xdp_makes_receivers_get_what_they_get_from_the_kernel", || {
        clients();
        let ends = replay(Player::Programs(Box::default(), Hook::Xdp));
        assert_eq!(ends, BTreeMap::from(PROGRAMS));
    });
}

#[test]
fn the_native_data_path_makes_receivers_get_what_they_get_from_the_kernel() {
    let sim = SimDatapath::adopt(Plain::new(&Sizes::default(), 7));
    let ends = replay(Player::Native(Box::new(sim)));
    let native = [(End::Equal, 172), (End::Host, 24), (End::Skipped, 86), (End::Kinder, 9)];
    assert_eq!(ends, BTreeMap::from(native));
}
