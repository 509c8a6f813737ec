//! The manual page says what the program takes.

use std::collections::BTreeSet;
use std::process::Command;

/// Where the program reads its arguments.
const PARSER: &str = include_str!("../src/main.rs");
/// Where rules of `rvs mark` are read.
const RULES: &str = include_str!("../../../crates/core/src/mark.rs");
const PAGE: &str = include_str!("../../../docs/man/rvs.8");

/// What is between a prefix and a quotation mark in the parser.
fn quoted(prefix: &str, dashes: &str) -> Vec<String> {
    let after = PARSER.split(prefix).skip(1);
    after.filter_map(|rest| Some(format!("{dashes}{}", rest.split(['"', '\'']).next()?))).collect()
}

/// The flags that the parser matches: `Long("pin")`, `Short('h')`.
fn taken() -> BTreeSet<String> {
    let rules = RULES.split("\"--").skip(1).filter_map(|rest| rest.split_once('"'));
    let is_name = |name: &&str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase());
    let rules = rules.map(|(name, _)| name).filter(is_name).filter(|name| *name != "sport");
    let rules = rules.map(|name| format!("--{name}"));
    let taken = quoted("Long(\"", "--").into_iter().chain(quoted("Short('", "-"));
    taken.chain(rules).collect()
}

/// The words of a text that are flags.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let is_flag = |word: &&str| {
        let name = word.trim_start_matches('-');
        let dashes = word.len() - name.len();
        (dashes == 2 && name.len() > 1) || (dashes == 1 && name.len() == 1)
    };
    words.filter(is_flag).map(str::to_owned).collect()
}

#[test]
fn page_and_help_have_the_flags_that_the_program_takes_and_no_others() {
    let taken = taken();
    assert!(taken.len() >= 5, "{taken:?}");
    assert_eq!(flags(&PAGE.replace("\\-", "-")), taken);
    let output = Command::new(env!("CARGO_BIN_EXE_rvs")).arg("--help").output().expect("it runs");
    assert!(output.status.success());
    assert_eq!(flags(&String::from_utf8_lossy(&output.stdout)), taken);
}

#[test]
fn the_page_has_every_command() {
    let commands: BTreeSet<String> = quoted("Some(\"", "").into_iter().collect();
    assert!(commands.len() >= 2, "{commands:?}");
    for command in commands {
        assert!(PAGE.contains(&format!("\n.TP\n.B {command}\n")), "{command}");
        assert!(PAGE.contains(&format!("\n.B rvs {command}\n")), "{command}");
    }
}
