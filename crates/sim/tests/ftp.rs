//! FTP as the kernel's ip_vs_ftp has it, recorded packet by packet: what leaves, and which connections
//! there are. `tests/oracle/recorded/ftp.jsonl`.

mod common;

use std::collections::BTreeSet;
use std::net::IpAddr;

use common::{dest, key, put, sim};
use rvs_core::conn::{APP, TRACKED, Word};
use rvs_core::control::Datapath;
use rvs_core::env::Env;
use rvs_core::reason::Reason;
use rvs_core::sysctl::Sysctl;
use rvs_core::time::ticks;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Frame, Outcome, SimDatapath};
use rvs_tables::Memory;
use serde::Deserialize;

#[derive(Deserialize)]
struct Sent {
    frame: String,
}

#[derive(Deserialize)]
struct Row {
    case: String,
    #[serde(rename = "in")]
    came: Sent,
    to_client: Vec<Sent>,
    to_server: Vec<Sent>,
    conns: Option<Vec<Conn>>,
}

/// A connection, as the kernel lists it.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Conn {
    c: IpAddr,
    cp: u16,
    v: IpAddr,
    vp: u16,
    d: IpAddr,
    dp: u16,
    state: String,
}

impl Conn {
    /// Whether only one of the two has it: of the kernel a port below 1024, and data for or from
    /// another host; of RVS what nobody asked for (EPSV ALL has another answer), or a second line.
    fn differs(&self) -> bool {
        let other = self.c == IpAddr::from([10, 0, 0, 77]);
        other || [772, 51221, 51222, 51224, 51228].contains(&self.vp)
    }
}

/// Cases of which the packets differ, and why.
const DIFFER: [(&str, &str); 6] = [
    ("ack of 227", "it fits the reply's length that RVS has"),
    ("227 (10,1,0,11,3,4)", "a port below 1024"),
    ("227 other (10,1,0,12,200,21)", "another host's address"),
    ("227 unasked (10,1,0,11,200,22)", "the kernel waits for PASV"),
    ("x\r\n227 second line (10,1,0,11,200,24)", "the kernel reads the first line"),
    ("227 no end (10,1,0,11,200,27", "no end"),
];

fn recorded() -> Vec<Row> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracle/recorded/ftp.jsonl");
    let text = std::fs::read_to_string(path).expect("the recording");
    text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).expect("ASCII"));
    digits.map(|two| u8::from_str_radix(two, 16).expect("a byte")).collect()
}

/// A segment's addresses with its ports and flags, its sequence numbers, and its data.
fn parts(frame: &[u8]) -> (Vec<u8>, Vec<u8>, String) {
    let (addrs, tcp) = if frame[14] >> 4 == 4 { (26..34, 34) } else { (22..54, 54) };
    let header = usize::from(frame[tcp + 12] >> 4) * 4;
    let mut ends = frame[addrs].to_vec();
    ends.extend(&frame[tcp..tcp + 4]);
    ends.push(frame[tcp + 13]);
    let data = String::from_utf8(frame[tcp + header..].to_vec()).expect("text");
    (ends, frame[tcp + 4..tcp + 12].to_vec(), data)
}

/// The text of a reply without blanks, of which there may be more.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("  (", " (")
}

/// Whether a segment's TCP checksum is right.
fn is_right(frame: &[u8]) -> bool {
    let (addrs, tcp) = if frame[14] >> 4 == 4 { (26..34, 34) } else { (22..54, 54) };
    let mut all = frame[addrs].to_vec();
    all.extend([0, 6]);
    all.extend((frame.len() as u16 - tcp as u16).to_be_bytes());
    all.extend(&frame[tcp..]);
    rvs_wire::checksum::of(&all) == [0, 0]
}

fn connections(sim: &SimDatapath) -> BTreeSet<Conn> {
    let mut conns = BTreeSet::new();
    sim.for_each_conn(&mut |row| {
        conns.insert(Conn {
            c: row.client,
            cp: row.client_port,
            v: row.virtual_addr,
            vp: row.virtual_port,
            d: row.dest,
            dp: row.dest_port,
            state: row.state.to_owned(),
        });
        true
    });
    conns
}

