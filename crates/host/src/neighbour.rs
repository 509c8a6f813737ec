//! Neighbours that the kernel keeps resolved by itself (`NTF_EXT_MANAGED`, Linux 5.16).

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::{Host, HostError};

impl Host {
    /// Has the kernel keep the neighbour's MAC address resolved, as
    /// `ip neigh replace ADDR dev DEV managed` does.
    pub fn manage_neighbour(&mut self, ifindex: u32, addr: IpAddr) -> Result<(), HostError> {
        let mut message = neighbour(ifindex, addr);
        let managed = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        message.attributes.push(managed);
        let message = RouteNetlinkMessage::NewNeighbour(message);
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.request("manage a neighbour", message, flags).map(drop)
    }

    /// Lets go of a managed neighbour. Its entry goes; traffic brings it back when needed.
    pub fn release_neighbour(&mut self, ifindex: u32, addr: IpAddr) -> Result<(), HostError> {
        let message = RouteNetlinkMessage::DelNeighbour(neighbour(ifindex, addr));
        self.request("release a neighbour", message, 0).map(drop)
    }

    /// Whether the administrator gave this neighbour a fixed MAC address.
    pub fn is_permanent(&mut self, ifindex: u32, addr: IpAddr) -> bool {
        let message = RouteNetlinkMessage::GetNeighbour(neighbour(ifindex, addr));
        let answers = self.request("look up a neighbour", message, 0).unwrap_or_default();
        answers.iter().any(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(found) => {
                found.header.state == NeighbourState::Permanent
            }
            _ => false,
        })
    }
}

fn neighbour(ifindex: u32, addr: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = ifindex;
    message.header.state = NeighbourState::None;
    let (family, address) = match addr {
        IpAddr::V4(addr) => (AddressFamily::Inet, NeighbourAddress::Inet(addr)),
        IpAddr::V6(addr) => (AddressFamily::Inet6, NeighbourAddress::Inet6(addr)),
    };
    message.header.family = family;
    message.attributes.push(NeighbourAttribute::Destination(address));
    message
}
