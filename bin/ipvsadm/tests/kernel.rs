//! Without an rvsd our programs set up the table of a kernel that has ip_vs: the recorded command
//! lines, replayed in the oracle VM on the kernel that they were recorded on.

mod recording;

use std::path::{Path, PathBuf};
use std::process::Command;

use recording::{CMDLINE, Who, compare, golden, rows};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The VM's starter, if it was set up.
fn oracle() -> Option<PathBuf> {
    let folder = std::env::var_os("RVS_ORACLE");
    let folder = folder.map_or_else(|| Path::new(ROOT).join("../shared/oracle"), PathBuf::from);
    Some(folder.join("ipvs-oracle")).filter(|path| path.exists())
}

fn differences(theirs: &Path, ours: &Path) -> Vec<String> {
    let read = |path: &Path| rows(&std::fs::read_to_string(path).expect("a recording"));
    let (theirs, ours) = (read(theirs), read(ours));
    assert_eq!(theirs.len(), ours.len(), "{}", ours.last().map_or("", |row| &row.stderr));
    let pairs = theirs.into_iter().zip(ours);
    let results = pairs.filter_map(|(theirs, ours)| {
        let code = i32::try_from(ours.code).expect("an exit code");
        let ours = (code, ours.stdout.unwrap_or_default(), ours.stderr);
        compare(&theirs, &ours, Who::Kernel)
    });
    results.filter_map(Result::err).collect()
}

#[test]
fn the_kernel_s_table_is_set_up_as_ipvsadm_does_it() {
    let (Some(oracle), Some(golden)) = (oracle(), golden()) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    let out = std::env::temp_dir().join(format!("rvs-kernel-{}", std::process::id()));
    let output = Command::new(oracle)
        .args(["-t", "330", "-o"])
        .arg(&out)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel.sh"))
        .args([
            env!("CARGO_BIN_EXE_ipvsadm"),
            env!("CARGO_BIN_EXE_ipvsadm-save"),
            env!("CARGO_BIN_EXE_ipvsadm-restore"),
            CMDLINE,
        ])
        .arg(Path::new(ROOT).join("tests/oracle/golden.py"))
        .arg(&golden)
        .output()
        .expect("the VM starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}", String::from_utf8_lossy(&output.stdout));
    let mut differences_found = differences(&golden, &out.join("ipvsadm.jsonl"));
    differences_found.extend(differences(Path::new(CMDLINE), &out.join("cmdline.jsonl")));
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("a listing");
    let (theirs, ours) = (read("conns-usrsbin"), read("conns-"));
    let nosort = (read("nosort-usrsbin"), read("nosort-"));
    let _ = std::fs::remove_dir_all(&out);
    assert!(differences_found.is_empty(), "{}", differences_found.join("\n"));
    let kinds = ["UDP mm:ss  UDP", "UDP mm:ss  NONE", "TCP mm:ss  ", "fd09::9"];
    assert!(kinds.iter().all(|kind| theirs.contains(kind)), "{theirs}\n{stderr}");
    assert_eq!(ours, theirs);
    assert!(nosort.0.lines().count() > 30, "{}", nosort.0);
    assert_eq!(nosort.1, nosort.0);
}
