//! The way to an address, as the host itself would send.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Host, HostError};

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Interface.
    pub ifindex: u32,
    /// Gateway, or the destination itself.
    pub next_hop: IpAddr,
    /// Address that the host sends from.
    pub source: Option<IpAddr>,
    /// The destination is one of the host's own addresses.
    pub local: bool,
    /// MTU that the route was given, or has learnt; `None`: its interface's.
    pub mtu: Option<u32>,
}

impl Host {
    /// The way to `dst`; `None` if there is no route.
    pub fn route(&mut self, dst: IpAddr) -> Result<Option<Hop>, HostError> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match dst {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(dst)));
        let answers = self.request("look up a route", RouteNetlinkMessage::GetRoute(message), 0);
        let answers = match answers {
            Err(HostError::Refused { reason, .. }) if is_unreachable(&reason) => return Ok(None),
            other => other?,
        };
        let route = answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(route) => Some(route),
            _ => None,
        });
        Ok(route.and_then(|route| hop(dst, &route)))
    }
}

fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, PermissionDenied};
    // EINVAL answers for blackhole routes, EACCES for prohibited ones.
    matches!(error.kind(), HostUnreachable | NetworkUnreachable | PermissionDenied)
        || error.kind() == io::ErrorKind::InvalidInput
}

fn hop(dst: IpAddr, route: &RouteMessage) -> Option<Hop> {
    let mut hop = Hop { ifindex: 0, next_hop: dst, source: None, local: false, mtu: None };
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => hop.local = true,
        _ => return None,
    }
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => hop.ifindex = *index,
            RouteAttribute::Gateway(gateway) => hop.next_hop = addr(gateway)?,
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => hop.next_hop = (*gateway).into(),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => hop.next_hop = (*gateway).into(),
            RouteAttribute::PrefSource(source) => hop.source = addr(source),
            RouteAttribute::Metrics(metrics) => {
                hop.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    (hop.ifindex != 0).then_some(hop)
}

fn addr(addr: &RouteAddress) -> Option<IpAddr> {
    match addr {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}
