//! The kernel's settings below `net.ipv4.vs`: names, defaults and bounds. The values lie in `CONFIG`.
//! Follows `vs_vars` in `ip_vs_ctl.c`; `tests/oracle/recorded/sysctl.jsonl`.

use core::fmt;
use core::ops::RangeInclusive;

use crate::layout::Config;

macro_rules! sysctls {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $default:literal, $bounds:expr;)*) => {
        /// A setting that can be changed. The discriminant is its place in `Config::sysctls`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Sysctl { $($(#[$doc])* $variant,)* }

        impl Sysctl {
            /// All of them, in the order of their places.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name of its file.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The value of a machine on which nobody changed it.
            pub const fn default(self) -> i32 {
                match self { $(Self::$variant => $default,)* }
            }

            /// The values that it takes.
            pub const fn bounds(self) -> RangeInclusive<i32> {
                match self { $(Self::$variant => $bounds,)* }
            }
        }
    };
}

/// What the kernel bounds by the type only.
const ANY: RangeInclusive<i32> = i32::MIN..=i32::MAX;
/// 0: never; 3: always; 1 and 2: while memory is short. 2 says that it is, and is set by itself.
const MODE: RangeInclusive<i32> = 0..=3;
/// As many seconds as fit an int in the kernel's jiffies at 250 Hz.
const SECONDS: RangeInclusive<i32> = -(i32::MAX / 250)..=i32::MAX / 250;

sysctls! {
    /// With `drop_packet` 3, one of how many new connections is dropped.
    AmDroprate = "am_droprate", 10, ANY;
    /// Pages of memory below which it is short.
    Amemthresh = "amemthresh", 1024, ANY;
    /// Whether clients' packets are left to the host while a backup sync daemon runs.
    BackupOnly = "backup_only", 0, ANY;
    /// Whether packets that no destination of a service by mark is available for go to their own
    /// address.
    CacheBypass = "cache_bypass", 0, ANY;
    /// When a SYN or INIT on a connection opens a new one: 0 never; else after TIME_WAIT and CLOSE
    /// (SCTP: CLOSED); 2 and 3 after FIN_WAIT as well if replies are not seen.
    ConnReuseMode = "conn_reuse_mode", 1, ANY;
    /// Whether netfilter tracks masqueraded connections, and translates their packets.
    Conntrack = "conntrack", 0, ANY;
    /// Whether connections that nobody seems to need are ended before their time.
    DropEntry = "drop_entry", 0, MODE;
    /// Whether new connections are dropped.
    DropPacket = "drop_packet", 0, MODE;
    /// Whether a connection ends once its destination is gone, so that its next packet opens another.
    ExpireNodestConn = "expire_nodest_conn", 0, ANY;
    /// Whether a persistence template ends once its destination has weight 0.
    ExpireQuiescentTemplate = "expire_quiescent_template", 0, ANY;
    /// Whether what a tunnel's end has decapsulated from another protocol than UDP is the host's.
    IgnoreTunneled = "ignore_tunneled", 0, ANY;
    /// lblc: seconds for which an unused cache entry stays.
    LblcExpiration = "lblc_expiration", 86_400, SECONDS;
    /// lblcr: the same, and after how long a set of destinations that did not change loses one.
    LblcrExpiration = "lblcr_expiration", 86_400, SECONDS;
    /// Whether packets of real servers that belong to no connection are answered by ICMP port
    /// unreachable.
    NatIcmpSend = "nat_icmp_send", 0, ANY;
    /// Whether packets that are too big for a tunnel, and must not be cut, are answered: else they go
    /// through it in pieces.
    PmtuDisc = "pmtu_disc", 1, ANY;
    /// Whether rates are estimated.
    RunEstimation = "run_estimation", 1, ANY;
    /// Whether an ICMP error about a packet of no connection opens one, as that packet would.
    ScheduleIcmp = "schedule_icmp", 0, ANY;
    /// Whether TCP states advance by what destinations send, not by what clients claim.
    SecureTcp = "secure_tcp", 0, MODE;
    /// Whether any TCP packet but a RST opens a connection.
    SloppyTcp = "sloppy_tcp", 0, ANY;
    /// Whether any SCTP packet that does not begin with an ABORT opens a connection.
    SloppySctp = "sloppy_sctp", 0, ANY;
    /// Whether replies are routed by the virtual address, their new source, not as they came.
    SnatReroute = "snat_reroute", 1, ANY;
    /// Whether of persistent services only templates are synchronised.
    SyncPersistMode = "sync_persist_mode", 0, ANY;
    /// UDP ports that sync daemons use side by side, from when they are started on.
    SyncPorts = "sync_ports", 1, 1..=i32::MAX;
    /// Seconds by which a connection's expiry must move to be told again; 0: half the timeout.
    SyncRefreshPeriod = "sync_refresh_period", 0, SECONDS;
    /// How often a connection is told again within that time.
    SyncRetries = "sync_retries", 0, 0..=3;
    /// Size of the sync daemons' socket buffers, from when they are started on; 0: the system's.
    SyncSockSize = "sync_sock_size", 0, ANY;
    /// After how many packets a connection is told again: here, whether packets are ever a reason.
    SyncPeriod = "sync_threshold", 50, 0..=i32::MAX;
    /// Version of the messages that the master sends.
    SyncVersion = "sync_version", 1, 0..=1;
}

