//! Persistence: a template says where the connections of a client, or of its network, go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rvs_core::types::{Family, ForwardMethod, Protocol, ServiceFlags, ServiceKey};

use crate::packet::{Packet, is_of_any_port};
use crate::{Id, Jiffies, Model, jiffies};

/// A persistence template.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    /// None of a service by mark: it is for all.
    pub(crate) protocol: Option<Protocol>,
    /// The client's network.
    pub(crate) client: IpAddr,
    /// The virtual address; port 0 for all ports. The mark of a service by mark.
    pub(crate) virt: SocketAddr,
    pub(crate) dest: Id,
    /// The destination's port, 0 for all ports.
    pub(crate) port: u16,
    pub(crate) forward: ForwardMethod,
    /// How long it lives after a connection was made by it.
    pub(crate) timeout: Jiffies,
    pub(crate) deadline: Jiffies,
    /// One of its connections came about.
    pub(crate) assured: bool,
}

impl Model {
    /// The destination of a new connection, and the template that it comes about by.
    pub(crate) fn choose(&mut self, key: &ServiceKey, packet: &Packet) -> Option<(Id, Option<Id>)> {
        let config = self.service(key)?.config;
        if !config.flags.contains(ServiceFlags::PERSISTENT) {
            return Some((self.schedule(key, packet)?, None));
        }
        let client = network(packet.src.ip(), config.netmask);
        let (protocol, virt) = match *key {
            ServiceKey::Address { protocol, addr, port } => {
                (Some(protocol), SocketAddr::new(addr, port))
            }
            ServiceKey::Fwmark { family, mark } => {
                (None, SocketAddr::new(as_address(family, mark), 0))
            }
        };
        let found = self.templates.iter().find(|(_, template)| {
            (template.protocol, template.client, template.virt) == (protocol, client, virt)
        });
        let found = found.map(|(id, template)| (*id, template.dest));
        if let Some((id, dest)) = found {
            if self.is_valid(dest) {
                let template = self.templates.get_mut(&id).expect("it was found");
                template.deadline = self.now + template.timeout;
                return Some((dest, Some(id)));
            }
            // The kernel only hides it until it expires.
            self.end_template(id);
        }
        let dest = self.schedule(key, packet)?;
        let id = self.new_id();
        let of = self.dest(dest).config;
        let template = Template {
            protocol,
            client,
            virt,
            dest,
            port: if is_of_any_port(key) { 0 } else { of.key.port },
            forward: of.forward,
            timeout: jiffies(config.timeout),
            deadline: self.now + jiffies(config.timeout),
            assured: false,
        };
        self.templates.insert(id, template);
        self.bound(dest);
        Some((dest, Some(id)))
    }

    /// Whether templates may send connections to a destination. One of weight 0 takes them, and so
    /// does one that is overloaded.
    fn is_valid(&self, dest: Id) -> bool {
        let dest = self.dest(dest);
        let quiesced = dest.config.weight == 0 && self.settings.expire_quiescent_template;
        dest.available && !quiesced
    }
}

/// The network of a client: IPv4 has a mask, IPv6 the length of a prefix.
fn network(client: IpAddr, mask: u32) -> IpAddr {
    match client {
        IpAddr::V4(addr) => Ipv4Addr::from_bits(addr.to_bits() & mask).into(),
        IpAddr::V6(addr) => {
            let prefix = u128::MAX.checked_shl(128 - mask).unwrap_or(0);
            Ipv6Addr::from_bits(addr.to_bits() & prefix).into()
        }
    }
}

/// A mark where listings have the virtual address.
fn as_address(family: Family, mark: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(mark).into(),
        Family::V6 => Ipv6Addr::from_bits(u128::from(mark) << 96).into(),
    }
}
