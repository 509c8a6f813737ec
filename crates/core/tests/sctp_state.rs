//! The SCTP state tables against what a real kernel did (`tests/oracle/recorded/sctp_state.jsonl`).

use std::path::Path;

use rvs_core::packet::{Header, Packet};
use rvs_core::proto::Direction;
use rvs_core::proto::sctp::{Chunks, State, is_active, next};
use serde_json::Value;

/// A frame that consists of an SCTP packet only.
struct Bytes(Vec<u8>);

impl Packet for Bytes {
    fn frame_len(&self) -> u32 {
        self.0.len() as u32
    }

    fn at<T: Header>(&self, _: u32) -> Option<&T> {
        panic!("chunks are read by their words")
    }

    fn at_mut<T: Header>(&mut self, _: u32) -> Option<&mut T> {
        panic!("chunks are not written")
    }

    fn word_at(&self, offset: u32) -> u16 {
        let at = offset as usize;
        self.0.get(at..at + 2).map_or(0, |word| u16::from_be_bytes([word[0], word[1]]))
    }
}

/// A chunk of this type with a value of `len` bytes.
fn chunk(kind: u8, len: u16) -> Vec<u8> {
    let mut bytes = vec![kind, 0];
    bytes.extend((len + 4).to_be_bytes());
    bytes.resize(4 + usize::from(len).next_multiple_of(4), 0);
    bytes
}

/// What the recording's name of an event stands for, behind a common header; `None` if the packet
/// ends before the first chunk could begin.
fn chunks(event: &str) -> Option<Chunks> {
    let raw = |kind: u8, len: u16| [&[kind, 0][..], &len.to_be_bytes()].concat();
    let body = match event {
        "none" => vec![],
        "2 bytes of 7" => vec![7, 0],
        "10 (padded)+6" => [raw(10, 6), vec![b'a', b'b', 0, 0], raw(6, 4)].concat(),
        "10 (length 3)+6" => [raw(10, 3), raw(6, 4)].concat(),
        "10 (length 4000)+6" => [raw(10, 4000), raw(6, 4)].concat(),
        "10 (length 65535)" => [raw(10, 65535), raw(6, 4)].concat(),
        "10+2 bytes of 6" => [raw(10, 4), vec![6, 0]].concat(),
        "10 (64 bytes)+6" => [chunk(10, 60), raw(6, 4)].concat(),
        "10 (804 bytes)+6" => [chunk(10, 800), raw(6, 4)].concat(),
        "ports" | "8 bytes" | "11 bytes" => return None,
        kinds => {
            kinds.split('+').flat_map(|kind| chunk(kind.parse().expect("a type"), 8)).collect()
        }
    };
    let packet = Bytes([vec![0; 12], body].concat());
    Some(Chunks::read(&packet, 0, packet.frame_len()))
}

fn rows() -> Vec<Value> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/recorded/sctp_state.jsonl");
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn state(name: &str) -> Option<State> {
    State::ALL.into_iter().find(|state| state.name() == name)
}

#[test]
fn every_recorded_step_leads_where_the_kernel_went() {
    let (mut steps, mut wrong) = (0, Vec::new());
    for row in rows() {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let (Some(from), Some(to)) = (state(text("state")), state(text("next"))) else { continue };
        // A connection whose destination was seen once is followed in both directions.
        let path = row["path"].as_array().expect("steps");
        let seen = text("forward") == "-m" || path.iter().any(|step| step[0] == "out_vip");
        let direction = match (text("direction"), seen) {
            ("in", true) => Direction::Input,
            ("in", false) => Direction::InputOnly,
            _ => Direction::Output,
        };
        steps += 1;
        let Some(chunks) = chunks(text("event")) else {
            assert_eq!(from, to, "{row}");
            continue;
        };
        let ours = next(direction, from as u32, chunks);
        if ours != to as u32 {
            wrong.push(format!("{direction:?} {from:?} {} -> {to:?}, ours {ours}", text("event")));
        }
        assert_eq!(is_active(to as u32), row["active"] == 1, "{row}");
        assert_eq!(is_active(to as u32), row["inactive"] == 0, "{row}");
        // States that only a sync message leads to keep its timeout while they last.
        let planted = text("tag").ends_with("+sync") && from == to && chunks.is_empty();
        let expires = row["expires"].as_u64().expect("a live connection expires");
        // What is left is rounded up now and then.
        let left = expires == u64::from(to.timeout()) || expires == u64::from(to.timeout()) + 1;
        assert!(planted || left, "{row}");
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(steps, 1910);
}

#[test]
fn what_the_kernel_opened_a_connection_for_opens_one() {
    let (mut opened, mut refused) = (0, 0);
    for row in rows() {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        if text("state") != "(no connection)" || text("direction") != "in" {
            continue;
        }
        let direction =
            if text("forward") == "-m" { Direction::Input } else { Direction::InputOnly };
        let sloppy = row["sysctl"]["sloppy_sctp"] == 1;
        let opens = chunks(text("event"))
            .filter(|chunks| !chunks.is_empty() && chunks.opens(sloppy))
            .map(|chunks| next(direction, State::None as u32, chunks));
        let expected = state(text("next")).map(|state| state as u32);
        assert_eq!(opens, expected, "{row}");
        *(if opens.is_some() { &mut opened } else { &mut refused }) += 1;
    }
    assert_eq!((opened, refused), (65, 100));
}
