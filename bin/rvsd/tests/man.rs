//! The manual page says what the program takes.

use std::collections::BTreeSet;
use std::process::Command;

/// Where the program reads its arguments.
const PARSER: &str = include_str!("../src/args.rs");
const PAGE: &str = include_str!("../../../docs/man/rvsd.8");

/// The flags that the parser matches: `Long("mode")`, `Short('h')`.
fn taken() -> BTreeSet<String> {
    let quoted = |prefix: &str, dashes: &str| -> Vec<String> {
        let after = PARSER.split(prefix).skip(1);
        after
            .filter_map(|rest| Some(format!("{dashes}{}", rest.split(['"', '\'']).next()?)))
            .collect()
    };
    quoted("Long(\"", "--").into_iter().chain(quoted("Short('", "-")).collect()
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
fn the_page_has_the_flags_that_the_program_takes_and_no_others() {
    let taken = taken();
    assert!(taken.len() >= 12, "{taken:?}");
    assert_eq!(flags(&PAGE.replace("\\-", "-")), taken);
}

#[test]
fn the_help_has_them() {
    let output = Command::new(env!("CARGO_BIN_EXE_rvsd")).arg("--help").output().expect("it runs");
    assert!(output.status.success());
    assert_eq!(flags(&String::from_utf8_lossy(&output.stdout)), taken());
}

#[test]
fn the_page_has_the_defaults_of_the_help() {
    let help = PARSER.lines().filter(|line| line.starts_with("  --"));
    let defaults: Vec<&str> =
        help.filter_map(|line| line.rsplit_once('[')?.1.strip_suffix(']')).collect();
    assert_eq!(defaults.len(), 6, "{defaults:?}");
    for default in defaults {
        assert!(PAGE.contains(default), "{default}");
    }
}

/// The example of rvsd.conf(5) is a valid file, and the page names every timeout.
#[test]
fn the_page_of_the_file_says_what_is_taken() {
    let page = include_str!("../../../docs/man/rvsd.conf.5").replace("\\-", "-");
    for (name, _) in rvs_core::timeout::TIMEOUTS {
        assert!(page.contains(name), "{name}");
    }
    let example = page.split(".EX\n").nth(1).and_then(|rest| rest.split(".EE").next());
    let file: toml::Table = example.expect("an example").parse().expect("it is TOML");
    for (name, value) in file["sysctl"].as_table().expect("a table") {
        let number = value.as_integer().map(|number| number.to_string());
        let text = number.or(value.as_str().map(str::to_owned)).expect("a number or a text");
        assert_eq!(rvs_director::check_setting(name, &text), Ok(()), "{name}");
    }
}
