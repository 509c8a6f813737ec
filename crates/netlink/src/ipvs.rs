//! Commands, attributes and entities of family "IPVS" (`include/uapi/linux/ip_vs.h`), both ways.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rvs_core::control::{ConnRow, DestStatus, Rates, Stats};
use rvs_core::types::{
    DestConfig, DestKey, Family, ForwardMethod, Protocol, ServiceFlags, ServiceKey,
};

use crate::attr::{Attrs, Writer};
use crate::errno;

/// Name of the family.
pub const FAMILY: &str = "IPVS";
/// Version of the family.
pub const VERSION: u8 = 1;
/// `IP_VS_VERSION_CODE`: 1.2.1.
pub const VERSION_CODE: u32 = 0x01_02_01;

/// Commands, `IPVS_CMD_*`. From [`command::GET_CONNS`] on they are RVS's own.
#[allow(missing_docs)]
pub mod command {
    pub const NEW_SERVICE: u8 = 1;
    pub const SET_SERVICE: u8 = 2;
    pub const DEL_SERVICE: u8 = 3;
    pub const GET_SERVICE: u8 = 4;
    pub const NEW_DEST: u8 = 5;
    pub const SET_DEST: u8 = 6;
    pub const DEL_DEST: u8 = 7;
    pub const GET_DEST: u8 = 8;
    pub const NEW_DAEMON: u8 = 9;
    pub const DEL_DAEMON: u8 = 10;
    pub const GET_DAEMON: u8 = 11;
    pub const SET_CONFIG: u8 = 12;
    pub const GET_CONFIG: u8 = 13;
    pub const SET_INFO: u8 = 14;
    pub const GET_INFO: u8 = 15;
    pub const ZERO: u8 = 16;
    pub const FLUSH: u8 = 17;
    /// A dump of the connection table: what the kernel tells by `/proc/net/ip_vs_conn`.
    pub const GET_CONNS: u8 = 64;
    /// Counters and rates of everything: what the kernel tells by `/proc/net/ip_vs_stats`.
    pub const GET_STATS: u8 = 80;
}

/// Top-level attributes, `IPVS_CMD_ATTR_*`.
#[allow(missing_docs)]
pub mod cmd_attr {
    pub const SERVICE: u16 = 1;
    pub const DEST: u16 = 2;
    pub const DAEMON: u16 = 3;
    pub const TIMEOUT_TCP: u16 = 4;
    pub const TIMEOUT_TCP_FIN: u16 = 5;
    pub const TIMEOUT_UDP: u16 = 6;
    /// A connection, in answers to `GET_CONNS`.
    pub const CONN: u16 = 64;
    /// A sentence that says more than the errno.
    pub const MESSAGE: u16 = 65;
    /// Counters of everything, in answers to `GET_STATS`.
    pub const STATS: u16 = 80;
    /// The same, 64 bits wide.
    pub const STATS64: u16 = 81;
}

/// Attributes of a service, `IPVS_SVC_ATTR_*`.
#[allow(missing_docs)]
pub mod svc_attr {
    pub const AF: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ADDR: u16 = 3;
    pub const PORT: u16 = 4;
    pub const FWMARK: u16 = 5;
    pub const SCHED_NAME: u16 = 6;
    pub const FLAGS: u16 = 7;
    pub const TIMEOUT: u16 = 8;
    pub const NETMASK: u16 = 9;
    pub const STATS: u16 = 10;
    pub const PE_NAME: u16 = 11;
    pub const STATS64: u16 = 12;
}

/// Attributes of a destination, `IPVS_DEST_ATTR_*`.
#[allow(missing_docs)]
pub mod dest_attr {
    pub const ADDR: u16 = 1;
    pub const PORT: u16 = 2;
    pub const FWD_METHOD: u16 = 3;
    pub const WEIGHT: u16 = 4;
    pub const U_THRESH: u16 = 5;
    pub const L_THRESH: u16 = 6;
    pub const ACTIVE_CONNS: u16 = 7;
    pub const INACT_CONNS: u16 = 8;
    pub const PERSIST_CONNS: u16 = 9;
    pub const STATS: u16 = 10;
    pub const ADDR_FAMILY: u16 = 11;
    pub const STATS64: u16 = 12;
    pub const TUN_TYPE: u16 = 13;
    pub const TUN_PORT: u16 = 14;
    pub const TUN_FLAGS: u16 = 15;
}

