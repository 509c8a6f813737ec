//! What is written is read, whatever it is; what is read from any bytes is no panic.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use rvs_core::control::{DestStatus, Rates, Stats};
use rvs_core::types::{
    DestConfig, DestKey, Family, ForwardMethod, Protocol, ServiceFlags, ServiceKey,
};
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::ipvs::{self, Daemon, Role, Service, dest_attr, svc_attr};

fn addr(v6: bool) -> BoxedStrategy<IpAddr> {
    if v6 {
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()).boxed()
    } else {
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()).boxed()
    }
}

fn any_addr() -> impl Strategy<Value = IpAddr> {
    any::<bool>().prop_flat_map(addr)
}

fn service_key() -> impl Strategy<Value = ServiceKey> {
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let address = (protocol, any_addr(), any::<u16>())
        .prop_map(|(protocol, addr, port)| ServiceKey::Address { protocol, addr, port });
    let mark = (any::<bool>(), 1_u32..).prop_map(|(v6, mark)| ServiceKey::Fwmark {
        family: if v6 { Family::V6 } else { Family::V4 },
        mark,
    });
    prop_oneof![address, mark]
}

fn service() -> impl Strategy<Value = Service> {
    let names = ("[a-z]{1,15}", prop::option::of("[a-z]{1,16}"));
    (service_key(), names, any::<u32>(), any::<u32>(), any::<u32>()).prop_map(
        |(key, (scheduler, pe), flags, timeout, netmask)| {
            let flags = ServiceFlags::from_bits_retain(flags);
            Service { key, scheduler, flags, timeout, netmask, pe }
        },
    )
}

fn dest() -> impl Strategy<Value = DestConfig> {
    let forward = prop::sample::select(vec![
        ForwardMethod::Masquerade,
        ForwardMethod::Local,
        ForwardMethod::Tunnel,
        ForwardMethod::DirectRoute,
        ForwardMethod::Bypass,
    ]);
    let numbers = (0..=i32::MAX as u32, any::<u32>(), any::<u32>());
    let tunnel = (any::<u8>(), any::<u16>(), any::<u16>());
    (any_addr(), any::<u16>(), forward, numbers, tunnel).prop_map(
        |(addr, port, forward, (weight, upper, lower), (kind, tunnel_port, flags))| DestConfig {
            key: DestKey { addr, port },
            forward,
            weight,
            upper_threshold: upper,
            lower_threshold: lower,
            tunnel_type: kind,
            tunnel_port,
            tunnel_flags: flags,
        },
    )
}

fn counters() -> impl Strategy<Value = (Stats, Rates)> {
    any::<[u64; 10]>().prop_map(|n| {
        let stats =
            Stats { conns: n[0], in_pkts: n[1], out_pkts: n[2], in_bytes: n[3], out_bytes: n[4] };
        let rates = Rates { cps: n[5], in_pps: n[6], out_pps: n[7], in_bps: n[8], out_bps: n[9] };
        (stats, rates)
    })
}

fn daemon() -> impl Strategy<Value = Daemon> {
    let group = prop_oneof![
        (0xe000_0000_u32..0xf000_0000).prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits))),
        any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits | 0xff << 120))),
    ];
    let role = prop::sample::select(vec![Role::Master, Role::Backup]);
    let numbers = (
        prop::option::of(1_u16..),
        prop::option::of(group),
        prop::option::of(1_u16..),
        prop::option::of(1_u8..),
    );
    (role, "[a-z0-9.]{0,15}", any::<u32>(), numbers).prop_map(
        |(role, interface, sync_id, (max_len, group, port, ttl))| Daemon {
            role,
            interface,
            sync_id,
            max_len,
            group,
            port,
            ttl,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn services_are_read_as_they_were_written(service in service()) {
        let mut attrs = Writer::new();
        ipvs::put_service(&mut attrs, &service);
        prop_assert_eq!(ipvs::service(&Attrs(attrs.bytes())), Ok(service));
    }

    #[test]
    fn destinations_are_read_as_they_were_written(dest in dest(), (stats, rates) in counters()) {
        let family = Family::of(dest.key.addr);
        let mut request = Writer::new();
        ipvs::put_dest(&mut request, &dest);
        let weight = dest.weight.cast_signed();
        prop_assert_eq!(ipvs::dest(&Attrs(request.bytes()), family), Ok((dest, weight)));
        let status = DestStatus { active_conns: 1, inactive_conns: 2, persist_conns: 3, stats };
        let mut answer = Writer::new();
        ipvs::put_dest_status(&mut answer, &dest, &status, &rates);
        let attrs = Attrs(answer.bytes());
        prop_assert_eq!(ipvs::dest(&attrs, family), Ok((dest, weight)));
        prop_assert_eq!(ipvs::dest_status(&attrs), (status, rates));
    }

    #[test]
    fn the_narrow_counters_are_the_wide_ones_cut((stats, rates) in counters()) {
        let mut attrs = Writer::new();
        ipvs::put_stats(&mut attrs, svc_attr::STATS, svc_attr::STATS64, &stats, &rates);
        let attrs = Attrs(attrs.bytes());
        // An attribute that is not there makes the reader take the narrow form.
        let (narrow, narrow_rates) = ipvs::stats(&attrs, svc_attr::STATS, 999);
        prop_assert_eq!(narrow.conns, stats.conns & 0xffff_ffff);
        prop_assert_eq!((narrow.in_bytes, narrow.out_bytes), (stats.in_bytes, stats.out_bytes));
        prop_assert_eq!(narrow_rates.out_bps, rates.out_bps & 0xffff_ffff);
        prop_assert_eq!(ipvs::stats(&attrs, svc_attr::STATS, svc_attr::STATS64), (stats, rates));
    }

    #[test]
    fn daemons_are_read_as_they_were_written(daemon in daemon()) {
        let mut attrs = Writer::new();
        ipvs::put_daemon(&mut attrs, &daemon);
        prop_assert_eq!(ipvs::daemon(&Attrs(attrs.bytes())), Ok(daemon));
    }

    #[test]
    fn entities_cut_short_are_refused(service in service(), dest in dest(), cut in 1..60_usize) {
        let mut attrs = Writer::new();
        ipvs::put_service(&mut attrs, &service);
        let bytes = attrs.bytes();
        let _ = ipvs::service(&Attrs(&bytes[..bytes.len().saturating_sub(cut)]));
        // The last attribute of a service is its netmask: without it the service is not whole.
        prop_assert!(ipvs::service(&Attrs(&bytes[..bytes.len() - 4])).is_err());
        let mut attrs = Writer::new();
        ipvs::put_dest_key(&mut attrs, &dest.key);
        let bytes = attrs.bytes();
        let key = ipvs::dest_key(&Attrs(&bytes[..bytes.len() - 8]), Family::V4);
        prop_assert!(key.is_err(), "without {}", dest_attr::PORT);
    }
}
