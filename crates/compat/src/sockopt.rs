//! The older interface of ip_vs: `IP_VS_SO_SET_*` and `IP_VS_SO_GET_*` on an IPv4 socket, with the
//! structures of `include/uapi/linux/ip_vs.h` and the checks of `do_ip_vs_set_ctl` and
//! `do_ip_vs_get_ctl` (`tests/oracle/recorded/sockopt.jsonl`). IPv4 only, as there.

use std::net::{IpAddr, Ipv4Addr};

use rvs_core::control::{Rates, Stats};
use rvs_core::types::{
    DestConfig, DestKey, Family, ForwardMethod, Protocol, ServiceFlags, ServiceKey,
};
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::errno::{EEXIST, EINVAL, ESRCH};
use rvs_netlink::ipvs::{self, Service, cmd_attr, command};
use rvs_netlink::{Client, ClientError};

use crate::tables::{self, Dest};

/// `EFAULT`, which ip_vs answers to a protocol that it does not balance.
const EFAULT: i32 = 14;
/// `ENOPROTOOPT`: no such option.
pub const ENOPROTOOPT: i32 = 92;

/// `IP_VS_BASE_CTL`: the number of the first option.
pub const BASE: i32 = 64 + 1024 + 64;

/// Whether ip_vs has an option of that number to set.
pub fn is_set(option: i32) -> bool {
    (BASE + 1..=BASE + 15).contains(&option)
}

/// Whether ip_vs has an option of that number to get.
pub fn is_get(option: i32) -> bool {
    (BASE..=BASE + 7).contains(&option)
}

/// What a `getsockopt` writes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The bytes from the buffer's start.
    pub bytes: Vec<u8>,
    /// The new length; what it was if `None`.
    pub length: Option<usize>,
}

/// Size of `struct ip_vs_service_user`.
const SERVICE: usize = 44;
/// Size of `struct ip_vs_dest_user`.
const DEST: usize = 24;
/// Size of `struct ip_vs_timeout_user`.
const TIMEOUT: usize = 12;
/// Size of `struct ip_vs_daemon_user`.
const DAEMON: usize = 24;
/// Size of `struct ip_vs_service_entry`.
const SERVICE_ENTRY: usize = 104;
/// Size of `struct ip_vs_dest_entry`.
const DEST_ENTRY: usize = 96;
/// Size of `struct ip_vs_get_services` without entries.
const SERVICES: usize = 8;
/// Size of `struct ip_vs_get_dests` without entries.
const DESTS: usize = 24;

/// Does what a `setsockopt` asks for. An error is an errno.
pub fn set(client: &mut Client, option: i32, value: &[u8]) -> Result<(), i32> {
    let expected = match option - BASE {
        2..=4 | 15 => SERVICE,
        5 => 0,
        7..=9 => SERVICE + DEST,
        10 => TIMEOUT,
        11 | 12 => DAEMON,
        _ => return Err(EINVAL),
    };
    if value.len() != expected {
        return Err(EINVAL);
    }
    match option - BASE {
        5 => call(client, command::FLUSH, &Writer::new()),
        10 => {
            let kinds = [cmd_attr::TIMEOUT_TCP, cmd_attr::TIMEOUT_TCP_FIN, cmd_attr::TIMEOUT_UDP];
            let mut attrs = Writer::new();
            kinds.into_iter().enumerate().for_each(|(at, kind)| {
                attrs.u32(kind, word(value, at * 4));
            });
            call(client, command::SET_CONFIG, &attrs)
        }
        number @ (11 | 12) => {
            let command = if number == 11 { command::NEW_DAEMON } else { command::DEL_DAEMON };
            // IPVS_DAEMON_ATTR_STATE, _MCAST_IFN, _SYNC_ID
            let (mut inner, mut attrs) = (Writer::new(), Writer::new());
            let name = value.get(4..20).unwrap_or_default();
            inner.u32(1, word(value, 0)).put(2, name).u32(3, word(value, 20));
            attrs.nest(cmd_attr::DAEMON, &inner);
            call(client, command, &attrs)
        }
        number => service_command(client, number, value),
    }
}

/// The options that name a service.
fn service_command(client: &mut Client, number: i32, value: &[u8]) -> Result<(), i32> {
    let ids = value.get(..16).unwrap_or_default();
    // Neither an address, a port nor a mark: all services.
    if number == 15 && ids.get(4..).is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) {
        return call(client, command::ZERO, &Writer::new());
    }
    protocol(value).ok_or(EFAULT)?;
    let key = key(value).ok_or(EFAULT)?;
    let name = value.get(16..32).unwrap_or_default();
    if matches!(number, 2 | 3) && !name.contains(&0) {
        return Err(EINVAL);
    }
    let present = match tables::service(client, &key) {
        Ok(_) => true,
        Err(error) if error.errno() == Some(ESRCH) => false,
        Err(error) => return Err(crate::errno(&error, ENOPROTOOPT)),
    };
    match (number, present) {
        (2, true) => return Err(EEXIST),
        (2, false) | (_, true) => {}
        (_, false) => return Err(ESRCH),
    }
    let (mut service, mut dest, mut attrs) = (Writer::new(), Writer::new(), Writer::new());
    match number {
        2 | 3 => ipvs::put_service(&mut service, &configured(key, value, name)),
        _ => ipvs::put_service_key(&mut service, &key),
    }
    attrs.nest(cmd_attr::SERVICE, &service);
    if matches!(number, 7..=9) {
        put_dest(&mut dest, value.get(SERVICE..).unwrap_or_default());
        attrs.nest(cmd_attr::DEST, &dest);
    }
    let command = match number {
        2 => command::NEW_SERVICE,
        3 => command::SET_SERVICE,
        4 => command::DEL_SERVICE,
        7 => command::NEW_DEST,
        8 => command::DEL_DEST,
        9 => command::SET_DEST,
        _ => command::ZERO,
    };
    call(client, command, &attrs)
}