/// `IPVS_INFO_ATTR_VERSION`
pub const INFO_VERSION: u16 = 1;
/// `IPVS_INFO_ATTR_CONN_TAB_SIZE`
pub const INFO_CONN_TAB_SIZE: u16 = 2;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

fn af(family: Family) -> u16 {
    match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    }
}

fn family(number: u16) -> Option<Family> {
    match number {
        AF_INET => Some(Family::V4),
        AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// `union nf_inet_addr`: 16 bytes, of which IPv4 uses the first four.
fn addr_bytes(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, c, d] = addr.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(addr) => addr.octets(),
    }
}

fn addr(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => bytes.first_chunk::<4>().map(|b| IpAddr::V4(Ipv4Addr::from(*b))),
        Family::V6 => bytes.first_chunk::<16>().map(|b| IpAddr::V6(Ipv6Addr::from(*b))),
    }
}

/// A service as the protocol speaks of it. Names are text: who receives it decides what it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which.
    pub key: ServiceKey,
    /// Scheduler's name.
    pub scheduler: String,
    /// Flags.
    pub flags: ServiceFlags,
    /// Persistence timeout in seconds.
    pub timeout: u32,
    /// Persistence granularity: see `ServiceConfig::netmask`.
    pub netmask: u32,
    /// Persistence engine's name.
    pub pe: Option<String>,
}

/// Puts what names a service.
pub fn put_service_key(attrs: &mut Writer, key: &ServiceKey) {
    attrs.u16(svc_attr::AF, af(key.family()));
    match key {
        ServiceKey::Fwmark { mark, .. } => {
            attrs.u32(svc_attr::FWMARK, *mark);
        }
        ServiceKey::Address { protocol, addr, port } => {
            attrs
                .u16(svc_attr::PROTOCOL, *protocol as u16)
                .put(svc_attr::ADDR, &addr_bytes(*addr))
                .be16(svc_attr::PORT, *port);
        }
    }
}

/// Reads what names a service (`ip_vs_genl_parse_service`).
pub fn service_key(attrs: &Attrs<'_>) -> Result<ServiceKey, i32> {
    let family =
        family(attrs.u16(svc_attr::AF).ok_or(errno::EINVAL)?).ok_or(errno::EAFNOSUPPORT)?;
    if let Some(mark) = attrs.u32(svc_attr::FWMARK) {
        return Ok(ServiceKey::Fwmark { family, mark });
    }
    let number = attrs.u16(svc_attr::PROTOCOL).ok_or(errno::EINVAL)?;
    let bytes = attrs.find(svc_attr::ADDR).ok_or(errno::EINVAL)?;
    let port = attrs.be16(svc_attr::PORT).ok_or(errno::EINVAL)?;
    let protocol = u8::try_from(number).ok().and_then(Protocol::from_number);
    let protocol = protocol.ok_or(errno::EPROTONOSUPPORT)?;
    let addr = addr(family, bytes).ok_or(errno::EINVAL)?;
    Ok(ServiceKey::Address { protocol, addr, port })
}

/// Puts a whole service.
pub fn put_service(attrs: &mut Writer, service: &Service) {
    put_service_key(attrs, &service.key);
    attrs.text(svc_attr::SCHED_NAME, &service.scheduler);
    if let Some(pe) = &service.pe {
        attrs.text(svc_attr::PE_NAME, pe);
    }
    let mut flags = service.flags.bits().to_ne_bytes().to_vec();
    flags.extend_from_slice(&u32::MAX.to_ne_bytes());
    attrs.put(svc_attr::FLAGS, &flags);
    attrs.u32(svc_attr::TIMEOUT, service.timeout);
    attrs.u32(svc_attr::NETMASK, wire_netmask(service.key.family(), service.netmask));
}

/// IPv4 netmasks travel in network byte order, IPv6 prefix lengths as numbers.
fn wire_netmask(family: Family, netmask: u32) -> u32 {
    match family {
        Family::V4 => netmask.to_be(),
        Family::V6 => netmask,
    }
}

