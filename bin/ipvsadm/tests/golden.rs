//! The real program's recorded command lines, replayed in order. Our binaries talk to our director
//! over a socket; only the data path is a table in memory.

mod lab;
mod recording;

use std::path::Path;

use lab::{Lab, Memory};
use recording::{CMDLINE, Who, compare, golden, rows};

fn program(tool: &str) -> &'static str {
    match tool {
        "ipvsadm-save" => env!("CARGO_BIN_EXE_ipvsadm-save"),
        "ipvsadm-restore" => env!("CARGO_BIN_EXE_ipvsadm-restore"),
        _ => env!("CARGO_BIN_EXE_ipvsadm"),
    }
}

/// Replays a recording; how many command lines were compared.
fn replay(path: &Path, name: &str) -> usize {
    let lab = Lab::new(name, Memory::default());
    let (mut played, mut failures, mut group) = (0, Vec::new(), String::new());
    let recording = std::fs::read_to_string(path).expect("a recording");
    for row in rows(&recording) {
        if row.group != group {
            lab.ipvsadm(&["-C"], None);
            group.clone_from(&row.group);
        }
        let argv: Vec<&str> = row.argv.iter().map(String::as_str).collect();
        let ours = lab.run(program(&row.tool), &argv, Some(&row.stdin));
        if let Some(result) = compare(&row, &ours, Who::Director) {
            played += 1;
            failures.extend(result.err());
        }
    }
    println!("{played} command lines");
    assert!(failures.is_empty(), "{} of {played} differ:\n{}", failures.len(), failures.join("\n"));
    played
}

#[test]
fn golden_command_lines_print_what_ipvsadm_printed() {
    let Some(path) = golden() else { return };
    let played = replay(&path, "golden");
    assert!(played > 300, "only {played} command lines");
}

#[test]
fn more_command_lines_print_what_ipvsadm_printed() {
    let played = replay(Path::new(CMDLINE), "cmdline");
    assert!(played > 250, "only {played} command lines");
}