/// Answers a `getsockopt` whose buffer holds `request`. An error is an errno.
pub fn get(client: &mut Client, option: i32, request: &[u8]) -> Result<Got, i32> {
    let (least, count) = match option - BASE {
        0 => (64, None),
        1 => (12, None),
        2 => (SERVICES, Some((word(request, 0), SERVICES, SERVICE_ENTRY))),
        3 => (SERVICE_ENTRY, None),
        4 => (DESTS, Some((word(request, 16), DESTS, DEST_ENTRY))),
        6 => (TIMEOUT, None),
        7 => (2 * DAEMON, None),
        _ => return Err(EINVAL),
    };
    if request.len() < least {
        return Err(EINVAL);
    }
    let mut room = 0;
    if let Some((number, head, entry)) = count {
        room = number as usize;
        if room.checked_mul(entry).and_then(|size| size.checked_add(head)) != Some(request.len()) {
            return Err(EINVAL);
        }
    }
    let refused = |error: ClientError| crate::errno(&error, ENOPROTOOPT);
    let mut bytes = Vec::new();
    match option - BASE {
        0 => {
            let size = tables::table_size(client).map_err(refused)?;
            bytes = format!("IP Virtual Server version 1.2.1 (size={size})\0").into_bytes();
            return Ok(Got { length: Some(bytes.len()), bytes });
        }
        1 => {
            let size = tables::table_size(client).map_err(refused)?;
            let services = tables::services(client).map_err(refused)?.len();
            for number in [ipvs::VERSION_CODE, size, services as u32] {
                bytes.extend_from_slice(&number.to_ne_bytes());
            }
        }
        2 => {
            bytes.extend_from_slice(request.get(..SERVICES).unwrap_or_default());
            let services = tables::services(client).map_err(refused)?;
            let shown = services.iter().filter(|s| s.config.key.family() == Family::V4);
            for service in shown.take(room) {
                put_service_entry(client, &mut bytes, service).map_err(refused)?;
            }
        }
        3 => {
            let key = key(request).ok_or(ESRCH)?;
            let service = tables::service(client, &key).map_err(refused)?;
            put_service_entry(client, &mut bytes, &service).map_err(refused)?;
        }
        4 => {
            bytes.extend_from_slice(request.get(..DESTS).unwrap_or_default());
            let key = key(request).ok_or(ESRCH)?;
            tables::service(client, &key).map_err(refused)?;
            let dests = tables::dests(client, &key).map_err(refused)?;
            dests.iter().filter(|d| d.config.key.addr.is_ipv4()).take(room).for_each(|dest| {
                put_dest_entry(&mut bytes, dest);
            });
        }
        6 => {
            let kinds = [cmd_attr::TIMEOUT_TCP, cmd_attr::TIMEOUT_TCP_FIN, cmd_attr::TIMEOUT_UDP];
            let take = |_: u8, attrs: &Attrs<'_>| {
                let numbers = kinds.map(|kind| attrs.u32(kind).unwrap_or_default().to_ne_bytes());
                bytes = numbers.concat();
            };
            client.call(command::GET_CONFIG, &Writer::new(), take).map_err(refused)?;
        }
        _ => bytes = daemons(client).map_err(refused)?,
    }
    Ok(Got { bytes, length: None })
}

/// Two `struct ip_vs_daemon_user`: the master and the backup, as far as they run.
fn daemons(client: &mut Client) -> Result<Vec<u8>, ClientError> {
    let mut bytes = vec![0; 2 * DAEMON];
    client.dump(command::GET_DAEMON, &Writer::new(), |_, attrs| {
        let Some(daemon) = attrs.nested(cmd_attr::DAEMON) else { return };
        let state = daemon.u32(1).unwrap_or_default();
        // IP_VS_STATE_MASTER, IP_VS_STATE_BACKUP
        let at = if state == 2 { DAEMON } else { 0 };
        let Some(entry) = bytes.get_mut(at..at + DAEMON) else { return };
        entry[..4].copy_from_slice(&state.to_ne_bytes());
        let name = daemon.find(2).unwrap_or_default();
        for (place, byte) in entry[4..19].iter_mut().zip(name) {
            *place = *byte;
        }
        entry[20..].copy_from_slice(&daemon.u32(3).unwrap_or_default().to_ne_bytes());
    })?;
    Ok(bytes)
}

