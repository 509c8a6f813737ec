//! The tables of services and destinations, in all forms of ipvsadm 1.31.

use std::io::{self, Write};

use rvs_core::control::{Rates, Stats};
use rvs_core::types::{DestConfig, ForwardMethod, Protocol, ServiceFlags, ServiceKey};

use super::{DestRow, ServiceRow, tunnel};
use crate::address::Names;
use crate::command::{Format, show_netmask, show_sched_flags};

/// The first lines; `size` is that of the connection table, in lists of all services.
pub(super) fn title(out: &mut dyn Write, size: Option<u32>, format: Format) -> io::Result<()> {
    if let Some(size) = size {
        writeln!(out, "IP Virtual Server version 1.2.1 (size={size})")?;
    }
    let columns = |out: &mut dyn Write, names: [&str; 5]| {
        write!(out, "{:<33}", "Prot LocalAddress:Port")?;
        for name in names {
            write!(out, " {name:>8}")?;
        }
        writeln!(out, "\n  -> RemoteAddress:Port")
    };
    if format.stats {
        columns(out, ["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"])
    } else if format.rate {
        columns(out, ["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"])
    } else if format.thresholds {
        writeln!(
            out,
            "{:<33} {:<10} {:<10} {:<10} {:<10}\n  -> RemoteAddress:Port",
            "Prot LocalAddress:Port", "Uthreshold", "Lthreshold", "ActiveConn", "InActConn"
        )
    } else if format.persistent {
        writeln!(
            out,
            "{:<33} {:<9} {:<11} {:<10} {:<10}\n  -> RemoteAddress:Port",
            "Prot LocalAddress:Port", "Weight", "PersistConn", "ActiveConn", "InActConn"
        )
    } else if format.tun_info {
        writeln!(
            out,
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           \
             Forward TunnelInfo    Weight ActiveConn InActConn"
        )
    } else {
        writeln!(
            out,
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           \
             Forward Weight ActiveConn InActConn"
        )
    }
}

fn service_name(key: &ServiceKey, format: Format) -> String {
    let names = Names { numeric: format.numeric };
    match key {
        // Marks are shown as signed numbers.
        ServiceKey::Fwmark { family, mark } => {
            let ipv6 = if *family == rvs_core::types::Family::V6 { " IPv6" } else { "" };
            format!("FWM  {}{ipv6}", mark.cast_signed())
        }
        ServiceKey::Address { protocol, addr, port } => {
            let name = match protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            };
            format!("{name:<4} {}", names.show(*addr, *port, *protocol))
        }
    }
}

/// A service's line.
pub(super) fn service(out: &mut dyn Write, row: &ServiceRow, format: Format) -> io::Result<()> {
    let service = &row.service;
    let name = service_name(&service.key, format);
    if format.stats || format.rate {
        write!(out, "{name:<33}")?;
        return counters(out, &row.stats, &row.rates, format);
    }
    write!(out, "{name} {}", service.scheduler)?;
    if let Some(flags) = show_sched_flags(&service.scheduler, service.flags) {
        write!(out, " ({flags})")?;
    }
    if service.flags.contains(ServiceFlags::PERSISTENT) {
        write!(out, " persistent {}", service.timeout)?;
        if let Some(mask) = show_netmask(service.key.family(), service.netmask) {
            write!(out, " mask {mask}")?;
        }
        if let Some(pe) = &service.pe {
            write!(out, " pe {pe}")?;
        }
    }
    if service.flags.contains(ServiceFlags::ONEPACKET) {
        write!(out, " ops")?;
    }
    writeln!(out)
}

