//! Connections that netfilter tracks (`conntrack`): which ones, what is told of destinations, and of
//! connections that ended. What netfilter makes of it is in tests/netns/tests/conntrack.rs.

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use common::{ACK, FIN, Packet, RST, SYN, dest, key, put, run, sim};
use rvs_core::conn::{REPLY, TRACKED, Word};
use rvs_core::control::{Datapath, DatapathError};
use rvs_core::reason::Reason;
use rvs_core::sync::Arrived;
use rvs_core::sysctl::Sysctl;
use rvs_core::time::ticks;
use rvs_core::types::{
    DestKey, Family, ForwardMethod, Protocol, Scheduler, ServiceFlags, ServiceKey,
};
use rvs_sim::{Outcome, SimDatapath};
use rvs_tables::sweeper::Tracked;
use rvs_tables::{Memory, Translator};

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

const CLIENT: &str = "10.0.0.2:1024";
const VIRTUAL: &str = "10.9.1.1:8080";
const SERVERS: [&str; 2] = ["10.1.0.11:80", "10.1.0.12:80"];

/// A service with these servers.
fn serve(sim: &mut SimDatapath, protocol: Protocol, vip: &str, method: ForwardMethod) {
    let dests = SERVERS.map(|server| dest(at(server), method, 1));
    put(sim, key(protocol, at(vip)), Scheduler::Rr, ServiceFlags::empty(), &dests);
}

fn send(sim: &SimDatapath, protocol: Protocol, dst: &str, flags: u8) -> Outcome {
    run(sim, &Packet::new(protocol, at(CLIENT), at(dst), flags)).0
}

/// Whether entries are tracked: connections, replies.
fn flags(sim: &SimDatapath) -> (usize, usize) {
    let entries = sim.maps().conns4().iter().flat_map(|set| &set.ways);
    let words = entries.map(|conn| Word(conn.word.get())).filter(|word| word.is_live());
    let (replies, conns): (Vec<_>, Vec<_>) =
        words.filter(|word| word.has(TRACKED)).partition(|word| word.has(REPLY));
    (conns.len(), replies.len())
}

#[test]
fn connections_are_tracked_from_the_setting_on() {
    let mut sim = sim(16);
    serve(&mut sim, Protocol::Tcp, VIRTUAL, ForwardMethod::Masquerade);
    serve(&mut sim, Protocol::Udp, VIRTUAL, ForwardMethod::Masquerade);
    serve(&mut sim, Protocol::Tcp, "10.9.1.1:21", ForwardMethod::Masquerade);
    serve(&mut sim, Protocol::Tcp, "10.9.1.2:80", ForwardMethod::DirectRoute);
    serve(&mut sim, Protocol::Tcp, "10.9.1.3:80", ForwardMethod::Tunnel);
    serve(&mut sim, Protocol::Tcp, "10.9.1.4:80", ForwardMethod::Tunnel);
    send(&sim, Protocol::Tcp, VIRTUAL, SYN);
    sim.set_sysctl(Sysctl::Conntrack, 1).expect("it can be set");
    send(&sim, Protocol::Tcp, VIRTUAL, ACK);
    assert_eq!(flags(&sim), (0, 0), "it began before");
    for other in ["10.9.1.2:80", "10.9.1.3:80"] {
        send(&sim, Protocol::Tcp, other, SYN);
    }
    assert_eq!(flags(&sim), (0, 0), "nothing comes back");
    sim.set_coming_back(true);
    for (count, other) in [(0, "10.9.1.2:80"), (1, "10.9.1.4:80")] {
        send(&sim, Protocol::Tcp, other, SYN);
        assert_eq!(flags(&sim), (count, 0), "{other}");
    }
    send(&sim, Protocol::Udp, VIRTUAL, 0);
    assert_eq!(flags(&sim), (2, 1));
    send(&sim, Protocol::Tcp, "10.9.1.1:21", SYN);
    assert_eq!(flags(&sim), (3, 2), "FTP's, too");
    sim.set_sysctl(Sysctl::Conntrack, 0).expect("it can be set");
    send(&sim, Protocol::Udp, VIRTUAL, 0);
    assert_eq!(flags(&sim), (3, 2), "it goes on as it began");
}

