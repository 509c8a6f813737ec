//! The generic netlink family "IPVS" for a process that believes to talk to a kernel: which of its
//! messages are meant for ip_vs, and the messages that a kernel with ip_vs would answer with.
//!
//! Framing follows `net/netlink/af_netlink.c` and `genetlink.c`: acknowledgements, dumps in parts,
//! and port numbers that are the socket's own whatever the request's header says.

use std::io;
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::client::{
    CTRL_FAMILY_ID, CTRL_FAMILY_NAME, CTRL_GETFAMILY, CTRL_NEWFAMILY, MAX_DATAGRAM,
};
use rvs_netlink::errno::{EINVAL, ENOENT};
use rvs_netlink::ipvs::FAMILY;
use rvs_netlink::message::{
    CTRL, DONE, ERROR, F_ACK, F_DUMP, F_MULTI, F_REQUEST, Message, Messages, generic, raw,
};
use rvs_netlink::{Client, ClientError};

/// The family's number as processes see it. Kernels count up from 16 when families register, so
/// that none of their families has this one, the last (`GENL_MAX_ID`).
pub const FAMILY_ID: u16 = 1023;

/// `NLM_F_CAPPED`: an acknowledgement quotes the request's header only.
const F_CAPPED: u16 = 0x100;

/// The size up to which messages of a dump share a datagram: what kernels with 4 KiB pages send to
/// readers that were not seen reading more (`NLMSG_GOODSIZE`).
const PART: usize = 3776;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// The kernel, untouched.
    Kernel,
    /// ip_vs, hence rvsd.
    Ipvs,
    /// The kernel, whose answer lacks one entry: a list of all families.
    Families,
}

/// What is known of the socket that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Its port.
    pub port: u32,
    /// Whether it set `NETLINK_CAP_ACK`.
    pub cap_ack: bool,
}

/// Splits a datagram into its messages, each with its bytes and whom it is for.
pub fn split(datagram: &[u8]) -> impl Iterator<Item = (&[u8], Message<'_>, Recipient)> {
    let mut rest = Messages(datagram);
    std::iter::from_fn(move || {
        let before = rest.0;
        let message = rest.next()?;
        let length = before.len() - rest.0.len();
        let recipient = recipient(&message);
        Some((before.get(..length)?, message, recipient))
    })
}

fn recipient(message: &Message<'_>) -> Recipient {
    match (message.kind, message.command()) {
        (FAMILY_ID, _) => Recipient::Ipvs,
        (CTRL, Some(CTRL_GETFAMILY)) if message.flags & F_DUMP == F_DUMP => Recipient::Families,
        (CTRL, Some(CTRL_GETFAMILY)) => {
            let attrs = message.attrs();
            let named = attrs.text(CTRL_FAMILY_NAME) == Some(FAMILY);
            let numbered = attrs.u16(CTRL_FAMILY_ID) == Some(FAMILY_ID);
            if named || numbered { Recipient::Ipvs } else { Recipient::Kernel }
        }
        _ => Recipient::Kernel,
    }
}

/// The datagrams that answer a message for ip_vs, by asking the rvsd at `socket`.
pub fn answer(socket: &Path, request: &Message<'_>, asker: Asker) -> Vec<Vec<u8>> {
    let acknowledged = request.flags & F_ACK != 0;
    if request.flags & F_REQUEST == 0 {
        let ack = || vec![acknowledge(request, asker, 0)];
        return if acknowledged { ack() } else { Vec::new() };
    }
    let dump = request.flags & F_DUMP == F_DUMP;
    let mut answers = match ask(socket, request, dump) {
        Ok(answers) => answers,
        Err(errno) => return vec![acknowledge(request, asker, errno)],
    }
    .into_iter()
    .map(|(command, attrs)| {
        let flags = if dump { F_MULTI } else { 0 };
        generic(request.kind, flags, request.sequence, asker.port, command, &attrs)
    })
    .collect::<Vec<_>>();
    if dump {
        let end = raw(DONE, F_MULTI, request.sequence, asker.port, &[&0i32.to_ne_bytes()]);
        let mut parts = share(answers);
        parts.push(end);
        return parts;
    }
    if acknowledged {
        answers.push(acknowledge(request, asker, 0));
    }
    answers
}

