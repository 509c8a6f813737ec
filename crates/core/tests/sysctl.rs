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
                Kind::Fixed(value, _) => (*value).to_owned(),
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
        let modes = [Sysctl::DropPacket, Sysctl::SecureTcp];
        let expected = match (modes.contains(sysctl), written.trim(), row["errno"].as_str()) {
            (true, "2", None) => Ok(Some((*sysctl, 2))),
            (.., None) => Ok(Some((*sysctl, after.parse().expect("a number")))),
            (.., Some("EINVAL")) => {
                let bounds = sysctl.bounds();
                Err(SysctlError::Invalid(name, *bounds.start(), *bounds.end()))
            }
            (.., Some(errno)) => panic!("{errno}"),
        };
        assert_eq!(ours, expected, "{name} {written:?}");
        writes += 1;
    }
    assert_eq!((defaults, writes), (28, 45 * Sysctl::ALL.len()));
}