fn call(client: &mut Client, command: u8, attrs: &Writer) -> Result<(), i32> {
    client.call(command, attrs, |_, _| {}).map_err(|error| crate::errno(&error, ENOPROTOOPT))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word))
}

fn addr(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be(word(bytes, at)))
}

fn port(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |port| u16::from_be_bytes(*port))
}

fn protocol(bytes: &[u8]) -> Option<Protocol> {
    let number = u16::from_ne_bytes(*bytes.first_chunk()?);
    u8::try_from(number).ok().and_then(Protocol::from_number)
}

/// What names a service, at the head of several structures: a mark, else all of protocol, address
/// and port.
fn key(bytes: &[u8]) -> Option<ServiceKey> {
    match word(bytes, 12) {
        0 => {
            let (addr, port) = (IpAddr::V4(addr(bytes, 4)), port(bytes, 8));
            Some(ServiceKey::Address { protocol: protocol(bytes)?, addr, port })
        }
        mark => Some(ServiceKey::Fwmark { family: Family::V4, mark }),
    }
}

/// A `struct ip_vs_service_user`.
fn configured(key: ServiceKey, bytes: &[u8], name: &[u8]) -> Service {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Service {
        key,
        scheduler: String::from_utf8_lossy(name).into_owned(),
        flags: ServiceFlags::from_bits_truncate(word(bytes, 32)),
        timeout: word(bytes, 36),
        netmask: u32::from_be(word(bytes, 40)),
        pe: None,
    }
}

/// A `struct ip_vs_dest_user`, as attributes: whatever the numbers are, rvsd judges them.
fn put_dest(attrs: &mut Writer, bytes: &[u8]) {
    use ipvs::dest_attr::{FWD_METHOD, L_THRESH, U_THRESH, WEIGHT};
    let key = DestKey { addr: IpAddr::V4(addr(bytes, 0)), port: port(bytes, 4) };
    ipvs::put_dest_key(attrs, &key);
    for (kind, at) in [(FWD_METHOD, 8), (WEIGHT, 12), (U_THRESH, 16), (L_THRESH, 20)] {
        attrs.u32(kind, word(bytes, at));
    }
}

fn put_service_entry(
    client: &mut Client,
    bytes: &mut Vec<u8>,
    service: &tables::Service,
) -> Result<(), ClientError> {
    let config = &service.config;
    let (protocol, addr, port, mark) = match config.key {
        ServiceKey::Address { protocol, addr, port } => (protocol, addr, port, 0),
        ServiceKey::Fwmark { mark, .. } => {
            (Protocol::Tcp, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, mark)
        }
    };
    let mut name = [0; 16];
    name.iter_mut().zip(config.scheduler.bytes()).for_each(|(place, byte)| *place = byte);
    let dests = tables::dests(client, &config.key)?.len() as u32;
    bytes.extend_from_slice(&u16::from(protocol as u8).to_ne_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&octets(addr));
    bytes.extend_from_slice(&port.to_be_bytes());
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&mark.to_ne_bytes());
    bytes.extend_from_slice(&name);
    for number in [config.flags.bits(), config.timeout, config.netmask.to_be(), dests] {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    put_stats(bytes, &service.stats, &service.rates);
    Ok(())
}

fn put_dest_entry(bytes: &mut Vec<u8>, dest: &Dest) {
    let Dest { config: DestConfig { key, forward, .. }, status, .. } = dest;
    // IP_VS_CONN_F_INACTIVE is set in all, IP_VS_CONN_F_NOOUTPUT unless replies come back here.
    let no_output = if *forward == ForwardMethod::Masquerade { 0 } else { 0x80 };
    bytes.extend_from_slice(&octets(key.addr));
    bytes.extend_from_slice(&key.port.to_be_bytes());
    bytes.extend_from_slice(&[0; 2]);
    for number in [
        *forward as u32 | no_output | 0x100,
        dest.config.weight,
        dest.config.upper_threshold,
        dest.config.lower_threshold,
        status.active_conns,
        status.inactive_conns,
        status.persist_conns,
        0,
    ] {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    put_stats(bytes, &status.stats, &dest.rates);
}

/// A `struct ip_vs_stats_user`.
fn put_stats(bytes: &mut Vec<u8>, stats: &Stats, rates: &Rates) {
    for number in [stats.conns, stats.in_pkts, stats.out_pkts, 0] {
        bytes.extend_from_slice(&(number as u32).to_ne_bytes());
    }
    for number in [stats.in_bytes, stats.out_bytes] {
        bytes.extend_from_slice(&number.to_ne_bytes());
    }
    for number in [rates.cps, rates.in_pps, rates.out_pps, rates.in_bps, rates.out_bps, 0] {
        bytes.extend_from_slice(&(number as u32).to_ne_bytes());
    }
}

fn octets(addr: IpAddr) -> [u8; 4] {
    match addr {
        IpAddr::V4(addr) => addr.octets(),
        IpAddr::V6(_) => [0; 4],
    }
}
