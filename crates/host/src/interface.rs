//! The interfaces of the namespace.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    GreEncapType, InfoData, InfoGre, InfoGre6, InfoIpTunnel, LinkAttribute, LinkFlags, LinkInfo,
    LinkLayerType, LinkMessage, TunnelEncapType,
};

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
    /// Whether packets come by it without any header before that of IP.
    pub bare: bool,
    /// Whether it gives out what came inside of IP packets, but for those of UDP.
    pub decapsulates: bool,
    /// Index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// Index of the interface that it is a VLAN of.
    pub parent: Option<u32>,
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
        bare: is_bare(link.header.link_layer_type),
        decapsulates: false,
        master: None,
        parent: None,
    };
    let (mut below, mut by_udp) = (None, false);
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
            LinkAttribute::IfName(name) => interface.name = name,
            LinkAttribute::Address(bytes) => interface.mac = bytes.try_into().ok(),
            LinkAttribute::Link(index) => below = Some(index),
            LinkAttribute::Controller(index) => interface.master = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => interface.kind = Some(kind.to_string()),
                        LinkInfo::Data(data) => by_udp = is_by_udp(&data),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // Other kinds name other things so: a veth device its peer, which may be in another namespace.
    let kind = interface.kind.as_deref().unwrap_or_default();
    interface.decapsulates = !by_udp && TUNNELS.contains(&kind);
    interface.parent = below.filter(|_| interface.kind.as_deref() == Some("vlan"));
    interface
}

/// Kinds of devices that are ends of tunnels by protocols of their own.
const TUNNELS: [&str; 9] =
    ["ipip", "sit", "gre", "gretap", "erspan", "ip6tnl", "ip6gre", "ip6gretap", "ip6erspan"];

/// Whether devices of this type give out packets without any header of theirs.
fn is_bare(link: LinkLayerType) -> bool {
    use LinkLayerType::{Ip6gre, Ipgre, None, Ppp, Rawip, Sit, Tunnel, Tunnel6};
    matches!(link, Tunnel | Tunnel6 | Sit | Ipgre | Ip6gre | None | Rawip | Ppp)
}

/// Whether a tunnel's packets are inside of UDP.
fn is_by_udp(data: &InfoData) -> bool {
    let gre = |encap: &GreEncapType| *encap != GreEncapType::None;
    match data {
        InfoData::IpTunnel(all) => all.iter().any(
            |info| matches!(info, InfoIpTunnel::EncapType(encap) if *encap != TunnelEncapType::None),
        ),
        InfoData::GreTun(all) | InfoData::GreTap(all) | InfoData::ErSpan(all) => {
            all.iter().any(|info| matches!(info, InfoGre::EncapType(encap) if gre(encap)))
        }
        InfoData::GreTun6(all) | InfoData::GreTap6(all) | InfoData::Ip6ErSpan(all) => {
            all.iter().any(|info| matches!(info, InfoGre6::EncapType(encap) if gre(encap)))
        }
        _ => false,
    }
}
