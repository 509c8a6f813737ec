//! `ipvsadm -L`: services and destinations, in all forms of ipvsadm 1.31.

use std::io::{self, Write};

use rvs_core::control::{DestStatus, Rates, Stats};
use rvs_core::types::{DestConfig, ForwardMethod, Protocol, ServiceFlags, ServiceKey};
use rvs_netlink::Client;
use rvs_netlink::attr::Writer;
use rvs_netlink::ipvs::{self, cmd_attr, command, svc_attr};

use crate::Failure;
use crate::address::Names;
use crate::command::{Format, show_netmask, show_sched_flags};
use crate::execute::{Subject, explain, service_key, written};
use crate::sort::{dest_before, service_before, sort};

/// A service with its counters.
pub struct ServiceRow {
    /// The service.
    pub service: ipvs::Service,
    stats: Stats,
    rates: Rates,
}

/// A destination with its live numbers.
pub struct DestRow {
    /// The destination.
    pub dest: DestConfig,
    status: DestStatus,
    rates: Rates,
}

fn refused(code: u8) -> impl Fn(rvs_netlink::ClientError) -> Failure {
    move |error| Failure::new(code, explain(&error, Subject::Service))
}

/// All services, or one.
pub fn services(client: &mut Client, key: Option<&ServiceKey>) -> Result<Vec<ServiceRow>, Failure> {
    let mut rows = Vec::new();
    let mut take = |_: u8, attrs: &rvs_netlink::attr::Attrs<'_>| {
        let Some(inner) = attrs.nested(cmd_attr::SERVICE) else { return };
        if let Ok(service) = ipvs::service(&inner) {
            let (stats, rates) = ipvs::stats(&inner, svc_attr::STATS, svc_attr::STATS64);
            rows.push(ServiceRow { service, stats, rates });
        }
    };
    match key {
        Some(key) => client.call(command::GET_SERVICE, &service_key(key), &mut take),
        None => client.dump(command::GET_SERVICE, &Writer::new(), &mut take),
    }
    .map_err(refused(1))?;
    Ok(rows)
}

/// The destinations of a service.
pub fn dests(client: &mut Client, key: &ServiceKey) -> Result<Vec<DestRow>, Failure> {
    let mut rows = Vec::new();
    let take = |_: u8, attrs: &rvs_netlink::attr::Attrs<'_>| {
        let Some(inner) = attrs.nested(cmd_attr::DEST) else { return };
        if let Ok((dest, _)) = ipvs::dest(&inner, key.family()) {
            let (status, rates) = ipvs::dest_status(&inner);
            rows.push(DestRow { dest, status, rates });
        }
    };
    client.dump(command::GET_DEST, &service_key(key), take).map_err(refused(1))?;
    Ok(rows)
}

/// Lists all services, or one.
pub fn list(
    client: &mut Client,
    out: &mut dyn Write,
    key: Option<&ServiceKey>,
    format: Format,
) -> Result<(), Failure> {
    let mut rows = services(client, key)?;
    if !format.nosort {
        rows = sort(rows, &|a, b| service_before(&a.service.key, &b.service.key));
    }
    if key.is_none() {
        let size = table_size(client)?;
        written(writeln!(out, "IP Virtual Server version 1.2.1 (size={size})"))?;
    }
    written(title(out, format))?;
    for row in rows {
        written(service(out, &row, format))?;
        let mut dests = dests(client, &row.service.key)?;
        if !format.nosort {
            dests = sort(dests, &|a, b| dest_before(&a.dest.key, &b.dest.key));
        }
        for dest in dests {
            written(destination(out, &row.service.key, &dest, format))?;
        }
    }
    Ok(())
}

fn table_size(client: &mut Client) -> Result<u32, Failure> {
    let mut size = 0;
    let take = |_: u8, attrs: &rvs_netlink::attr::Attrs<'_>| {
        size = attrs.u32(ipvs::INFO_CONN_TAB_SIZE).unwrap_or_default();
    };
    client.call(command::GET_INFO, &Writer::new(), take).map_err(refused(255))?;
    Ok(size)
}

/// `-L --timeout`
pub fn timeouts(client: &mut Client, out: &mut dyn Write) -> Result<(), Failure> {
    let mut values = [0; 3];
    let take = |_: u8, attrs: &rvs_netlink::attr::Attrs<'_>| {
        let kinds = [cmd_attr::TIMEOUT_TCP, cmd_attr::TIMEOUT_TCP_FIN, cmd_attr::TIMEOUT_UDP];
        values = kinds.map(|kind| attrs.u32(kind).unwrap_or_default());
    };
    client.call(command::GET_CONFIG, &Writer::new(), take).map_err(refused(255))?;
    let [tcp, fin, udp] = values;
    written(writeln!(out, "Timeout (tcp tcpfin udp): {tcp} {fin} {udp}"))
}

fn title(out: &mut dyn Write, format: Format) -> io::Result<()> {
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

fn service(out: &mut dyn Write, row: &ServiceRow, format: Format) -> io::Result<()> {
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

fn destination(
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
    if dest.forward != ForwardMethod::Tunnel {
        return "-".to_owned();
    }
    let checksum = match dest.tunnel_flags & 3 {
        0 => "-c",
        1 => "+c",
        _ => "r+c",
    };
    match dest.tunnel_type {
        0 => "ipip".to_owned(),
        1 => format!("gue:{}:{checksum}", dest.tunnel_port),
        _ => format!("gre:{checksum}"),
    }
}

fn counters(out: &mut dyn Write, stats: &Stats, rates: &Rates, format: Format) -> io::Result<()> {
    let numbers = if format.stats {
        [stats.conns, stats.in_pkts, stats.out_pkts, stats.in_bytes, stats.out_bytes]
    } else {
        [rates.cps, rates.in_pps, rates.out_pps, rates.in_bps, rates.out_bps]
    };
    for number in numbers {
        write!(out, " {}", large(number, format.exact))?;
    }
    writeln!(out)
}

/// A counter in eight columns, scaled by powers of 1000 when it has no room.
fn large(number: u64, exact: bool) -> String {
    if exact || number < 100_000_000 {
        return format!("{number:>8}");
    }
    // The largest u64 has 20 digits: 18,446,744 T.
    let (mut scaled, mut unit) = (number, ' ');
    for next in ['K', 'M', 'G', 'T'] {
        if scaled >= 100_000_000 || unit == ' ' {
            (scaled, unit) = (scaled / 1000, next);
        }
    }
    format!("{scaled:>7}{unit}")
}

#[cfg(test)]
mod tests {
    use super::large;

    #[test]
    fn large_numbers_are_scaled_unless_exact() {
        assert_eq!(large(99_999_999, false), "99999999");
        assert_eq!(large(100_000_000, false), " 100000K");
        assert_eq!(large(123_456_789_012, false), " 123456M");
        assert_eq!(large(123_456_789_012, true), "123456789012");
    }
}