#[test]
fn a_connection_in_place_of_a_tracked_one_waits_until_that_is_forgotten() {
    for (tracked, waits) in [(0, false), (1, true)] {
        let mut sim = sim(16);
        serve(&mut sim, Protocol::Tcp, VIRTUAL, ForwardMethod::Masquerade);
        sim.set_sysctl(Sysctl::Conntrack, tracked).expect("it can be set");
        send(&sim, Protocol::Tcp, VIRTUAL, SYN);
        let reply = |flags| {
            let server = SERVERS.into_iter().map(|server| {
                run(&sim, &Packet::new(Protocol::Tcp, at(server), at(CLIENT), flags)).0
            });
            assert!(server.into_iter().any(|outcome| matches!(outcome, Outcome::Sent)));
        };
        reply(SYN | ACK);
        send(&sim, Protocol::Tcp, VIRTUAL, ACK);
        send(&sim, Protocol::Tcp, VIRTUAL, FIN | ACK);
        reply(RST);
        let again = send(&sim, Protocol::Tcp, VIRTUAL, SYN);
        if waits {
            assert_eq!(again, Outcome::Drop(Reason::TrackedAnew));
            let ended = Tracked {
                protocol: 6,
                client: at(CLIENT),
                virtual_addr: at(VIRTUAL),
                dest: at(SERVERS[0]).ip(),
            };
            assert_eq!(sim.maps().sweep().tracked, [ended]);
            let third = send(&sim, Protocol::Tcp, VIRTUAL, SYN);
            assert!(matches!(third, Outcome::Sent));
        } else {
            assert!(matches!(again, Outcome::Sent), "{again:?}");
            assert_eq!(sim.maps().sweep().tracked, []);
        }
    }
}

#[test]
fn what_expires_is_to_be_forgotten_unless_its_like_is_there_again() {
    let mut sim = sim(16);
    sim.set_sysctl(Sysctl::Conntrack, 1).expect("it can be set");
    let one = [dest(at(SERVERS[0]), ForwardMethod::Masquerade, 1)];
    let service = key(Protocol::Udp, at(VIRTUAL));
    put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &one);
    send(&sim, Protocol::Udp, VIRTUAL, 0);
    assert_eq!(sim.maps().sweep().tracked, []);
    assert_eq!(sim.maps().config().tracked.get(), 2);
    sim.maps().advance(ticks(301));
    let pass = sim.maps().sweep();
    assert_eq!((pass.tracked.len(), sim.maps().config().tracked.get()), (1, 0));
    assert_eq!(pass.tracked[0].dest, at(SERVERS[0]).ip());
}

/// A connection that a master told of is tracked from the client's first packet on; what has no destination
/// here, or is SCTP's, which netfilter would not take, is not.
#[test]
fn what_a_master_told_of_is_tracked_but_not_its_first_replies() {
    let told = |protocol: u8, virtual_addr: &str| rvs_sync::Entry {
        protocol,
        flags: 0,
        state: u16::from(protocol != 17),
        mark: 0,
        timeout: 300,
        client: at(CLIENT),
        service: at(virtual_addr),
        dest: at(SERVERS[0]),
        deltas: None,
        engine: None,
    };
    let mut sim = sim(16);
    serve(&mut sim, Protocol::Udp, VIRTUAL, ForwardMethod::Masquerade);
    serve(&mut sim, Protocol::Sctp, "10.9.1.1:22", ForwardMethod::Masquerade);
    sim.set_sysctl(Sysctl::Conntrack, 1).expect("it can be set");
    for (protocol, vip) in [(132, "10.9.1.1:22"), (17, "10.9.2.2:80")] {
        assert_eq!(sim.take_in(sim.maps(), &told(protocol, vip)), Ok(Arrived::Entered));
        assert_eq!(flags(&sim), (0, 0), "{protocol} {vip}");
    }
    serve(&mut sim, Protocol::Tcp, "10.9.1.2:80", ForwardMethod::DirectRoute);
    for (comes_back, tracked) in [(false, 0), (true, 1)] {
        sim.set_coming_back(comes_back);
        let client = SocketAddr::new(at(CLIENT).ip(), 2000 + tracked as u16);
        let entry = rvs_sync::Entry { client, flags: 3, ..told(6, "10.9.1.2:80") };
        assert_eq!(sim.take_in(sim.maps(), &entry), Ok(Arrived::Entered));
        assert_eq!(flags(&sim), (tracked, 0));
    }
    sim.maps().advance(ticks(301));
    sim.maps().sweep();
    assert_eq!(flags(&sim), (0, 0));
    assert_eq!(sim.take_in(sim.maps(), &told(17, VIRTUAL)), Ok(Arrived::Entered));
    assert_eq!(flags(&sim), (1, 0));
    let conns = sim.maps().conns4().iter().flat_map(|set| &set.ways);
    for conn in conns.filter(|conn| Word(conn.word.get()).has(TRACKED)) {
        rvs_core::tracked::meet(&sim.maps(), conn);
    }
    assert_eq!(flags(&sim), (1, 1));
}

