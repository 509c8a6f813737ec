//! The framing around requests: acknowledgements, refusals, dumps, and the controller's answer
//! about family "IPVS". Follows `netlink_rcv_skb` and `genl_family_rcv_msg`.

use rvs_core::control::Datapath;
use rvs_netlink::attr::Writer;
use rvs_netlink::client::{CTRL_FAMILY_ID, CTRL_FAMILY_NAME, CTRL_GETFAMILY, CTRL_NEWFAMILY};
use rvs_netlink::errno::{EBUSY, EINVAL, ENOENT, EOPNOTSUPP};
use rvs_netlink::ipvs::{self, cmd_attr, command};
use rvs_netlink::message::{
    self, CTRL, F_ACK, F_DUMP, F_MULTI, F_REQUEST, Message, Messages, acknowledge, generic, refuse,
};

use crate::{Director, Refusal};

/// Number of the family on our socket; the kernel draws one when ip_vs is loaded.
pub const FAMILY_ID: u16 = 0x23;

/// Messages of a dump share datagrams up to this size.
const DATAGRAM: usize = 32 * 1024;

/// A dump is refused once the answers to a datagram are longer than this, as the kernel refuses one
/// while another is under way: a small datagram is not to fill the memory with dumps.
const MAX_BEFORE_DUMP: usize = 256 * 1024;

/// Message types below this are netlink's own (`NLMSG_MIN_TYPE`).
const MIN_TYPE: u16 = 16;

/// Answers to a dump or a get, in order: command and attributes.
pub(crate) type Answers = Vec<(u8, Writer)>;

impl<D: Datapath> Director<D> {
    /// Handles a datagram with any number of requests; the datagrams to answer with.
    pub fn handle(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut replies = Vec::new();
        for request in Messages(datagram) {
            self.answer(&request, &mut replies);
        }
        replies
    }

    fn answer(&mut self, request: &Message<'_>, replies: &mut Vec<Vec<u8>>) {
        let dump = request.flags & F_DUMP == F_DUMP;
        let sent = || replies.iter().map(Vec::len).sum::<usize>();
        let result = if request.flags & F_REQUEST == 0 || request.kind < MIN_TYPE {
            Ok(None)
        } else if dump && sent() > MAX_BEFORE_DUMP {
            Err(Refusal::new(EBUSY, "another dump is under way"))
        } else {
            self.dispatch(request, dump)
        };
        match result {
            Ok(Some(answers)) if dump => {
                let start = replies.len();
                frame(request, F_MULTI, answers, |bytes| append(replies, start, bytes));
                append(replies, start, message::done(request));
            }
            Ok(answers) => {
                frame(request, 0, answers.unwrap_or_default(), |bytes| replies.push(bytes));
                if request.flags & F_ACK != 0 {
                    replies.push(acknowledge(request, 0));
                }
            }
            Err(refusal) => {
                replies.push(if request.attrs().find(cmd_attr::EXT_ACK).is_some() {
                    refuse(request, refusal.errno, &refusal.message)
                } else {
                    acknowledge(request, refusal.errno)
                });
                self.refusals.push(refusal);
            }
        }
    }

    fn dispatch(&mut self, request: &Message<'_>, dump: bool) -> Result<Option<Answers>, Refusal> {
        let command = match request.kind {
            CTRL | FAMILY_ID => request.command(),
            kind => return Err(Refusal::new(ENOENT, format!("no netlink family {kind}"))),
        };
        let command = command.ok_or(EINVAL)?;
        match (request.kind, command) {
            (CTRL, CTRL_GETFAMILY) => family(request, dump).map(Some),
            (CTRL, _) => Err(Refusal::new(EOPNOTSUPP, format!("no controller command {command}"))),
            _ => self.execute(command, &request.attrs(), dump).map(Some),
        }
    }
}

/// Answers `CTRL_CMD_GETFAMILY` for "IPVS"; a dump lists what families there are.
fn family(request: &Message<'_>, dump: bool) -> Result<Answers, Refusal> {
    let attrs = request.attrs();
    match (attrs.text(CTRL_FAMILY_NAME), attrs.u16(CTRL_FAMILY_ID)) {
        _ if dump => {}
        (Some(ipvs::FAMILY), _) | (None, Some(FAMILY_ID)) => {}
        (None, None) => return Err(EINVAL.into()),
        _ => return Err(Refusal::new(ENOENT, "no such netlink family")),
    }
    let mut operations = Writer::new();
    for (number, (command, flags)) in OPERATIONS.iter().enumerate() {
        let mut operation = Writer::new();
        // CTRL_ATTR_OP_ID, CTRL_ATTR_OP_FLAGS
        operation.u32(1, u32::from(*command)).u32(2, *flags);
        operations.nest(number as u16 + 1, &operation);
    }
    let mut attrs = Writer::new();
    attrs
        .text(CTRL_FAMILY_NAME, ipvs::FAMILY)
        .u16(CTRL_FAMILY_ID, FAMILY_ID)
        // CTRL_ATTR_VERSION, CTRL_ATTR_HDRSIZE, CTRL_ATTR_MAXATTR, CTRL_ATTR_OPS
        .u32(3, u32::from(ipvs::VERSION))
        .u32(4, 0)
        .u32(5, ipvs::MAX_ATTR)
        .nest(6, &operations);
    Ok(vec![(CTRL_NEWFAMILY, attrs)])
}

/// `GENL_ADMIN_PERM | GENL_CMD_CAP_DO | GENL_CMD_CAP_HASPOL`
const DO: u32 = 0x0b;
/// `GENL_ADMIN_PERM | GENL_CMD_CAP_DUMP | GENL_CMD_CAP_HASPOL`
const DUMP: u32 = 0x0d;
/// Both.
const BOTH: u32 = 0x0f;

/// The commands of the family and what they can be asked as, as the kernel tells them.
const OPERATIONS: [(u8, u32); 16] = [
    (command::NEW_SERVICE, DO),
    (command::SET_SERVICE, DO),
    (command::DEL_SERVICE, DO),
    (command::GET_SERVICE, BOTH),
    (command::NEW_DEST, DO),
    (command::SET_DEST, DO),
    (command::DEL_DEST, DO),
    (command::GET_DEST, DUMP),
    (command::NEW_DAEMON, DO),
    (command::DEL_DAEMON, DO),
    (command::GET_DAEMON, DUMP),
    (command::SET_CONFIG, DO),
    (command::GET_CONFIG, DO),
    (command::GET_INFO, DO),
    (command::ZERO, DO),
    (command::FLUSH, DO),
];

/// Turns answers into messages.
fn frame(request: &Message<'_>, flags: u16, answers: Answers, mut emit: impl FnMut(Vec<u8>)) {
    for (command, attrs) in answers {
        emit(generic(request.kind, flags, request.sequence, request.port, command, &attrs));
    }
}

/// Appends a message to the last datagram of a dump, whose first has the index `start`, while it
/// has room.
fn append(replies: &mut Vec<Vec<u8>>, start: usize, bytes: Vec<u8>) {
    match replies.get_mut(start..).and_then(<[_]>::last_mut) {
        Some(last) if last.len() + bytes.len() <= DATAGRAM => last.extend_from_slice(&bytes),
        _ => replies.push(bytes),
    }
}