/// The entry of family "IPVS" in an answer to a list of all families; nothing if no rvsd serves.
pub fn family_entry(socket: &Path, request: &Message<'_>, asker: Asker) -> Option<Vec<u8>> {
    let family = family(socket).ok()?;
    let (sequence, port) = (request.sequence, asker.port);
    Some(generic(CTRL, F_MULTI, sequence, port, CTRL_NEWFAMILY, &family))
}

/// Commands and attributes that rvsd answers with, or an errno.
fn ask(socket: &Path, request: &Message<'_>, dump: bool) -> Result<Vec<(u8, Writer)>, i32> {
    let refused = |error: ClientError| crate::errno(&error, ENOENT);
    if request.kind == CTRL {
        return family(socket).map(|family| vec![(CTRL_NEWFAMILY, family)]).map_err(refused);
    }
    let mut client = Client::connect_to(socket).map_err(refused)?;
    let command = request.command().ok_or(EINVAL)?;
    let mut answers = Vec::new();
    let take = |command: u8, attrs: &Attrs<'_>| answers.push((command, copy(attrs)));
    let asked = copy(&request.attrs());
    let result = match dump {
        true => client.dump(command, &asked, take),
        false => client.call(command, &asked, take),
    };
    result.map(|()| answers).map_err(refused)
}

/// The same attributes. The flag of nested ones goes, as ip_vs sends none.
fn copy(attrs: &Attrs<'_>) -> Writer {
    let mut copy = Writer::new();
    for (kind, value) in attrs.clone() {
        copy.put(kind, value);
    }
    copy
}

