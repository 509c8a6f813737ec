//! Which form each attribute must have: a request with an attribute of a wrong form is refused
//! as a whole, whether the attribute is used or not. Attributes that no policy names are ignored.

use super::{cmd_attr, daemon_attr, dest_attr, svc_attr};
use crate::attr::Attrs;

/// The form of an attribute's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// At least this many bytes: numbers and nests.
    AtLeast(usize),
    /// At most this many bytes.
    AtMost(usize),
    /// Exactly this many bytes.
    Exactly(usize),
    /// A string that a NUL ends after at most this many bytes.
    Text(usize),
}

impl Form {
    fn fits(self, value: &[u8]) -> bool {
        match self {
            Self::AtLeast(len) => value.len() >= len,
            Self::AtMost(len) => value.len() <= len,
            Self::Exactly(len) => value.len() == len,
            Self::Text(len) => value.iter().take(len + 1).any(|b| *b == 0),
        }
    }
}

use Form::{AtLeast, AtMost, Exactly, Text};

/// A form for each attribute.
pub type Policy = &'static [(u16, Form)];

/// Top-level attributes.
pub const COMMAND: Policy = &[
    (cmd_attr::TIMEOUT_TCP, AtLeast(4)),
    (cmd_attr::TIMEOUT_TCP_FIN, AtLeast(4)),
    (cmd_attr::TIMEOUT_UDP, AtLeast(4)),
    (cmd_attr::CURSOR, AtLeast(8)),
    (cmd_attr::LIMIT, AtLeast(4)),
    (cmd_attr::SYSCTL_NAME, Text(63)),
    (cmd_attr::SYSCTL_VALUE, Text(255)),
    (cmd_attr::MARK, Text(255)),
];

/// Attributes of a service.
pub const SERVICE: Policy = &[
    (svc_attr::AF, AtLeast(2)),
    (svc_attr::PROTOCOL, AtLeast(2)),
    (svc_attr::ADDR, AtMost(16)),
    (svc_attr::PORT, AtLeast(2)),
    (svc_attr::FWMARK, AtLeast(4)),
    (svc_attr::SCHED_NAME, Text(15)),
    (svc_attr::PE_NAME, Text(16)),
    (svc_attr::FLAGS, AtMost(8)),
    (svc_attr::TIMEOUT, AtLeast(4)),
    (svc_attr::NETMASK, AtLeast(4)),
];

/// Attributes of a destination.
pub const DEST: Policy = &[
    (dest_attr::ADDR, AtMost(16)),
    (dest_attr::PORT, AtLeast(2)),
    (dest_attr::FWD_METHOD, AtLeast(4)),
    (dest_attr::WEIGHT, AtLeast(4)),
    (dest_attr::U_THRESH, AtLeast(4)),
    (dest_attr::L_THRESH, AtLeast(4)),
    (dest_attr::ADDR_FAMILY, AtLeast(2)),
    (dest_attr::TUN_TYPE, AtLeast(1)),
    (dest_attr::TUN_PORT, AtLeast(2)),
    (dest_attr::TUN_FLAGS, AtLeast(2)),
];

/// Attributes of a sync daemon.
pub const DAEMON: Policy = &[
    (daemon_attr::STATE, AtLeast(4)),
    (daemon_attr::MCAST_IFN, Text(15)),
    (daemon_attr::SYNC_ID, AtLeast(4)),
    (daemon_attr::SYNC_MAXLEN, AtLeast(2)),
    (daemon_attr::MCAST_GROUP, AtLeast(4)),
    (daemon_attr::MCAST_GROUP6, Exactly(16)),
    (daemon_attr::MCAST_PORT, AtLeast(2)),
    (daemon_attr::MCAST_TTL, AtLeast(1)),
];

/// The first attribute that has not the form that `policy` asks for.
pub fn misfit(attrs: &Attrs<'_>, policy: Policy) -> Option<u16> {
    let form = |kind: u16| policy.iter().find(|(k, _)| *k == kind).map(|(_, form)| *form);
    let mut all = attrs.clone();
    let misfit = |(kind, value): &(u16, &[u8])| form(*kind).is_some_and(|f| !f.fits(value));
    Iterator::find(&mut all, misfit).map(|(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Writer;

    #[test]
    fn an_attribute_of_a_wrong_form_is_found_and_an_unknown_one_is_not() {
        let misfit = |kind, value: &[u8]| {
            let mut attrs = Writer::new();
            attrs.put(kind, value);
            misfit(&Attrs(attrs.bytes()), SERVICE)
        };
        assert_eq!(misfit(svc_attr::AF, &[2]), Some(svc_attr::AF));
        assert_eq!(misfit(svc_attr::AF, &[2, 0, 0, 0]), None);
        assert_eq!(misfit(svc_attr::ADDR, &[0; 17]), Some(svc_attr::ADDR));
        assert_eq!(misfit(svc_attr::SCHED_NAME, b"rr"), Some(svc_attr::SCHED_NAME));
        assert_eq!(misfit(svc_attr::SCHED_NAME, b"rr\0x"), None);
        assert_eq!(misfit(svc_attr::SCHED_NAME, &[b'a'; 17]), Some(svc_attr::SCHED_NAME));
        assert_eq!(misfit(200, &[]), None);
    }
}
