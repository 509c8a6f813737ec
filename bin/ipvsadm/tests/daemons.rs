//! Sync daemons: command lines that a kernel was given, with interfaces of all kinds, and what it
//! said (`tests/oracle/recorded/sync_control.jsonl`).

mod lab;

use std::path::Path;

use lab::{Lab, Links, Memory};
use rvs_director::Director;
use serde_json::Value;

#[test]
fn daemons_start_and_stop_as_on_a_kernel() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/oracle/recorded/sync_control.jsonl");
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    let links = Links::new();
    for name in ["dc", "dr", "d0", "d1"] {
        let mut links = links.0.lock().expect("no panic while locked");
        links.push((name.into(), 1500, true));
    }
    let director = Director::new(Memory::default()).with_daemons(Box::new(links.clone()));
    let lab = Lab::start("daemons", director, |_| {});
    let mut compared = 0;
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let command = row["command"].as_str().expect("a text");
        let said = row["stdout"].as_str().expect("a text");
        if let Some(mtu) = said.strip_prefix("mtu ").map(|mtu| mtu.trim().parse()) {
            let mut links = links.0.lock().expect("no panic while locked");
            links[1].1 = mtu.expect("a number");
        } else if command.contains("grep -c UP") {
            let mut links = links.0.lock().expect("no panic while locked");
            links[3].2 = false;
        }
        if !command.starts_with("ipvsadm") {
            continue;
        }
        let mut ours = (0, String::new(), String::new());
        for part in command.split("; ") {
            let words: Vec<&str> = part.split_whitespace().skip(1).collect();
            let (code, stdout, stderr) = lab.ipvsadm(&words, None);
            ours = (code, ours.1 + &stdout, ours.2 + &stderr);
        }
        assert_eq!(Some(i64::from(ours.0)), row["rc"].as_i64(), "{command}: {ours:?}");
        assert_eq!(ours.1, said, "{command}");
        // Both stopped: the interface that was down comes up.
        if command.contains("; ipvsadm --stop-daemon backup") {
            links.0.lock().expect("no panic while locked")[3].2 = true;
        }
        compared += 1;
    }
    assert!(compared > 120, "{compared}");
}
