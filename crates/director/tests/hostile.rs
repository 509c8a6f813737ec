//! What no client should send: every datagram is answered with errnos, or not at all, and what is
//! answered is whole netlink.

mod memory;

use memory::Memory;
use proptest::collection::vec;
use proptest::prelude::*;
use rvs_director::{Director, FAMILY_ID};
use rvs_netlink::attr::Writer;
use rvs_netlink::client::MAX_DATAGRAM;
use rvs_netlink::errno::EBUSY;
use rvs_netlink::ipvs::{cmd_attr, command};
use rvs_netlink::message::{ERROR, F_ACK, F_DUMP, F_REQUEST, Messages, generic};

const RECORDING: &str = include_str!("../../../tests/oracle/recorded/netlink.jsonl");

/// Every request of the recording, which are valid ones and nearly valid ones.
fn requests() -> Vec<Vec<u8>> {
    let request = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let hex = record["request"].as_str()?.to_owned();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte");
        let mut bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        if bytes.get(4..6) == Some(&32_u16.to_ne_bytes()) {
            bytes[4..6].copy_from_slice(&FAMILY_ID.to_ne_bytes());
        }
        Some(bytes)
    };
    RECORDING.lines().filter_map(request).collect()
}

fn answers_are_whole(director: &mut Director<Memory>, datagram: &[u8]) {
    for reply in director.handle(datagram) {
        assert!(reply.len() <= MAX_DATAGRAM);
        let whole: usize =
            Messages(&reply).map(|m| (m.payload.len() + 16).next_multiple_of(4)).sum();
        assert_eq!(whole, reply.len());
    }
    director.take_refusals();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered_with_whole_messages(bytes in vec(any::<u8>(), 0..400)) {
        answers_are_whole(&mut Director::new(Memory::default()), &bytes);
    }

    #[test]
    fn bent_requests_are_answered_with_whole_messages(
        picks in vec((any::<prop::sample::Index>(), vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)), 1..30),
    ) {
        let mut director = Director::new(Memory::default());
        let requests = requests();
        for (pick, changes) in picks {
            let mut request = pick.get(&requests).clone();
            for (at, byte) in changes {
                let at = at.index(request.len());
                request[at] = byte;
            }
            answers_are_whole(&mut director, &request);
        }
    }
}

#[test]
fn one_datagram_cannot_ask_for_endless_dumps() {
    let mut director = Director::new(Memory::with_conns(5_000));
    let dump = generic(FAMILY_ID, F_REQUEST | F_DUMP, 1, 0, command::GET_CONNS, &Writer::new());
    let replies = director.handle(&dump.repeat(1_000));
    let size: usize = replies.iter().map(Vec::len).sum();
    assert!(size < 2_000_000, "{size} bytes");
    let refused = replies.iter().flat_map(|reply| Messages(reply)).filter(|m| m.kind == ERROR);
    assert!(refused.count() > 900);
    let last = replies.last().expect("an answer");
    assert_eq!(Messages(last).next().and_then(|m| m.errno()), Some(EBUSY));
}

#[test]
fn a_page_of_connections_is_as_long_as_asked_for_and_names_the_next() {
    let mut director = Director::new(Memory::with_conns(10));
    let (mut cursor, mut rows, mut pages) = (Some(0), 0, 0);
    while let Some(at) = cursor.take() {
        let mut attrs = Writer::new();
        attrs.u64(cmd_attr::CURSOR, at).u32(cmd_attr::LIMIT, 4);
        let request =
            generic(FAMILY_ID, F_REQUEST | F_DUMP | F_ACK, 1, 0, command::GET_CONNS, &attrs);
        for reply in director.handle(&request) {
            for message in Messages(&reply) {
                rows += usize::from(message.attrs().find(cmd_attr::CONN).is_some());
                cursor = message.attrs().u64(cmd_attr::CURSOR).or(cursor);
            }
        }
        pages += 1;
    }
    assert_eq!((rows, pages), (10, 3));
}
