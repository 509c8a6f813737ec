//! Where fragments wait: bounded in bytes, for each source, and in time.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rvs_core::fragment::{LIFETIME, NoteKey};
use rvs_core::reason::Reason;

use crate::Path;
use crate::packet::Piece;
use crate::whole::{Whole, assemble};

/// Bytes that wait at most.
const TOTAL: usize = 4 << 20;
/// Bytes of one source (an IPv4 address, an IPv6 /64) that wait at most: a flood from one leaves
/// the others seven eighths.
const SOURCE: usize = TOTAL / 8;
/// What a datagram counts for beside its bytes.
const DATAGRAM: usize = 1024;
/// What a frame counts for beside its bytes.
const FRAME: usize = 64;
/// How long a fragment waits: as long as the note of its first would hold.
const PATIENCE: Duration = Duration::from_secs(LIFETIME as u64);
/// A first fragment that was overtaken comes soon or never: so long it is looked for often.
const SOON: Duration = Duration::from_millis(50);
/// How often it is looked for at first.
const OFTEN: Duration = Duration::from_millis(4);

/// Fragments of a datagram.
struct Datagram {
    since: Instant,
    frames: Vec<Vec<u8>>,
    bytes: usize,
    /// Its first fragment is among them, too short to be balanced.
    tiny: bool,
}

/// Everything that waits.
#[derive(Default)]
pub struct Room {
    datagrams: HashMap<NoteKey, Datagram>,
    /// In the order in which they came; those that have left are still in it.
    order: VecDeque<(Instant, NoteKey)>,
    sources: HashMap<[u32; 2], usize>,
    bytes: usize,
    looked: Option<Instant>,
}

/// Whom a datagram is charged to.
fn source(key: &NoteKey) -> [u32; 2] {
    [key.src[0], key.src[1]]
}

impl Room {
    /// Bytes that are held.
    pub fn held(&self) -> usize {
        self.bytes
    }

    /// Holds a fragment, if there is room for it.
    pub fn hold<P: Path>(&mut self, now: Instant, frame: &[u8], piece: &Piece, path: &mut P) {
        let key = piece.key;
        let known = self.datagrams.contains_key(&key);
        let cost = frame.len() + FRAME + if known { 0 } else { DATAGRAM };
        let charged = self.sources.get(&source(&key)).copied().unwrap_or(0);
        if charged + cost > SOURCE {
            return path.count(Reason::FragmentLimit, 1);
        }
        while self.bytes + cost > TOTAL {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            // Its own makes room for others, but not for itself.
            if oldest == key {
                self.order.push_front((now, key));
                return path.count(Reason::FragmentLimit, 1);
            }
            self.give_up(&oldest, Reason::FragmentLimit, path);
        }
        if !known {
            self.order.push_back((now, key));
        }
        let new = || Datagram { since: now, frames: Vec::new(), bytes: 0, tiny: false };
        let datagram = self.datagrams.entry(key).or_insert_with(new);
        datagram.frames.push(frame.to_vec());
        datagram.bytes += cost;
        datagram.tiny |= piece.offset == 0;
        self.bytes += cost;
        *self.sources.entry(source(&key)).or_default() += cost;
        if datagram.tiny {
            match assemble(&datagram.frames) {
                Whole::Incomplete => {}
                Whole::Invalid => self.give_up(&key, Reason::FragmentInvalid, path),
                Whole::Complete(frames) => {
                    self.remove(&key);
                    frames.iter().for_each(|frame| path.put_back(frame));
                }
            }
        }
    }

    /// See [`Slow::poll`](crate::Slow::poll).
    pub fn poll<P: Path>(&mut self, now: Instant, path: &mut P) -> Option<Duration> {
        while let Some((since, key)) = self.order.front().copied() {
            let is_current = self.datagrams.get(&key).is_some_and(|held| held.since == since);
            if is_current && now.duration_since(since) < PATIENCE {
                break;
            }
            self.order.pop_front();
            if is_current {
                self.give_up(&key, Reason::FragmentLate, path);
            }
        }
        // The old ones not as often as the young.
        let all = self.looked.is_none_or(|looked| now.duration_since(looked) >= SOON);
        if all {
            self.looked = Some(now);
        }
        let recent = |since: Instant| all || now.duration_since(since) < SOON;
        let young: Vec<NoteKey> = self
            .order
            .iter()
            .rev()
            .take_while(|(since, _)| recent(*since))
            .map(|(_, key)| *key)
            .collect();
        let mut is_young = false;
        for key in young {
            let Some(held) = self.datagrams.get(&key) else { continue };
            is_young |= now.duration_since(held.since) < SOON;
            if !held.tiny && path.has_passed(&key) {
                let frames = self.remove(&key);
                frames.iter().for_each(|frame| path.put_back(frame));
            }
        }
        if self.datagrams.is_empty() {
            self.order.clear();
            return None;
        }
        Some(if is_young { OFTEN } else { SOON })
    }

    fn give_up<P: Path>(&mut self, key: &NoteKey, reason: Reason, path: &mut P) {
        let frames = self.remove(key);
        path.count(reason, frames.len() as u64);
    }

    fn remove(&mut self, key: &NoteKey) -> Vec<Vec<u8>> {
        let Some(datagram) = self.datagrams.remove(key) else { return Vec::new() };
        self.bytes -= datagram.bytes;
        if let Some(charged) = self.sources.get_mut(&source(key)) {
            *charged -= datagram.bytes;
            if *charged == 0 {
                self.sources.remove(&source(key));
            }
        }
        datagram.frames
    }
}

#[cfg(test)]
mod tests;
