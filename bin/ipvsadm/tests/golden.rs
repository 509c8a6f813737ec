//! The real program's recorded command lines, replayed in order: `../shared/golden/ipvsadm.jsonl`
//! and, with more of them, `tests/oracle/recorded/cmdline.jsonl`. Our binaries talk to our director
//! over a socket; only the data path is a table in memory.

mod lab;

use std::path::Path;

use lab::{Lab, Memory};
use rvs_core::types::Scheduler;
use serde_json::Value;

/// Command lines that differ on purpose: group, command line, and why.
/// `docs/ipvsadm-differences.md` says the same to users; differences that follow a rule are in
/// [`is_as_meant`].
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("fwmark", "-a -f 3 -6 -r [fd00::1] -m", "1.31 takes no bracketed server without a port"),
    ("fwmark", "-Ln", "there it is, in our listing"),
    ("fwmark", "-Sn", "there it is, in our rules"),
    ("dests-more", "-a -t 10.9.1.1:80 -r [fd01::1] -i", "1.31 takes no such server"),
    ("listing-combos", "-Ln --nosort", "the kernel lists services by hash bucket, ours by age"),
];

/// Schedulers of 1.31's kernel.
const SCHEDULERS: [&str; 14] =
    ["rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh", "none"];

fn is_missing(scheduler: &str) -> bool {
    SCHEDULERS.contains(&scheduler) && Scheduler::from_name(scheduler).is_none()
}

/// What of a listing or of saved rules is left without the services whose schedulers are missing.
fn without_missing(text: &str) -> String {
    let mut left = String::new();
    let mut dropped = false;
    for line in text.split_inclusive('\n') {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if ["TCP", "UDP", "SCTP", "FWM", "-A"].contains(&first) {
            dropped = words.any(is_missing);
        }
        if !dropped {
            left += line;
        }
    }
    left
}

/// Whether a command, or a line of the rules that it restores, names a missing scheduler.
fn names_missing(argv: &[&str], stdin: &str) -> bool {
    let words = argv.iter().copied().chain(stdin.split_whitespace());
    words
        .clone()
        .zip(words.skip(1))
        .any(|(flag, name)| (flag == "-s" || flag == "--scheduler") && is_missing(name))
}

/// Saved rules as 1.31 would have saved them: it forgets thresholds, and shows marks as signed.
fn forgetful(text: &str) -> String {
    let mut left = String::new();
    for line in text.lines() {
        let mut words = line.split(' ').peekable();
        let mut kept = Vec::new();
        while let Some(word) = words.next() {
            match word {
                "-x" | "-y" => drop(words.next()),
                "-f" => {
                    let mark: u32 = words.next().and_then(|m| m.parse().ok()).expect("a mark");
                    kept.extend(["-f".to_owned(), mark.cast_signed().to_string()]);
                }
                _ => kept.push(word.to_owned()),
            }
        }
        left += &kept.join(" ");
        left.push('\n');
    }
    left
}

fn program(tool: &str) -> &'static str {
    match tool {
        "ipvsadm-save" => env!("CARGO_BIN_EXE_ipvsadm-save"),
        "ipvsadm-restore" => env!("CARGO_BIN_EXE_ipvsadm-restore"),
        _ => env!("CARGO_BIN_EXE_ipvsadm"),
    }
}

/// Whether what differs follows a rule of what differs on purpose.
fn is_as_meant(group: &str, theirs: (i64, &str), ours: &(i32, String, String)) -> bool {
    let (code, stdout, stderr) = ours;
    let version = "ipvsadm v1.31";
    // There is no sync daemon yet: none starts, none is listed, none stops.
    if group.starts_with("daemon") && theirs.0 == 0 && stdout.is_empty() {
        let said = ["there is no", "No daemon is running"].iter().any(|text| stderr.contains(text));
        return *code == 0 || *code == 255 && said;
    }
    // 1.31 ends a restore with the status of its last line, whatever became of the others.
    let refused = stderr.ends_with("refused\n") && stderr.starts_with("line ");
    if refused && *code == 255 && theirs == (0, stdout) {
        return true;
    }
    // The version is ours.
    theirs.0 == i64::from(*code) && theirs.1.starts_with(version) && stdout.starts_with(version)
}

/// Replays a recording; how many command lines were compared.
fn replay(name: &str, recording: &str) -> usize {
    let lab = Lab::new(name, Memory::default());
    let (mut played, mut failures, mut group) = (0, Vec::new(), String::new());
    for line in recording.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let name = row["group"].as_str().expect("a group");
        if name != group {
            lab.ipvsadm(&["-C"], None);
            group = name.to_owned();
        }
        let argv: Vec<&str> =
            row["argv"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
        let (tool, stdin) = (row["tool"].as_str().expect("a tool"), row["stdin"].as_str());
        let (code, stdout, stderr) = lab.run(program(tool), &argv, stdin);
        let line = argv.join(" ");
        let different = DIFFERENT.iter().any(|(g, l, _)| *g == group && *l == line);
        if different || names_missing(&argv, stdin.unwrap_or_default()) {
            continue;
        }
        played += 1;
        // A help text was not recorded.
        let theirs = without_missing(row["stdout"].as_str().unwrap_or(&stdout));
        let theirs = (row["rc"].as_i64().expect("an exit code"), theirs.as_str());
        let saves = tool == "ipvsadm-save" || argv.first().is_some_and(|a| a.starts_with("-S"));
        let ours = (code, if saves { forgetful(&stdout) } else { stdout }, stderr);
        if (i64::from(ours.0), ours.1.as_str()) != theirs && !is_as_meant(&group, theirs, &ours) {
            let stdin = stdin.unwrap_or_default();
            failures.push(format!(
                "{group}: {tool} {line} <<< {stdin:?}\n  ours: {ours:?}\n  theirs: {theirs:?}"
            ));
        }
    }
    println!("{played} command lines");
    assert!(failures.is_empty(), "{} of {played} differ:\n{}", failures.len(), failures.join("\n"));
    played
}

#[test]
fn golden_command_lines_print_what_ipvsadm_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Ok(text) = std::fs::read_to_string(root.join("../shared/golden/ipvsadm.jsonl")) else {
        assert!(std::env::var_os("CI").is_none(), "../shared/golden is missing");
        println!("SKIPPED: ../shared/golden/ipvsadm.jsonl is not there");
        return;
    };
    let played = replay("golden", &text);
    assert!(played > 300, "only {played} command lines");
}

#[test]
fn more_command_lines_print_what_ipvsadm_printed() {
    let played = replay("cmdline", include_str!("../../../tests/oracle/recorded/cmdline.jsonl"));
    assert!(played > 250, "only {played} command lines");
}
