//! A client of `IP_VS_SO_SET_*` and `IP_VS_SO_GET_*` whose every call was recorded with a kernel.

use std::process::Command;

use rvs_testkit::lab::workspace;
use serde_json::Value;

use crate::{Director, feed, need, recording, run, run_static, text};

/// What does not depend on the size of the connection table, which is the director's own, nor on the
/// order of services, which in the kernel is that of a hash table.
fn comparable(mut row: Value) -> Value {
    let call = row["call"].as_str().unwrap_or_default().to_owned();
    let Some(data) = row["data"].as_str().map(str::to_owned) else { return row };
    if call.starts_with("INFO") {
        // The second number.
        row["data"] = format!("{}{}", &data[..8], &data[16..]).into();
    } else if call.starts_with("VERSION") {
        let end = data.find("73697a653d").expect("size=");
        row["data"] = data[..end].into();
        row["length"].take();
    } else if call.starts_with("SERVICES") {
        let mut entries: Vec<&str> =
            data.as_bytes()[16..].chunks(208).map(|b| str::from_utf8(b).expect("hex")).collect();
        entries.sort_unstable();
        row["data"] = format!("{}{}", &data[..16], entries.concat()).into();
    }
    row
}

fn play(mut command: Command) {
    let script = workspace().join("tests/oracle/sockopt.py");
    let theirs = recording("tests/oracle/recorded/sockopt.jsonl").expect("it is in the repository");
    let output = feed(command.arg(script), "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    let ours: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(ours.len(), theirs.len());
    let pairs = ours.into_iter().map(comparable).zip(theirs.into_iter().map(comparable));
    let differ: Vec<String> = pairs
        .filter(|(ours, theirs)| ours != theirs)
        .map(|(ours, theirs)| format!("here  {ours}\nthere {theirs}"))
        .collect();
    // Which of three services two places show is a matter of their order.
    let differ: Vec<_> = differ.into_iter().filter(|d| !d.contains("SERVICES 2 entries")).collect();
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn every_recorded_call_gives_the_kernel_s_errno_and_bytes() {
    let python = need!("python3");
    let director = Director::start();
    play(run(&director, &python));
}

#[test]
fn every_supervised_call_gives_the_kernel_s_errno_and_bytes() {
    let python = need!("python3");
    let director = Director::start();
    play(run_static(&director, &python));
}
