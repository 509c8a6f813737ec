//! Entries, gathered into messages.

use std::net::{IpAddr, SocketAddr};

use crate::entry::{DELTAS, Delta, Entry, flags, option};
use crate::message::{HEAD, HEAD_V0, Version};

/// Fills messages up to a length.
#[derive(Debug)]
pub struct Batch {
    version: Version,
    sync_id: u8,
    max_len: usize,
    bytes: Vec<u8>,
    count: u8,
}

impl Batch {
    /// Messages of at most `max_len` bytes for the directors of a group. An entry that is longer
    /// goes in a message of its own.
    pub fn new(version: Version, sync_id: u8, max_len: u16) -> Self {
        Self { version, sync_id, max_len: max_len.into(), bytes: Vec::new(), count: 0 }
    }

    /// Adds an entry; the message that was complete without it, if there is one. Version 0 has no
    /// IPv6 and leaves it out.
    pub fn push(&mut self, entry: &Entry<'_>) -> Option<Vec<u8>> {
        let start = self.bytes.len();
        if start == 0 {
            self.begin();
        }
        let (before, padding) = (self.bytes.len(), self.bytes.len().next_multiple_of(4));
        self.bytes.resize(padding, 0);
        let written = match self.version {
            Version::V1 => put_v1(&mut self.bytes, entry),
            Version::V0 => put_v0(&mut self.bytes, entry),
        };
        if !written {
            self.bytes.truncate(if start == 0 { 0 } else { before });
            return None;
        }
        let full = self.bytes.len() > self.max_len || self.count == u8::MAX;
        if !full || self.count == 0 {
            self.count += 1;
            return None;
        }
        let next = self.bytes.split_off(padding);
        self.bytes.truncate(before);
        let message = self.finish();
        self.begin();
        self.bytes.extend(next);
        self.count = 1;
        message
    }

    /// The message with what was added since the last, if there is anything.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        let count = std::mem::take(&mut self.count);
        let mut bytes = std::mem::take(&mut self.bytes);
        if count == 0 {
            return None;
        }
        // An entry has 400 bytes at most and a message 65,535, or one entry.
        let [high, low] = (bytes.len() as u16).to_be_bytes();
        let head: &[u8] = match self.version {
            Version::V1 => &[0, self.sync_id, high, low, count, 1, 0, 0],
            Version::V0 => &[count, self.sync_id, high, low],
        };
        bytes.iter_mut().zip(head).for_each(|(place, byte)| *place = *byte);
        Some(bytes)
    }

    /// Leaves room for the head.
    fn begin(&mut self) {
        let head = if self.version == Version::V1 { HEAD } else { HEAD_V0 };
        self.bytes.resize(head, 0);
    }
}

/// Appends the ports (or addresses) of all three.
fn ports(bytes: &mut Vec<u8>, entry: &Entry<'_>) {
    for end in ends(entry) {
        bytes.extend(end.port().to_be_bytes());
    }
}

fn addrs(bytes: &mut Vec<u8>, entry: &Entry<'_>) {
    for end in ends(entry) {
        match end.ip() {
            IpAddr::V4(addr) => bytes.extend(addr.octets()),
            IpAddr::V6(addr) => bytes.extend(addr.octets()),
        }
    }
}

fn ends(entry: &Entry<'_>) -> [SocketAddr; 3] {
    [entry.client, entry.service, entry.dest]
}

fn deltas(bytes: &mut Vec<u8>, deltas: &[Delta; 2]) {
    for delta in deltas {
        for number in [delta.from, delta.by, delta.before] {
            bytes.extend(number.to_be_bytes());
        }
    }
}

fn put_v1(bytes: &mut Vec<u8>, entry: &Entry<'_>) -> bool {
    let (start, v6) = (bytes.len(), entry.client.is_ipv6());
    if ends(entry).iter().any(|end| end.is_ipv6() != v6) {
        return false;
    }
    bytes.extend([u8::from(v6), entry.protocol, 0, 0]);
    bytes.extend((entry.flags & !flags::HASHED).to_be_bytes());
    bytes.extend(entry.state.to_be_bytes());
    ports(bytes, entry);
    bytes.extend(entry.mark.to_be_bytes());
    bytes.extend(entry.timeout.to_be_bytes());
    addrs(bytes, entry);
    if let Some(both) = &entry.deltas {
        bytes.extend([option::DELTAS, DELTAS as u8]);
        deltas(bytes, both);
    }
    if let Some(engine) = entry.engine {
        let options = [(option::ENGINE_DATA, engine.data), (option::ENGINE_NAME, engine.name)];
        for (kind, value) in options.into_iter().filter(|(_, value)| !value.is_empty()) {
            let Ok(len) = u8::try_from(value.len()) else { continue };
            bytes.extend([kind, len]);
            bytes.extend(value);
        }
    }
    // A version of 0 in the upper four bits.
    let len = ((bytes.len() - start) as u16).to_be_bytes();
    if let Some(place) = bytes.get_mut(start + 2..start + 4) {
        place.copy_from_slice(&len);
    }
    true
}

fn put_v0(bytes: &mut Vec<u8>, entry: &Entry<'_>) -> bool {
    if ends(entry).iter().any(SocketAddr::is_ipv6) {
        return false;
    }
    bytes.extend([0, entry.protocol]);
    ports(bytes, entry);
    addrs(bytes, entry);
    bytes.extend(((entry.flags & !flags::HASHED) as u16).to_be_bytes());
    bytes.extend(entry.state.to_be_bytes());
    if entry.flags & (flags::IN_SEQ | flags::OUT_SEQ) != 0 {
        deltas(bytes, &entry.deltas.unwrap_or_default());
    }
    true
}