/// Places in `Config::sysctls`.
pub const PLACES: usize = 32;
const _: () = assert!(Sysctl::ALL.len() <= PLACES);

/// How a setting behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It can be changed.
    Changes(Sysctl),
    /// Two numbers, of which the second can be changed; the first is this, for this reason.
    Second(i32, Sysctl, &'static str),
}

/// Every setting of Linux 6.1 but `sync_qlen_max`, whose default comes from the machine's memory, in
/// the order in which sysctl(8) lists them.
#[rustfmt::skip]
pub const SETTINGS: [(&str, Kind); 28] = [
    ("am_droprate", Kind::Changes(Sysctl::AmDroprate)),
    ("amemthresh", Kind::Changes(Sysctl::Amemthresh)),
    ("backup_only", Kind::Changes(Sysctl::BackupOnly)),
    ("cache_bypass", Kind::Changes(Sysctl::CacheBypass)),
    ("conn_reuse_mode", Kind::Changes(Sysctl::ConnReuseMode)),
    ("conntrack", Kind::Changes(Sysctl::Conntrack)),
    ("drop_entry", Kind::Changes(Sysctl::DropEntry)),
    ("drop_packet", Kind::Changes(Sysctl::DropPacket)),
    ("expire_nodest_conn", Kind::Changes(Sysctl::ExpireNodestConn)),
    ("expire_quiescent_template", Kind::Changes(Sysctl::ExpireQuiescentTemplate)),
    ("ignore_tunneled", Kind::Changes(Sysctl::IgnoreTunneled)),
    ("lblc_expiration", Kind::Changes(Sysctl::LblcExpiration)),
    ("lblcr_expiration", Kind::Changes(Sysctl::LblcrExpiration)),
    ("nat_icmp_send", Kind::Changes(Sysctl::NatIcmpSend)),
    ("pmtu_disc", Kind::Changes(Sysctl::PmtuDisc)),
    ("run_estimation", Kind::Changes(Sysctl::RunEstimation)),
    ("schedule_icmp", Kind::Changes(Sysctl::ScheduleIcmp)),
    ("secure_tcp", Kind::Changes(Sysctl::SecureTcp)),
    ("sloppy_sctp", Kind::Changes(Sysctl::SloppySctp)),
    ("sloppy_tcp", Kind::Changes(Sysctl::SloppyTcp)),
    ("snat_reroute", Kind::Changes(Sysctl::SnatReroute)),
    ("sync_persist_mode", Kind::Changes(Sysctl::SyncPersistMode)),
    ("sync_ports", Kind::Changes(Sysctl::SyncPorts)),
    ("sync_refresh_period", Kind::Changes(Sysctl::SyncRefreshPeriod)),
    ("sync_retries", Kind::Changes(Sysctl::SyncRetries)),
    ("sync_sock_size", Kind::Changes(Sysctl::SyncSockSize)),
    ("sync_threshold", Kind::Second(3, Sysctl::SyncPeriod, "connections do not count their packets")),
    ("sync_version", Kind::Changes(Sysctl::SyncVersion)),
];

