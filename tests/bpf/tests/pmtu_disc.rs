//! Packets that are too big for a tunnel: with `pmtu_disc` 0 they go through it in pieces, as many and as long as
//! a real kernel's (`tests/oracle/recorded/pmtu_disc.jsonl`, by `pmtu_disc.py`): byte for byte, but for
//! the identification and a GUE tunnel's source port, which are drawn or hashed, and the checksums over
//! them, which must be right. Both hooks, with the slow path behind them.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::time::Instant;

use rvs_core::control::Datapath;
use rvs_core::fragment::{NoteKey, Ticket};
use rvs_core::reason::Reason;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_slow::{Path, Slow};
use rvs_tests_bpf::frame::{for_director, from_hex, sum};
use rvs_tests_bpf::{
    Bench, DIRECTOR, Hook, NEIGHBOUR, Verdict, dest, in_namespace, ip, next_tick, read_recording,
    service,
};
use serde_json::Value;

/// Where an Ethernet header ends.
const L3: usize = 14;

/// The slow path, of which only what it puts back is of interest.
#[derive(Default)]
struct Behind {
    back: Vec<Vec<u8>>,
    given_up: Vec<Reason>,
}

impl Path for Behind {
    fn has_passed(&mut self, _: &NoteKey) -> bool {
        unreachable!("no fragments come in");
    }

    fn put_back(&mut self, frame: &[u8]) {
        self.back.push(frame.to_vec());
    }

    fn inspect(&mut self, _: &mut [u8]) {
        unreachable!("nothing is inspected");
    }

    fn count(&mut self, reason: Reason, _: u64) {
        self.given_up.push(reason);
    }
}

fn text<'v>(row: &'v Value, name: &str) -> &'v str {
    row[name].as_str().expect("a text")
}

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
}

/// A piece of a packet, or a whole one: what its header says but for the identification, that, and
/// the data.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    header: Vec<u8>,
    id: Vec<u8>,
    data: Vec<u8>,
}

fn piece(packet: &[u8]) -> Piece {
    if packet[0] >> 4 == 4 {
        assert_eq!(sum(&[&packet[..20]]), 0xffff, "the outer IPv4 checksum");
        let mut header = packet[..20].to_vec();
        header[4..6].fill(0);
        header[10..12].fill(0);
        return Piece { header, id: packet[4..6].to_vec(), data: packet[20..].to_vec() };
    }
    let end = if packet[6] == 44 { 48 } else { 40 };
    let mut header = packet[..end].to_vec();
    let id = header.get(44..).unwrap_or_default().to_vec();
    header[end.min(44)..].fill(0);
    Piece { header, id, data: packet[end..].to_vec() }
}

/// Pieces as what they say and how long they are, and all their data, in which what a GUE tunnel draws
/// is blanked once its checksum was verified.
fn outline(packets: &[Vec<u8>], is_gue: bool) -> (Vec<(Vec<u8>, usize)>, Vec<u8>) {
    let pieces: Vec<Piece> = packets.iter().map(|packet| piece(packet)).collect();
    let ids: HashSet<&[u8]> = pieces.iter().map(|piece| &piece.id[..]).collect();
    assert_eq!(ids.len(), 1, "one datagram's pieces");
    let shapes = pieces.iter().map(|piece| (piece.header.clone(), piece.data.len())).collect();
    let mut data: Vec<u8> = pieces.iter().flat_map(|piece| piece.data.clone()).collect();
    if is_gue {
        if word(&data, 6) != 0 {
            let first = &packets[0];
            let addresses = if first[0] >> 4 == 4 { &first[12..20] } else { &first[8..40] };
            let pseudo = [addresses, &[0, 17], &data[4..6]].concat();
            assert_eq!(sum(&[&pseudo, &data]), 0xffff, "the outer UDP checksum");
            data[6..8].fill(0xff);
        }
        data[..2].fill(0);
    }
    (shapes, data)
}

/// The MTU that an ICMP error says.
fn announced(packet: &[u8]) -> Option<usize> {
    match packet[0] >> 4 {
        4 if packet[9] == 1 && packet[20..22] == [3, 4] => Some(word(packet, 26)),
        6 if packet[6] == 58 && packet[40..42] == [2, 0] => Some(word(packet, 46)),
        _ => None,
    }
}

/// Puts the row's service in force.
fn serve(bench: &mut Bench, row: &Value) {
    let options = text(row, "options");
    let port = row["port"].as_u64().expect("a port") as u16;
    let protocol = if row["protocol"] == "tcp" { Protocol::Tcp } else { Protocol::Udp };
    let mut dest = dest(text(row, "server"), port, ForwardMethod::Tunnel, 1);
    dest.tunnel_type = match options {
        _ if options.contains("gue") => 1,
        _ if options.contains("gre") => 2,
        _ => 0,
    };
    dest.tunnel_port = if options.contains("gue") { 6080 } else { 0 };
    dest.tunnel_flags = u16::from(options.contains("csum"));
    bench.service(service(protocol, text(row, "vip"), port), Scheduler::Rr, &[dest]);
}