/// What leaves for a frame, after rvsd has seen it as it sees it there.
fn play(sim: &SimDatapath, frame: &[u8]) -> Result<Vec<u8>, Outcome> {
    let maps = sim.maps();
    let mut frame = frame.to_vec();
    rvs_slow::inspect(&maps, Memory::slow(maps), &mut frame);
    let mut frame = Frame::new(&frame);
    match maps.run(&mut frame) {
        Outcome::Sent => Ok(frame.bytes().to_vec()),
        other => Err(other),
    }
}

#[test]
fn packets_and_connections_are_those_of_the_kernel() {
    let sim = opened(0);
    let mut compared = 0;
    for (number, row) in recorded().into_iter().enumerate() {
        let what = format!("row {number}, {}", row.case);
        let came = bytes(&row.came.frame);
        let sent = play(&sim, &came);
        let kernels = row.to_client.iter().chain(&row.to_server).next();
        if row.case == "second data syn" {
            // The kernel's host answers with a reset.
            assert_eq!(sent, Err(Outcome::Pass(Reason::NotOurs)), "{what}");
        } else if !DIFFER.iter().any(|(case, _)| *case == row.case) {
            let sent = sent.unwrap_or_else(|outcome| panic!("{what}: {outcome:?}"));
            let (ends, numbers, data) = parts(&sent);
            let expected = bytes(&kernels.expect("the kernel sent something").frame);
            let (kernel_ends, _, kernel_data) = parts(&expected);
            assert_eq!(ends, kernel_ends, "{what}");
            assert_eq!(squeezed(&data), squeezed(&kernel_data), "{what}");
            assert_eq!(numbers, parts(&came).1, "{what}: sequence numbers stay");
            assert_eq!(sent.len(), came.len(), "{what}");
            assert!(is_right(&sent), "{what}: the checksum");
            compared += 1;
        }
        let Some(conns) = row.conns else { continue };
        let same = |conns: BTreeSet<Conn>| {
            conns.into_iter().filter(|conn| !conn.differs()).collect::<BTreeSet<_>>()
        };
        assert_eq!(same(connections(&sim)), same(conns.into_iter().collect()), "{what}");
    }
    assert_eq!(compared, 105);
    let now = Env::now(&sim.maps());
    assert!(Memory::slow(sim.maps()).expects(now), "clients are still expected");
}

/// The data of the recording's first transfer goes on and on, and nobody says anything.
#[test]
fn a_control_connection_lasts_as_long_as_its_data() {
    let mut sim = sim(64);
    let at = |text: &str| text.parse::<std::net::SocketAddr>().expect("an address");
    let (vip, server) = (at("10.9.1.1:21"), at("10.1.0.11:21"));
    let server = dest(server, ForwardMethod::Masquerade, 1);
    let service = key(Protocol::Tcp, vip);
    put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &[server]);
    for row in recorded().iter().take(9) {
        play(&sim, &bytes(&row.came.frame)).unwrap_or_else(|_| panic!("{}", row.case));
    }
    let data =
        common::Packet::new(Protocol::Tcp, at("10.0.0.2:50001"), at("10.9.1.1:51213"), common::ACK);
    let is_listed = |sim: &SimDatapath, port| connections(sim).iter().any(|conn| conn.vp == port);
    let pass = |minutes: u32, with_data: bool| {
        for _ in 0..minutes * 4 {
            if with_data {
                assert_eq!(common::run(&sim, &data).0, Outcome::Sent);
            }
            sim.maps().advance(ticks(15));
            sim.maps().sweep();
        }
    };
    pass(60, true);
    assert!(is_listed(&sim, 51213) && is_listed(&sim, 21));
    // What it controls does not count in it, as in a template: nothing is to be counted down.
    let ways = Memory::conns4(sim.maps()).iter().flat_map(|set| &set.ways);
    let mut controls = ways.filter(|way| Word(way.word.get()).has(APP));
    assert!(controls.all(|control| control.control.get() == 0));
    // Both end in their time.
    pass(20, false);
    assert_eq!(connections(&sim), BTreeSet::new());
    let status = common::status(&sim, &service, &server);
    assert_eq!((status.active_conns, status.inactive_conns), (0, 0));
}

/// A service as in the recording, and its first `rows` played.
fn opened(rows: usize) -> SimDatapath {
    opened_with(rows, 0)
}

