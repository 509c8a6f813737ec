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

/// What a packet's flags mean to the state table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// RST, whatever else.
    Rst,
    /// SYN without RST.
    Syn,
    /// FIN without RST and SYN.
    Fin,
    /// Only ACK.
    Ack,
    /// None of the four.
    None,
}

impl Event {
    /// The event that these flags are.
    #[inline(always)]
    pub const fn of(flags: u8) -> Self {
        if flags & RST != 0 {
            Self::Rst
        } else if flags & SYN != 0 {
            Self::Syn
        } else if flags & FIN != 0 {
            Self::Fin
        } else if flags & ACK != 0 {
            Self::Ack
        } else {
            Self::None
        }
    }
}

/// A row of the state table: the next state by the present one, four bits each.
///
/// Packed, because an index into an array is a number that the verifier must know exactly on every
/// path: with arrays here it followed a million of them and gave up.
type Row = u64;

const fn row(next: [State; 11]) -> Row {
    let mut packed = 0;
    let mut state = 0;
    while state < next.len() {
        packed |= (next[state] as u64) << (4 * state);
        state += 1;
    }
    packed
}

#[rustfmt::skip]
mod input {
    use super::*;
    //                              NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    pub const SYN_ROW: Row = row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]);
    pub const FIN_ROW: Row = row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW]);
    pub const ACK_ROW: Row = row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]);
    pub const RST_ROW: Row = row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR]);
}

#[rustfmt::skip]
mod output {
    use super::*;
    //                              NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    pub const SYN_ROW: Row = row([SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR]);
    pub const FIN_ROW: Row = row([TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW]);
    pub const ACK_ROW: Row = row([ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES]);
    pub const RST_ROW: Row = row([CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL]);
}

#[rustfmt::skip]
mod input_only {
    use super::*;
    //                              NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    pub const SYN_ROW: Row = row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR]);
    pub const FIN_ROW: Row = row([CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW]);
    pub const ACK_ROW: Row = row([ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES]);
    pub const RST_ROW: Row = row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]);
}

/// Where the tables of `secure_tcp` differ: only what destinations send takes a connection out of
/// SYN_RECV and SYNACK, but for its end.
#[rustfmt::skip]
mod secure {
    use super::*;
    //                                     NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
    pub const INPUT_SYN_ROW: Row      = row([SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA]);
    pub const INPUT_FIN_ROW: Row      = row([CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA]);
    pub const INPUT_ACK_ROW: Row      = row([ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA]);
    pub const INPUT_RST_ROW: Row      = row([CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL]);
    pub const OUTPUT_SYN_ROW: Row     = row([SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA]);
    pub const INPUT_ONLY_SYN_ROW: Row = row([SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA]);
}

/// The state after `event`; `secure` chooses the tables of `secure_tcp`. A packet with none of SYN, FIN, ACK and RST closes the connection, as
/// in the kernel.
#[inline(always)]
pub const fn next(secure: bool, direction: Direction, state: u32, event: Event) -> u32 {
    let row = if secure { secure_row(direction, event) } else { row_of(direction, event) };
    (row >> (4 * (state & 15))) as u32 & 15
}

const fn secure_row(direction: Direction, event: Event) -> Row {
    match (direction, event) {
        (Direction::Input, Event::Syn) => secure::INPUT_SYN_ROW,
        (Direction::Input, Event::Fin) => secure::INPUT_FIN_ROW,
        (Direction::Input, Event::Ack) => secure::INPUT_ACK_ROW,
        (Direction::Input, Event::Rst) => secure::INPUT_RST_ROW,
        (Direction::Output, Event::Syn) => secure::OUTPUT_SYN_ROW,
        (Direction::InputOnly, Event::Syn) => secure::INPUT_ONLY_SYN_ROW,
        _ => row_of(direction, event),
    }
}

const fn row_of(direction: Direction, event: Event) -> Row {
    match (direction, event) {
        (_, Event::None) => row([CL; 11]),
        (Direction::Input, Event::Syn) => input::SYN_ROW,
        (Direction::Input, Event::Fin) => input::FIN_ROW,
        (Direction::Input, Event::Ack) => input::ACK_ROW,
        (Direction::Input, Event::Rst) => input::RST_ROW,
        (Direction::Output, Event::Syn) => output::SYN_ROW,
        (Direction::Output, Event::Fin) => output::FIN_ROW,
        (Direction::Output, Event::Ack) => output::ACK_ROW,
        (Direction::Output, Event::Rst) => output::RST_ROW,
        (Direction::InputOnly, Event::Syn) => input_only::SYN_ROW,
        (Direction::InputOnly, Event::Fin) => input_only::FIN_ROW,
        (Direction::InputOnly, Event::Ack) => input_only::ACK_ROW,
        (Direction::InputOnly, Event::Rst) => input_only::RST_ROW,
    }
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
            state = next(false, direction, state, Event::of(flags));
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
