//! The head of a message, of either version.
//!
//! ```text
//!  version 1  │ 0 │ syncid │ length (2) │ entries │ 1 │ 0 0 │ entries, each at a multiple of 4
//!  version 0  │ entries │ syncid │ length (2) │ entries
//! ```

use crate::entry::Entry;
use crate::read::{self, EntryError};

/// Which form a message has (`sync_version`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Before Linux 2.6.39: IPv4 only; no marks, timeouts and options.
    V0,
    /// The present one.
    V1,
}

/// Length of the head of version 1.
pub(crate) const HEAD: usize = 8;
/// Length of the head of version 0.
pub(crate) const HEAD_V0: usize = 4;

/// Why a message is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It has no head.
    #[error("a message of {0} bytes")]
    Short(usize),
    /// Its head and the datagram disagree.
    #[error("a message of {1} bytes that says that it has {0}")]
    Length(u16, usize),
}

/// A message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Its form.
    pub version: Version,
    /// Which group of directors it is for.
    pub sync_id: u8,
    /// How many entries it says it has.
    pub count: u8,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads the head of a message.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, MessageError> {
        let short = MessageError::Short(datagram.len());
        let (&[first, sync_id, high, low], _) = datagram.split_first_chunk().ok_or(short)?;
        let length = u16::from_be_bytes([high, low]);
        if usize::from(length) != datagram.len() {
            return Err(MessageError::Length(length, datagram.len()));
        }
        let is_v1 = first == 0 && datagram.get(5..HEAD) == Some(&[1, 0, 0]);
        let (version, count, head) = if is_v1 {
            (Version::V1, datagram.get(4).copied().unwrap_or_default(), HEAD)
        } else {
            (Version::V0, first, HEAD_V0)
        };
        Ok(Self { version, sync_id, count, body: datagram.get(head..).unwrap_or_default() })
    }

    /// Its entries, in order. The first that cannot be read is the last, for nobody knows where the
    /// next begins, unless all that is wrong is an unknown option.
    pub fn entries(&self) -> Entries<'a> {
        Entries { version: self.version, left: self.count, body: self.body }
    }
}

/// See [`Message::entries`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    version: Version,
    left: u8,
    body: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, EntryError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (read, rest) = match self.version {
            Version::V0 => match read::v0(self.body) {
                Ok((entry, rest)) => (Ok(entry), Some(rest)),
                Err(error) => (Err(error), None),
            },
            Version::V1 => (read::v1(self.body), read::after_v1(self.body)),
        };
        match (rest, &read) {
            (Some(rest), Ok(_) | Err(EntryError::Unknown(_))) => self.body = rest,
            _ => self.left = 0,
        }
        Some(read)
    }
}
