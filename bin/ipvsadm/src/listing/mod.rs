//! `ipvsadm -L`: what is there, asked for and printed, as a table or as JSON.

mod conns;
mod json;
mod small;
mod table;

use std::collections::VecDeque;
use std::io::Write;

use rvs_core::control::{DestStatus, Rates, Stats};
use rvs_core::types::{DestConfig, ForwardMethod, ServiceKey};
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::ipvs::{self, cmd_attr, command, svc_attr};
use rvs_netlink::{Client, ClientError};

use crate::Failure;
use crate::command::Format;
use crate::execute::{Subject, explain, service_key, written};
use crate::sort::{dest_before, service_before, sort};

pub use conns::conns;
pub use small::{daemons, timeouts};

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

/// A tunnel in ipvsadm's words.
pub struct Tunnel {
    /// `ipip`, `gue` or `gre`.
    pub kind: &'static str,
    /// Port of a GUE tunnel.
    pub port: Option<u16>,
    /// `nocsum`, `csum` or `remcsum`; an ipip tunnel has no checksum to choose.
    pub checksum: Option<&'static str>,
}

/// The tunnel to a destination, if it is reached by one.
pub fn tunnel(dest: &DestConfig) -> Option<Tunnel> {
    if dest.forward != ForwardMethod::Tunnel {
        return None;
    }
    let checksum = match dest.tunnel_flags & 3 {
        0 => "nocsum",
        1 => "csum",
        _ => "remcsum",
    };
    Some(match dest.tunnel_type {
        0 => Tunnel { kind: "ipip", port: None, checksum: None },
        1 => Tunnel { kind: "gue", port: Some(dest.tunnel_port), checksum: Some(checksum) },
        _ => Tunnel { kind: "gre", port: None, checksum: Some(checksum) },
    })
}

fn refused(code: u8) -> impl Fn(ClientError) -> Failure {
    move |error| Failure::new(code, explain(&error, Subject::Service))
}

/// All services, or one.
pub fn services(client: &mut Client, key: Option<&ServiceKey>) -> Result<Vec<ServiceRow>, Failure> {
    let mut rows = Vec::new();
    let mut take = |_: u8, attrs: &Attrs<'_>| {
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

/// Services whose destinations are asked for at once.
const AT_ONCE: usize = 64;

/// Services with their destinations, in this order, asked for as they are taken.
pub fn with_dests<'c>(
    client: &'c mut Client,
    services: Vec<ServiceRow>,
) -> impl Iterator<Item = Result<(ServiceRow, Vec<DestRow>), Failure>> + 'c {
    let mut services = services.into_iter();
    let mut known = VecDeque::new();
    std::iter::from_fn(move || {
        if known.is_empty() {
            let some: Vec<ServiceRow> = services.by_ref().take(AT_ONCE).collect();
            match dests(client, &some) {
                Ok(dests) => known.extend(some.into_iter().zip(dests)),
                Err(failure) => return Some(Err(failure)),
            }
        }
        known.pop_front().map(Ok)
    })
}

/// The destinations of each service.
fn dests(client: &mut Client, services: &[ServiceRow]) -> Result<Vec<Vec<DestRow>>, Failure> {
    let requests: Vec<Writer> = services.iter().map(|row| service_key(&row.service.key)).collect();
    let mut dests: Vec<Vec<DestRow>> = services.iter().map(|_| Vec::new()).collect();
    let take = |number: usize, attrs: &Attrs<'_>| {
        let Some((row, rows)) = services.get(number).zip(dests.get_mut(number)) else { return };
        let Some(inner) = attrs.nested(cmd_attr::DEST) else { return };
        if let Ok((dest, _)) = ipvs::dest(&inner, row.service.key.family()) {
            let (status, rates) = ipvs::dest_status(&inner);
            rows.push(DestRow { dest, status, rates });
        }
    };
    client.dumps(command::GET_DEST, &requests, take).map_err(refused(1))?;
    Ok(dests)
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
    let size = if key.is_none() { Some(table_size(client)?) } else { None };
    let mut json = json::Services::default();
    if format.json {
        written(json.begin(out, size))?;
    } else {
        written(table::title(out, size, format))?;
    }
    for row in with_dests(client, rows) {
        let (row, mut dests) = row?;
        if !format.nosort {
            dests = sort(dests, &|a, b| dest_before(&a.dest.key, &b.dest.key));
        }
        if format.json {
            written(json.service(out, &row, &dests))?;
            continue;
        }
        written(table::service(out, &row, format))?;
        for dest in dests {
            written(table::destination(out, &row.service.key, &dest, format))?;
        }
    }
    if format.json { written(json::end(out)) } else { Ok(()) }
}

fn table_size(client: &mut Client) -> Result<u32, Failure> {
    let mut size = 0;
    let take = |_: u8, attrs: &Attrs<'_>| {
        size = attrs.u32(ipvs::INFO_CONN_TAB_SIZE).unwrap_or_default();
    };
    client.call(command::GET_INFO, &Writer::new(), take).map_err(refused(255))?;
    Ok(size)
}
