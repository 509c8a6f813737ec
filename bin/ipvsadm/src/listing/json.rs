//! `--json`: every listing with everything that is known, addresses and ports as numbers. New in
//! RVS. Long lists are written row by row, one a line.

use std::io::{self, Write};
use std::net::IpAddr;

use rvs_core::control::{Rates, Stats};
use rvs_core::types::{Family, ForwardMethod, Protocol, ServiceFlags, ServiceKey};
use rvs_netlink::ipvs::{self, Conn};
use serde::Serialize;

use super::{DestRow, ServiceRow, conns};
use crate::command::{show_netmask, show_sched_flags};

/// Ends a list and what it is in.
pub(super) fn end(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\n]}}")
}

/// Writes one row of a list.
fn element(out: &mut dyn Write, first: &mut bool, row: &impl Serialize) -> io::Result<()> {
    let separator = if std::mem::replace(first, false) { "\n" } else { ",\n" };
    out.write_all(separator.as_bytes())?;
    Ok(serde_json::to_writer(out, row)?)
}

fn whole(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// The list of services.
pub(super) struct Services {
    first: bool,
}

impl Default for Services {
    fn default() -> Self {
        Self { first: true }
    }
}

impl Services {
    /// Begins it; `size` is that of the connection table, in lists of all services.
    pub fn begin(&mut self, out: &mut dyn Write, size: Option<u32>) -> io::Result<()> {
        if let Some(size) = size {
            return write!(out, "{{\"version\":\"1.2.1\",\"size\":{size},\"services\":[");
        }
        write!(out, "{{\"services\":[")
    }

    /// Writes a service.
    pub fn service(
        &mut self,
        out: &mut dyn Write,
        row: &ServiceRow,
        dests: &[DestRow],
    ) -> io::Result<()> {
        element(out, &mut self.first, &service(row, dests))
    }
}

#[derive(Serialize)]
struct JsonService<'s> {
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fwmark: Option<u32>,
    family: &'static str,
    scheduler: &'s str,
    scheduler_flags: Vec<String>,
    one_packet: bool,
    persistence: Option<Persistence<'s>>,
    stats: Counts,
    rates: PerSecond,
    destinations: Vec<Destination>,
}

#[derive(Serialize)]
struct Persistence<'s> {
    timeout: u32,
    netmask: Option<String>,
    engine: Option<&'s str>,
}

#[derive(Serialize)]
struct Counts {
    conns: u64,
    in_pkts: u64,
    out_pkts: u64,
    in_bytes: u64,
    out_bytes: u64,
}

#[derive(Serialize)]
struct PerSecond {
    cps: u64,
    in_pps: u64,
    out_pps: u64,
    in_bps: u64,
    out_bps: u64,
}

#[derive(Serialize)]
struct Destination {
    address: IpAddr,
    port: u16,
    forward: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Tunnel>,
    weight: u32,
    upper_threshold: u32,
    lower_threshold: u32,
    active_conns: u32,
    inactive_conns: u32,
    persistent_conns: u32,
    stats: Counts,
    rates: PerSecond,
}

#[derive(Serialize)]
struct Tunnel {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum: Option<&'static str>,
}

fn counts(stats: &Stats) -> Counts {
    let Stats { conns, in_pkts, out_pkts, in_bytes, out_bytes } = *stats;
    Counts { conns, in_pkts, out_pkts, in_bytes, out_bytes }
}

fn per_second(rates: &Rates) -> PerSecond {
    let Rates { cps, in_pps, out_pps, in_bps, out_bps } = *rates;
    PerSecond { cps, in_pps, out_pps, in_bps, out_bps }
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn forward(method: ForwardMethod) -> &'static str {
    match method {
        ForwardMethod::Masquerade => "masquerade",
        ForwardMethod::Local => "local",
        ForwardMethod::Tunnel => "tunnel",
        ForwardMethod::DirectRoute => "direct",
        ForwardMethod::Bypass => "bypass",
    }
}

