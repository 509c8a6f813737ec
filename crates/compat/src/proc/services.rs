//! `/proc/net/ip_vs`: `ip_vs_info_seq_show` of `ip_vs_ctl.c`.

use std::fmt::Write as _;
use std::net::IpAddr;

use rvs_core::types::{Family, ForwardMethod, ServiceFlags, ServiceKey};
use rvs_netlink::{Client, ClientError};

use super::{hex, protocol};
use crate::tables::{self, Dest, Service};

/// The kernel prints persistence timeouts in ticks of its own clock; of the usual ones this is
/// Debian's (`CONFIG_HZ`).
const HZ: u64 = 250;

const TITLES: &str = "\
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
";

pub(super) fn text(client: &mut Client) -> Result<String, ClientError> {
    let size = tables::table_size(client)?;
    let mut text = format!("IP Virtual Server version 1.2.1 (size={size})\n{TITLES}");
    let (addressed, marked): (Vec<_>, Vec<_>) = tables::services(client)?
        .into_iter()
        .partition(|service| matches!(service.config.key, ServiceKey::Address { .. }));
    for service in addressed.into_iter().chain(marked) {
        // A service that went meanwhile has no destinations.
        let dests = match tables::dests(client, &service.config.key) {
            Err(error) if error.errno().is_some() => Vec::new(),
            dests => dests?,
        };
        text += &self::service(&service);
        dests.iter().for_each(|dest| text += &self::dest(dest));
    }
    Ok(text)
}

/// The line of a service.
fn service(service: &Service) -> String {
    let config = &service.config;
    let (scheduler, flags) = (&config.scheduler, config.flags);
    let ops = if flags.contains(ServiceFlags::ONEPACKET) { "ops " } else { "" };
    let mut line = match config.key {
        ServiceKey::Fwmark { mark, .. } => format!("FWM  {mark:08X} {scheduler} {ops}"),
        ServiceKey::Address { protocol: number, addr, port } => {
            let (name, at) = (protocol(number as u8), at(addr, port));
            match addr {
                IpAddr::V4(_) => format!("{name}  {at} {scheduler} {ops} "),
                IpAddr::V6(_) => format!("{name}  {at} {scheduler} "),
            }
        }
    };
    if flags.contains(ServiceFlags::PERSISTENT) {
        let timeout = u64::from(config.timeout) * HZ;
        // Byte order is swapped whatever the number is: a prefix length of 64 reads 40000000.
        let mask = match config.key.family() {
            Family::V4 => config.netmask,
            Family::V6 => config.netmask.swap_bytes(),
        };
        write!(line, "persistent {timeout} {mask:08X}").expect("a String takes all text");
    }
    line + "\n"
}

/// The line of a destination.
fn dest(dest: &Dest) -> String {
    let key = dest.config.key;
    let method = match dest.config.forward {
        ForwardMethod::Masquerade => "Masq",
        ForwardMethod::Local => "Local",
        ForwardMethod::Tunnel => "Tunnel",
        ForwardMethod::DirectRoute => "Route",
        ForwardMethod::Bypass => "Bypass",
    };
    let (active, inactive) = (dest.status.active_conns, dest.status.inactive_conns);
    let (at, weight) = (at(key.addr, key.port), dest.config.weight);
    format!("  -> {at}      {method:<7} {weight:<6} {active:<10} {inactive:<10}\n")
}

/// An address and a port in hexadecimal.
fn at(addr: IpAddr, port: u16) -> String {
    match addr {
        IpAddr::V4(_) => format!("{}:{port:04X}", hex(addr)),
        IpAddr::V6(_) => format!("[{}]:{port:04X}", hex(addr)),
    }
}