/// What is not translated netfilter knows by the virtual address, whichever destination it goes to.
#[test]
fn direct_connections_are_forgotten_by_the_virtual_address() {
    let mut sim = sim(16);
    serve(&mut sim, Protocol::Tcp, VIRTUAL, ForwardMethod::DirectRoute);
    sim.set_sysctl(Sysctl::Conntrack, 1).expect("it can be set");
    sim.set_coming_back(true);
    let mut ended = Vec::new();
    for waits in [true, false] {
        for flags in [SYN, ACK, RST] {
            send(&sim, Protocol::Tcp, VIRTUAL, flags);
        }
        let again = send(&sim, Protocol::Tcp, VIRTUAL, SYN);
        assert_eq!(again, Outcome::Drop(Reason::TrackedAnew), "{again:?}");
        // One that took its place goes to the other destination and has the same entry of netfilter's.
        if !waits {
            assert!(matches!(send(&sim, Protocol::Tcp, VIRTUAL, SYN), Outcome::Sent));
        }
        ended.extend(sim.maps().sweep().tracked);
    }
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].virtual_addr, ended[0].dest), (at(VIRTUAL), at(VIRTUAL).ip()));
}

/// What a translator is told.
#[derive(Default)]
struct Told {
    refuses: bool,
    words: Vec<String>,
}

struct Listener(Arc<Mutex<Told>>);

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().expect("no panic while locked")
}

/// A service, in short.
fn name(key: &ServiceKey) -> String {
    match key {
        ServiceKey::Address { protocol, port, .. } => format!("{protocol:?} {port}"),
        ServiceKey::Fwmark { mark, .. } => format!("mark {mark}"),
    }
}

impl Listener {
    fn hear(&self, word: String) {
        lock(&self.0).words.push(word);
    }
}

impl Translator for Listener {
    fn start(
        &mut self,
        mut dests: Vec<(u32, DestKey)>,
        services: Vec<ServiceKey>,
    ) -> Result<(), i32> {
        dests.sort_by_key(|(index, _)| *index);
        let dests: Vec<String> = dests.iter().map(|(i, d)| format!("{i} {}", d.port)).collect();
        let services: Vec<String> = services.iter().map(name).collect();
        self.hear(format!("start {dests:?} {services:?}"));
        if lock(&self.0).refuses { Err(95) } else { Ok(()) }
    }
    fn enter(&mut self, index: u32, dest: DestKey) {
        self.hear(format!("enter {index} {}", dest.port));
    }
    fn leave(&mut self, index: u32) {
        self.hear(format!("leave {index}"));
    }
    fn enter_service(&mut self, key: &ServiceKey) {
        self.hear(format!("enter {}", name(key)));
    }
    fn leave_service(&mut self, key: &ServiceKey) {
        self.hear(format!("leave {}", name(key)));
    }
    fn check(&mut self) {}
    fn stop(&mut self) {
        self.hear("stop".into());
    }
}

