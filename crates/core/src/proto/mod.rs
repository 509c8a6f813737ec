//! Connection states, by protocol.

pub mod sctp;
pub mod tcp;
pub mod udp;

/// Which state table a packet is looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Direction {
    /// From the client; replies are seen too.
    Input = 0,
    /// From the destination.
    Output = 1,
    /// From the client; replies do not come through the director (direct routing, tunneling).
    InputOnly = 2,
}
