//! ipvsadm 1.31 itself, on the sequence of command lines that was recorded with a kernel.

use std::process::Command;

use serde_json::Value;

use crate::{Director, feed, need, recording, run, run_static, text};

/// What differs because the director lacks a feature, or lists differently: command lines, or lines of
/// whole groups. An entry without a line that differs fails the test: its time is over.
const DIFFERENT: &[(&str, &str)] =
    &[("-Ln --nosort", "the kernel lists services by hash bucket, the director by age")];

#[test]
fn the_recorded_command_lines_print_what_they_printed_on_a_kernel() {
    need!("/usr/sbin/ipvsadm");
    replay(run);
}

#[test]
fn the_same_holds_under_supervision() {
    need!("/usr/sbin/ipvsadm");
    replay(run_static);
}

fn replay(run: fn(&Director, &str) -> Command) {
    let Some(rows) = recording("../shared/golden/ipvsadm.jsonl") else {
        rvs_testkit::skip!("../shared/golden/ipvsadm.jsonl is not there");
    };
    let director = Director::start();
    let (mut equal, mut failures, mut group) = (0, Vec::new(), "");
    let mut unused: Vec<&str> = DIFFERENT.iter().map(|(word, _)| *word).collect();
    for row in &rows {
        let name = row["group"].as_str().expect("a group");
        if name != group {
            let cleared = feed(run(&director, "/usr/sbin/ipvsadm").arg("-C"), "");
            assert!(cleared.status.success(), "{}", text(&cleared.stderr));
            group = name;
        }
        let words = row["argv"].as_array().expect("words").iter();
        let argv: Vec<&str> = words.filter_map(Value::as_str).collect();
        let line = argv.join(" ");
        // By its bare name, as it was recorded: help texts show how a program was called.
        let tool = row["tool"].as_str().expect("a tool");
        let stdin = row["stdin"].as_str().unwrap_or_default();
        let output = feed(run(&director, tool).args(&argv), stdin);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        let ours = (output.status.code().map(i64::from), stdout.as_str(), stderr.as_str());
        // A help text was not recorded.
        let theirs = (
            row["rc"].as_i64(),
            row["stdout"].as_str().unwrap_or(&stdout),
            row["stderr"].as_str().unwrap_or(&stderr),
        );
        let is_this = |word: &str| word == line || word.strip_prefix("group:") == Some(group);
        if ours == theirs {
            equal += 1;
        } else if DIFFERENT.iter().any(|(word, _)| is_this(word)) {
            unused.retain(|word| !is_this(word));
        } else {
            failures.push(format!("{group}: {tool} {line}\n  here {ours:?}\n  there {theirs:?}"));
        }
    }
    println!("{equal} of {} command lines are equal", rows.len());
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(unused.is_empty(), "nothing differs any more in {unused:?}: remove these entries");
    assert!(equal > 300, "only {equal} command lines are equal");
}
