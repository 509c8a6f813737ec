//! Messages of sync daemons, each with two bytes of length before it, one after the other: a backup
//! takes them into its connection table, which keeps its counts right and gives Call-IDs back; what can
//! be read can be written.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use rvs_core::control::{Change, Datapath};
use rvs_core::types::{
    DestConfig, DestKey, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags,
    ServiceKey,
};
use rvs_sim::{Plain, SimDatapath, Sizes};
use rvs_sync::{Batch, Message, Version};
use rvs_tables::Memory;

const SERVICE: ServiceKey = ServiceKey::Address {
    protocol: Protocol::Tcp,
    addr: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 1, 1)),
    port: 80,
};

/// The destination of the recorded messages, masqueraded, and one that is routed to.
fn dests() -> [DestConfig; 2] {
    [(11, ForwardMethod::Masquerade), (12, ForwardMethod::DirectRoute)].map(|(last, forward)| {
        DestConfig {
            key: DestKey { addr: [10, 1, 0, last].into(), port: 80 },
            forward,
            weight: 1,
            upper_threshold: 0,
            lower_threshold: 0,
            tunnel_type: 0,
            tunnel_port: 0,
            tunnel_flags: 0,
        }
    })
}

fn backup() -> SimDatapath {
    let sizes = Sizes { sets: 4, services: 4, destinations: 16 };
    let mut sim = SimDatapath::adopt(Plain::new(&sizes, 1));
    let flags = ServiceFlags::empty();
    let scheduler = Scheduler::Rr;
    let config = ServiceConfig { scheduler, flags, timeout: 0, netmask: u32::MAX, engine: None };
    sim.put_service(&SERVICE, &config, &dests(), Change::Dests).expect("there is room");
    sim
}

thread_local!(static BACKUP: RefCell<SimDatapath> = RefCell::new(backup()));

fuzz_target!(|bytes: &[u8]| {
    BACKUP.with_borrow_mut(|backup| {
        let mut rest = bytes;
        while let Some((&[high, low], after)) = rest.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([high, low])).min(after.len());
            take(backup, &after[..len]);
            rest = &after[len..];
        }
        let mut counted = [0, 0];
        backup.for_each_conn(&mut |row| {
            let ours = dests().iter().any(|dest| dest.key.addr == row.dest && row.dest_port == 80);
            let at = (row.virtual_addr, row.virtual_port, row.protocol);
            if ours && !row.template && at == ([10, 9, 1, 1].into(), 80, 6) {
                counted[0] += 1;
            }
            true
        });
        for dest in dests() {
            let status = backup.dest_status(&SERVICE, &dest.key);
            counted[1] += status.active_conns + status.inactive_conns;
        }
        assert_eq!(counted[0], counted[1], "connections and counts");
        // What was entered ends: the table is empty for the next.
        backup.maps().advance(i32::MAX as u32 / 2);
        backup.maps().sweep();
        backup.maps().sweep();
        let used = backup.maps().call_ids().iter().filter(|call_id| call_id.used.get() != 0);
        assert_eq!(used.count(), 0, "places of Call-IDs");
    });
});

fn take(backup: &SimDatapath, datagram: &[u8]) {
    let Ok(message) = Message::parse(datagram) else { return };
    let mut batch = Batch::new(Version::V1, message.sync_id, u16::MAX);
    for entry in message.entries() {
        let Ok(entry) = entry else { continue };
        let _ = batch.push(&entry);
        let _ = backup.take_in(backup.maps(), &entry);
    }
    if let Some(written) = batch.finish() {
        let again = Message::parse(&written).expect("what was written can be read");
        assert!(again.entries().all(|entry| entry.is_ok()));
    }
}
