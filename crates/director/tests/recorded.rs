//! What a kernel answered to single netlink messages (`tests/oracle/recorded/netlink.jsonl`,
//! asked by `tests/oracle/netlink.py`), and what the director answers: errno by errno, flag by
//! flag, byte by byte.

mod memory;

use memory::{Links, Memory};
use rvs_director::{Director, FAMILY_ID};
use rvs_netlink::errno::{EINVAL, EPROTONOSUPPORT};
use rvs_netlink::message::{DONE, ERROR, Messages};
use serde_json::Value;

const RECORDING: &str = include_str!("../../../tests/oracle/recorded/netlink.jsonl");

/// One message of an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    /// Errno, flags, length of the message.
    Ack(i32, u16, usize),
    /// Flags, what follows the netlink header.
    Data(u16, Vec<u8>),
    /// The end of a dump.
    Done,
}

/// Where the kernel succeeds and the director refuses on purpose: begin of the case's name, our
/// errno, and why.
const REFUSED: &[(&str, i32, &str)] = &[
    ("new service: protocol ", EPROTONOSUPPORT, "only TCP, UDP and SCTP can be balanced"),
    ("new dest: fwd_method ", EINVAL, "local and bypass are not to choose, 5 to 7 are nothing"),
];

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("hexadecimal digits");
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte");
    (0..hex.len()).step_by(2).map(byte).collect()
}

/// Replaces the kernel's number of the family by ours: message types and, in the controller's
/// messages, attribute 1.
fn renumber(datagram: &mut [u8], family: u16) {
    let mut at = 0;
    while let Some(head) = datagram.get(at..at + 16) {
        let len = u32::from_ne_bytes(head[..4].try_into().expect("four bytes")) as usize;
        let kind = u16::from_ne_bytes([head[4], head[5]]);
        if kind == family {
            datagram[at + 4..at + 6].copy_from_slice(&FAMILY_ID.to_ne_bytes());
        }
        let attribute = [6u16.to_ne_bytes(), 1u16.to_ne_bytes(), family.to_ne_bytes()].concat();
        let end = (at + len).min(datagram.len());
        if kind == 16 && len >= 20 {
            for place in (at + 20..end.saturating_sub(5)).step_by(4) {
                if datagram[place..place + 6] == attribute {
                    datagram[place + 4..place + 6].copy_from_slice(&FAMILY_ID.to_ne_bytes());
                }
            }
        }
        at += len.max(16).next_multiple_of(4);
    }
}

fn answers(datagrams: &[Vec<u8>]) -> Vec<Answer> {
    let mut answers: Vec<Answer> = datagrams
        .iter()
        .flat_map(|datagram| Messages(datagram))
        .map(|message| match message.kind {
            ERROR => {
                let errno = message.errno().expect("an errno");
                Answer::Ack(errno, message.flags, message.payload.len() + 16)
            }
            DONE => Answer::Done,
            _ => Answer::Data(message.flags, message.payload.to_vec()),
        })
        .collect();
    // A kernel dumps services by hash bucket.
    if answers.last() == Some(&Answer::Done) {
        answers.sort();
    }
    answers
}

/// The errno of an answer that is an acknowledgement, else 0.
fn errno_of(answers: &[Answer]) -> i32 {
    match answers {
        [Answer::Ack(errno, ..)] => *errno,
        _ => 0,
    }
}

#[test]
fn single_messages_are_answered_as_the_kernel_answered_them() {
    let mut director = Director::new(Memory::default()).with_daemons(Box::new(Links::new()));
    let (mut family, mut failures, mut compared) = (0, Vec::new(), 0);
    let mut unchanged = false;
    for line in RECORDING.lines() {
        let record: Value = serde_json::from_str(line).expect("a line of JSON");
        if let Some(number) = record["family"].as_u64() {
            family = u16::try_from(number).expect("a family");
            continue;
        }
        let case = record["case"].as_str().expect("a case");
        let mut request = bytes(&record["request"]);
        renumber(&mut request, family);
        let mut theirs: Vec<Vec<u8>> =
            record["replies"].as_array().expect("replies").iter().map(bytes).collect();
        for datagram in &mut theirs {
            renumber(datagram, family);
        }
        let replies = director.handle(&request);
        if case == "dump 300 services" {
            // In parts no longer than the kernel's.
            assert!(replies.len() > 2 && replies.iter().all(|part| part.len() <= 32 * 1024));
        }
        let (ours, theirs) = (answers(&replies), answers(&theirs));
        // The recorder did not wait for the end of a master's thread.
        if case == "(del master)" && theirs.is_empty() {
            continue;
        }
        // What looks at or undoes a change that was refused.
        if unchanged && (case.starts_with("dump") || case.starts_with("(del")) {
            continue;
        }
        unchanged = false;
        let refused = REFUSED.iter().find(|(begin, ..)| case.starts_with(begin));
        if let (Some((_, errno, _)), [Answer::Ack(answer, ..)]) = (refused, ours.as_slice())
            && answer == errno
            && *answer != errno_of(&theirs)
        {
            assert_eq!(errno_of(&theirs), 0, "{case}");
            unchanged = true;
            continue;
        }
        compared += 1;
        if ours != theirs {
            failures.push(format!("{case}\n  ours   {ours:02x?}\n  theirs {theirs:02x?}"));
        }
    }
    println!("{compared} answers");
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(compared > 600, "only {compared} answers");
}
