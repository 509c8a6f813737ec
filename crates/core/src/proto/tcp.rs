//! TCP connection states as IPVS follows them, from either or only one direction.
//! Follows `ip_vs_proto_tcp.c`; `tests/oracle` has what a real kernel did.

use rvs_wire::tcp_flags::{ACK, FIN, RST, SYN};

use super::Direction;

/// State numbers of `IP_VS_TCP_S_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// None yet.
    None,
    /// ESTABLISHED.
    Established,
    /// SYN_SENT.
    SynSent,
    /// SYN_RECV.
    SynRecv,
    /// FIN_WAIT.
    FinWait,
    /// TIME_WAIT.
    TimeWait,
    /// CLOSE.
    Close,
    /// CLOSE_WAIT.
    CloseWait,
    /// LAST_ACK.
    LastAck,
    /// LISTEN.
    Listen,
    /// SYNACK.
    SynAck,
}

use State::{
    Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA, Listen as LI,
    None as NO, SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
};

impl State {
    /// All states, by number.
    pub const ALL: [Self; 11] = [NO, ES, SS, SR, FW, TW, CL, CW, LA, LI, SA];

    /// The name in `/proc/net/ip_vs_conn`.
    pub const fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            ES => "ESTABLISHED",
            SS => "SYN_SENT",
            SR => "SYN_RECV",
            FW => "FIN_WAIT",
            TW => "TIME_WAIT",
            CL => "CLOSE",
            CW => "CLOSE_WAIT",
            LA => "LAST_ACK",
            LI => "LISTEN",
            SA => "SYNACK",
        }
    }

    /// Seconds without a packet after which a connection in this state expires.
    pub const fn default_timeout(self) -> u32 {
        match self {
            NO => 2,
            ES => 15 * 60,
            SS | FW | TW | LI | SA => 2 * 60,
            SR | CW => 60,
            CL => 10,
            LA => 30,
        }
    }
}

/// Whether a connection in `state` counts as active.
#[inline(always)]
pub const fn is_active(state: u32) -> bool {
    const ACTIVE: u32 = 1 << ES as u32 | 1 << SS as u32 | 1 << SR as u32 | 1 << SA as u32;
    ACTIVE >> (state & 31) & 1 != 0
}

/// Rows: what the packet carries, in the order SYN, FIN, ACK, RST. Columns: the state it meets.
/// Padded to 16 columns so that a masked index is always inside.
type Table = [[State; 16]; 4];

#[rustfmt::skip]
static TABLES: [Table; 3] = [
    // Input
    //  NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR, CL, CL, CL, CL, CL],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW, CL, CL, CL, CL, CL],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES, CL, CL, CL, CL, CL],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR, CL, CL, CL, CL, CL],
    ],
    // Output
    [
        [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR, CL, CL, CL, CL, CL],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW, CL, CL, CL, CL, CL],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES, CL, CL, CL, CL, CL],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],
    ],
    // InputOnly
    [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR, CL, CL, CL, CL, CL],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW, CL, CL, CL, CL, CL],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES, CL, CL, CL, CL, CL],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL, CL, CL, CL, CL, CL],
    ],
];

/// The state after a packet with `flags`. A packet with none of SYN, FIN, ACK and RST closes the
/// connection, as in the kernel.
#[inline(always)]
pub fn next(direction: Direction, state: u32, flags: u8) -> u32 {
    let event = if flags & RST != 0 {
        3
    } else if flags & SYN != 0 {
        0
    } else if flags & FIN != 0 {
        1
    } else if flags & ACK != 0 {
        2
    } else {
        return CL as u32;
    };
    TABLES
        .get(direction as usize)
        .and_then(|table| table.get(event))
        .and_then(|row| row.get((state & 15) as usize))
        .map_or(CL as u32, |next| *next as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masqueraded_connection_opens_and_closes() {
        let mut state = NO as u32;
        for (direction, flags, expected) in [
            (Direction::Input, SYN, SR),
            (Direction::Output, SYN | ACK, SR),
            (Direction::Input, ACK, ES),
            (Direction::Input, FIN | ACK, CW),
            (Direction::Output, FIN | ACK, TW),
            (Direction::Input, ACK, TW),
        ] {
            state = next(direction, state, flags);
            assert_eq!(state, expected as u32, "{direction:?} {flags:#x}");
        }
    }

    #[test]
    fn active_states_are_those_that_hold_a_client() {
        let active: std::vec::Vec<_> =
            State::ALL.into_iter().filter(|s| is_active(*s as u32)).map(State::name).collect();
        assert_eq!(active, ["ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"]);
    }
}
