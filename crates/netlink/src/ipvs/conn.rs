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
    pub pe: Option<(String, Vec<u8>)>,
    /// Whether another director told of it; `/proc/net/ip_vs_conn` of a kernel does not tell.
    pub synced: Option<bool>,
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
    pub const SYNCED: u16 = 14;
    pub const PE_NAME: u16 = 15;
    pub const PE_DATA: u16 = 16;
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
        .u8(conn_attr::TEMPLATE, row.template.into())
        .u8(conn_attr::SYNCED, row.synced.into());
    if let Some((engine, data)) = &row.engine {
        attrs.text(conn_attr::PE_NAME, engine.name()).put(conn_attr::PE_DATA, data.bytes());
    }
}

/// Reads a connection; `None` if something is missing. One pass: there may be a million of them.
pub fn conn(attrs: &Attrs<'_>) -> Option<Conn> {
    let mut values = [None; conn_attr::PE_DATA as usize + 1];
    for (kind, value) in attrs.clone() {
        if let Some(place) = values.get_mut(usize::from(kind)) {
            *place = Some(value);
        }
    }
    let get = |kind: u16| values.get(usize::from(kind)).copied().flatten();
    let byte = |kind| get(kind)?.first().copied();
    let family = |kind| family(u16::from_ne_bytes(*get(kind)?.first_chunk()?));
    let port = |kind| Some(u16::from_be_bytes(*get(kind)?.first_chunk()?));
    let end = |family, kind, port_kind| Some((addr(family, get(kind)?), port(port_kind)?));
    let (outer, inner) = (family(conn_attr::AF)?, family(conn_attr::DEST_AF)?);
    let text = |kind| str::from_utf8(get(kind)?.split(|b| *b == 0).next()?).ok();
    Some(Conn {
        protocol: byte(conn_attr::PROTOCOL)?,
        client: end(outer, conn_attr::CLIENT, conn_attr::CLIENT_PORT)?,
        service: end(outer, conn_attr::VIRTUAL, conn_attr::VIRTUAL_PORT)?,
        dest: end(inner, conn_attr::DEST, conn_attr::DEST_PORT)?,
        state: text(conn_attr::STATE)?.to_owned(),
        expires: u32::from_ne_bytes(*get(conn_attr::EXPIRES)?.first_chunk()?),
        forward: byte(conn_attr::FORWARD).and_then(ForwardMethod::from_number),
        template: byte(conn_attr::TEMPLATE).map(|flag| flag != 0),
        pe: text(conn_attr::PE_NAME)
            .and_then(|name| Some((name.to_owned(), get(conn_attr::PE_DATA)?.to_vec()))),
        synced: byte(conn_attr::SYNCED).map(|flag| flag != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Writer;
    use rvs_core::control::EngineData;
    use rvs_core::types::Engine;

    fn row() -> ConnRow {
        ConnRow {
            protocol: 17,
            client: "fd00::2".parse().expect("a literal"),
            client_port: 40_000,
            virtual_addr: "fd09::1".parse().expect("a literal"),
            virtual_port: 53,
            dest: [10, 1, 0, 11].into(),
            dest_port: 5353,
            forward: ForwardMethod::Tunnel,
            state: "UDP",
            expires: 300,
            template: false,
            engine: Some((Engine::Sip, EngineData::new(b"a\xe9@x"))),
            synced: true,
        }
    }

    #[test]
    fn a_connection_is_read_as_it_was_written() {
        let mut attrs = Writer::new();
        put_conn(&mut attrs, &row());
        let read = conn(&Attrs(attrs.bytes())).expect("a connection");
        assert_eq!(read.client, (row().client, 40_000));
        assert_eq!(read.service, (row().virtual_addr, 53));
        assert_eq!(read.dest, (row().dest, 5353));
        assert_eq!((read.protocol, read.state.as_str(), read.expires), (17, "UDP", 300));
        assert_eq!(read.pe, Some(("sip".into(), b"a\xe9@x".to_vec())));
        assert_eq!((read.forward, read.template), (Some(ForwardMethod::Tunnel), Some(false)));
        assert_eq!(read.synced, Some(true));
    }

    #[test]
    fn a_connection_without_an_address_is_none() {
        let mut attrs = Writer::new();
        attrs.u8(conn_attr::PROTOCOL, 6).u16(conn_attr::AF, 2).u16(conn_attr::DEST_AF, 2);
        assert_eq!(conn(&Attrs(attrs.bytes())), None);
    }
}
