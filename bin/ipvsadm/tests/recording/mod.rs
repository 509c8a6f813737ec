//! Recorded command lines of the real program, and how ours compares: `../shared/golden/ipvsadm.jsonl`
//! and, with more of them, `tests/oracle/recorded/cmdline.jsonl`.

use std::path::PathBuf;

use rvs_core::types::Scheduler;
use serde_json::Value;

/// How a program ended: exit code, stdout, stderr.
pub type Ended = (i32, String, String);

/// A command line and what came of it.
#[derive(Clone, Debug)]
pub struct Row {
    /// Groups begin with an empty table.
    pub group: String,
    /// `ipvsadm`, `ipvsadm-save` or `ipvsadm-restore`.
    pub tool: String,
    /// Arguments.
    pub argv: Vec<String>,
    /// Standard input.
    pub stdin: String,
    /// Exit code.
    pub code: i64,
    /// Standard output; a help text was not recorded.
    pub stdout: Option<String>,
    /// Standard error.
    pub stderr: String,
}

/// The rows of a recording.
pub fn rows(recording: &str) -> Vec<Row> {
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        Row {
            group: text("group").expect("a group"),
            tool: text("tool").expect("a tool"),
            argv: serde_json::from_value(row["argv"].clone()).expect("words"),
            stdin: text("stdin").unwrap_or_default(),
            code: row["rc"].as_i64().expect("an exit code"),
            stdout: text("stdout"),
            stderr: text("stderr").unwrap_or_default(),
        }
    };
    recording.lines().map(row).collect()
}

/// The golden recording, if it is there; it is demanded in CI.
pub fn golden() -> Option<PathBuf> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/golden/ipvsadm.jsonl");
    let path = PathBuf::from(root);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "../shared/golden is missing");
    println!("SKIPPED: ../shared/golden/ipvsadm.jsonl is not there");
    None
}

/// The other recording.
pub const CMDLINE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/oracle/recorded/cmdline.jsonl");

/// Whose table is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Our director's.
    Director,
    /// A kernel's.
    Kernel,
}

const BOTH: &[Who] = &[Who::Director, Who::Kernel];

/// Command lines that differ on purpose: group, command line, before whom, and
/// why.
/// `docs/ipvsadm-differences.md` says the same to users; differences that follow a rule are in
/// [`is_as_meant`].
const DIFFERENT: &[(&str, &str, &[Who], &str)] = &[
    ("fwmark", "-a -f 3 -6 -r [fd00::1] -m", BOTH, "1.31 takes no bracketed server without a port"),
    ("fwmark", "-Ln", BOTH, "there it is, in our listing"),
    ("fwmark", "-Sn", BOTH, "there it is, in our rules"),
    ("dests-more", "-a -t 10.9.1.1:80 -r [fd01::1] -i", BOTH, "1.31 takes no such server"),
    // The hash has the address of the network namespace in it: another order after each boot.
    ("listing-combos", "-Ln --nosort", BOTH, "the kernel lists by hash, ours by age"),
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
fn names_missing(row: &Row) -> bool {
    let words = row.argv.iter().map(String::as_str).chain(row.stdin.split_whitespace());
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

/// What differs between a recorded command line and ours, if it is not to differ; `None` inside if
/// it cannot be compared.
pub fn compare(row: &Row, ours: &Ended, who: Who) -> Option<Result<(), String>> {
    let line = row.argv.join(" ");
    let differs = |(group, words, by, _): &(&str, &str, &[Who], &str)| {
        *group == row.group && *words == line && by.contains(&who)
    };
    if DIFFERENT.iter().any(differs) || who == Who::Director && names_missing(row) {
        return None;
    }
    let theirs = row.stdout.as_ref().unwrap_or(&ours.1);
    let theirs = match who {
        Who::Director => without_missing(theirs),
        Who::Kernel => theirs.clone(),
    };
    let theirs = (row.code, theirs.as_str());
    let saves = row.tool == "ipvsadm-save" || row.argv.first().is_some_and(|a| a.starts_with("-S"));
    let stdout = if saves { forgetful(&ours.1) } else { ours.1.clone() };
    let ours = (ours.0, stdout, ours.2.clone());
    if (i64::from(ours.0), ours.1.as_str()) == theirs || is_as_meant(theirs, &ours) {
        return Some(Ok(()));
    }
    Some(Err(format!(
        "{}: {} {line} <<< {:?}\n  ours: {ours:?}\n  theirs: {theirs:?} {:?}",
        row.group, row.tool, row.stdin, row.stderr
    )))
}

/// Whether what differs follows a rule of what differs on purpose.
fn is_as_meant(theirs: (i64, &str), ours: &Ended) -> bool {
    let (code, stdout, stderr) = ours;
    let version = "ipvsadm v1.31";
    // 1.31 ends a restore with the status of its last line, whatever became of the others.
    let refused = stderr.ends_with("refused\n") && stderr.starts_with("line ");
    if refused && *code == 255 && theirs == (0, stdout) {
        return true;
    }
    // The version is ours.
    theirs.0 == i64::from(*code) && theirs.1.starts_with(version) && stdout.starts_with(version)
}
