//! Entries, from bytes. Nothing that a message says is believed before it was compared with the
//! bytes that are there.
//!
//! ```text
//!  version 1  │ family (0: IPv4, 1: IPv6) │ protocol │ version, length (4 + 12 bits) │ flags (4) │ state (2) │
//!             │ ports: client, virtual, destination (6) │ mark (4) │ timeout (4) │ addresses: the same │ options
//!  option     │ kind │ length │ ...
//!  version 0  │ 0 │ protocol │ ports (6) │ addresses (12) │ flags (2) │ state (2) │ deltas, if the flags say so
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::entry::{DELTAS, Delta, Engine, Entry, flags, option};
use crate::{ENGINE_DATA, ENGINE_NAME};

/// Why an entry cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// The message ends before it does.
    #[error("an entry that is cut off")]
    Cut,
    /// Its version is not 0.
    #[error("an entry of version {0}")]
    Version(u8),
    /// Neither IPv4 nor IPv6.
    #[error("an entry of family {0}")]
    Family(u8),
    /// An option has a wrong length, or comes twice.
    #[error("an option {0} that is wrong")]
    Option(u8),
    /// An option that must be known and is not. The next entry can be read.
    #[error("an unknown option {0}")]
    Unknown(u8),
}

/// Takes bytes off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], EntryError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(EntryError::Cut)?;
        self.0 = rest;
        Ok(*first)
    }

    fn slice(&mut self, len: usize) -> Result<&'a [u8], EntryError> {
        let (first, rest) = self.0.split_at_checked(len).ok_or(EntryError::Cut)?;
        self.0 = rest;
        Ok(first)
    }

    fn u8(&mut self) -> Result<u8, EntryError> {
        self.take().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, EntryError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, EntryError> {
        self.take().map(u32::from_be_bytes)
    }

    fn addr(&mut self, v6: bool) -> Result<IpAddr, EntryError> {
        Ok(if v6 {
            Ipv6Addr::from(self.take::<16>()?).into()
        } else {
            Ipv4Addr::from(self.take::<4>()?).into()
        })
    }

    fn addrs(&mut self, v6: bool, ports: [u16; 3]) -> Result<[SocketAddr; 3], EntryError> {
        let [client, service, dest] = ports;
        Ok([
            SocketAddr::new(self.addr(v6)?, client),
            SocketAddr::new(self.addr(v6)?, service),
            SocketAddr::new(self.addr(v6)?, dest),
        ])
    }

    fn ports(&mut self) -> Result<[u16; 3], EntryError> {
        Ok([self.u16()?, self.u16()?, self.u16()?])
    }

    fn delta(&mut self) -> Result<Delta, EntryError> {
        Ok(Delta { from: self.u32()?, by: self.u32()?, before: self.u32()? })
    }

    fn deltas(&mut self) -> Result<[Delta; 2], EntryError> {
        Ok([self.delta()?, self.delta()?])
    }
}

/// What follows an entry of version 1, if its length can be told.
pub(crate) fn after_v1(bytes: &[u8]) -> Option<&[u8]> {
    let (&[_, _, high, low], _) = bytes.split_first_chunk()?;
    let len = usize::from(u16::from_be_bytes([high, low]) & 0xfff);
    Some(bytes.get(len.next_multiple_of(4)..).unwrap_or_default())
}

/// An entry of version 1.
pub(crate) fn v1(bytes: &[u8]) -> Result<Entry<'_>, EntryError> {
    let mut head = Reader(bytes);
    let (family, protocol, length) = (head.u8()?, head.u8()?, head.u16()?);
    let len = usize::from(length & 0xfff);
    let whole = bytes.get(..len).ok_or(EntryError::Cut)?;
    if length >> 12 != 0 {
        return Err(EntryError::Version((length >> 12) as u8));
    }
    let v6 = match family {
        0 => false,
        odd if odd & 1 != 0 => true,
        other => return Err(EntryError::Family(other)),
    };
    let mut body = Reader(whole.get(4..).ok_or(EntryError::Cut)?);
    let (flags, state, ports) = (body.u32()?, body.u16()?, body.ports()?);
    let (mark, timeout) = (body.u32()?, body.u32()?);
    let [client, service, dest] = body.addrs(v6, ports)?;
    let (deltas, engine) = options(body)?;
    Ok(Entry { protocol, flags, state, mark, timeout, client, service, dest, deltas, engine })
}

/// Changes of sequence numbers, and a persistence engine's data.
type Options<'a> = (Option<[Delta; 2]>, Option<Engine<'a>>);

/// What the options behind the addresses say.
fn options(mut bytes: Reader<'_>) -> Result<Options<'_>, EntryError> {
    let (mut deltas, mut name, mut data) = (None, None, None);
    while !bytes.0.is_empty() {
        let (kind, len) = (bytes.u8()?, usize::from(bytes.u8()?));
        let wrong = EntryError::Option(kind);
        let value = bytes.slice(len)?;
        if len == 0 {
            return Err(wrong);
        }
        match kind & !option::OPTIONAL {
            option::DELTAS if len == DELTAS && deltas.is_none() => {
                deltas = Some(Reader(value).deltas()?);
            }
            option::ENGINE_NAME if len <= ENGINE_NAME && name.is_none() => name = Some(value),
            option::ENGINE_DATA if len <= ENGINE_DATA && data.is_none() => data = Some(value),
            option::DELTAS | option::ENGINE_NAME | option::ENGINE_DATA => return Err(wrong),
            _ if kind & option::OPTIONAL != 0 => {}
            _ => return Err(EntryError::Unknown(kind)),
        }
    }
    // A name without data is as good as nothing.
    let engine = data.map(|data| Engine { name: name.unwrap_or_default(), data });
    Ok((deltas, engine))
}

/// An entry of version 0, and what follows it.
pub(crate) fn v0(bytes: &[u8]) -> Result<(Entry<'_>, &[u8]), EntryError> {
    let mut body = Reader(bytes);
    let (_, protocol, ports) = (body.u8()?, body.u8()?, body.ports()?);
    let [client, service, dest] = body.addrs(false, ports)?;
    let (flags, state) = (u32::from(body.u16()?), body.u16()?);
    let has_deltas = flags & (flags::IN_SEQ | flags::OUT_SEQ) != 0;
    let deltas = if has_deltas { Some(body.deltas()?) } else { None };
    let (mark, timeout, engine) = (0, 0, None);
    let entry =
        Entry { protocol, flags, state, mark, timeout, client, service, dest, deltas, engine };
    Ok((entry, body.0))
}
