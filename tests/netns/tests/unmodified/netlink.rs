//! A client that uses generic netlink sockets in every way, as recorded with a kernel.

use std::process::Command;

use rvs_testkit::lab::workspace;
use serde_json::Value;

use crate::{Director, feed, need, recording, run, run_static, text};

/// What supervision does not do: `docs/unmodified-clients.md`.
const SUPERVISED: [(&str, &str); 3] = [
    ("credentials", "control data is not passed on"),
    ("packet information", "control data is not passed on"),
    ("a duplicate reads it", "a duplicate is not looked at: the sender's port is the socket's own"),
];

fn play(mut command: Command, different: &[(&str, &str)]) {
    let script = workspace().join("tests/oracle/genl.py");
    let theirs = recording("tests/oracle/recorded/genl.jsonl").expect("it is in the repository");
    let output = feed(command.arg(script), "");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let ours: Vec<Value> =
        stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let mut unused: Vec<&str> = different.iter().map(|(case, _)| *case).collect();
    let mut failures = Vec::new();
    for (ours, theirs) in ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs) {
        match unused.iter().position(|case| ours["case"] == *case) {
            Some(position) => drop(unused.remove(position)),
            None => failures.push(format!("here  {ours}\nthere {theirs}")),
        }
    }
    assert!(failures.is_empty(), "{}\n{stderr}", failures.join("\n"));
    assert_eq!((ours.len(), output.status.code()), (theirs.len(), Some(0)), "{stderr}");
    assert!(unused.is_empty(), "nothing differs any more in {unused:?}: remove these entries");
}

#[test]
fn a_socket_behaves_as_with_the_kernel_s_family() {
    let python = need!("python3");
    let director = Director::start();
    play(run(&director, &python), &[]);
}

#[test]
fn a_supervised_socket_behaves_as_with_the_kernel_s_family() {
    let python = need!("python3");
    let director = Director::start();
    play(run_static(&director, &python), &SUPERVISED);
}
