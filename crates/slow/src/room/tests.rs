//! Waiting, and its bounds.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::Slow;

/// A data path that remembers everything.
#[derive(Default)]
struct Told {
    passed: HashSet<NoteKey>,
    back: Vec<Vec<u8>>,
    counts: HashMap<&'static str, u64>,
}

impl Path for Told {
    fn has_passed(&mut self, key: &NoteKey) -> bool {
        self.passed.contains(key)
    }

    fn put_back(&mut self, frame: &[u8]) {
        self.back.push(frame.to_vec());
    }

    fn inspect(&mut self, _: &mut [u8]) {
        unreachable!("these are fragments");
    }

    fn count(&mut self, reason: Reason, frames: u64) {
        *self.counts.entry(reason.name()).or_default() += frames;
    }
}

/// The fragment behind 8 bytes of datagram `id` from 10.0.0.`source`, with 1400 bytes of data.
fn fragment(source: u8, id: u16) -> Vec<u8> {
    let mut frame = vec![0; 14];
    frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, source, 10, 9, 1, 1]);
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    crate::cut::finish(&mut frame, &[7; 1400], 1 | 0x2000).expect("a short frame");
    frame
}

fn key(frame: &[u8]) -> NoteKey {
    Piece::read(frame).expect("a fragment").key
}

#[test]
fn fragments_wait_until_their_first_has_passed() {
    let (mut slow, mut path, start) = (Slow::new(), Told::default(), Instant::now());
    let (one, other) = (fragment(2, 1), fragment(2, 2));
    slow.take(start, &one, &mut path);
    slow.take(start, &other, &mut path);
    assert_eq!(slow.poll(start, &mut path), Some(OFTEN));
    assert!(path.back.is_empty());
    path.passed.insert(key(&other));
    slow.poll(start + OFTEN, &mut path);
    assert_eq!(path.back, std::slice::from_ref(&other));
    // One that comes after its first was seen does not wait.
    slow.take(start + OFTEN, &other, &mut path);
    assert_eq!(path.back.len(), 2);
    path.passed.insert(key(&one));
    assert_eq!(slow.poll(start + OFTEN * 2, &mut path), None);
    assert_eq!((path.back.len(), slow.held()), (3, 0));
    assert!(path.counts.is_empty(), "{:?}", path.counts);
}

#[test]
fn what_waits_too_long_is_given_up_and_counted() {
    let (mut slow, mut path, start) = (Slow::new(), Told::default(), Instant::now());
    for _ in 0..3 {
        slow.take(start, &fragment(2, 1), &mut path);
    }
    slow.take(start + PATIENCE / 2, &fragment(2, 2), &mut path);
    assert!(slow.poll(start + PATIENCE - OFTEN, &mut path).is_some());
    assert!(path.counts.is_empty(), "{:?}", path.counts);
    assert!(slow.poll(start + PATIENCE, &mut path).is_some());
    assert_eq!(path.counts, HashMap::from([("drop.fragment_late", 3)]));
    assert_eq!(slow.poll(start + PATIENCE * 2, &mut path), None);
    assert_eq!(path.counts, HashMap::from([("drop.fragment_late", 4)]));
    assert_eq!((path.back.len(), slow.held()), (0, 0));
}

#[test]
fn a_flood_from_one_source_leaves_room_for_others() {
    let (mut slow, mut path, start) = (Slow::new(), Told::default(), Instant::now());
    for id in 0..20_000 {
        slow.take(start, &fragment(66, id), &mut path);
    }
    assert!(slow.held() <= SOURCE, "{}", slow.held());
    let flood = path.counts["drop.fragment_limit"];
    let held = slow.held() as u64 / (1434 + FRAME + DATAGRAM) as u64;
    assert_eq!(flood + held, 20_000, "each is held or counted");
    let other = fragment(2, 1);
    slow.take(start, &other, &mut path);
    path.passed.insert(key(&other));
    slow.poll(start + OFTEN, &mut path);
    assert_eq!(path.back, [other]);
}

#[test]
fn a_flood_from_everywhere_stays_within_its_bytes_and_drops_the_oldest() {
    let (mut slow, mut path, start) = (Slow::new(), Told::default(), Instant::now());
    let mut sent = 0;
    for source in 0..250 {
        for id in 0..60 {
            slow.take(start, &fragment(source, id), &mut path);
            sent += 1;
        }
    }
    assert!(slow.held() <= TOTAL && slow.held() > TOTAL - 4096, "{}", slow.held());
    let held = slow.held() as u64 / (1434 + FRAME + DATAGRAM) as u64;
    assert_eq!(path.counts["drop.fragment_limit"] + held, sent, "each is held or counted");
    let (oldest, newest) = (fragment(0, 0), fragment(249, 59));
    path.passed.extend([key(&oldest), key(&newest)]);
    slow.poll(start + OFTEN, &mut path);
    assert_eq!(path.back, [newest]);
}
