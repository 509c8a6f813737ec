//! The TCP state tables against what a real kernel did (`tests/oracle/recorded/tcp_state.jsonl`).

use std::path::Path;

use rvs_core::proto::Direction;
use rvs_core::proto::tcp::{Event, State, is_active, next};
use serde_json::Value;

fn state(name: &str) -> Option<State> {
    State::ALL.into_iter().find(|state| state.name() == name)
}

fn flags(text: &str) -> u8 {
    let bit = |letter| match letter {
        'F' => 0x01,
        'S' => 0x02,
        'R' => 0x04,
        'A' => 0x10,
        other => panic!("flag {other}"),
    };
    text.chars().map(bit).sum()
}

#[test]
fn every_recorded_step_leads_where_the_kernel_went() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/recorded/tcp_state.jsonl");
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    let mut steps = 0;
    let mut wrong = Vec::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let secure = text("tag").starts_with("secure");
        let (Some(from), Some(to)) = (state(text("state")), state(text("next"))) else { continue };
        // A SYN that makes the kernel start over is a new connection, not a step of this one.
        let syn = text("flags").contains('S') && !text("flags").contains('R');
        let over = matches!(from, State::TimeWait | State::Close);
        if syn && over && text("direction") == "in" && row["sysctl"]["conn_reuse_mode"] != 0 {
            continue;
        }
        let direction = match (text("forward"), text("direction")) {
            ("-m", "in") => Direction::Input,
            ("-m", "out") => Direction::Output,
            (_, "in") => Direction::InputOnly,
            _ => continue,
        };
        steps += 1;
        let ours = next(secure, direction, from as u32, Event::of(flags(text("flags"))));
        if ours != to as u32 {
            wrong.push(format!(
                "{secure} {direction:?} {from:?} {} -> {to:?}, ours {ours}",
                text("flags")
            ));
        }
        assert_eq!(is_active(to as u32), row["active"] == 1, "{to:?} {row}");
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(steps > 1100, "only {steps} steps");
}
