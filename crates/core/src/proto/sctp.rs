//! SCTP connection states as IPVS follows them, from either or only one direction, by the first
//! chunk of each packet. Follows `ip_vs_proto_sctp.c`; `tests/oracle/recorded/sctp_state.jsonl` has
//! what a real kernel did.

use rvs_wire::{Sctp, SctpChunk};

use super::Direction;
use crate::packet::Packet;

/// State numbers of `IP_VS_SCTP_S_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// None yet.
    None,
    /// The client sent an INIT.
    Init1,
    /// The client sent more than one.
    Init,
    /// The destination sent its cookie.
    CookieSent,
    /// The client sent the destination's cookie back.
    CookieReplied,
    /// INITs went both ways.
    CookieWait,
    /// The same, and the client sent its cookie.
    Cookie,
    /// The destination sent the client's cookie back.
    CookieEchoed,
    /// The association is up.
    Established,
    /// The destination shuts it down.
    ShutdownSent,
    /// The client shuts it down.
    ShutdownReceived,
    /// The destination acknowledged that.
    ShutdownAckSent,
    /// The destination aborted what it was asked for.
    Rejected,
    /// It is over.
    Closed,
}

use State::{
    Closed as CL, Cookie as CO, CookieEchoed as CE, CookieReplied as CR, CookieSent as CS,
    CookieWait as CW, Established as ES, Init as I, Init1 as I1, None as NO, Rejected as RJ,
    ShutdownAckSent as SA, ShutdownReceived as SR, ShutdownSent as SS,
};

impl State {
    /// All states, by number.
    pub const ALL: [Self; 14] = [NO, I1, I, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL];

    /// The name in `/proc/net/ip_vs_conn`.
    pub const fn name(self) -> &'static str {
        match self {
            NO => "NONE",
            I1 => "INIT1",
            I => "INIT",
            CS => "C-SENT",
            CR => "C-REPLIED",
            CW => "C-WAIT",
            CO => "COOKIE",
            CE => "C-ECHOED",
            ES => "ESTABLISHED",
            SS => "S-SENT",
            SR => "S-RECEIVED",
            SA => "S-ACK-SENT",
            RJ => "REJECTED",
            CL => "CLOSED",
        }
    }

    /// Seconds without a packet after which a connection in this state expires.
    pub const fn timeout(self) -> u32 {
        match self {
            NO => 2,
            I1 | RJ => 4,
            I | CS | CR | CW | CO | CE | SS | SR | SA | CL => 60,
            ES => 15 * 60,
        }
    }
}

/// Whether a connection in `state` counts as active.
#[inline(always)]
pub const fn is_active(state: u32) -> bool {
    state == ES as u32
}

/// Chunk type of ABORT.
const ABORT: u8 = 6;

/// What a chunk means to the state table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// DATA, and whatever has no event of its own.
    Data,
    /// INIT.
    Init,
    /// INIT ACK.
    InitAck,
    /// COOKIE ECHO.
    CookieEcho,
    /// COOKIE ACK.
    CookieAck,
    /// SHUTDOWN.
    Shutdown,
    /// SHUTDOWN ACK.
    ShutdownAck,
    /// SHUTDOWN COMPLETE.
    ShutdownComplete,
    /// ERROR.
    Error,
    /// ABORT.
    Abort,
    /// There is no chunk: the state stays.
    Nothing,
}

impl Event {
    /// What a chunk of this type is.
    #[inline(always)]
    const fn of(kind: u8) -> Self {
        match kind {
            1 => Self::Init,
            2 => Self::InitAck,
            ABORT => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }
}

/// What a packet's chunks say: the [`Event`], and whether the first chunk is a cookie's with an
/// ABORT behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks(pub u8);

/// In [`Chunks`]: the ABORT is behind a COOKIE ECHO or COOKIE ACK.
const BEHIND_COOKIE: u8 = 0x10;

impl Chunks {
    /// Reads the chunks of the packet whose common header is at `l4` and whose last byte is before
    /// `end`: the first, and behind a cookie's the second. Others cannot matter, as only those may
    /// come before one that decides.
    ///
    /// Not inlined: rare beside TCP and UDP, whose stack frames it must not widen.
    #[inline(never)]
    pub fn read<P: Packet>(packet: &P, l4: u32, end: u32) -> Self {
        let at = l4 + Sctp::LEN as u32;
        let held = |at: u32| at + SctpChunk::LEN as u32 <= end;
        if !held(at) {
            return Self(Event::Nothing as u8);
        }
        let event = Event::of((packet.word_at(at) >> 8) as u8);
        if !matches!(event, Event::CookieEcho | Event::CookieAck) {
            return Self(event as u8);
        }
        let len = packet.word_at(at + 2) as u32;
        let next = at + ((len + 3) & !3);
        if len >= SctpChunk::LEN as u32 && held(next) && (packet.word_at(next) >> 8) as u8 == ABORT
        {
            return Self(Event::Abort as u8 | BEHIND_COOKIE);
        }
        Self(event as u8)
    }

    /// The event's number.
    #[inline(always)]
    pub const fn event(self) -> u32 {
        (self.0 & 15) as u32
    }

