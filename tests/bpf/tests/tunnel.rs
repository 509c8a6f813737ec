//! Tunnels of every type against what a real kernel's IPVS sent (`tests/oracle/recorded/tunnel.jsonl`,
//! by `tunnel.py`): byte for byte, but for the outer identification and a GUE tunnel's source port,
//! which are drawn or hashed, and the checksums over them, which must be right. Both hooks and the
//! native data path.

use std::net::IpAddr;

use rvs_core::control::{Change, Datapath};
use rvs_core::reason::Reason;
use rvs_core::types::{
    DestConfig, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};
use rvs_tests_bpf::frame::{for_director, from_hex, sum};
use rvs_tests_bpf::{
    Bench, Hook, Verdict, dest, in_namespace, ip, next_tick, read_recording, service,
};
use serde_json::Value;

/// The port of the recorded GUE tunnels.
const GUE_PORT: u16 = 6080;

/// Who plays the recording.
enum Player {
    Programs(Box<Bench>, Hook),
    Native(Box<SimDatapath>),
}

impl Player {
    fn put(&mut self, key: ServiceKey, dest: DestConfig) {
        match self {
            Self::Programs(bench, _) => {
                bench.service(key, Scheduler::Rr, &[dest]);
                source(
                    &bench.datapath.destinations().map(|(i, _)| i).max(),
                    dest,
                    |index, addr| bench.datapath.set_source(index, addr),
                );
            }
            Self::Native(sim) => {
                let flags = ServiceFlags::empty();
                let scheduler = Scheduler::Rr;
                let config =
                    ServiceConfig { scheduler, flags, timeout: 0, netmask: u32::MAX, engine: None };
                sim.put_service(&key, &config, &[dest], Change::Service).expect("there is room");
                source(&sim.destinations().map(|(i, _)| i).max(), dest, |index, addr| {
                    sim.set_source(index, addr)
                });
            }
        }
    }

    /// The frame that was sent; why none was.
    fn play(&mut self, frame: &[u8]) -> Result<Vec<u8>, Option<Reason>> {
        match self {
            Self::Programs(bench, hook) => {
                let reasons = |bench: &Bench| bench.datapath.maps().reasons();
                let before = reasons(bench);
                let outcome = bench.run(*hook, frame);
                if outcome.verdict == Verdict::Sent {
                    return Ok(outcome.frame);
                }
                let mut counted = reasons(bench).into_iter().zip(before);
                let reason = counted.find(|(now, then)| now != then).map(|((reason, _), _)| reason);
                assert!(outcome.frame == frame, "{hook:?}: changed, yet not sent: {reason:?}");
                Err(reason)
            }
            Self::Native(sim) => {
                let mut frame = Frame::new(frame);
                match sim.maps().run(&mut frame) {
                    Outcome::Sent => Ok(frame.bytes().to_vec()),
                    Outcome::Pass(reason) | Outcome::Drop(reason) => Err(Some(reason)),
                    Outcome::Held => Err(None),
                }
            }
        }
    }
}

/// The recording's tunnel source; the destination that was added last has the highest place.
fn source(index: &Option<u32>, dest: DestConfig, set: impl FnOnce(u32, IpAddr)) {
    let addr = if dest.key.addr.is_ipv4() { "10.1.0.1" } else { "fd01::1" };
    set(index.expect("a destination"), addr.parse().expect("an address"));
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Verifies every checksum in the outer headers of an IP packet, and blanks what is drawn or hashed.
/// A GUE tunnel's source port.
fn blank(packet: &mut [u8], options: &str) -> Option<u16> {
    let (addresses, shim) = if packet[0] >> 4 == 4 { (12..20, 20) } else { (8..40, 40) };
    if shim == 20 {
        assert_eq!(sum(&[&packet[..20]]), 0xffff, "the outer IPv4 checksum");
        if packet[6] & 0x40 == 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
    }
    if options.contains("gre") {
        let covered = packet[shim] & 0x80 != 0;
        assert!(!covered || sum(&[&packet[shim..]]) == 0xffff, "the GRE checksum");
        return None;
    }
    if !options.contains("gue") {
        return None;
    }
    if word(packet, shim + 6) != 0 {
        let len = word(packet, shim + 4).to_be_bytes();
        let pseudo = [&packet[addresses], &[0, 17], &len].concat();
        assert_eq!(sum(&[&pseudo, &packet[shim..]]), 0xffff, "the outer UDP checksum");
        packet[shim + 6..shim + 8].fill(0xff);
    }
    let port = word(packet, shim);
    packet[shim..shim + 2].fill(0);
    Some(port)
}

/// The only frame that a side got, if it got one.
fn frame(side: &Value) -> Option<Vec<u8>> {
    let frames = side.as_array().expect("frames");
    assert!(frames.len() <= 1, "{frames:?}");
    frames.first().map(|frame| from_hex(frame["frame"].as_str().expect("hexadecimal")))
}

/// The MTU that an ICMP error says.
fn announced(frame: &[u8]) -> Option<u16> {
    match frame[14] >> 4 {
        4 if frame[34..36] == [3, 4] => Some(word(frame, 40)),
        6 if frame[54..56] == [2, 0] => Some(word(frame, 60)),
        _ => None,
    }
}

fn text<'v>(case: &'v Value, name: &str) -> &'v str {
    case[name].as_str().unwrap_or_else(|| panic!("{name} in {case}"))
}