#[test]
fn the_translator_knows_every_destination_while_it_is_needed() {
    let mut sim = sim(16);
    let told = Arc::new(Mutex::new(Told { refuses: true, ..Told::default() }));
    sim.translate_by(Box::new(Listener(Arc::clone(&told)))).expect("nothing is tracked yet");
    let service = key(Protocol::Udp, at(VIRTUAL));
    let dests = SERVERS.map(|server| dest(at(server), ForwardMethod::Masquerade, 1));
    put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &dests[..1]);
    let words = || std::mem::take(&mut lock(&told).words);
    assert_eq!(words(), [""; 0]);
    // What it cannot do changes nothing.
    let refused = sim.set_sysctl(Sysctl::Conntrack, 1);
    assert_eq!(refused, Err(DatapathError::Netfilter(95)));
    assert_eq!((sim.sysctl(Sysctl::Conntrack), sim.is_tracking()), (0, false));
    lock(&told).refuses = false;
    sim.set_sysctl(Sysctl::Conntrack, 1).expect("it can be set");
    assert_eq!(words(), ["start [\"1 80\"] [\"Udp 8080\"]"; 2]);
    put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &dests);
    assert_eq!(words(), ["enter 2 80"]);
    send(&sim, Protocol::Udp, VIRTUAL, 0);
    sim.maps().sweep();
    // A destination is remembered for as long as it is used, and two minutes.
    assert!(sim.remove_service(&service));
    sim.set_sysctl(Sysctl::Conntrack, 0).expect("it can be set");
    for _ in 0..5 {
        sim.forget();
        sim.tick();
    }
    assert!(sim.is_tracking());
    assert_eq!(words().len(), 1, "the one that nobody uses");
    sim.maps().advance(ticks(301));
    sim.maps().sweep();
    sim.forget();
    (0..3).for_each(|_| sim.tick());
    let heard = words();
    assert_eq!((heard.len(), heard[2].as_str()), (3, "stop"), "{heard:?}");
    // The service, whose connections lasted longer than it, then their destination.
    assert_eq!(heard[0], "leave Udp 8080");
    assert!(heard[1].starts_with("leave ") && !sim.is_tracking());
}

/// Clients on the director are tracked by services that netfilter can know, for as long as those are masqueraded
/// or anything is left of them.
#[test]
fn the_translator_knows_every_masqueraded_service() {
    let mut sim = sim(16);
    let told = Arc::new(Mutex::new(Told::default()));
    sim.translate_by(Box::new(Listener(Arc::clone(&told)))).expect("nothing is tracked yet");
    sim.set_sysctl(Sysctl::Conntrack, 1).expect("it can be set");
    let services = || -> Vec<String> {
        let words = std::mem::take(&mut lock(&told).words).into_iter();
        words.filter(|word| word.contains("Tcp") || word.contains("mark")).collect()
    };
    let virtual_addr = |port| SocketAddr::new(at(VIRTUAL).ip(), port);
    let service = key(Protocol::Tcp, virtual_addr(80));
    let marked = ServiceKey::Fwmark { family: Family::V4, mark: 5 };
    let masqueraded = dest(at(SERVERS[0]), ForwardMethod::Masquerade, 1);
    let direct = dest(at(SERVERS[1]), ForwardMethod::DirectRoute, 1);
    let none = ServiceFlags::empty();
    put(&mut sim, service, Scheduler::Rr, none, &[direct]);
    put(&mut sim, key(Protocol::Tcp, virtual_addr(21)), Scheduler::Rr, none, &[masqueraded]);
    put(&mut sim, marked, Scheduler::Rr, none, &[masqueraded]);
    assert_eq!(services(), [""; 0]);
    put(&mut sim, service, Scheduler::Rr, none, &[direct, masqueraded]);
    assert_eq!(services(), ["enter Tcp 80"]);
    put(&mut sim, service, Scheduler::Rr, none, &[direct]);
    put(&mut sim, service, Scheduler::Rr, none, &[masqueraded]);
    assert_eq!(services(), [""; 0], "it was known");
    // A new connection of a service that comes back while the old one's last packets are on their way.
    assert!(sim.remove_service(&service));
    put(&mut sim, service, Scheduler::Rr, none, &[masqueraded]);
    sim.forget();
    assert_eq!(services(), [""; 0]);
    assert!(sim.remove_service(&service));
    sim.forget();
    assert_eq!(services(), ["leave Tcp 80"]);
}
