//! Connections: RVS's own, for what the kernel tells by `/proc/net/ip_vs_conn`.

use std::net::IpAddr;

use rvs_core::control::ConnRow;
use rvs_core::types::{Family, ForwardMethod};

use super::addr::{addr, addr_bytes, af, family};
use crate::attr::{Attrs, Writer};

/// A connection as a client receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Protocol number.
    pub protocol: u8,
    /// Client.
    pub client: (IpAddr, u16),
    /// Virtual address and port.
    pub service: (IpAddr, u16),
    /// Destination.
    pub dest: (IpAddr, u16),
    /// State's name.
    pub state: String,
    /// Seconds until it expires.
    pub expires: u32,
    /// How its packets are forwarded; a kernel does not tell.
    pub forward: Option<ForwardMethod>,
    /// Whether it is a persistence template; a kernel does not tell.
    pub template: Option<bool>,
    /// Persistence engine and its data; none if there is no engine.
    pub pe: Option<(String, String)>,
}

/// Attributes of a connection.
mod conn_attr {
    pub const PROTOCOL: u16 = 1;
    pub const AF: u16 = 2;
    pub const CLIENT: u16 = 3;
    pub const CLIENT_PORT: u16 = 4;
    pub const VIRTUAL: u16 = 5;
    pub const VIRTUAL_PORT: u16 = 6;
    pub const DEST_AF: u16 = 7;
    pub const DEST: u16 = 8;
    pub const DEST_PORT: u16 = 9;
    pub const STATE: u16 = 10;
    pub const EXPIRES: u16 = 11;
    pub const FORWARD: u16 = 12;
    pub const TEMPLATE: u16 = 13;
}

/// Puts a connection.
pub fn put_conn(attrs: &mut Writer, row: &ConnRow) {
    attrs
        .u8(conn_attr::PROTOCOL, row.protocol)
        .u16(conn_attr::AF, af(Family::of(row.client)))
        .put(conn_attr::CLIENT, &addr_bytes(row.client))
        .be16(conn_attr::CLIENT_PORT, row.client_port)
        .put(conn_attr::VIRTUAL, &addr_bytes(row.virtual_addr))
        .be16(conn_attr::VIRTUAL_PORT, row.virtual_port)
        .u16(conn_attr::DEST_AF, af(Family::of(row.dest)))
        .put(conn_attr::DEST, &addr_bytes(row.dest))
        .be16(conn_attr::DEST_PORT, row.dest_port)
        .text(conn_attr::STATE, row.state)
        .u32(conn_attr::EXPIRES, row.expires)
        .u8(conn_attr::FORWARD, row.forward as u8)
        .u8(conn_attr::TEMPLATE, row.template.into());
}

/// Reads a connection; `None` if something is missing.
pub fn conn(attrs: &Attrs<'_>) -> Option<Conn> {
    let outer = family(attrs.u16(conn_attr::AF)?)?;
    let inner = family(attrs.u16(conn_attr::DEST_AF)?)?;
    let address = |family, kind| Some(addr(family, attrs.find(kind)?));
    let number = attrs.u8(conn_attr::FORWARD);
    Some(Conn {
        protocol: attrs.u8(conn_attr::PROTOCOL)?,
        client: (address(outer, conn_attr::CLIENT)?, attrs.be16(conn_attr::CLIENT_PORT)?),
        service: (address(outer, conn_attr::VIRTUAL)?, attrs.be16(conn_attr::VIRTUAL_PORT)?),
        dest: (address(inner, conn_attr::DEST)?, attrs.be16(conn_attr::DEST_PORT)?),
        state: attrs.text(conn_attr::STATE)?.to_owned(),
        expires: attrs.u32(conn_attr::EXPIRES)?,
        forward: number.and_then(ForwardMethod::from_number),
        template: attrs.u8(conn_attr::TEMPLATE).map(|flag| flag != 0),
        pe: None,
    })
}