/// The same with this `conntrack`.
fn opened_with(rows: usize, conntrack: i32) -> SimDatapath {
    let mut sim = sim(64);
    sim.set_sysctl(Sysctl::Conntrack, conntrack).expect("it can be set");
    for (vip, server) in [("10.9.1.1:21", "10.1.0.11:21"), ("[fd09::1]:21", "[fd01::11]:21")] {
        let service = key(Protocol::Tcp, vip.parse().expect("an address"));
        let server = dest(server.parse().expect("an address"), ForwardMethod::Masquerade, 1);
        put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &[server]);
    }
    for row in &recorded()[..rows] {
        play(&sim, &bytes(&row.came.frame)).unwrap_or_else(|_| panic!("{}", row.case));
    }
    sim
}

/// The frame with other data of the same length, and a right checksum.
fn saying(frame: &[u8], text: &str) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let data = frame.len() - parts(&frame).2.len();
    let len = frame.len() - data;
    assert!(text.len() + 2 <= len, "{text}");
    frame.truncate(data);
    frame.extend(format!("{text:<width$}\r\n", width = len - 2).bytes());
    let tcp = if frame[14] >> 4 == 4 { 34 } else { 54 };
    frame[tcp + 16..tcp + 18].fill(0);
    let mut all = frame[if tcp == 34 { 26..34 } else { 22..54 }].to_vec();
    all.extend([0, 6]);
    all.extend((frame.len() as u16 - tcp as u16).to_be_bytes());
    all.extend(&frame[tcp..]);
    let sum = rvs_wire::checksum::of(&all);
    frame[tcp + 16..tcp + 18].copy_from_slice(&sum);
    assert!(is_right(&frame));
    frame
}

/// What the client says in as much room as a reply has: with the addresses and ports of what it asked.
fn by_client(asked: &[u8], reply: &[u8], text: &str) -> Vec<u8> {
    let mut frame = reply.to_vec();
    frame[26..38].copy_from_slice(&asked[26..38]);
    saying(&frame, text)
}

/// RFC 2577, sections 3 and 5. The kernel takes all of these.
#[test]
fn hosts_speak_for_themselves_only_and_not_of_services_ports() {
    let sim = opened(4);
    let (rows, before) = (recorded(), connections(&sim));
    let (asked, reply) = (bytes(&rows[3].came.frame), bytes(&rows[4].came.frame));
    let from_client = |text: &str| by_client(&asked, &reply, text);
    let said = [
        saying(&reply, "227 of another (10,1,0,12,200,21)"),
        saying(&reply, "227 low (10,1,0,11,3,255)"),
        saying(&reply, "229 low (|||1023|)"),
        from_client("PORT 10,0,0,77,195,90"),
        from_client("EPRT |1|10.0.0.77|50010|"),
        from_client("PORT 10,0,0,2,3,255"),
        from_client("EPRT |1|10.0.0.2|1023|"),
    ];
    for frame in said {
        let text = parts(&frame).2;
        let sent = play(&sim, &frame).unwrap_or_else(|outcome| panic!("{text}: {outcome:?}"));
        assert_eq!(parts(&sent).2, text, "sent on as it is");
        assert_eq!(connections(&sim), before, "{text}");
    }
    // The next port, and the same host, are taken.
    for (frame, more) in
        [(saying(&reply, "227 high (10,1,0,11,4,0)"), 1), (from_client("PORT 10,0,0,2,4,0"), 2)]
    {
        play(&sim, &frame).expect("it is sent");
        assert_eq!(connections(&sim).len(), before.len() + more);
    }
}

/// With `conntrack` a reply is read as it leaves, with the virtual address. What a client opens then is
/// netfilter's, too; what a server opens is not.
#[test]
fn netfilter_translates_what_clients_open_if_it_does_the_control_connection() {
    let tracked = |sim: &SimDatapath| {
        let ways = Memory::conns4(sim.maps()).iter().flat_map(|set| &set.ways);
        let words = ways.map(|way| Word(way.word.get()));
        words.filter(|word| word.is_live() && word.has(TRACKED)).count()
    };
    let rows = recorded();
    let (asked, reply) = (bytes(&rows[3].came.frame), bytes(&rows[4].came.frame));
    for (conntrack, each) in [(0, 0), (1, 2)] {
        let sim = opened_with(4, conntrack);
        assert_eq!(tracked(&sim), each, "the control connection");
        let mut leaving = reply.clone();
        if conntrack == 1 {
            leaving[26..30].copy_from_slice(&[10, 9, 1, 1]);
        }
        let mut leaving = saying(&leaving, "227 (10,1,0,11,200,13).");
        rvs_slow::inspect(&sim.maps(), Memory::slow(sim.maps()), &mut leaving);
        assert_eq!(parts(&leaving).2.trim_end(), "227  (10,9,1,1,200,13).");
        assert!(is_right(&leaving));
        let at = |text: &str| text.parse().expect("an address");
        let syn = common::Packet::new(
            Protocol::Tcp,
            at("10.0.0.2:50001"),
            at("10.9.1.1:51213"),
            common::SYN,
        );
        play(&sim, &syn.build()).expect("it was expected");
        assert_eq!(tracked(&sim), each * 2, "the data connection");
        let before = connections(&sim).len();
        play(&sim, &by_client(&asked, &reply, "PORT 10,0,0,2,4,0")).expect("it is sent");
        assert_eq!(connections(&sim).len(), before + 1);
        assert_eq!(tracked(&sim), each * 2, "the server's");
    }
}

