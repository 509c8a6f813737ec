//! The floor: on Linux 6.1, in the oracle VM, the programs load, attach (there by clsact) and
//! forward, with the privileges that a running rvsd keeps.

use std::path::{Path, PathBuf};
use std::process::Command;

use rvs_testkit::lab::binary;

/// What runs in the VM: a client, two servers, rvsd in between.
const SCRIPT: &str = include_str!("linux61.sh");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The VM's starter, if it was set up.
fn oracle() -> Option<PathBuf> {
    let path = std::env::var_os("RVS_ORACLE")
        .map_or_else(|| root().join("../shared/oracle"), PathBuf::from)
        .join("ipvs-oracle");
    path.exists().then_some(path)
}

#[test]
fn the_data_path_forwards_on_linux_6_1() {
    let Some(oracle) = oracle() else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    let script = std::env::temp_dir().join(format!("rvs-linux61-{}.sh", std::process::id()));
    std::fs::write(&script, SCRIPT).expect("a temporary file");
    let output = Command::new(oracle)
        .arg(&script)
        .args(["rvsd", "ipvsadm", "rvs"].map(|name| binary(name).expect("it was built")))
        .output()
        .expect("the VM starts");
    let _ = std::fs::remove_file(&script);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains("answers: rs1 rs2 rs1 rs2"), "{stdout}\n{stderr}");
    assert!(stdout.contains("Linux 6.1"), "{stdout}");
    assert!(stdout.contains("privileges: 0000000000001000 1"), "{stdout}");
    let late = stdout.lines().find(|line| line.starts_with("late("));
    assert!(late.is_some_and(|line| line.contains("rvs_tc")), "{stdout}");
}