/// What rvsd says of the family, with the number that processes see.
fn family(rvsd: &Path) -> Result<Writer, ClientError> {
    let (unix, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = socket_with(unix, kind, SocketFlags::CLOEXEC, None).map_err(io::Error::from)?;
    let addr = SocketAddrUnix::new(rvsd).map_err(io::Error::from)?;
    connect(&socket, &addr).map_err(io::Error::from)?;
    let mut name = Writer::new();
    name.text(CTRL_FAMILY_NAME, FAMILY);
    let request = generic(CTRL, F_REQUEST, 1, 0, CTRL_GETFAMILY, &name);
    send(&socket, &request, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
    let mut buffer = vec![0; MAX_DATAGRAM];
    let (length, _) = recv(&socket, &mut *buffer, RecvFlags::empty()).map_err(io::Error::from)?;
    let answer = Messages(buffer.get(..length).unwrap_or_default()).next();
    let answer = answer.ok_or(ClientError::Malformed)?;
    if answer.kind == ERROR {
        return Err(ClientError::Refused(answer.errno().unwrap_or(EINVAL)));
    }
    let mut family = Writer::new();
    for (kind, value) in answer.attrs() {
        match kind {
            CTRL_FAMILY_ID => family.u16(CTRL_FAMILY_ID, FAMILY_ID),
            _ => family.put(kind, value),
        };
    }
    Ok(family)
}

/// Puts consecutive messages together into datagrams of at most [`PART`] bytes.
fn share(messages: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for message in messages {
        match parts.last_mut() {
            Some(part) if part.len() + message.len() <= PART => part.extend_from_slice(&message),
            _ => parts.push(message),
        }
    }
    parts
}

fn acknowledge(request: &Message<'_>, asker: Asker, errno: i32) -> Vec<u8> {
    let Message { kind, flags, sequence, port, payload } = *request;
    let mut quoted = raw(kind, flags, sequence, port, &[payload]);
    let mut ack_flags = 0;
    if errno == 0 || asker.cap_ack {
        quoted.truncate(HEADER);
        ack_flags = F_CAPPED;
    }
    raw(ERROR, ack_flags, sequence, asker.port, &[&(-errno).to_ne_bytes(), &quoted])
}

/// Size of `struct nlmsghdr`.
const HEADER: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's own acknowledgements, read from Linux 6.18: `GETFAMILY` for "nlctrl" with
    /// `NLM_F_ACK`, for a family that is not there without it, and that with `NETLINK_CAP_ACK`.
    #[test]
    fn acknowledgements_are_the_kernel_s() {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let mut attrs = Writer::new();
        attrs.text(CTRL_FAMILY_NAME, "nlctrl");
        let port = 0x8650_a0bf;
        let mut bytes = generic(CTRL, F_REQUEST | F_ACK, 5, 0, CTRL_GETFAMILY, &attrs);
        // The recorded request said version 1.
        bytes[17] = 1;
        let (_, request, _) = split(&bytes).next().expect("a message");
        let asker = Asker { port, cap_ack: false };
        assert_eq!(
            hex(&acknowledge(&request, asker, 0)),
            "240000000200000105000000bfa050860000000020000000100005000500000000000000"
        );
        let mut attrs = Writer::new();
        attrs.text(CTRL_FAMILY_NAME, FAMILY);
        let mut bytes = generic(CTRL, F_REQUEST, 5, 0, CTRL_GETFAMILY, &attrs);
        bytes[17] = 1;
        let (_, request, _) = split(&bytes).next().expect("a message");
        assert_eq!(
            hex(&acknowledge(&request, asker, ENOENT)),
            "340000000200000005000000bfa05086feffffff20000000100001000500000000000000\
             03010000090002004950565300000000"
        );
        let request = Message { flags: F_REQUEST | F_ACK, ..request };
        assert_eq!(
            hex(&acknowledge(&request, Asker { cap_ack: true, ..asker }, ENOENT)),
            "240000000200000105000000bfa05086feffffff20000000100005000500000000000000"
        );
    }

    #[test]
    fn only_what_is_meant_for_ip_vs_is_taken() {
        let getfamily = |name, flags| {
            let mut attrs = Writer::new();
            attrs.text(CTRL_FAMILY_NAME, name);
            generic(CTRL, F_REQUEST | flags, 1, 0, CTRL_GETFAMILY, &attrs)
        };
        let none = Writer::new();
        let datagram = [
            getfamily("IPVS", 0),
            getfamily("nl80211", 0),
            getfamily("IPVS", F_DUMP),
            generic(FAMILY_ID, F_REQUEST, 2, 0, 4, &none),
            generic(0x23, F_REQUEST, 2, 0, 4, &none),
        ];
        let bytes = datagram.concat();
        let found: Vec<_> = split(&bytes).map(|(bytes, _, to)| (bytes.to_vec(), to)).collect();
        use Recipient::{Families, Ipvs, Kernel};
        let expected = datagram.into_iter().zip([Ipvs, Kernel, Families, Ipvs, Kernel]);
        assert_eq!(found, expected.collect::<Vec<_>>());
    }

    #[test]
    fn parts_of_a_dump_are_no_longer_than_the_kernel_s() {
        let messages: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n; 200]).collect();
        let parts = share(messages.clone());
        assert!(parts.iter().all(|part| part.len() <= PART));
        assert!(parts.iter().rev().skip(1).all(|part| part.len() > PART - 200));
        assert_eq!(parts.concat(), messages.concat());
    }

    #[test]
    fn without_rvsd_there_is_no_such_family() {
        let mut attrs = Writer::new();
        attrs.text(CTRL_FAMILY_NAME, FAMILY);
        let bytes = generic(CTRL, F_REQUEST, 5, 0, CTRL_GETFAMILY, &attrs);
        let (_, request, _) = split(&bytes).next().expect("a message");
        let asker = Asker { port: 7, cap_ack: false };
        let answers = answer(Path::new("/nonexistent/rvs.sock"), &request, asker);
        let answer = Messages(&answers[0]).next().expect("a message");
        assert_eq!((answers.len(), answer.errno(), answer.port), (1, Some(ENOENT), 7));
    }
}