fn target(case: &Value, port: u16) -> DestConfig {
    let options = text(case, "options");
    let (tunnel_type, tunnel_port) = match options {
        _ if options.contains("gue") => (1, GUE_PORT),
        _ if options.contains("gre") => (2, 0),
        _ => (0, 0),
    };
    let tunnel_flags = match options {
        _ if options.ends_with("-remcsum") => 2,
        _ if options.ends_with("-csum") => 1,
        _ => 0,
    };
    let plain = dest(text(case, "server"), port, ForwardMethod::Tunnel, 1);
    DestConfig { tunnel_type, tunnel_port, tunnel_flags, ..plain }
}

/// Why XDP or the native data path does not do what the kernel did; TC does it all.
fn excuse(player: &Player, case: &Value) -> Option<Reason> {
    let (label, options) = (text(case, "case"), text(case, "options"));
    let covered = options.ends_with("-csum") || options.ends_with("-remcsum");
    let unpromised = label.contains("zero checksum") || label.contains("trailing bytes");
    match player {
        Player::Programs(_, Hook::Tc) => None,
        _ if label.contains("from the client") => Some(Reason::Icmp),
        Player::Programs(_, Hook::Xdp) if covered && unpromised => Some(Reason::PuntChecksum),
        Player::Programs(_, Hook::Xdp) if label.contains("IP options") => {
            Some(Reason::ExtensionHeader)
        }
        Player::Programs(_, Hook::Xdp) if label.contains("too long") => Some(Reason::PuntIcmp),
        _ => None,
    }
}

/// The way to the recording's IPv6 clients.
fn clients() {
    ip("addr add fd00::1/64 dev eth0 nodad");
    ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
}

/// Plays every case. How many frames were equal to the kernel's, announced its MTU, and were not
/// for this player.
fn replay(mut player: Player) -> [usize; 3] {
    let recording = read_recording("tunnel.jsonl");
    let (mut open, mut source_port, mut mtu) = (0, None, 1500);
    let [mut equal, mut announcements, mut excused] = [0; 3];
    for line in recording.lines() {
        let case: Value = serde_json::from_str(line).expect("JSON");
        // A test run cannot make packets whose checksum is left to a device.
        if case["partial"].is_u64() {
            continue;
        }
        let (label, port) = (text(&case, "case"), case["port"].as_u64().expect("a port") as u16);
        if port != open {
            let tcp = text(&case, "protocol") == "tcp";
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            player.put(service(protocol, text(&case, "vip"), port), target(&case, port));
            (open, source_port) = (port, None);
        }
        let wanted = case["mtu"].as_u64().unwrap_or(1500);
        if matches!(player, Player::Programs(..)) && wanted != mtu {
            ip(&format!("link set eth0 mtu {wanted}"));
            next_tick();
            mtu = wanted;
        }
        let sent = for_director(case["in"]["frame"].as_str().expect("hexadecimal"));
        let answer = player.play(&sent);
        if let Some(reason) = excuse(&player, &case) {
            assert_eq!(answer, Err(Some(reason)), "{label}");
            excused += 1;
            continue;
        }
        if let Some(error) = frame(&case["to_client"]) {
            // The native data path has no routes, so no MTU.
            if let Player::Programs(..) = player {
                let announced = announced(&answer.unwrap_or_else(|e| panic!("{label}: {e:?}")));
                assert_eq!(announced, self::announced(&error), "{label}");
                assert!(announced.is_some(), "{label}");
                announcements += 1;
            }
            continue;
        }
        let got = answer.unwrap_or_else(|reason| panic!("{label}: {reason:?}"));
        let kernel = frame(&case["to_server"]).unwrap_or_else(|| panic!("{label}: nothing sent"));
        let options = text(&case, "options");
        let (mut ours, mut theirs) = (got[12..].to_vec(), kernel[12..].to_vec());
        let port = blank(&mut ours[2..], options);
        let _ = blank(&mut theirs[2..], options);
        assert_eq!(hex(&ours), hex(&theirs), "{label}");
        if let Some(port) = port.filter(|_| !label.contains("from the client")) {
            assert_eq!(*source_port.get_or_insert(port), port, "{label}: the flow's source port");
            assert!((32_768..61_000).contains(&port), "{label}: {port}");
        }
        equal += 1;
    }
    [equal, announcements, excused]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn tc_sends_what_the_kernel_sends() {
    in_namespace("tc_sends_what_the_kernel_sends", || {
        clients();
        let played = replay(Player::Programs(Box::default(), Hook::Tc));
        assert_eq!(played, [420, 48, 0]);
    });
}

#[test]
fn xdp_sends_what_the_kernel_sends() {
    in_namespace("xdp_sends_what_the_kernel_sends", || {
        clients();
        let played = replay(Player::Programs(Box::default(), Hook::Xdp));
        assert_eq!(played, [324, 0, 144]);
    });
}

#[test]
fn the_native_data_path_sends_what_the_kernel_sends() {
    let played =
        replay(Player::Native(Box::new(SimDatapath::adopt(Plain::new(&Sizes::default(), 7)))));
    assert_eq!(played, [372, 0, 48]);
}
