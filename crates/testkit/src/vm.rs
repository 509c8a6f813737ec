//! The oracle VM: a kernel of the floor, Linux 6.1, with the modules that the tests' own lacks.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::lab::binary;

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

/// What `script`, a file of `tests/netns/tests`, printed in the VM, where it ran as root in `/in`
/// beside these binaries, for `limit` seconds at most; `None` if there is no VM. `interpreter`
/// runs it. Panics if it fails.
pub fn run(interpreter: &str, script: &str, binaries: &[&str], limit: u32) -> Option<String> {
    let file = format!("tests/netns/tests/{script}");
    let files = [&*file, "tests/netns/tests/vm.py"];
    run_files(&format!("{interpreter} {script}"), &files, binaries, limit)
}

/// The same for a command line and the files that it needs, by their paths, absolute or in the workspace.
pub fn run_files(command: &str, files: &[&str], binaries: &[&str], limit: u32) -> Option<String> {
    // Tests of one process run at the same time, too.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let oracle = oracle()?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let start = std::env::temp_dir().join(format!("rvs-vm-{}-{number}.sh", std::process::id()));
    std::fs::write(&start, format!("exec {command}\n")).expect("a temporary file");
    let output = Command::new(oracle)
        .args(["-t", &limit.to_string()])
        .arg(&start)
        .args(files.iter().map(|file| root().join(file)))
        .args(binaries.iter().map(|name| binary(name).expect("it was built")))
        .output()
        .expect("the VM starts");
    let _ = std::fs::remove_file(&start);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    Some(stdout)
}