fn service<'s>(row: &'s ServiceRow, dests: &[DestRow]) -> JsonService<'s> {
    let service = &row.service;
    let (protocol, address, port, fwmark) = match service.key {
        ServiceKey::Address { protocol, addr, port } => {
            (Some(protocol_name(protocol)), Some(addr), Some(port), None)
        }
        ServiceKey::Fwmark { mark, .. } => (None, None, None, Some(mark)),
    };
    let family = if service.key.family() == Family::V4 { "ipv4" } else { "ipv6" };
    let flags = show_sched_flags(&service.scheduler, service.flags).unwrap_or_default();
    let flags = flags.split(',').filter(|f| !f.is_empty()).map(str::to_owned).collect();
    let persistent = service.flags.contains(ServiceFlags::PERSISTENT);
    let persistence = persistent.then(|| Persistence {
        timeout: service.timeout,
        netmask: show_netmask(service.key.family(), service.netmask),
        engine: service.pe.as_deref(),
    });
    JsonService {
        protocol,
        address,
        port,
        fwmark,
        family,
        scheduler: &service.scheduler,
        scheduler_flags: flags,
        one_packet: service.flags.contains(ServiceFlags::ONEPACKET),
        persistence,
        stats: counts(&row.stats),
        rates: per_second(&row.rates),
        destinations: dests.iter().map(destination).collect(),
    }
}

fn destination(row: &DestRow) -> Destination {
    let (dest, status) = (&row.dest, &row.status);
    let tunnel = super::tunnel(dest);
    Destination {
        address: dest.key.addr,
        port: dest.key.port,
        forward: forward(dest.forward),
        tunnel: tunnel.map(|t| Tunnel { kind: t.kind, port: t.port, checksum: t.checksum }),
        weight: dest.weight,
        upper_threshold: dest.upper_threshold,
        lower_threshold: dest.lower_threshold,
        active_conns: status.active_conns,
        inactive_conns: status.inactive_conns,
        persistent_conns: status.persist_conns,
        stats: counts(&status.stats),
        rates: per_second(&row.rates),
    }
}

/// The list of connections.
pub(super) struct Conns {
    first: bool,
}

impl Default for Conns {
    fn default() -> Self {
        Self { first: true }
    }
}

#[derive(Serialize)]
struct JsonConn<'c> {
    protocol: String,
    state: &'c str,
    expires: u32,
    client: End,
    service: End,
    destination: End,
    #[serde(skip_serializing_if = "Option::is_none")]
    forward: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_data: Option<std::borrow::Cow<'c, str>>,
}

#[derive(Serialize)]
struct End {
    address: IpAddr,
    port: u16,
}

impl Conns {
    /// Begins it.
    pub fn begin(&mut self, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{{\"connections\":[")
    }

    /// Writes a connection.
    pub fn row(&mut self, out: &mut dyn Write, conn: &Conn) -> io::Result<()> {
        let end = |(address, port)| End { address, port };
        let row = JsonConn {
            protocol: conns::protocol(conn.protocol).0.to_ascii_lowercase(),
            state: &conn.state,
            expires: conn.expires,
            client: end(conn.client),
            service: end(conn.service),
            destination: end(conn.dest),
            forward: conn.forward.map(forward),
            template: conn.template,
            engine: conn.pe.as_ref().map(|(engine, _)| engine.as_str()),
            engine_data: conn.pe.as_ref().map(|(_, data)| String::from_utf8_lossy(data)),
        };
        element(out, &mut self.first, &row)
    }
}

#[derive(Serialize)]
struct Timeouts {
    tcp: u32,
    tcpfin: u32,
    udp: u32,
}

/// `--timeout`
pub(super) fn timeouts(out: &mut dyn Write, [tcp, tcpfin, udp]: [u32; 3]) -> io::Result<()> {
    whole(out, &Timeouts { tcp, tcpfin, udp })
}

#[derive(Serialize)]
struct Daemons<'d> {
    daemons: Vec<Daemon<'d>>,
}

#[derive(Serialize)]
struct Daemon<'d> {
    role: &'static str,
    interface: &'d str,
    syncid: u32,
    maxlen: Option<u16>,
    group: Option<IpAddr>,
    port: Option<u16>,
    ttl: Option<u8>,
}

/// `--daemon`
pub(super) fn daemons(out: &mut dyn Write, daemons: &[ipvs::Daemon]) -> io::Result<()> {
    let daemons = daemons.iter().map(|daemon| Daemon {
        role: daemon.role.name(),
        interface: &daemon.interface,
        syncid: daemon.sync_id,
        maxlen: daemon.max_len,
        group: daemon.group,
        port: daemon.port,
        ttl: daemon.ttl,
    });
    whole(out, &Daemons { daemons: daemons.collect() })
}