/// The frame with IPv4 options or destination options.
fn with_options(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if frame[14] >> 4 == 4 {
        frame[14] += 1;
        let len = frame.len() as u16 - 14 + 4;
        frame[16..18].copy_from_slice(&len.to_be_bytes());
        frame.splice(34..34, [1, 1, 1, 0]);
        frame[24..26].fill(0);
        let sum = rvs_wire::checksum::of(&frame[14..38]);
        frame[24..26].copy_from_slice(&sum);
    } else {
        let len = frame.len() as u16 - 54 + 8;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        frame[20] = 60;
        frame.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
    }
    frame
}

#[test]
fn control_packets_with_options_and_extension_headers_are_read_as_others() {
    let replies = recorded().into_iter().enumerate().filter(|(_, row)| {
        let data = parts(&bytes(&row.came.frame)).2;
        data.starts_with("227 Entering") || data.starts_with("229 Entering")
    });
    let mut families = BTreeSet::new();
    for (number, row) in replies {
        let frame = bytes(&row.came.frame);
        if !families.insert(frame[14] >> 4) {
            continue;
        }
        let rows = &recorded()[..number];
        let [plain, odd] = [frame.clone(), with_options(&frame)].map(|frame| {
            let sim = opened(0);
            for row in rows {
                let _ = play(&sim, &bytes(&row.came.frame));
            }
            let sent = play(&sim, &frame).unwrap_or_else(|outcome| panic!("{outcome:?}"));
            (sent, connections(&sim))
        });
        let headers = if frame[14] >> 4 == 4 { (34, 38) } else { (54, 62) };
        // The TCP segment with its checksum: the addresses are the same.
        assert_eq!(plain.0[headers.0..], odd.0[headers.1..], "{}", row.case);
        assert_eq!(plain.1, odd.1, "{}", row.case);
        assert_eq!(odd.0.len(), frame.len() + headers.1 - headers.0);
        assert!(plain.1.iter().any(|conn| conn.cp == 0), "{}: nobody is expected", row.case);
    }
    assert_eq!(families, BTreeSet::from([4, 6]));
}

#[test]
fn a_damaged_segment_is_left_alone() {
    let mut sim = sim(64);
    let at = |text: &str| text.parse::<std::net::SocketAddr>().expect("an address");
    let server = dest(at("10.1.0.11:21"), ForwardMethod::Masquerade, 1);
    let service = key(Protocol::Tcp, at("10.9.1.1:21"));
    put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &[server]);
    let rows = recorded();
    for row in &rows[..4] {
        play(&sim, &bytes(&row.came.frame)).unwrap_or_else(|_| panic!("{}", row.case));
    }
    let inspect = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        rvs_slow::inspect(&sim.maps(), Memory::slow(sim.maps()), &mut frame);
        frame
    };
    let reply = bytes(&rows[4].came.frame);
    for len in 0..reply.len() {
        assert_eq!(inspect(&reply[..len]), reply[..len], "{len} bytes");
    }
    // From the IP header's addresses on, everything is under the checksum.
    for at in 26..reply.len() {
        let mut damaged = reply.clone();
        damaged[at] ^= 0x10;
        assert_eq!(inspect(&damaged), damaged, "byte {at}");
    }
    assert!(connections(&sim).iter().all(|conn| conn.cp != 0), "nobody is expected");
    assert_ne!(inspect(&reply), reply);
    assert!(connections(&sim).iter().any(|conn| conn.cp == 0), "somebody is");
}