/// A destination's line.
pub(super) fn destination(
    out: &mut dyn Write,
    key: &ServiceKey,
    row: &DestRow,
    format: Format,
) -> io::Result<()> {
    let protocol = match key {
        ServiceKey::Address { protocol, .. } => *protocol,
        ServiceKey::Fwmark { .. } => Protocol::Tcp,
    };
    let (dest, status) = (&row.dest, &row.status);
    let names = Names { numeric: format.numeric || matches!(key, ServiceKey::Fwmark { .. }) };
    let name = names.show(dest.key.addr, dest.key.port, protocol);
    let (active, inactive) = (status.active_conns, status.inactive_conns);
    write!(out, "  -> {name:<28}")?;
    if format.stats || format.rate {
        return counters(out, &status.stats, &row.rates, format);
    }
    if format.thresholds {
        let (upper, lower) = (dest.upper_threshold, dest.lower_threshold);
        return writeln!(out, " {upper:<10} {lower:<10} {active:<10} {inactive:<10}");
    }
    let weight = dest.weight;
    if format.persistent {
        let persist = status.persist_conns;
        return writeln!(out, " {weight:<9} {persist:<11} {active:<10} {inactive:<10}");
    }
    let method = match dest.forward {
        ForwardMethod::Masquerade => "Masq",
        ForwardMethod::Local => "Local",
        ForwardMethod::Tunnel => "Tunnel",
        ForwardMethod::DirectRoute => "Route",
        ForwardMethod::Bypass => "Bypass",
    };
    write!(out, " {method:<7}")?;
    if format.tun_info {
        write!(out, " {:<13}", tunnel_info(dest))?;
    }
    writeln!(out, " {weight:<6} {active:<10} {inactive:<10}")
}

/// Tunnel type, port and checksum of a tunneling destination, e.g. `gue:6080:+c`.
fn tunnel_info(dest: &DestConfig) -> String {
    let Some(tunnel) = tunnel(dest) else { return "n/a".to_owned() };
    let mut text = tunnel.kind.to_owned();
    if let Some(port) = tunnel.port {
        text += &format!(":{port}");
    }
    text + match tunnel.checksum {
        None => "",
        Some("nocsum") => ":-c",
        Some("csum") => ":+c",
        Some(_) => ":r+c",
    }
}

fn counters(out: &mut dyn Write, stats: &Stats, rates: &Rates, format: Format) -> io::Result<()> {
    let numbers = if format.stats {
        [stats.conns, stats.in_pkts, stats.out_pkts, stats.in_bytes, stats.out_bytes]
    } else {
        [rates.cps, rates.in_pps, rates.out_pps, rates.in_bps, rates.out_bps]
    };
    for number in numbers {
        write!(out, "{}", large(number, format.exact))?;
    }
    writeln!(out)
}

/// A counter in nine columns, scaled when it is long. The steps are 1.31's: from 10⁸ on K, from 10⁹
/// on M, from 10¹¹ on G, from 10¹⁴ on T.
fn large(number: u64, exact: bool) -> String {
    const STEPS: [(u64, u64, char); 4] = [
        (100_000_000_000_000, 1_000_000_000_000, 'T'),
        (100_000_000_000, 1_000_000_000, 'G'),
        (1_000_000_000, 1_000_000, 'M'),
        (100_000_000, 1_000, 'K'),
    ];
    match STEPS.iter().find(|(from, ..)| number >= *from).filter(|_| !exact) {
        Some((_, scale, unit)) => format!("{:>8}{unit}", number / scale),
        None => format!(" {number:>8}"),
    }
}

#[cfg(test)]
mod tests {
    use super::large;

    /// As ipvsadm 1.31 showed them.
    #[test]
    fn large_numbers_are_scaled_unless_exact() {
        for (number, shown) in [
            (0, "        0"),
            (99_999_999, " 99999999"),
            (100_000_000, "  100000K"),
            (999_999_999, "  999999K"),
            (1_000_000_000, "    1000M"),
            (99_999_999_999, "   99999M"),
            (100_000_000_000, "     100G"),
            (99_999_999_999_999, "   99999G"),
            (100_000_000_000_000, "     100T"),
            (9_999_999_999_999_999_999, " 9999999T"),
            (u64::MAX, "18446744T"),
        ] {
            assert_eq!(large(number, false), shown);
        }
        assert_eq!(large(123_456_789_012, true), " 123456789012");
    }
}
