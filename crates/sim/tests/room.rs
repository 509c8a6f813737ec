//! A flood of SYNs that fills the connection table: who is connected stays so, and who wants to
//! connect gets in at one of the next SYNs.

mod common;

use std::net::SocketAddr;

use common::{ACK, Packet, SYN, dest, key, put, run, sim, status};
use rvs_core::control::Datapath;
use rvs_core::reason::Reason;
use rvs_core::time::ticks;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler, ServiceFlags};
use rvs_sim::{Outcome, SimDatapath};

const VIP: ([u8; 4], u16) = ([10, 9, 1, 1], 80);
/// Of eight places each.
const SETS: u32 = 48;

struct Flood {
    sim: SimDatapath,
    method: ForwardMethod,
    sources: u32,
}

impl Flood {
    fn new(method: ForwardMethod) -> Self {
        let mut sim = sim(SETS);
        let server = dest(([10, 0, 0, 1], 80).into(), method, 1);
        let service = key(Protocol::Tcp, VIP.into());
        put(&mut sim, service, Scheduler::Rr, ServiceFlags::empty(), &[server]);
        Self { sim, method, sources: 0 }
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, flags: u8) -> Outcome {
        run(&self.sim, &Packet::new(Protocol::Tcp, from, to, flags)).0
    }

    /// SYNs from addresses that nobody answers at, until none of many more was taken.
    fn fill(&mut self) {
        let mut refused = 0;
        while refused < 2000 {
            self.sources += 1;
            let [_, a, b, c] = self.sources.to_be_bytes();
            let outcome = self.send(([198, a, b, c], 1024).into(), VIP.into(), SYN);
            refused = if outcome == Outcome::Sent { 0 } else { refused + 1 };
        }
    }

    /// Whether a client's handshake gets through at its first or one of the next SYNs, a second apart,
    /// the flood going on meanwhile.
    fn connects(&mut self, client: SocketAddr, tries: u32) -> bool {
        (0..tries).any(|_| {
            let connected = self.handshake(client);
            self.fill();
            self.sim.maps().advance(ticks(1));
            self.sim.maps().sweep();
            connected
        })
    }

    fn handshake(&self, client: SocketAddr) -> bool {
        let taken = self.send(client, VIP.into(), SYN) == Outcome::Sent;
        if taken && self.method == ForwardMethod::Masquerade {
            assert_eq!(self.send(([10, 0, 0, 1], 80).into(), client, SYN | ACK), Outcome::Sent);
        }
        taken && self.send(client, VIP.into(), ACK) == Outcome::Sent
    }
}

fn client(number: u16) -> SocketAddr {
    ([10, 0, 0, 2], 2000 + number).into()
}

fn play(method: ForwardMethod) {
    let mut flood = Flood::new(method);
    let (early, late) = (0..40, 100..140);
    for number in early.clone() {
        assert!(flood.handshake(client(number)), "the table is empty");
    }
    flood.fill();
    let full = flood.sim.maps().reason(Reason::TableFull);
    assert!(full >= 2000, "{full}");
    // Nobody's handshake is cut short: in its first five ticks a connection keeps its place.
    let before = flood.sim.maps().sweep();
    flood.sim.maps().advance(5);
    flood.fill();
    assert_eq!(flood.sim.maps().sweep().live, before.live);
    // In the sixth it may have to give it up.
    flood.sim.maps().advance(1);
    flood.fill();
    let room = flood.sim.maps().make_room();
    assert!(room.cleared > 0);
    assert_eq!(room.live + room.cleared, before.live);
    assert_eq!(flood.sim.maps().sweep().live, room.live);

    flood.sim.maps().advance(ticks(2));
    for number in late.clone() {
        assert!(flood.connects(client(number), 8), "{method:?}: client {number}");
    }
    // Both those from before the flood and those from within go on.
    for number in early.chain(late) {
        let before = flood.sim.maps().reason(Reason::TableFull);
        assert_eq!(flood.send(client(number), VIP.into(), ACK), Outcome::Sent, "{number}");
        assert_eq!(flood.sim.maps().reason(Reason::TableFull), before);
    }
    // What gave way was counted out.
    let service = key(Protocol::Tcp, VIP.into());
    let counted = status(&flood.sim, &service, &dest(([10, 0, 0, 1], 80).into(), method, 1));
    let (mut connected, mut half_open) = (0, 0);
    flood.sim.for_each_conn(&mut |row| {
        let is_client = row.client.to_string().starts_with("10.");
        *(if is_client { &mut connected } else { &mut half_open }) += 1;
        true
    });
    assert_eq!((connected, counted.active_conns), (80, 80 + half_open));
    assert_eq!(counted.inactive_conns, 0);
}

#[test]
fn what_has_only_expired_is_left_to_the_sweep() {
    let mut flood = Flood::new(ForwardMethod::DirectRoute);
    flood.fill();
    let live = flood.sim.maps().sweep().live;
    flood.sim.maps().advance(ticks(600));
    let room = flood.sim.maps().make_room();
    assert_eq!((room.live, room.cleared), (live, 0));
    let swept = flood.sim.maps().sweep();
    assert_eq!((swept.live, swept.cleared), (0, live));
}

#[test]
fn clients_get_into_a_full_table_through_direct_routing() {
    play(ForwardMethod::DirectRoute);
}

#[test]
fn clients_get_into_a_full_table_through_masquerading() {
    play(ForwardMethod::Masquerade);
}