/// Reads a whole service.
pub fn service(attrs: &Attrs<'_>) -> Result<Service, i32> {
    let key = service_key(attrs)?;
    let scheduler = attrs.text(svc_attr::SCHED_NAME).ok_or(errno::EINVAL)?;
    let bytes = attrs.find(svc_attr::FLAGS).ok_or(errno::EINVAL)?;
    let flags = u32::from_ne_bytes(*bytes.first_chunk().ok_or(errno::EINVAL)?);
    let timeout = attrs.u32(svc_attr::TIMEOUT).ok_or(errno::EINVAL)?;
    let netmask = attrs.u32(svc_attr::NETMASK).ok_or(errno::EINVAL)?;
    Ok(Service {
        key,
        scheduler: scheduler.to_owned(),
        flags: ServiceFlags::from_bits_truncate(flags),
        timeout,
        netmask: wire_netmask(key.family(), netmask),
        pe: attrs.text(svc_attr::PE_NAME).filter(|pe| !pe.is_empty()).map(str::to_owned),
    })
}

/// Puts what names a destination.
pub fn put_dest_key(attrs: &mut Writer, key: &DestKey) {
    attrs
        .u16(dest_attr::ADDR_FAMILY, af(Family::of(key.addr)))
        .put(dest_attr::ADDR, &addr_bytes(key.addr))
        .be16(dest_attr::PORT, key.port);
}

/// Reads what names a destination; without a family it is the service's.
pub fn dest_key(attrs: &Attrs<'_>, default: Family) -> Result<DestKey, i32> {
    let family = match attrs.u16(dest_attr::ADDR_FAMILY) {
        Some(number) => family(number).ok_or(errno::EAFNOSUPPORT)?,
        None => default,
    };
    let bytes = attrs.find(dest_attr::ADDR).ok_or(errno::EINVAL)?;
    let addr = addr(family, bytes).ok_or(errno::EINVAL)?;
    Ok(DestKey { addr, port: attrs.be16(dest_attr::PORT).ok_or(errno::EINVAL)? })
}

/// Puts a whole destination.
pub fn put_dest(attrs: &mut Writer, dest: &DestConfig) {
    put_dest_key(attrs, &dest.key);
    attrs
        .u32(dest_attr::FWD_METHOD, dest.forward as u32)
        .u32(dest_attr::WEIGHT, dest.weight)
        .u32(dest_attr::U_THRESH, dest.upper_threshold)
        .u32(dest_attr::L_THRESH, dest.lower_threshold)
        .u8(dest_attr::TUN_TYPE, dest.tunnel_type)
        .be16(dest_attr::TUN_PORT, dest.tunnel_port)
        .u16(dest_attr::TUN_FLAGS, dest.tunnel_flags);
}

/// Reads a whole destination (`ip_vs_genl_parse_dest`). The weight is a signed number.
pub fn dest(attrs: &Attrs<'_>, default: Family) -> Result<(DestConfig, i32), i32> {
    let number = |kind| attrs.u32(kind).ok_or(errno::EINVAL);
    let method = number(dest_attr::FWD_METHOD)? & 7;
    let weight = number(dest_attr::WEIGHT)?.cast_signed();
    let config = DestConfig {
        key: dest_key(attrs, default)?,
        forward: ForwardMethod::from_number(method as u8).ok_or(errno::EINVAL)?,
        weight: u32::try_from(weight).unwrap_or_default(),
        upper_threshold: number(dest_attr::U_THRESH)?,
        lower_threshold: number(dest_attr::L_THRESH)?,
        tunnel_type: attrs.u8(dest_attr::TUN_TYPE).unwrap_or_default(),
        tunnel_port: attrs.be16(dest_attr::TUN_PORT).unwrap_or_default(),
        tunnel_flags: attrs.u16(dest_attr::TUN_FLAGS).unwrap_or_default(),
    };
    Ok((config, weight))
}

/// Puts the live numbers of a destination.
pub fn put_dest_status(attrs: &mut Writer, status: &DestStatus, rates: &Rates) {
    attrs
        .u32(dest_attr::ACTIVE_CONNS, status.active_conns)
        .u32(dest_attr::INACT_CONNS, status.inactive_conns)
        .u32(dest_attr::PERSIST_CONNS, status.persist_conns);
    put_stats(attrs, dest_attr::STATS, dest_attr::STATS64, &status.stats, rates);
}

