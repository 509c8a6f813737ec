//! A frame in memory.

use rvs_core::flow::L3;
use rvs_core::packet::{Header, Packet};
use zerocopy::IntoBytes;

/// A frame that starts at its Ethernet header. Headers in it have their alignment of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    words: Vec<u16>,
    len: usize,
    mark: u32,
}

impl Frame {
    /// A copy of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut words = vec![0u16; bytes.len().div_ceil(2)];
        for (place, byte) in words.as_mut_bytes().iter_mut().zip(bytes) {
            *place = *byte;
        }
        Self { words, len: bytes.len(), mark: 0 }
    }

    /// The same with a mark (fwmark).
    pub fn with_mark(self, mark: u32) -> Self {
        Self { mark, ..self }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.words.as_bytes().get(..self.len).unwrap_or_default()
    }

    /// Makes room for `len` more bytes behind the Ethernet header, an even number.
    pub(crate) fn push(&mut self, len: u32) {
        let start = (L3 / 2) as usize;
        self.words.splice(start..start, std::iter::repeat_n(0, len as usize / 2));
        self.len += len as usize;
    }
}

impl Packet for Frame {
    fn frame_len(&self) -> u32 {
        self.len as u32
    }

    fn mark(&self) -> Option<u32> {
        Some(self.mark)
    }

    fn at<T: Header>(&self, offset: u32) -> Option<&T> {
        let bytes = self.bytes().get(offset as usize..)?;
        Some(T::ref_from_prefix(bytes).ok()?.0)
    }

    fn at_mut<T: Header>(&mut self, offset: u32) -> Option<&mut T> {
        let bytes = self.words.as_mut_bytes().get_mut(offset as usize..self.len)?;
        Some(T::mut_from_prefix(bytes).ok()?.0)
    }
}
