//! Persistence by Call-ID: the parser against a plain one on random messages, templates whose
//! Call-IDs hash alike, and a flood of new Call-IDs.

mod common;
#[path = "../../core/tests/slow_call_id/mod.rs"]
mod slow_call_id;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use common::{Packet, cases};
use proptest::collection::vec;
use proptest::prelude::*;
use rvs_core::control::{Change, Datapath};
use rvs_core::layout::CallId;
use rvs_core::pe::{hash, set_call_id};
use rvs_core::pe_sip::Parser;
use rvs_core::reason::Reason;
use rvs_core::time::ticks;
use rvs_core::types::{
    DestConfig, DestKey, Engine, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags,
    ServiceKey,
};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};
use rvs_tables::Memory;

fn parse(text: &[u8]) -> Option<&[u8]> {
    let mut parser = Parser::new(|number| number);
    for (offset, byte) in (0..).zip(text) {
        if !parser.step(offset, *byte) {
            let (start, len) = parser.found(offset);
            return text.get(start as usize..(start + len) as usize).filter(|id| !id.is_empty());
        }
    }
    None
}

/// What messages are made of, and what has a meaning in them.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words: [&[u8]; 22] = [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b"@",
        b"Call-ID",
        b"call-id: ",
        b"i",
        b"I:",
        b"i: ",
        b"a",
        b"b1",
        b"\xe9",
        b"\xd7",
        b";",
        b"\0",
        b"\r\n ",
        b"\r\nCall-ID: ",
        b"\ni:",
        b"Via: x\r\n",
    ];
    prop_oneof![
        8 => proptest::sample::select(words.to_vec()).prop_map(<[u8]>::to_vec),
        1 => (200_usize..300).prop_map(|len| vec![b'z'; len]),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
    ]
}

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn the_parser_finds_what_a_plain_one_finds(pieces in vec(piece(), 0..24)) {
        let text = pieces.concat();
        prop_assert_eq!(parse(&text), slow_call_id::call_id(&text));
    }
}

const VIP: &str = "10.9.1.1:5060";
const SERVERS: u8 = 5;

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address and a port")
}

/// A service with `--pe sip -p 60`, and room for so many connections.
fn calls(sets: u32) -> SimDatapath {
    let sizes = Sizes { sets, services: 4, destinations: 16 };
    let mut sim = SimDatapath::adopt(Plain::new(&sizes, 7));
    let key = ServiceKey::Address { protocol: Protocol::Udp, addr: at(VIP).ip(), port: 5060 };
    let config = ServiceConfig {
        scheduler: Scheduler::Rr,
        flags: ServiceFlags::PERSISTENT,
        timeout: 60,
        netmask: u32::MAX,
        engine: Some(Engine::Sip),
    };
    let dest = |number: u8| DestConfig {
        key: DestKey { addr: [10, 1, 0, number].into(), port: 5060 },
        forward: ForwardMethod::Masquerade,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel_type: 0,
        tunnel_port: 0,
        tunnel_flags: 0,
    };
    let dests: Vec<DestConfig> = (0..SERVERS).map(dest).collect();
    sim.put_service(&key, &config, &dests, Change::Service).expect("there is room");
    sim
}

/// Sends a message of a call; where it goes.
fn send(sim: &SimDatapath, port: u16, call: &str) -> Result<IpAddr, Outcome> {
    let mut packet =
        Packet::new(Protocol::Udp, SocketAddr::new([10, 0, 0, 2].into(), port), at(VIP), 0);
    packet.payload = format!("INVITE sip:a@b SIP/2.0\r\nCall-ID: {call}\r\n\r\n").into_bytes();
    let mut frame = Frame::new(&packet.build());
    match sim.maps().run(&mut frame) {
        Outcome::Sent => {
            let octets: [u8; 4] = frame.bytes()[30..34].try_into().expect("four bytes");
            Ok(octets.into())
        }
        other => Err(other),
    }
}

/// Places for Call-IDs that are taken.
fn used(sim: &SimDatapath) -> usize {
    sim.maps().call_ids().iter().filter(|call_id| call_id.used.get() != 0).count()
}

/// Lets everything expire.
fn expire(sim: &mut SimDatapath) {
    for _ in 0..8 {
        sim.maps().advance(ticks(100));
        sim.maps().sweep();
        sim.tick();
    }
}

#[test]
fn calls_whose_ids_hash_alike_are_told_apart() {
    let mut sim = calls(4096);
    let seed = sim.maps().config().seed.get();
    let key = |call: &str| {
        let place = CallId::default();
        set_call_id(&place, call.as_bytes());
        hash(&place, seed) >> 32
    };
    let mut known = HashMap::new();
    let mut pairs = (0..400_000_u32).filter_map(|number| {
        let call = format!("{number}@x");
        known.insert(key(&call), call.clone()).map(|other| (other, call))
    });
    let (first, second) = pairs.next().expect("of 400,000, some 18 pairs share 32 bits");
    drop(pairs);
    let (to_first, to_second) = (send(&sim, 1, &first), send(&sim, 2, &second));
    assert!(to_first.is_ok() && to_second.is_ok() && to_first != to_second);
    for port in [3, 5, 7] {
        assert_eq!(send(&sim, port, &first), to_first);
        assert_eq!(send(&sim, port + 1, &second), to_second);
    }
    assert_eq!(used(&sim), 2);
    expire(&mut sim);
    assert_eq!(used(&sim), 0);
}

#[test]
fn a_flood_of_new_calls_takes_no_more_than_there_is_and_breaks_no_call() {
    let mut sim = calls(64);
    let room = sim.maps().call_ids().len();
    let established: Vec<_> = (1..=8).map(|port| send(&sim, port, &format!("old{port}"))).collect();
    assert!(established.iter().all(Result::is_ok), "{established:?}");
    let mut refused = 0;
    for number in 0..4 * room {
        if send(&sim, 1000 + number as u16, &format!("new{number}")).is_err() {
            refused += 1;
        }
    }
    assert!(refused > 0 && used(&sim) <= room);
    assert_eq!(sim.maps().reason(Reason::TableFull), refused);
    let now: Vec<_> = (1..=8).map(|port| send(&sim, port, &format!("old{port}"))).collect();
    assert_eq!(now, established);
    expire(&mut sim);
    assert_eq!(used(&sim), 0);
    assert!(send(&sim, 9, "afterwards").is_ok());
}

#[test]
fn what_has_no_call_id_is_dropped() {
    let sim = calls(64);
    assert_eq!(send(&sim, 1, "a;b"), Err(Outcome::Drop(Reason::NoCallId)));
    assert_eq!(sim.maps().reason(Reason::NoCallId), 1);
    assert_eq!(used(&sim), 0);
}