/// Reads the live numbers of a destination.
pub fn dest_status(attrs: &Attrs<'_>) -> (DestStatus, Rates) {
    let (stats, rates) = stats(attrs, dest_attr::STATS, dest_attr::STATS64);
    let number = |kind| attrs.u32(kind).unwrap_or_default();
    let status = DestStatus {
        active_conns: number(dest_attr::ACTIVE_CONNS),
        inactive_conns: number(dest_attr::INACT_CONNS),
        persist_conns: number(dest_attr::PERSIST_CONNS),
        stats,
    };
    (status, rates)
}

/// The ten numbers, in the order of `IPVS_STATS_ATTR_*`.
fn numbers(stats: &Stats, rates: &Rates) -> [u64; 10] {
    [
        stats.conns,
        stats.in_pkts,
        stats.out_pkts,
        stats.in_bytes,
        stats.out_bytes,
        rates.cps,
        rates.in_pps,
        rates.out_pps,
        rates.in_bps,
        rates.out_bps,
    ]
}

/// Puts counters in both forms: 32 bits wide where the first form is, and 64 bits wide.
pub fn put_stats(attrs: &mut Writer, narrow: u16, wide: u16, stats: &Stats, rates: &Rates) {
    let (mut old, mut new) = (Writer::new(), Writer::new());
    for (number, kind) in numbers(stats, rates).into_iter().zip(1..) {
        if matches!(kind, 4 | 5) {
            old.u64(kind, number);
        } else {
            old.u32(kind, number as u32);
        }
        new.u64(kind, number);
    }
    attrs.nest(narrow, &old).nest(wide, &new);
}

/// Reads counters, the wide form if it is there.
pub fn stats(attrs: &Attrs<'_>, narrow: u16, wide: u16) -> (Stats, Rates) {
    let inner = attrs.nested(wide).or_else(|| attrs.nested(narrow)).unwrap_or(Attrs(&[]));
    let get = |kind| inner.u64(kind).or_else(|| inner.u32(kind).map(u64::from)).unwrap_or_default();
    let stats = Stats {
        conns: get(1),
        in_pkts: get(2),
        out_pkts: get(3),
        in_bytes: get(4),
        out_bytes: get(5),
    };
    let rates =
        Rates { cps: get(6), in_pps: get(7), out_pps: get(8), in_bps: get(9), out_bps: get(10) };
    (stats, rates)
}

/// A connection as a client receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Protocol number.
    pub protocol: u8,
    /// Client.
    pub client: (IpAddr, u16),
    /// Virtual address and port.
    pub service: (IpAddr, u16),
    /// Destination.
    pub dest: (IpAddr, u16),
    /// State's name.
    pub state: String,
    /// Seconds until it expires.
    pub expires: u32,
}

/// Puts a connection.
pub fn put_conn(attrs: &mut Writer, row: &ConnRow) {
    attrs
        .u8(1, row.protocol)
        .u16(2, af(Family::of(row.client)))
        .put(3, &addr_bytes(row.client))
        .be16(4, row.client_port)
        .put(5, &addr_bytes(row.virtual_addr))
        .be16(6, row.virtual_port)
        .u16(7, af(Family::of(row.dest)))
        .put(8, &addr_bytes(row.dest))
        .be16(9, row.dest_port)
        .text(10, row.state)
        .u32(11, row.expires);
}

/// Reads a connection; `None` if something is missing.
pub fn conn(attrs: &Attrs<'_>) -> Option<Conn> {
    let (outer, inner) = (family(attrs.u16(2)?)?, family(attrs.u16(7)?)?);
    Some(Conn {
        protocol: attrs.u8(1)?,
        client: (addr(outer, attrs.find(3)?)?, attrs.be16(4)?),
        service: (addr(outer, attrs.find(5)?)?, attrs.be16(6)?),
        dest: (addr(inner, attrs.find(8)?)?, attrs.be16(9)?),
        state: attrs.text(10)?.to_owned(),
        expires: attrs.u32(11)?,
    })
}
