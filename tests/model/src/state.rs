//! States of connections. The tables are what a kernel answered: `tests/oracle/matrix.py` prints
//! them.

use rvs_core::types::Timeouts;

/// State of a TCP connection, or that of UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    None,
    Established,
    SynSent,
    SynRecv,
    FinWait,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    SynAck,
    /// UDP has only one.
    Udp,
}

/// State, its letters in the tables below, its name in listings, seconds until it ends, whether a
/// connection in it counts as active.
const STATES: [(State, &str, &str, u32, bool); 12] = [
    (State::None, "NO", "NONE", 2, false),
    (State::Established, "ES", "ESTABLISHED", 900, true),
    (State::SynSent, "SS", "SYN_SENT", 120, true),
    (State::SynRecv, "SR", "SYN_RECV", 60, true),
    (State::FinWait, "FW", "FIN_WAIT", 120, false),
    (State::TimeWait, "TW", "TIME_WAIT", 120, false),
    (State::Close, "CL", "CLOSE", 10, false),
    (State::CloseWait, "CW", "CLOSE_WAIT", 60, false),
    (State::LastAck, "LA", "LAST_ACK", 30, false),
    (State::Listen, "LI", "LISTEN", 120, false),
    (State::SynAck, "SA", "SYNACK", 120, true),
    (State::Udp, "-", "UDP", 300, false),
];

/// A client's packets, where those of the destination come by, too.
const INPUT: &str = "
       NO ES SS SR FW TW CL CW LA LI SA
    S  SR ES ES SR SR SR SR SR SR SR SR
    F  CL CW SS TW TW TW CL CW LA LI TW
    A  ES ES SS ES FW TW CL CW CL LI ES
    R  CL CL CL SR CL CL CL CL LA LI SR";

/// A destination's packets.
const OUTPUT: &str = "
       NO ES SS SR FW TW CL CW LA LI SA
    S  SS ES SS SR SS SS SS SS SS LI SR
    F  TW FW SS TW FW TW CL TW LA LI TW
    A  ES ES SS ES FW TW CL CW LA ES ES
    R  CL CL SS CL CL TW CL CL CL CL CL";

/// A client's packets, where those of the destination go another way.
const INPUT_ONLY: &str = "
       NO ES SS SR FW TW CL CW LA LI SA
    S  SR ES ES SR SR SR SR SR SR SR SR
    F  CL FW SS TW FW TW CL CW LA LI TW
    A  ES ES SS ES FW TW CL CW CL LI ES
    R  CL CL CL SR CL CL CL CL LA LI CL";

/// Whose packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A client.
    Client,
    /// A client whose destination answers by another way (direct routing, tunneling).
    ClientOnly,
    /// A destination.
    Server,
}

impl State {
    fn row(self) -> (&'static str, &'static str, u32, bool) {
        let found = STATES.into_iter().find(|(state, ..)| *state == self);
        let (_, letters, name, seconds, active) = found.expect("every state is listed");
        (letters, name, seconds, active)
    }

    /// Its name in listings.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Whether a connection in it counts as active.
    pub fn is_active(self) -> bool {
        self.row().3
    }

    /// Seconds without a packet until a connection in it ends.
    pub fn timeout(self, set: &Timeouts) -> u32 {
        match self {
            Self::Established => set.tcp,
            Self::FinWait => set.tcp_fin,
            Self::Udp => set.udp,
            other => other.row().2,
        }
    }

    /// The state after a TCP packet with these flags, of which the first of R, S, F, A counts. One
    /// that has none of them closes the connection.
    pub fn after(self, sender: Sender, flags: &str) -> Self {
        let Some(flag) = ['R', 'S', 'F', 'A'].into_iter().find(|flag| flags.contains(*flag)) else {
            return Self::Close;
        };
        let table = match sender {
            Sender::Client => INPUT,
            Sender::ClientOnly => INPUT_ONLY,
            Sender::Server => OUTPUT,
        };
        let mut lines = table.lines().skip(1);
        let head = lines.next().expect("a table has a head");
        let row = lines.find(|line| line.trim_start().starts_with(flag)).expect("a row a flag");
        let column = head.find(self.row().0).expect("a column a state");
        let letters = row.get(column..column + 2).expect("a cell a state");
        let found = STATES.into_iter().find(|(_, known, ..)| *known == letters);
        found.expect("cells are states").0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_core::types::Timeouts;
    use serde_json::Value;

    const RECORDED: &str = include_str!("../../oracle/recorded/tcp_state.jsonl");

    /// The model is not the judge: the kernel is.
    #[test]
    fn the_tables_are_the_kernel_s() {
        let mut rows = 0;
        for line in RECORDED.lines() {
            let row: Value = serde_json::from_str(line).expect("a recorded row");
            let text = |name: &str| row[name].as_str().unwrap_or_default();
            let sender = match (text("direction"), text("forward")) {
                ("in", "-m") => Sender::Client,
                ("in", _) => Sender::ClientOnly,
                ("out", "-m") => Sender::Server,
                _ => continue,
            };
            let state = |name: &str| STATES.into_iter().find(|row| row.2 == name).map(|row| row.0);
            // Of a SYN that opens a new connection in another's place, `packet.rs` decides.
            let (Some(from), Some(to), "reuse0" | "reuse0+sync") =
                (state(text("state")), state(text("next")), text("tag"))
            else {
                continue;
            };
            let after = from.after(sender, text("flags"));
            assert_eq!(after, to, "{line}");
            assert_eq!(
                Some(u64::from(after.timeout(&Timeouts::default()))),
                row["expires"].as_u64()
            );
            rows += 1;
        }
        assert_eq!(rows, 264, "3 tables, 11 states, 8 flags");
    }
}
