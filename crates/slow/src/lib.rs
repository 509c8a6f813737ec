//! What rvsd does with the frames that the data path hands over: it holds fragments until the first
//! of their datagram has passed, cuts packets that are too big, reads what FTP agrees on, and gives
//! all of it back to where it came from. No sockets and no clock: a frame and the time come in, [`Path`] is asked.
#![forbid(unsafe_code)]

mod app;
mod cut;
mod ftp;
mod packet;
mod room;
mod whole;

use std::time::{Duration, Instant};

use rvs_core::fragment::{NoteKey, Ticket};
use rvs_core::reason::Reason;

pub use app::inspect;

use packet::Piece;
use room::Room;

/// The data path, as seen from behind.
pub trait Path {
    /// Whether the first fragment of the datagram has passed.
    fn has_passed(&mut self, key: &NoteKey) -> bool;
    /// Takes a frame back, to the interface that its ticket names.
    fn put_back(&mut self, frame: &[u8]);
    /// Inspects a segment of a connection that has an application helper, and changes it: what
    /// [`inspect`] does with this data path's tables.
    fn inspect(&mut self, frame: &mut [u8]);
    /// Counts frames that are given up.
    fn count(&mut self, reason: Reason, frames: u64);
}

/// Everything that is held.
#[derive(Default)]
pub struct Slow {
    room: Room,
}

impl Slow {
    /// Nothing is held yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a frame that the data path handed over.
    pub fn take<P: Path>(&mut self, now: Instant, frame: &[u8], path: &mut P) {
        let Some(mac) = frame.first_chunk().copied() else {
            return path.count(Reason::Malformed, 1);
        };
        let Ticket { ifindex, mtu } = Ticket::from_mac(mac);
        if mtu == Ticket::INSPECT || mtu == Ticket::LEAVING {
            let mut frame = frame.to_vec();
            path.inspect(&mut frame);
            return path.put_back(&frame);
        }
        if mtu == Ticket::SEGMENT {
            return path.put_back(frame);
        }
        if mtu != 0 {
            let cut = if ifindex == Ticket::OUT { cut::cut_outer } else { cut::cut };
            match cut(frame, mtu.into()) {
                Some(pieces) => pieces.iter().for_each(|piece| path.put_back(piece)),
                None => path.count(Reason::TooBig, 1),
            }
            return;
        }
        let Some(piece) = Piece::read(frame) else { return path.count(Reason::Malformed, 1) };
        // It may have passed since.
        if piece.offset != 0 && path.has_passed(&piece.key) {
            return path.put_back(frame);
        }
        self.room.hold(now, frame, &piece, path);
    }

    /// Gives back what need not wait any more and gives up what has waited too long. To be called
    /// again after what it returns; `None`: after the next frame.
    pub fn poll<P: Path>(&mut self, now: Instant, path: &mut P) -> Option<Duration> {
        self.room.poll(now, path)
    }

    /// Bytes that are held, each frame's and datagram's own included.
    pub fn held(&self) -> usize {
        self.room.held()
    }
}
