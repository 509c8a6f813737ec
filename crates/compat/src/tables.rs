//! The director's tables as rvsd tells them: services, destinations and connections.

use rvs_core::control::{DestStatus, Rates, Stats};
use rvs_core::types::{DestConfig, ServiceKey};
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::ipvs::{self, cmd_attr, command, svc_attr};
use rvs_netlink::{Client, ClientError};

/// A service with its counters.
#[derive(Clone, Debug)]
pub struct Service {
    /// What was configured.
    pub config: ipvs::Service,
    /// Its counters.
    pub stats: Stats,
    /// Its rates.
    pub rates: Rates,
}

/// A destination with its live numbers.
#[derive(Clone, Debug)]
pub struct Dest {
    /// What was configured.
    pub config: DestConfig,
    /// Connections and counters.
    pub status: DestStatus,
    /// Its rates.
    pub rates: Rates,
}

fn named(key: &ServiceKey) -> Writer {
    let (mut inner, mut attrs) = (Writer::new(), Writer::new());
    ipvs::put_service_key(&mut inner, key);
    attrs.nest(cmd_attr::SERVICE, &inner);
    attrs
}

fn read_service(attrs: &Attrs<'_>) -> Option<Service> {
    let inner = attrs.nested(cmd_attr::SERVICE)?;
    let config = ipvs::service(&inner).ok()?;
    let (stats, rates) = ipvs::stats(&inner, svc_attr::STATS, svc_attr::STATS64);
    Some(Service { config, stats, rates })
}

/// Every service, in the director's order.
pub fn services(client: &mut Client) -> Result<Vec<Service>, ClientError> {
    let mut services = Vec::new();
    client.dump(command::GET_SERVICE, &Writer::new(), |_, attrs| {
        services.extend(read_service(attrs));
    })?;
    Ok(services)
}

/// One service.
pub fn service(client: &mut Client, key: &ServiceKey) -> Result<Service, ClientError> {
    let mut service = None;
    client.call(command::GET_SERVICE, &named(key), |_, attrs| {
        service = read_service(attrs).or(service.take());
    })?;
    service.ok_or(ClientError::Malformed)
}

/// The destinations of a service, in the director's order: the one added last first.
pub fn dests(client: &mut Client, key: &ServiceKey) -> Result<Vec<Dest>, ClientError> {
    let mut dests = Vec::new();
    client.dump(command::GET_DEST, &named(key), |_, attrs| {
        let Some(inner) = attrs.nested(cmd_attr::DEST) else { return };
        if let Ok((config, _)) = ipvs::dest(&inner, key.family()) {
            let (status, rates) = ipvs::dest_status(&inner);
            dests.push(Dest { config, status, rates });
        }
    })?;
    Ok(dests)
}

/// The size of the connection table.
pub fn table_size(client: &mut Client) -> Result<u32, ClientError> {
    let mut size = 0;
    client.call(command::GET_INFO, &Writer::new(), |_, attrs| {
        size = attrs.u32(ipvs::INFO_CONN_TAB_SIZE).unwrap_or(size);
    })?;
    Ok(size)
}

/// What everything counted.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Since it was zeroed.
    pub stats: Stats,
    /// Its rates.
    pub rates: Rates,
    /// Ever, by CPU.
    pub by_cpu: Vec<Stats>,
}

/// Counters and rates of everything.
pub fn totals(client: &mut Client) -> Result<Totals, ClientError> {
    let mut totals = Totals::default();
    client.call(command::GET_STATS, &Writer::new(), |_, attrs| {
        let (stats, rates) = ipvs::stats(attrs, cmd_attr::STATS, cmd_attr::STATS64);
        totals = Totals { stats, rates, by_cpu: ipvs::counters(attrs, cmd_attr::CPU_STATS) };
    })?;
    Ok(totals)
}