    /// Whether the packet asks for a new association.
    #[inline(always)]
    pub const fn is_init(self) -> bool {
        self.event() == Event::Init as u32
    }

    /// Whether the packet has no chunk.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.event() == Event::Nothing as u32
    }

    /// Whether the packet opens a connection; `sloppy` is the setting `sloppy_sctp`, with which only
    /// an ABORT in front does not.
    #[inline(always)]
    pub const fn opens(self, sloppy: bool) -> bool {
        self.is_init() || (sloppy && !self.begins_with_abort())
    }

    /// Whether the first chunk is an ABORT.
    #[inline(always)]
    pub const fn begins_with_abort(self) -> bool {
        self.0 == Event::Abort as u8
    }
}

/// A row of the state table: the next state by the present one, four bits each; see
/// [`tcp`](super::tcp).
type Row = u64;

const fn row(next: [State; 14]) -> Row {
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
    //                                  NO  I1  I   CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
    pub const DATA: Row          = row([ES, I1, I,  CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const INIT: Row          = row([I1, I,  I,  CS, CR, CW, CO, CE, ES, SS, SR, SA, I,  I ]);
    pub const INIT_ACK: Row      = row([CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const COOKIE_ECHO: Row   = row([CR, I,  I,  CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const COOKIE_ACK: Row    = row([ES, I1, I,  CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL]);
    pub const SHUTDOWN: Row      = row([SR, I1, I,  CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL]);
    pub const SHUTDOWN_ACK: Row  = row([CL, I,  I,  CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL]);
    pub const SHUTDOWN_DONE: Row = row([CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL]);
    pub const ERROR: Row         = row([CL, I1, I,  CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL]);
    pub const ABORT: Row         = row([CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL]);
}

#[rustfmt::skip]
mod output {
    use super::*;
    //                                  NO  I1  I   CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
    pub const DATA: Row          = row([ES, I1, I,  CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const INIT: Row          = row([CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW]);
    pub const INIT_ACK: Row      = row([CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const COOKIE_ECHO: Row   = row([CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL]);
    pub const COOKIE_ACK: Row    = row([ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL]);
    pub const SHUTDOWN: Row      = row([SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL]);
    pub const SHUTDOWN_ACK: Row  = row([SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL]);
    pub const SHUTDOWN_DONE: Row = row([CL, I1, I,  CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const ERROR: Row         = row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const ABORT: Row         = row([CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL]);
}

/// Where what a client sends means something else if replies are not seen.
#[rustfmt::skip]
mod input_only {
    use super::*;
    //                                  NO  I1  I   CS  CR  CW  CO  CE  ES  SS  SR  SA  RJ  CL
    pub const DATA: Row          = row([ES, I1, I,  CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const INIT: Row          = row([I1, I,  I,  I,  I,  I,  CO, CE, ES, SS, SR, SA, I,  I ]);
    pub const INIT_ACK: Row      = row([CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const COOKIE_ECHO: Row   = row([ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL]);
    pub const COOKIE_ACK: Row    = row([ES, I1, I,  ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL]);
    pub const SHUTDOWN_ACK: Row  = row([CL, I,  I,  CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL]);
    pub const SHUTDOWN_DONE: Row = row([CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL]);
    pub const ERROR: Row         = row([CL, I1, I,  CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL]);
}

/// The state after these chunks.
#[inline(always)]
pub const fn next(direction: Direction, state: u32, chunks: Chunks) -> u32 {
    let event = chunks.event();
    let row = match direction {
        Direction::Input => input_row(event),
        Direction::Output => output_row(event),
        Direction::InputOnly => input_only_row(event),
    };
    if row == 0 { state } else { (row >> (4 * (state & 15))) as u32 & 15 }
}

/// The row that `event` chooses of ten in the order of [`Event`]; 0 if it is none of theirs.
macro_rules! rows {
    ($event:expr, $($row:expr),+) => {{
        let event = $event;
        let mut number = 0;
        $(if event == number { return $row; } number += 1;)+
        let _ = number;
        0
    }};
}

const fn input_row(event: u32) -> Row {
    use input::*;
    rows!(
        event,
        DATA,
        INIT,
        INIT_ACK,
        COOKIE_ECHO,
        COOKIE_ACK,
        SHUTDOWN,
        SHUTDOWN_ACK,
        SHUTDOWN_DONE,
        ERROR,
        ABORT
    )
}

const fn output_row(event: u32) -> Row {
    use output::*;
    rows!(
        event,
        DATA,
        INIT,
        INIT_ACK,
        COOKIE_ECHO,
        COOKIE_ACK,
        SHUTDOWN,
        SHUTDOWN_ACK,
        SHUTDOWN_DONE,
        ERROR,
        ABORT
    )
}

const fn input_only_row(event: u32) -> Row {
    use input::{ABORT, SHUTDOWN};
    use input_only::*;
    rows!(
        event,
        DATA,
        INIT,
        INIT_ACK,
        COOKIE_ECHO,
        COOKIE_ACK,
        SHUTDOWN,
        SHUTDOWN_ACK,
        SHUTDOWN_DONE,
        ERROR,
        ABORT
    )
}
