//! Netlink attributes (`struct nlattr`): length and type in host order, the value, padding to 4.

/// The bits of a type that are not flags.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Attributes one after another; ends at the first that is cut short.
#[derive(Clone, Debug)]
pub struct Attrs<'b>(pub &'b [u8]);

impl<'b> Iterator for Attrs<'b> {
    type Item = (u16, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.0.split_at_checked(4)?;
        let len = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'b> Attrs<'b> {
    /// The value of the last attribute of this type, which is the one that counts.
    pub fn find(&self, kind: u16) -> Option<&'b [u8]> {
        self.clone().filter(|(k, _)| *k == kind).last().map(|(_, value)| value)
    }

    /// A nested attribute.
    pub fn nested(&self, kind: u16) -> Option<Attrs<'b>> {
        self.find(kind).map(Attrs)
    }

    /// A `u8`.
    pub fn u8(&self, kind: u16) -> Option<u8> {
        self.find(kind)?.first().copied()
    }

    /// A `u16` in host order.
    pub fn u16(&self, kind: u16) -> Option<u16> {
        Some(u16::from_ne_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// A `u16` in network order.
    pub fn be16(&self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// A `u32` in host order.
    pub fn u32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// A `u64` in host order.
    pub fn u64(&self, kind: u16) -> Option<u64> {
        Some(u64::from_ne_bytes(*self.find(kind)?.first_chunk()?))
    }

    /// A string up to its NUL, if it is UTF-8.
    pub fn text(&self, kind: u16) -> Option<&'b str> {
        let value = self.find(kind)?;
        let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
        str::from_utf8(value.get(..end)?).ok()
    }
}

/// Builds attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing yet, with room for this many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Appends an attribute; values are at most 65,531 bytes long.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        let len = (value.len() + 4) as u16;
        self.0.extend_from_slice(&len.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a `u8`.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.put(kind, &[value])
    }

    /// Appends a `u16` in host order.
    pub fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a `u16` in network order.
    pub fn be16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends a `u32` in host order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a `u64` in host order.
    pub fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.put(kind, &value.to_ne_bytes())
    }

    /// Appends a string and its NUL.
    pub fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    /// Appends nested attributes; as IPVS in the kernel does, without `NLA_F_NESTED`.
    pub fn nest(&mut self, kind: u16, inner: &Writer) -> &mut Self {
        self.put(kind, &inner.0)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Writer::new();
        inner.be16(4, 80).text(6, "wrr");
        let mut outer = Writer::new();
        outer.u8(9, 1).nest(1, &inner).u64(3, u64::MAX - 1);
        let attrs = Attrs(outer.bytes());
        let nested = attrs.nested(1).expect("it was written");
        assert_eq!((nested.be16(4), nested.text(6)), (Some(80), Some("wrr")));
        assert_eq!((attrs.u8(9), attrs.u64(3), attrs.u32(7)), (Some(1), Some(u64::MAX - 1), None));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Attrs(&bytes).count() <= bytes.len() / 4);
        }
    }
}
