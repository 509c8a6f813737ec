//! The interfaces of the namespace.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use crate::{Host, HostError};

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind of a virtual device ("veth", "bridge" ...); `None` for hardware and virtio.
    pub kind: Option<String>,
    /// Longest packet.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// The loopback.
    pub loopback: bool,
    /// Neighbours are not resolved on it (`IFF_NOARP`).
    pub no_arp: bool,
    /// MAC address of an Ethernet device.
    pub mac: Option<[u8; 6]>,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
}

impl Host {
    /// All interfaces, by index.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, HostError> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let answers = self.request("list interfaces", message, NLM_F_DUMP)?;
        let links = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(interface(link)),
            _ => None,
        });
        Ok(links.collect())
    }
}

fn interface(link: LinkMessage) -> Interface {
    let flags = link.header.flags;
    let mut interface = Interface {
        index: link.header.index,
        name: String::new(),
        kind: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
        no_arp: flags.contains(LinkFlags::Noarp),
        mac: None,
        master: None,
    };
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Address(bytes) => interface.mac = bytes.try_into().ok(),
            LinkAttribute::Controller(index) => interface.master = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        interface.kind = Some(kind.to_string());
                    }
                }
            }
            _ => {}
        }
    }
    interface
}