/// The setting with this name.
pub fn find(name: &str) -> Option<Kind> {
    SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind)
}

/// Why a setting keeps its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysctlError {
    /// No number, or a number that it does not take; those that it takes.
    Invalid(&'static str, i32, i32),
    /// It cannot be changed; why.
    Fixed(&'static str, &'static str),
}

impl fmt::Display for SysctlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(name, least, most) => {
                write!(f, "{name} is a number from {least} to {most}")
            }
            Self::Fixed(name, why) => write!(f, "{name} cannot be changed: {why}"),
        }
    }
}

impl core::error::Error for SysctlError {}

impl Kind {
    /// What writing `text` to the setting `name` changes.
    pub fn parse(self, name: &'static str, text: &str) -> Result<(Sysctl, i32), SysctlError> {
        match self {
            Self::Changes(sysctl) => {
                let bounds = sysctl.bounds();
                let invalid = SysctlError::Invalid(name, *bounds.start(), *bounds.end());
                let value = number(text).filter(|value| sysctl.takes(*value)).ok_or(invalid)?;
                Ok((sysctl, value))
            }
            Self::Second(fixed, sysctl, why) => {
                let bounds = sysctl.bounds();
                let invalid = SysctlError::Invalid(name, *bounds.start(), *bounds.end());
                let mut words = text.split_whitespace();
                let first = number(words.next().unwrap_or_default()).ok_or(invalid)?;
                // One number alone leaves zero for the other.
                let second = words.next().map_or(Some(0), number).ok_or(invalid)?;
                if first < 0 || !sysctl.takes(second) || second != 0 && first >= second {
                    return Err(invalid);
                }
                if first != fixed {
                    return Err(SysctlError::Fixed(name, why));
                }
                Ok((sysctl, second))
            }
        }
    }
}

impl Sysctl {
    /// Whether it takes this value.
    fn takes(self, value: i32) -> bool {
        let fits = !matches!(self, Self::SyncPorts) || value.count_ones() == 1;
        fits && self.bounds().contains(&value)
    }
}

/// The first number in `text` as the kernel reads it: decimal, hexadecimal after `0x` or octal after
/// `0`; a minus sign, but no plus; white space ends it.
pub(crate) fn number(text: &str) -> Option<i32> {
    let word = text.split_whitespace().next()?;
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word),
    };
    let (digits, radix) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => (hexadecimal, 16),
        None => (digits, if digits.starts_with('0') { 8 } else { 10 }),
    };
    if !digits.starts_with(|c: char| c.is_digit(radix)) {
        return None;
    }
    let value = i64::from_str_radix(digits, radix).ok()?;
    i32::try_from(if negative { -value } else { value }).ok()
}

impl Config {
    /// The value of a setting.
    #[inline(always)]
    pub fn sysctl(&self, sysctl: Sysctl) -> i32 {
        self.sysctls.get(sysctl as usize).map_or(0, |value| value.get())
    }

    /// Sets it.
    pub fn set_sysctl(&self, sysctl: Sysctl, value: i32) {
        if let Some(place) = self.sysctls.get(sysctl as usize) {
            place.set(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_listed_once_under_its_name() {
        for sysctl in Sysctl::ALL {
            let found = match find(sysctl.name()) {
                Some(Kind::Changes(found) | Kind::Second(_, found, _)) => Some(found),
                _ => None,
            };
            assert_eq!(found, Some(*sysctl));
            assert!(sysctl.bounds().contains(&sysctl.default()));
        }
        assert!(SETTINGS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