/// What leaves for the row's packet, from the IP header on; how often the slow path sent pieces.
fn play(bench: &mut Bench, hook: Hook, row: &Value) -> (Vec<Vec<u8>>, bool) {
    let label = text(row, "case");
    let frame = for_director(text(&row["in"], "frame"));
    let held = bench.reason(Reason::SlowTooBig);
    let mut outcome = bench.run(hook, &frame);
    if hook == Hook::Xdp && outcome.verdict == Verdict::Pass {
        outcome = bench.run(Hook::Tc, &frame);
    }
    assert_eq!(outcome.verdict, Verdict::Sent, "{label}");
    if bench.reason(Reason::SlowTooBig) == held {
        return (vec![outcome.frame[L3..].to_vec()], false);
    }
    let mut behind = Behind::default();
    Slow::new().take(Instant::now(), &outcome.frame, &mut behind);
    assert_eq!(behind.given_up, [], "{label}");
    let ticket = Ticket::from_mac(*outcome.frame.first_chunk().expect("a frame"));
    assert_eq!(ticket.ifindex, Ticket::OUT, "{label}: the inner packet");
    let sent = behind.back.into_iter().map(|piece| {
        let outcome = bench.put_back(&piece);
        assert_eq!(outcome.verdict, Verdict::Sent, "{label}");
        let addresses = [NEIGHBOUR, DIRECTOR].concat();
        assert_eq!(outcome.frame[..12], addresses, "{label}");
        assert_eq!(outcome.frame[L3..], piece[L3..], "{label}");
        outcome.frame[L3..].to_vec()
    });
    (sent.collect(), true)
}

fn compare(hook: Hook) {
    ip("addr add fd00::1/16 dev eth0 nodad");
    ip("neigh add fd00::2 lladdr 02:00:00:00:00:02 nud permanent dev eth0");
    let recording = read_recording("pmtu_disc.jsonl");
    let mut bench = Bench::new();
    bench.open_slow_path();
    let (mut port, mut mtu) = (0, 1500);
    let mut kinds = BTreeMap::new();
    for line in recording.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let label = text(&row, "case");
        if port != row["port"].as_u64().expect("a port") {
            port = row["port"].as_u64().expect("a port");
            serve(&mut bench, &row);
        }
        // Also of destinations that are there already.
        let pmtu_disc = row["pmtu_disc"].as_i64().expect("a number") as i32;
        bench.datapath.set_sysctl(Sysctl::PmtuDisc, pmtu_disc).expect("it can be set");
        let wanted = row["mtu"].as_u64().unwrap_or(1500);
        if mtu != wanted {
            mtu = wanted;
            ip(&format!("link set eth0 mtu {mtu}"));
            next_tick();
        }
        let (index, config) = bench.datapath.destinations().last().expect("the row's");
        let source = if config.key.addr.is_ipv4() { "10.1.0.1" } else { "fd01::1" };
        bench.datapath.set_source(index, source.parse::<IpAddr>().expect("a literal"));
        bench.datapath.set_mtu(index, row["route_mtu"].as_u64().map(|mtu| mtu as u32));

        let (ours, by_rvsd) = play(&mut bench, hook, &row);
        let packets = |side: &str| -> Vec<Vec<u8>> {
            let frames = row[side].as_array().expect("frames").iter();
            frames.map(|frame| from_hex(text(frame, "frame"))[L3..].to_vec()).collect()
        };
        let (answers, theirs) = (packets("to_client"), packets("to_server"));
        let kind = if let [answer] = &answers[..] {
            let mtu = announced(answer);
            assert!(mtu.is_some() && ours.len() == 1, "{label}");
            assert_eq!(announced(&ours[0]), mtu, "{label}");
            "answered"
        } else {
            let is_gue = text(&row, "options").contains("gue");
            assert_eq!(by_rvsd, theirs.len() > 1, "{label}");
            let [(ours, our_data), (theirs, data)] =
                [&ours, &theirs].map(|pieces| outline(pieces, is_gue));
            assert_eq!(ours, theirs, "{label}");
            assert!(our_data == data, "{label}: what is in the pieces");
            if by_rvsd { "in pieces" } else { "whole" }
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    assert_eq!(kinds, BTreeMap::from([("answered", 62), ("in pieces", 101), ("whole", 201)]));
}

#[test]
fn tunnels_take_what_is_too_big_in_the_kernel_s_pieces_on_tc() {
    in_namespace("tunnels_take_what_is_too_big_in_the_kernel_s_pieces_on_tc", || {
        compare(Hook::Tc);
    });
}

#[test]
fn tunnels_take_what_is_too_big_in_the_kernel_s_pieces_on_xdp() {
    in_namespace("tunnels_take_what_is_too_big_in_the_kernel_s_pieces_on_xdp", || {
        compare(Hook::Xdp);
    });
}
