//! Settings against a real kernel's: defaults, and what writing any text to them does
//! (`tests/oracle/recorded/sysctl.jsonl`).

use std::path::Path;

use rvs_core::sysctl::{Kind, SETTINGS, Sysctl, SysctlError};
use serde_json::Value;

#[test]
fn defaults_and_writes_are_the_kernel_s() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/recorded/sysctl.jsonl");
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    let (mut defaults, mut writes) = (0, 0);
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let Some(name) = row["name"].as_str().filter(|name| *name != "sync_qlen_max") else {
            continue;
        };
        let found = SETTINGS.iter().find(|(known, _)| *known == name);
        let (name, kind) = found.unwrap_or_else(|| panic!("no setting {name}"));
        if let Some(default) = row["default"].as_str() {
            let ours = match kind {
                Kind::Changes(sysctl) => sysctl.default().to_string(),
                Kind::Second(first, sysctl, _) => format!("{first}\t{}", sysctl.default()),
            };
            assert_eq!(format!("{ours}\n"), default, "{name}");
            defaults += 1;
            continue;
        }
        let written = row["write"].as_str().expect("a text");
        let after = row["after"].as_str().expect("a text").trim();
        // A write of nothing does not get to the kernel's parser.
        let (Kind::Changes(sysctl), false) = (kind, written.is_empty()) else { continue };
        let ours = kind.parse(name, written);
        // "Memory is short" lasted no moment.
        let modes = [Sysctl::DropEntry, Sysctl::DropPacket, Sysctl::SecureTcp];
        let expected = match (modes.contains(sysctl), written.trim(), row["errno"].as_str()) {
            (true, "2", None) => Ok((*sysctl, 2)),
            (.., None) => Ok((*sysctl, after.parse().expect("a number"))),
            (.., Some("EINVAL")) => {
                let bounds = sysctl.bounds();
                Err(SysctlError::Invalid(name, *bounds.start(), *bounds.end()))
            }
            (.., Some(errno)) => panic!("{errno}"),
        };
        assert_eq!(ours, expected, "{name} {written:?}");
        writes += 1;
    }
    assert_eq!((defaults, writes), (28, 45 * (Sysctl::ALL.len() - 1)));
}

/// The one setting of two numbers, and numbers for those of synchronisation
/// (`tests/oracle/recorded/sync_control.jsonl`).
#[test]
fn what_is_written_to_settings_of_synchronisation_is_judged_as_by_the_kernel() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/oracle/recorded/sync_control.jsonl");
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    let rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let mut writes = 0;
    for pair in rows.windows(2) {
        let command = pair[0]["command"].as_str().expect("a text");
        let Some((value, name)) = command
            .strip_prefix("echo \"")
            .and_then(|rest| rest.split_once("\" >/proc/sys/net/ipv4/vs/"))
            .filter(|(_, name)| *name != "sync_qlen_max")
        else {
            continue;
        };
        let (name, kind) =
            SETTINGS.iter().find(|(known, _)| *known == name).expect("a setting of ours");
        let after = pair[1]["stdout"].as_str().expect("a text").trim();
        let ours = kind.parse(name, value);
        match (pair[0]["rc"] == 0, kind) {
            (true, Kind::Second(3, sysctl, _)) if after.starts_with("3\t") => {
                let second = after.split('\t').nth(1).expect("two numbers");
                assert_eq!(ours, Ok((*sysctl, second.parse().expect("a number"))), "{value}");
            }
            (true, Kind::Second(_, _, why)) => {
                assert_eq!(ours, Err(SysctlError::Fixed(name, why)), "{value}");
            }
            (true, Kind::Changes(sysctl)) => {
                let expected = after.parse().expect("a number");
                assert_eq!(ours, Ok((*sysctl, expected)), "{name} {value}");
            }
            (false, _) => {
                assert!(matches!(ours, Err(SysctlError::Invalid(..))), "{name} {value}: {ours:?}");
            }
        }
        writes += 1;
    }
    assert_eq!(writes, 47);
}
