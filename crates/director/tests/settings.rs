//! Settings by the control protocol, and the one whose effect is the director's: `run_estimation`.

use rvs_core::control::{Change, Datapath};
use rvs_core::types::{
    DestConfig, DestKey, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags,
    ServiceKey,
};
use rvs_director::{Director, FAMILY_ID};
use rvs_netlink::attr::Writer;
use rvs_netlink::ipvs::{cmd_attr, command, svc_attr};
use rvs_netlink::message::{ERROR, F_ACK, F_DUMP, F_REQUEST, Messages, generic};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};

const KEY: ServiceKey = ServiceKey::Address {
    protocol: Protocol::Tcp,
    addr: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    port: 80,
};

/// A director over a data path with one service of one destination.
fn director() -> Director<SimDatapath> {
    let mut sim = SimDatapath::adopt(Plain::new(&Sizes::default(), 1));
    let flags = ServiceFlags::empty();
    let config = ServiceConfig {
        scheduler: Scheduler::Rr,
        flags,
        timeout: 0,
        netmask: u32::MAX,
        engine: None,
    };
    let dest = DestConfig {
        key: DestKey { addr: [192, 0, 2, 9].into(), port: 80 },
        forward: ForwardMethod::DirectRoute,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel_type: 0,
        tunnel_port: 0,
        tunnel_flags: 0,
    };
    sim.put_service(&KEY, &config, &[dest], Change::Dests).expect("there is room");
    Director::new(sim)
}

/// The errno of the answer to a change; 0 if it was made.
fn set(director: &mut Director<SimDatapath>, name: &str, value: &str) -> i32 {
    let mut attrs = Writer::new();
    attrs.text(cmd_attr::SYSCTL_NAME, name).text(cmd_attr::SYSCTL_VALUE, value);
    let flags = F_REQUEST | F_ACK;
    let request = generic(FAMILY_ID, flags, 1, 0, command::SET_SYSCTL, &attrs);
    let answers = director.handle(&request);
    let answer = Messages(answers.first().expect("an answer")).next().expect("a message");
    assert_eq!(answer.kind, ERROR);
    answer.errno().expect("an errno")
}

fn get(director: &mut Director<SimDatapath>, name: &str) -> Option<String> {
    let mut attrs = Writer::new();
    attrs.text(cmd_attr::SYSCTL_NAME, name);
    let flags = F_REQUEST | F_DUMP;
    let request = generic(FAMILY_ID, flags, 1, 0, command::GET_SYSCTL, &attrs);
    let answers = director.handle(&request);
    let value = |message: rvs_netlink::message::Message<'_>| {
        message.attrs().text(cmd_attr::SYSCTL_VALUE).map(str::to_owned)
    };
    answers.iter().flat_map(|datagram| Messages(datagram)).find_map(value)
}

/// Sends a SYN with this source port from 2048 on: Ethernet, IPv4, TCP.
fn syn(director: &Director<SimDatapath>, port: u8) {
    let mut frame = vec![0; 54];
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[17] = 40;
    frame[22..24].copy_from_slice(&[64, 6]);
    frame[26..34].copy_from_slice(&[192, 0, 2, 70, 192, 0, 2, 1]);
    frame[34..38].copy_from_slice(&[8, port, 0, 80]);
    frame[46..48].copy_from_slice(&[0x50, 2]);
    assert_eq!(director.datapath().maps().run(&mut Frame::new(&frame)), Outcome::Sent);
}

/// Connections per second, as `ipvsadm --rate` gets them.
fn rate(director: &mut Director<SimDatapath>) -> u32 {
    /// `IPVS_STATS_ATTR_CPS`
    const CPS: u16 = 6;
    let flags = F_REQUEST | F_DUMP;
    let request = generic(FAMILY_ID, flags, 1, 0, command::GET_SERVICE, &Writer::new());
    let answers = director.handle(&request);
    let service = Messages(&answers[0]).next().expect("a message").attrs();
    let stats = service.nested(cmd_attr::SERVICE).and_then(|s| s.nested(svc_attr::STATS));
    stats.and_then(|stats| stats.u32(CPS)).expect("a rate")
}

#[test]
fn settings_are_set_or_refused_with_the_kernel_s_errno() {
    let mut director = director();
    for (name, value, errno, after) in [
        ("conn_reuse_mode", " 0x2\n", 0, "2"),
        ("conn_reuse_mode", "two", 22, "2"),
        ("secure_tcp", "3", 0, "3"),
        ("secure_tcp", "4", 22, "3"),
        ("sync_version", "0", 0, "0"),
        ("drop_entry", "3", 0, "3"),
        ("drop_entry", "4", 22, "3"),
        ("conntrack", "0", 0, "0"),
        ("conntrack", "1", 0, "1"),
    ] {
        assert_eq!(set(&mut director, name, value), errno, "{name}={value}");
        assert_eq!(get(&mut director, name).as_deref(), Some(after), "{name}={value}");
    }
    assert_eq!(set(&mut director, "nosuch", "1"), 2);
    assert_eq!(get(&mut director, "nosuch"), None);
}

#[test]
fn rates_stand_still_without_estimation() {
    let mut director = director();
    // What was there before counts from the start on.
    (1..=40).for_each(|port| syn(&director, port));
    director.tick();
    let before = rate(&mut director);
    assert!(before > 0);
    assert_eq!(set(&mut director, "run_estimation", "0"), 0);
    (0..5).for_each(|_| director.tick());
    assert_eq!(rate(&mut director), before);
    assert_eq!(set(&mut director, "run_estimation", "1"), 0);
    director.tick();
    assert!(rate(&mut director) < before);
}

/// As in the kernel, where the estimator of a service starts with it, and at zero with `ipvsadm -Z`.
#[test]
fn what_is_zeroed_counts_from_then_on() {
    let mut director = director();
    (1..=40).for_each(|port| syn(&director, port));
    director.tick();
    assert_eq!(rate(&mut director), 5, "40 in 2 s, of which a quarter");
    let zero = generic(FAMILY_ID, F_REQUEST, 1, 0, command::ZERO, &Writer::new());
    director.handle(&zero);
    assert_eq!(rate(&mut director), 0);
    (41..=120).for_each(|port| syn(&director, port));
    director.tick();
    assert_eq!(rate(&mut director), 10);
}
