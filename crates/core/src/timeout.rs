//! How long connections without packets live, by state: settings of the first IPVS (Linux 2.4), under
//! its names. Later kernels have the same numbers and no names for them (`ip_vs_ctl.c` left them out);
//! three of them `ipvsadm --set` changes.

use core::cell::Cell;

use crate::layout::Config;
use crate::proto::{tcp, udp};
use crate::sysctl::{SysctlError, number};

/// What a timeout is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// TCP connections in this state.
    Tcp(tcp::State),
    /// UDP flows.
    Udp,
}

/// Every one that can be changed, by its name.
pub const TIMEOUTS: [(&str, Timeout); 11] = [
    ("timeout_close", Timeout::Tcp(tcp::State::Close)),
    ("timeout_closewait", Timeout::Tcp(tcp::State::CloseWait)),
    ("timeout_established", Timeout::Tcp(tcp::State::Established)),
    ("timeout_finwait", Timeout::Tcp(tcp::State::FinWait)),
    ("timeout_lastack", Timeout::Tcp(tcp::State::LastAck)),
    ("timeout_listen", Timeout::Tcp(tcp::State::Listen)),
    ("timeout_synack", Timeout::Tcp(tcp::State::SynAck)),
    ("timeout_synrecv", Timeout::Tcp(tcp::State::SynRecv)),
    ("timeout_synsent", Timeout::Tcp(tcp::State::SynSent)),
    ("timeout_timewait", Timeout::Tcp(tcp::State::TimeWait)),
    ("timeout_udp", Timeout::Udp),
];

/// Most seconds: as many as fit an int in the kernel's jiffies at 250 Hz.
const MOST: i32 = i32::MAX / 250;

/// The timeout with this name.
pub fn find(name: &str) -> Option<(&'static str, Timeout)> {
    TIMEOUTS.into_iter().find(|(known, _)| *known == name)
}

impl Timeout {
    /// Seconds of a machine on which nobody changed it.
    pub const fn default(self) -> u32 {
        match self {
            Self::Tcp(state) => state.default_timeout(),
            Self::Udp => udp::DEFAULT_TIMEOUT,
        }
    }

    /// The seconds that writing `text` to the setting `name` makes it.
    pub fn parse(self, name: &'static str, text: &str) -> Result<u32, SysctlError> {
        let seconds = number(text).filter(|seconds| (1..=MOST).contains(seconds));
        seconds.map(i32::unsigned_abs).ok_or(SysctlError::Invalid(name, 1, MOST))
    }

    /// Where it lies, in ticks.
    pub fn place(self, config: &Config) -> Option<&Cell<u32>> {
        match self {
            Self::Tcp(state) => config.tcp_timeouts.get(state as usize),
            Self::Udp => Some(&config.udp_timeout),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_defaults_are_those_of_linux_2_4() {
        let all = TIMEOUTS.map(|(name, timeout)| (name, timeout.default()));
        let expected = [
            ("timeout_close", 10),
            ("timeout_closewait", 60),
            ("timeout_established", 900),
            ("timeout_finwait", 120),
            ("timeout_lastack", 30),
            ("timeout_listen", 120),
            ("timeout_synack", 120),
            ("timeout_synrecv", 60),
            ("timeout_synsent", 120),
            ("timeout_timewait", 120),
            ("timeout_udp", 300),
        ];
        assert_eq!(all, expected);
        let (name, timeout) = find("timeout_udp").expect("it is listed");
        assert_eq!(timeout.parse(name, " 0x10\n"), Ok(16));
        for text in ["0", "-1", "", "x", "8589935"] {
            assert_eq!(timeout.parse(name, text), Err(SysctlError::Invalid(name, 1, MOST)));
        }
    }
}
