//! SCTP packets against what a real kernel's IPVS made of them (`tests/oracle/recorded/sctp.jsonl`, by
//! `sctp.py`): byte for byte, but for checksums that were wrong before, which stay as wrong as they
//! were where the kernel makes them right. Both hooks and the native data path.

use std::net::{IpAddr, SocketAddr};

use rvs_core::control::{Change, Datapath};
use rvs_core::fragment::Ticket;
use rvs_core::reason::Reason;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{
    DestConfig, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};
use rvs_tests_bpf::frame::{for_director, from_hex, sum};
use rvs_tests_bpf::{
    Bench, ETH0, Hook, Verdict, dest, in_namespace, ip, read_recording, sctp, service,
};
use serde_json::Value;

/// Who plays the recording.
enum Player {
    Programs(Box<Bench>, Hook),
    Native(Box<SimDatapath>),
}

/// The director's address as the tunnels' source.
fn source(dest: &DestConfig) -> IpAddr {
    let addr = if dest.key.addr.is_ipv4() { "10.1.0.1" } else { "fd01::1" };
    addr.parse().expect("an address")
}

impl Player {
    fn put(&mut self, key: ServiceKey, dests: &[DestConfig]) {
        match self {
            Self::Programs(bench, _) => {
                bench.service(key, Scheduler::Rr, dests);
                let last = bench.datapath.destinations().map(|(index, _)| index).max();
                if let (Some(index), Some(dest)) = (last, dests.first()) {
                    bench.datapath.set_source(index, source(dest));
                }
            }
            Self::Native(sim) => {
                let flags = ServiceFlags::empty();
                let scheduler = Scheduler::Rr;
                let config =
                    ServiceConfig { scheduler, flags, timeout: 0, netmask: u32::MAX, engine: None };
                sim.put_service(&key, &config, dests, Change::Service).expect("there is room");
                let last = sim.destinations().map(|(index, _)| index).max();
                if let (Some(index), Some(dest)) = (last, dests.first()) {
                    sim.set_source(index, source(dest));
                }
            }
        }
    }

    fn set_sloppy(&mut self, value: i32) {
        match self {
            Self::Programs(bench, _) => bench.datapath.set_sysctl(Sysctl::SloppySctp, value),
            Self::Native(sim) => sim.set_sysctl(Sysctl::SloppySctp, value),
        }
        .expect("it can be set");
    }

    /// The frame that was sent; why none was.
    fn play(&mut self, frame: &[u8]) -> Result<Vec<u8>, Option<Reason>> {
        match self {
            Self::Programs(bench, hook) => {
                let before = bench.datapath.maps().reasons();
                let outcome = bench.run(*hook, frame);
                if outcome.verdict == Verdict::Sent {
                    return Ok(outcome.frame);
                }
                let mut counted = bench.datapath.maps().reasons().into_iter().zip(before);
                let reason = counted.find(|(now, then)| now != then).map(|((reason, _), _)| reason);
                assert!(outcome.frame == frame, "{hook:?}: changed, yet not sent: {reason:?}");
                Err(reason)
            }
            Self::Native(sim) => {
                let mut frame = Frame::new(frame);
                match sim.maps().run(&mut frame) {
                    Outcome::Sent => Ok(frame.bytes().to_vec()),
                    Outcome::Pass(reason) | Outcome::Drop(reason) => Err(Some(reason)),
                    Outcome::Held => unreachable!("no fragments here"),
                }
            }
        }
    }
}

fn text<'v>(case: &'v Value, name: &str) -> &'v str {
    case[name].as_str().unwrap_or_else(|| panic!("{name} in {case}"))
}

/// The only frame that either side got, if one did.
fn answer(case: &Value) -> Option<Vec<u8>> {
    let sides = ["to_server", "to_client"].map(|side| case[side].as_array().expect("frames"));
    assert!(sides[0].len() + sides[1].len() <= 1, "{case}");
    let frame = sides.into_iter().flatten().next()?;
    Some(from_hex(text(frame, "frame")))
}

fn target(case: &Value) -> Option<DestConfig> {
    let server = case["server"].as_array()?;
    let options = text(case, "options");
    let (forward, tunnel_type, tunnel_port) = match options {
        "-m" => (ForwardMethod::Masquerade, 0, 0),
        "-g" => (ForwardMethod::DirectRoute, 0, 0),
        _ if options.contains("gue") => (ForwardMethod::Tunnel, 1, 6000),
        _ if options.contains("gre") => (ForwardMethod::Tunnel, 2, 0),
        _ => (ForwardMethod::Tunnel, 0, 0),
    };
    let tunnel_flags = u16::from(options.contains("--tun-csum"));
    let port = server[1].as_u64().expect("a port") as u16;
    let plain = dest(server[0].as_str().expect("an address"), port, forward, 1);
    Some(DestConfig { tunnel_type, tunnel_port, tunnel_flags, ..plain })
}

