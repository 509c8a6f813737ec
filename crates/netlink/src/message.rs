//! Netlink messages: `struct nlmsghdr`, `struct genlmsghdr`, acknowledgements and dumps.

use crate::attr::{Attrs, Writer};

/// `NLMSG_ERROR`: an acknowledgement; error 0 is success.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const DONE: u16 = 3;
/// `NLM_F_REQUEST`
pub const F_REQUEST: u16 = 1;
/// `NLM_F_MULTI`
pub const F_MULTI: u16 = 2;
/// `NLM_F_ACK`
pub const F_ACK: u16 = 4;
/// `NLM_F_DUMP`
pub const F_DUMP: u16 = 0x300;
/// `NLM_F_CAPPED`: an acknowledgement quotes only the header of the request.
pub const F_CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: attributes follow what an acknowledgement quotes.
pub const F_ACK_TLVS: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: a sentence that says more than the errno.
pub const ERR_MSG: u16 = 1;
/// Type of messages of the generic netlink controller (`GENL_ID_CTRL`).
pub const CTRL: u16 = 16;

const NLMSG_HDRLEN: usize = 16;
const GENL_HDRLEN: usize = 4;

/// A message as received.
#[derive(Clone, Debug)]
pub struct Message<'b> {
    /// Message type: a family, [`ERROR`] or [`DONE`].
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// Chosen by who asks, repeated in the answers.
    pub sequence: u32,
    /// The asking port.
    pub port: u32,
    /// What follows the header.
    pub payload: &'b [u8],
}

impl<'b> Message<'b> {
    /// Command of a generic netlink message.
    pub fn command(&self) -> Option<u8> {
        self.payload.get(..GENL_HDRLEN)?.first().copied()
    }

    /// Attributes of a generic netlink message.
    pub fn attrs(&self) -> Attrs<'b> {
        Attrs(self.payload.get(GENL_HDRLEN..).unwrap_or_default())
    }

    /// The errno of an acknowledgement, 0 for success; of the end of a dump likewise.
    pub fn errno(&self) -> Option<i32> {
        let code = i32::from_ne_bytes(*self.payload.first_chunk()?);
        Some(code.checked_neg().unwrap_or(i32::MAX))
    }

    /// The sentence in an acknowledgement that says more than its errno.
    pub fn explanation(&self) -> Option<&'b str> {
        if self.kind != ERROR || self.flags & F_ACK_TLVS == 0 {
            return None;
        }
        // The errno, then the request: its header, and unless capped the rest of it.
        let quoted = self.payload.get(4..)?;
        let len = match self.flags & F_CAPPED {
            0 => u32::from_ne_bytes(*quoted.first_chunk()?) as usize,
            _ => NLMSG_HDRLEN,
        };
        Attrs(quoted.get(len.next_multiple_of(4)..)?).text(ERR_MSG)
    }
}

/// The messages in a datagram; ends at the first that is cut short.
#[derive(Clone, Debug)]
pub struct Messages<'b>(pub &'b [u8]);

impl<'b> Iterator for Messages<'b> {
    type Item = Message<'b>;

    fn next(&mut self) -> Option<Message<'b>> {
        let head: &[u8; NLMSG_HDRLEN] = self.0.first_chunk()?;
        let word =
            |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let len = usize::try_from(word(0)).ok()?;
        let payload = self.0.get(NLMSG_HDRLEN..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: word(8),
            port: word(12),
            payload,
        })
    }
}

