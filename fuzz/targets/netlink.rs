//! Datagrams to the director: whatever they hold, they are answered with whole messages, and the
//! client reads whatever is answered. The same bytes as an answer are read by the client's decoders.
#![no_main]

#[path = "../../crates/director/tests/memory/mod.rs"]
mod memory;

use libfuzzer_sys::fuzz_target;
use memory::Memory;
use rvs_core::types::Family;
use rvs_director::{Director, FAMILY_ID};
use rvs_netlink::client::MAX_DATAGRAM;
use rvs_netlink::ipvs::{self, cmd_attr, dest_attr, svc_attr};
use rvs_netlink::message::{F_REQUEST, Messages};

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    let mut director = Director::new(Memory::with_conns(3));
    // Requests of random length behind one another; the fuzzer finds what is between the headers.
    let (mut rest, mut sequence) = (bytes, 0_u32);
    while let Some((head, tail)) = rest.split_at_checked(3) {
        let (body, next) = tail.split_at(usize::from(head[0]).min(tail.len()));
        let mut request = (20 + body.len() as u32).to_ne_bytes().to_vec();
        request.extend(FAMILY_ID.to_ne_bytes());
        request.extend((F_REQUEST | u16::from(head[1]) << 2).to_ne_bytes());
        request.extend(sequence.to_ne_bytes());
        request.extend([0; 4]);
        request.extend([head[2], 1, 0, 0]);
        request.extend(body);
        answer(&mut director, &request);
        (rest, sequence) = (next, sequence + 1);
    }
    answer(&mut director, bytes);
});

fn answer(director: &mut Director<Memory>, datagram: &[u8]) {
    for reply in director.handle(datagram) {
        assert!(reply.len() <= MAX_DATAGRAM);
        let whole = Messages(&reply).map(|m| (m.payload.len() + 16).next_multiple_of(4));
        assert_eq!(whole.sum::<usize>(), reply.len());
        read(&reply);
    }
    for refusal in director.take_refusals() {
        assert!(refusal.errno > 0 && !refusal.message.is_empty());
    }
}

/// Reads an answer as the client does.
fn read(bytes: &[u8]) {
    for message in Messages(bytes) {
        let _ = (message.errno(), message.explanation());
        let attrs = message.attrs();
        if let Some(service) = attrs.nested(cmd_attr::SERVICE) {
            let _ = ipvs::service(&service);
            ipvs::stats(&service, svc_attr::STATS, svc_attr::STATS64);
        }
        if let Some(dest) = attrs.nested(cmd_attr::DEST) {
            let _ = (ipvs::dest(&dest, Family::V4), ipvs::dest(&dest, Family::V6));
            ipvs::stats(&dest, dest_attr::STATS, dest_attr::STATS64);
            ipvs::dest_status(&dest);
        }
        let _ = attrs.nested(cmd_attr::DAEMON).map(|daemon| ipvs::daemon(&daemon));
        let _ = attrs.nested(cmd_attr::CONN).map(|conn| ipvs::conn(&conn));
    }
}
