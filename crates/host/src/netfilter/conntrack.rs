//! Entries of connection tracking (`linux/netfilter/nfnetlink_conntrack.h`).

use std::net::{IpAddr, SocketAddr};

use rvs_netlink::attr::Writer;

use super::{ACK, Netfilter, absent, message, octets};
use crate::HostError;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`
const GET: u16 = 0x101;
/// `IPCTNL_MSG_CT_DELETE`
const DELETE: u16 = 0x102;
/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, `CTA_ID`
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const ID: u16 = 12;
/// `CTA_TUPLE_IP`
const IP: u16 = 1;
/// `CTA_TUPLE_PROTO`
const PROTOCOL: u16 = 2;

/// What a client's packets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Protocol number.
    pub protocol: u8,
    /// The client.
    pub client: SocketAddr,
    /// The virtual address.
    pub virtual_addr: SocketAddr,
}

impl Tracked {
    fn family(&self) -> u8 {
        const AF_INET: u8 = 2;
        const AF_INET6: u8 = 10;
        if self.client.is_ipv4() { AF_INET } else { AF_INET6 }
    }

    /// The first kind of attribute that an address of its family has: that of sources.
    fn source(&self) -> u16 {
        if self.client.is_ipv4() { 1 } else { 3 }
    }

    /// As the original direction of an entry.
    fn attributes(&self) -> Writer {
        let (mut ip, mut protocol) = (Writer::new(), Writer::new());
        ip.put(self.source(), &octets(self.client.ip()));
        ip.put(self.source() + 1, &octets(self.virtual_addr.ip()));
        protocol.u8(1, self.protocol);
        protocol.be16(2, self.client.port()).be16(3, self.virtual_addr.port());
        let (mut tuple, mut attributes) = (Writer::new(), Writer::new());
        tuple.nest(IP, &ip).nest(PROTOCOL, &protocol);
        attributes.nest(ORIGINAL, &tuple);
        attributes
    }
}

impl Netfilter {
    /// Forgets a connection, if it is known and goes to `destination`. Whether it was.
    pub fn forget(&mut self, tracked: &Tracked, destination: IpAddr) -> Result<bool, HostError> {
        let what = "look up a tracked connection";
        let (head, mut attributes) = ((tracked.family(), 0), tracked.attributes());
        let found = self.ask(
            what,
            |sequence| message(GET, 0, sequence, head, &attributes),
            |answer| {
                let found = answer.attrs();
                let server = found.nested(REPLY)?.nested(IP)?.find(tracked.source())?;
                (server == octets(destination)).then(|| found.find(ID).map(<[u8]>::to_vec))
            },
        );
        let id = match absent(found)? {
            Some(Some(id)) => id,
            _ => return Ok(false),
        };
        if let Some(id) = id {
            attributes.put(ID, &id);
        }
        let what = "forget a tracked connection";
        let gone =
            self.ask(what, |sequence| message(DELETE, ACK, sequence, head, &attributes), |_| ());
        Ok(absent(gone)?.is_some())
    }

    /// Whether the kernel tracks connections and tells of them: an error if not.
    pub fn probe(&mut self) -> Result<(), HostError> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let nobody = Tracked { protocol: 17, client: nowhere, virtual_addr: nowhere };
        self.forget(&nobody, nowhere.ip()).map(drop)
    }
}