/// A message with this payload, padded to four bytes; its length field leaves the padding out.
pub fn raw(kind: u16, flags: u16, sequence: u32, port: u32, payload: &[&[u8]]) -> Vec<u8> {
    let len = NLMSG_HDRLEN + payload.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(4));
    bytes.extend_from_slice(&(len as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&port.to_ne_bytes());
    for part in payload {
        bytes.extend_from_slice(part);
    }
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

/// A generic netlink message.
pub fn generic(
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    command: u8,
    attrs: &Writer,
) -> Vec<u8> {
    let version = if kind == CTRL { 2 } else { crate::ipvs::VERSION };
    raw(kind, flags, sequence, port, &[&[command, version, 0, 0], attrs.bytes()])
}

/// Requests longer than this are not quoted in full, so that an answer fits a datagram.
const MAX_QUOTE: usize = 32 * 1024;

/// The acknowledgement of `request`: success for 0, else an errno. Like the kernel it quotes the
/// request, in full after an error.
pub fn acknowledge(request: &Message<'_>, errno: i32) -> Vec<u8> {
    let (flags, quoted) = quote(request, errno);
    raw(ERROR, flags, request.sequence, request.port, &[&(-errno).to_ne_bytes(), &quoted])
}

/// A refusal with a sentence that says more than the errno, as the kernel's extended
/// acknowledgements have it.
pub fn refuse(request: &Message<'_>, errno: i32, why: &str) -> Vec<u8> {
    let (flags, quoted) = quote(request, errno);
    let mut attrs = Writer::new();
    attrs.text(ERR_MSG, why);
    let payload = [&(-errno).to_ne_bytes(), quoted.as_slice(), attrs.bytes()];
    raw(ERROR, flags | F_ACK_TLVS, request.sequence, request.port, &payload)
}

fn quote(request: &Message<'_>, errno: i32) -> (u16, Vec<u8>) {
    let mut quoted =
        raw(request.kind, request.flags, request.sequence, request.port, &[request.payload]);
    if errno != 0 && quoted.len() <= MAX_QUOTE {
        return (0, quoted);
    }
    quoted.truncate(NLMSG_HDRLEN);
    (F_CAPPED, quoted)
}

/// The end of a dump that `request` asked for.
pub fn done(request: &Message<'_>) -> Vec<u8> {
    raw(DONE, F_MULTI, request.sequence, request.port, &[&0i32.to_ne_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_acknowledgement_carries_the_errno_and_the_request() {
        let bytes = generic(0x1f, F_REQUEST | F_ACK, 7, 9, 4, Writer::new().u32(1, 5));
        let request = Messages(&bytes).next().expect("a whole message");
        assert_eq!((request.command(), request.attrs().u32(1)), (Some(4), Some(5)));
        let answer = acknowledge(&request, 17);
        let answer = Messages(&answer).next().expect("a whole message");
        assert_eq!((answer.kind, answer.errno(), answer.sequence), (ERROR, Some(17), 7));
        assert_eq!(answer.payload.get(4..), Some(bytes.as_slice()));
        let answer = acknowledge(&request, 0);
        let answer = Messages(&answer).next().expect("a whole message");
        assert_eq!((answer.flags, answer.payload.len()), (F_CAPPED, 20));
    }

    #[test]
    fn a_refusal_says_why_after_what_it_quotes() {
        for len in [1, 5, 60_000] {
            let bytes = generic(0x1f, F_REQUEST, 7, 9, 4, Writer::new().put(1, &vec![7; len]));
            let request = Messages(&bytes).next().expect("a whole message");
            let answer = refuse(&request, 95, "not yet");
            let answer = Messages(&answer).next().expect("a whole message");
            assert_eq!((answer.errno(), answer.explanation()), (Some(95), Some("not yet")));
            assert_eq!(answer.flags & F_CAPPED == 0, len < 60_000);
        }
        // A message whose length is no multiple of four.
        let request =
            Message { kind: 35, flags: 5, sequence: 1, port: 0, payload: &[1, 1, 0, 0, 9] };
        let answer = refuse(&request, 22, "odd");
        let answer = Messages(&answer).next().expect("a whole message");
        assert_eq!(answer.explanation(), Some("odd"));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in Messages(&bytes) {
                let _ = (message.command(), message.errno(), message.attrs().count());
                let _ = message.explanation();
            }
        }
    }
}