/// Offset of the transport header, and the protocol.
fn transport(packet: &[u8]) -> (usize, u8) {
    if packet[0] >> 4 == 4 { (usize::from(packet[0] & 15) * 4, packet[9]) } else { (40, packet[6]) }
}

/// Blanks what is drawn or hashed in outer headers, once the checksums over it were found right:
/// identifications, and a GUE tunnel's source port.
fn blank(packet: &mut [u8]) {
    let (l4, protocol) = transport(packet);
    if protocol == 132 {
        return;
    }
    if l4 == 20 {
        assert_eq!(sum(&[&packet[..20]]), 0xffff, "the outer IPv4 checksum");
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    if protocol == 17 {
        let addresses = if l4 == 20 { 12..20 } else { 8..40 };
        let pseudo = [&packet[addresses], &[0, 17], &packet[l4 + 4..l4 + 6]].concat();
        assert_eq!(sum(&[&pseudo, &packet[l4..]]), 0xffff, "the outer UDP checksum");
        packet[l4..l4 + 2].fill(0);
        packet[l4 + 6..l4 + 8].fill(0);
    }
}

/// What the native data path and XDP say where TC sends an ICMP error: `None` if they do as TC does.
fn excuse(player: &Player, label: &str, options: &str) -> Option<Reason> {
    let hook = match player {
        Player::Programs(_, hook) => Some(*hook),
        Player::Native(_) => None,
    };
    match hook {
        Some(Hook::Tc) => None,
        _ if label.contains("ICMP") => Some(Reason::Icmp),
        Some(Hook::Xdp) if label.ends_with("ttl 1") => Some(Reason::PuntIcmp),
        None if label.ends_with("ttl 1") => Some(Reason::TtlExceeded),
        Some(Hook::Xdp) if label.ends_with("IP options") => Some(Reason::ExtensionHeader),
        Some(Hook::Xdp) if label.contains("no destination") => Some(Reason::PuntIcmp),
        None if label.contains("no destination") => Some(Reason::NoDest),
        Some(Hook::Xdp) if label.contains("checksum 0x0") => Some(Reason::PuntChecksum),
        Some(Hook::Xdp) if options.contains("csum") => Some(Reason::PuntChecksum),
        _ => None,
    }
}

/// Plays a case: whether the frame equalled the kernel's.
fn play(player: &mut Player, case: &Value) -> bool {
    let (label, options) = (text(case, "case"), text(case, "options"));
    let sent = for_director(text(&case["in"], "frame"));
    let got = player.play(&sent);
    let kernel = answer(case).map(|frame| frame[14..].to_vec());
    let upper = kernel.as_deref().map(|packet| transport(packet).1);
    let is_error = !label.contains("ICMP") && matches!(upper, Some(1 | 58));
    // The kernel's IPVS does not see these, or drops them; the host answers the former.
    if label.contains("no connection") && (is_error || kernel.is_none()) {
        let reason = match label {
            _ if label.ends_with("8 bytes") => Reason::Malformed,
            _ if label.ends_with("no chunk") || label.contains("two bytes") => Reason::NoChunk,
            _ => Reason::NoConnection,
        };
        assert_eq!(got, Err(Some(reason)), "{label}");
        return false;
    }
    if is_error && matches!(player, Player::Native(_)) && label.contains("DATA") {
        // It has no MTU.
        assert!(got.is_ok(), "{label}");
        return false;
    }
    if is_error && matches!(player, Player::Programs(_, Hook::Xdp)) && label.contains("DATA") {
        assert_eq!(got, Err(Some(Reason::PuntIcmp)), "{label}");
        return false;
    }
    if let Some(reason) = excuse(player, label, options) {
        assert_eq!(got, Err(Some(reason)), "{label}");
        return false;
    }
    let Some(mut kernel) = kernel else {
        assert!(got.is_err(), "{label}: sent");
        return false;
    };
    let mut ours = match got {
        Ok(frame) => frame[14..].to_vec(),
        // Routed on by the host, as the kernel did.
        Err(Some(Reason::Icmp)) if label.contains("ICMP") => {
            let same = if kernel[0] >> 4 == 4 { 12..20 } else { 8..40 };
            assert_eq!(kernel[same.clone()], sent[14..][same], "{label}: not translated");
            return false;
        }
        Err(reason) => panic!("{label}: {reason:?}"),
    };
    if is_error {
        let (at, protocol) = transport(&ours);
        assert_eq!((at, protocol), transport(&kernel), "{label}");
        assert_eq!(ours[at..at + 2], kernel[at..at + 2], "{label}: type and code");
        assert_eq!(ours[at + 4..at + 8], kernel[at + 4..at + 8], "{label}: MTU");
        return true;
    }
    blank(&mut ours);
    blank(&mut kernel);
    let at = transport(&sent[14..]).0;
    if !label.contains("ICMP") && transport(&ours).1 == 132 {
        let (found, right) = sctp::checksums(&ours[at..]);
        let (before, right_before) = sctp::checksums(&sent[14 + at..]);
        if before == 0 {
            assert_eq!(found, 0, "{label}: a checksum that is not there");
        } else {
            assert_eq!(found ^ right, before ^ right_before, "{label}: CRC32c");
        }
        if before != right_before {
            ours[at + 8..at + 12].fill(0);
            kernel[at + 8..at + 12].fill(0);
        }
        // The kernel writes its address where an option asks for it.
        if label.ends_with("IP options") {
            ours[10..12].fill(0);
            kernel[10..12].fill(0);
            ours[20..at].fill(0);
            kernel[20..at].fill(0);
        }
    }
    if label.ends_with("IP options") {
        return false;
    }
    assert_eq!(hex(&ours), hex(&kernel), "{label}");
    true
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Plays all cases: how many frames equalled the kernel's, and of how many.
fn replay(mut player: Player) -> [usize; 2] {
    let recording = read_recording("sctp.jsonl");
    let (mut open, mut counts) = (0, [0; 2]);
    for line in recording.lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        let port = case["virtual"][1].as_u64().expect("a port") as u16;
        if port != open {
            let vip = case["virtual"][0].as_str().expect("an address");
            let dests: Vec<DestConfig> = target(&case).into_iter().collect();
            player.put(service(Protocol::Sctp, vip, port), &dests);
            player.set_sloppy(case["sysctl"]["sloppy_sctp"].as_i64().unwrap_or(0) as i32);
            open = port;
        }
        counts[0] += usize::from(play(&mut player, &case));
        counts[1] += 1;
    }
    counts
}

/// The way to the recording's IPv6 clients.
fn clients() {
    ip("addr add fd00::1/64 dev eth0 nodad");
    ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
}

#[test]
fn tc_does_what_the_kernel_does() {
    in_namespace("tc_does_what_the_kernel_does", || {
        clients();
        let played = replay(Player::Programs(Box::default(), Hook::Tc));
        assert_eq!(played, [384, 427]);
    });
}

#[test]
fn xdp_does_what_the_kernel_does() {
    in_namespace("xdp_does_what_the_kernel_does", || {
        clients();
        let played = replay(Player::Programs(Box::default(), Hook::Xdp));
        assert_eq!(played, [238, 427]);
    });
}

#[test]
fn the_native_data_path_does_what_the_kernel_does() {
    let played =
        replay(Player::Native(Box::new(SimDatapath::adopt(Plain::new(&Sizes::default(), 7)))));
    assert_eq!(played, [320, 427]);
}

/// `gso_size` of a super-packet of the kernel's SCTP.
const BY_FRAGS: u32 = 0xffff;

#[test]
fn a_super_packet_goes_to_rvsd_in_segments_before_a_tunnel_and_else_as_it_is() {
    let test = "a_super_packet_goes_to_rvsd_in_segments_before_a_tunnel_and_else_as_it_is";
    in_namespace(test, || {
        const INIT: u8 = 1;
        let mut bench = Bench::new();
        let methods = [ForwardMethod::Tunnel, ForwardMethod::DirectRoute];
        for (vip, server, client) in
            [("10.9.1.1", "10.0.0.11", "10.0.0.2"), ("fd09::1", "fd01::b", "fd01::2")]
        {
            let addr = |text: &str, port| SocketAddr::new(text.parse().expect("a literal"), port);
            for (port, method) in (80..).zip(methods) {
                let dest = dest(server, port, method, 1);
                bench.service(service(Protocol::Sctp, vip, port), Scheduler::Rr, &[dest]);
            }
            let frame = sctp::build(addr(client, 4000), addr(vip, 80), INIT);
            // Without rvsd there is no way.
            let (dropped, forwarded) = (bench.reason(Reason::TooBig), bench.datapath.forwarded());
            assert_eq!(bench.run_super(&frame, BY_FRAGS).verdict, Verdict::Drop);
            assert_eq!(bench.reason(Reason::TooBig), dropped + 1);
            bench.open_slow_path();
            let handed = bench.reason(Reason::SlowTooBig);
            let outcome = bench.run_super(&frame, BY_FRAGS);
            let ticket = Ticket { ifindex: ETH0, mtu: Ticket::SEGMENT };
            assert_eq!(outcome.verdict, Verdict::Sent);
            assert_eq!(outcome.frame, [&ticket.to_mac(), &frame[6..]].concat());
            assert_eq!(bench.reason(Reason::SlowTooBig), handed + 1);
            assert_eq!(bench.datapath.forwarded(), forwarded, "its segments are counted");
            // A segment, and what needs no tunnel, is sent at once.
            let other = sctp::build(addr(client, 4000), addr(vip, 81), INIT);
            assert_eq!(bench.run(Hook::Tc, &frame).verdict, Verdict::Sent);
            assert_eq!(bench.run_super(&other, BY_FRAGS).verdict, Verdict::Sent);
            assert_eq!(bench.reason(Reason::SlowTooBig), handed + 1);
            assert_eq!(bench.datapath.forwarded(), (forwarded.0 + 2, 0));
            bench.datapath.maps().slow[0].until.set(0);
        }
    });
}
