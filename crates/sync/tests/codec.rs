//! The codec: what it writes it reads, what the kernel sent it reads and writes again byte for byte,
//! and no bytes harm it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use proptest::prelude::*;
use rvs_sync::{Batch, Delta, Engine, Entry, Message, Version, flags};
use serde_json::Value;

fn recorded(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/recorded").join(name);
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().expect("a text");
    let digits = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
    (0..hex.len()).step_by(2).map(digits).collect()
}

#[test]
fn messages_of_the_kernel_are_read_and_written_again_byte_for_byte() {
    let (mut messages, mut entries) = ([0, 0], 0);
    for row in recorded("sync_sent.jsonl").into_iter().chain(recorded("sync_pe_sent.jsonl")) {
        for sent in row["messages"].as_array().expect("messages") {
            let data = bytes(&sent["data"]);
            let message = Message::parse(&data).expect("a message");
            let max = u16::try_from(data.len()).expect("a datagram");
            let mut batch = Batch::new(message.version, message.sync_id, max);
            for entry in message.entries() {
                let entry = entry.expect("an entry");
                assert_eq!(batch.push(&entry), None, "{}", row["case"]);
                entries += 1;
            }
            assert_eq!(batch.finish().as_ref(), Some(&data), "{}", row["case"]);
            messages[usize::from(message.version == Version::V1)] += 1;
        }
    }
    assert_eq!((messages, entries), ([24, 37], 255));
}

#[test]
fn what_the_kernel_sent_says_what_happened() {
    let rows = recorded("sync_sent.jsonl");
    let row = |case: &str| {
        let found = rows.iter().find(|row| row["case"] == case);
        bytes(&found.expect("a case")["messages"][0]["data"])
    };
    let data = row("version 1: nat: six more");
    let message = Message::parse(&data).expect("a message");
    let entry = message.entries().next().expect("one").expect("an entry");
    assert_eq!((message.version, message.sync_id, message.count), (Version::V1, 21, 1));
    assert_eq!((entry.protocol, entry.flags, entry.state), (6, 0, 1));
    assert_eq!((entry.mark, entry.timeout, entry.engine), (0, 900, None));
    let ends = [entry.client, entry.service, entry.dest].map(|end| end.to_string());
    assert_eq!(ends, ["10.0.0.2:40001", "10.9.1.1:80", "10.1.0.11:80"]);
}

fn end(v6: bool) -> impl Strategy<Value = SocketAddr> {
    let ip = if v6 {
        any::<[u8; 16]>().prop_map(IpAddr::from).boxed()
    } else {
        any::<[u8; 4]>().prop_map(IpAddr::from).boxed()
    };
    (ip, any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

type Options = (Option<[Delta; 2]>, Option<(Vec<u8>, Vec<u8>)>);

fn delta() -> impl Strategy<Value = Delta> {
    any::<[u32; 3]>().prop_map(|[from, by, before]| Delta { from, by, before })
}

/// An entry of version 1; its engine apart, because the entry borrows it.
fn entry() -> impl Strategy<Value = (Entry<'static>, Options)> {
    let engine = (
        proptest::collection::vec(any::<u8>(), 1..=rvs_sync::ENGINE_NAME),
        proptest::collection::vec(any::<u8>(), 1..=rvs_sync::ENGINE_DATA),
    );
    let numbers = (any::<(u8, u32, u16)>(), any::<(u32, u32)>());
    any::<bool>().prop_flat_map(move |v6| {
        let ends = (end(v6), end(v6), end(v6));
        let options =
            (proptest::option::of([delta(), delta()]), proptest::option::of(engine.clone()));
        (numbers, ends, options).prop_map(|(numbers, (client, service, dest), options)| {
            let ((protocol, flags, state), (mark, timeout)) = numbers;
            let flags = flags & !flags::HASHED;
            let (deltas, engine) = (options.0, None);
            let entry = Entry {
                protocol,
                flags,
                state,
                mark,
                timeout,
                client,
                service,
                dest,
                deltas,
                engine,
            };
            (entry, options)
        })
    })
}

/// The messages that entries fill.
fn write(version: Version, max: u16, entries: &[(Entry<'static>, Options)]) -> Vec<Vec<u8>> {
    let mut batch = Batch::new(version, 7, max);
    let mut messages = Vec::new();
    for (entry, options) in entries {
        let engine = options.1.as_ref().map(|(name, data)| Engine { name, data });
        messages.extend(batch.push(&Entry { engine, ..*entry }));
    }
    messages.extend(batch.finish());
    messages
}

proptest! {
    #[test]
    fn entries_are_read_as_they_were_written(
        entries in proptest::collection::vec(entry(), 0..40),
        max in 1u16..3000,
    ) {
        let messages = write(Version::V1, max, &entries);
        let mut expected = entries.iter();
        for message in &messages {
            let parsed = Message::parse(message).expect("our message");
            prop_assert!(message.len() <= max.into() || parsed.count == 1);
            for entry in parsed.entries() {
                let entry = entry.expect("our entry");
                let (wanted, options) = expected.next().expect("as many as written");
                let engine = options.1.as_ref().map(|(name, data)| Engine { name, data });
                prop_assert_eq!(entry, Entry { engine, ..*wanted });
            }
        }
        prop_assert!(expected.next().is_none());
    }

    #[test]
    fn version_0_leaves_out_what_it_cannot_say(
        entries in proptest::collection::vec(entry(), 0..40),
        max in 1u16..3000,
    ) {
        let messages = write(Version::V0, max, &entries);
        let mut expected = entries.iter().filter(|(entry, _)| entry.client.is_ipv4());
        for message in &messages {
            let parsed = Message::parse(message).expect("our message");
            for entry in parsed.entries() {
                let entry = entry.expect("our entry");
                let (wanted, _) = expected.next().expect("as many as written");
                let flags = wanted.flags & 0xffff;
                let has = flags & (flags::IN_SEQ | flags::OUT_SEQ) != 0;
                let deltas = has.then(|| wanted.deltas.unwrap_or_default());
                let wanted =
                    Entry { flags, deltas, engine: None, mark: 0, timeout: 0, ..*wanted };
                prop_assert_eq!(entry, wanted);
            }
        }
        prop_assert!(expected.next().is_none());
    }

    #[test]
    fn no_bytes_harm(mut datagram in proptest::collection::vec(any::<u8>(), 0..600), v1: bool) {
        if let Ok(len) = u16::try_from(datagram.len())
            && datagram.len() > 8
        {
            datagram[2..4].copy_from_slice(&len.to_be_bytes());
            if v1 {
                datagram[0] = 0;
                datagram[5..8].copy_from_slice(&[1, 0, 0]);
            }
        }
        if let Ok(message) = Message::parse(&datagram) {
            prop_assert!(message.entries().count() <= message.count.into());
        }
    }
}
